"""What the doctor says of the kernels: the set in use, and a warning where a faster one is not."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from edge.doctor import _kernels
from edge.reading.ops.native import NativeKernels


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


def board(kernels: str):
    return SimpleNamespace(worker=SimpleNamespace(kernels=kernels))


def test_the_best_set_is_named(monkeypatch):
    monkeypatch.delenv("RADBOX_KERNELS", raising=False)
    check = _kernels(board("auto"))
    best = NativeKernels().runnable()[0]
    assert best in check.message
    assert check.verdict == ("warn" if best == "reference" else "ok")


@pytest.mark.parametrize("chosen", ["reference", "numpy"])
def test_a_slower_set_is_a_warning(chosen):
    check = _kernels(board(chosen))
    assert (check.verdict, check.code) == ("warn", "doctor.kernels")
    assert check.message.startswith(f"{chosen} operators loaded")


def test_the_environment_that_forces_a_slower_set_is_named(monkeypatch):
    monkeypatch.setenv("RADBOX_KERNELS", "reference")
    check = _kernels(board("auto"))
    assert check.verdict == "warn"
    if NativeKernels().runnable()[0] != "reference":
        assert "RADBOX_KERNELS" in check.message


@pytest.mark.parametrize("place", ["board", "environment"])
def test_a_set_for_another_cpu_is_a_warning_that_says_what_to_do(monkeypatch, place):
    monkeypatch.delenv("RADBOX_KERNELS", raising=False)
    foreign = sorted(set(NativeKernels().known()) - set(NativeKernels().runnable()))[0]
    if place == "environment":
        monkeypatch.setenv("RADBOX_KERNELS", foreign)
    check = _kernels(board(foreign if place == "board" else "auto"))
    assert (check.verdict, check.code) == ("warn", "doctor.kernels")
    assert f"reference operators loaded in place of {foreign}" in check.message
    assert NativeKernels().runnable()[0] in check.message
    assert "unset RADBOX_KERNELS" in check.message


def test_a_cpu_without_any_fast_set_is_a_warning(monkeypatch):
    monkeypatch.setattr(NativeKernels, "runnable", lambda self: ("reference",))
    check = _kernels(board("reference"))
    assert check.verdict == "warn"
    assert "lacks what the faster ones need" in check.message
