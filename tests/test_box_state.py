"""Five states, decided by one pure function, with one table of words."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from edge.care.box_state import START_S, STATES, WORDS, Moment, box_state
from edge.store_rows import IssueRow, ServiceRow

NOW = Moment(now_s=1000.0, boot_id="b", age_s=500.0, watched_s=600.0)
JUST_NOW = dataclasses.replace(NOW, watched_s=START_S - 1)


def said(name, state="ok", code="", monotonic_s=995.0, boot="b"):
    return ServiceRow(name, state, code, "", monotonic_s, boot)


def issue(severity="warning", put_off_until_age_s=0.0):
    return IssueRow("issue.wear", "", severity, {}, 0.0, "b", 0.0, 0.0, put_off_until_age_s)


WELL = (said("receive"), said("worker"))


@pytest.mark.requirement("KEEP-12")
@pytest.mark.parametrize(
    ("services", "issues", "queue", "expected"),
    [
        (WELL, (), 0, "ready"),
        (WELL, (), 2, "reading"),
        (WELL, (issue("info"),), 0, "ready"),
        (WELL, (issue(),), 2, "attention"),
        (WELL, (issue("critical"),), 0, "attention"),
        (WELL, (issue("warning", 501.0),), 2, "reading"),  # put off
        (WELL, (issue("warning", 499.0),), 2, "attention"),  # long enough
        ((said("receive"), said("worker", "degraded")), (), 0, "attention"),
        ((said("receive"), said("worker", "degraded")), (issue("warning", 501.0),), 0, "ready"),
        ((said("receive"), said("worker", "paused", "worker.too-hot")), (issue(),), 3, "stopped"),
        ((said("receive", "paused"), said("worker")), (), 0, "stopped"),
        ((said("receive"), said("worker", "ok", "worker.starting")), (), 0, "starting"),
        ((said("receive"),), (), 0, "stopped"),
        ((said("receive"), said("worker", boot="a")), (), 0, "stopped"),
        ((said("receive"), said("worker", monotonic_s=1.0)), (), 0, "stopped"),
        ((), (), 0, "stopped"),
        ((*WELL, said("link", "degraded", "mqtt.lost")), (), 0, "ready"),  # an issue tells of it, if it matters
    ],
)
def test_the_gravest_state_wins(services, issues, queue, expected):
    assert box_state(services, issues, queue, NOW) == expected


def test_right_after_the_start_silence_is_no_fault():
    assert box_state((), (), 0, JUST_NOW) == "starting"
    assert box_state(WELL, (), 0, JUST_NOW) == "ready"


def test_every_state_can_be_reached_and_has_words():
    services = [WELL, (), (said("receive"), said("worker", "paused"))]
    looks = itertools.product(services, [(), (issue(),)], [0, 1], [NOW, JUST_NOW])
    assert {box_state(*look) for look in looks} == set(STATES) == set(WORDS)


@pytest.mark.requirement("KEEP-12")
def test_words_fit_a_line_of_the_panel():
    for words in WORDS.values():
        assert 0 < len(words.short) <= 20
        assert words.short.isascii()
        assert words.long.endswith(".")
    assert len({words.short for words in WORDS.values()}) == len(WORDS)
