"""What goes to a panel that is connected: lines, light, tones; and what its keys do."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Final

from edge.board import Board
from edge.box_words import BoxState
from edge.care.panel import protocol
from edge.care.panel.lines import page_count, page_lines
from edge.care.panel.link import Link
from edge.care.panel.protocol import Key, Kind
from edge.care.panel.seen import Sight, look
from edge.errors import RadboxError
from edge.store import RequestRow, Store

LOOK_EVERY_S: Final = 2.0
LOOK_SOON_S: Final = 0.25  # while an answer to the foot switch is awaited
SHOW_AGAIN_S: Final = 10.0  # a panel that hears nothing for 30 s says so by itself
PAGE_BACK_S: Final = 20.0
ALARM_EVERY_S: Final = 60.0
NOTICE_S: Final = 5.0
FAREWELL_S: Final = 1.0
ANSWER_WITHIN_S: Final = 15.0
FREEZE: Final = "grabber.freeze"
TAKING, TAKEN, NOT_TAKEN = "Taking a picture...", "Picture taken", "NO picture taken"
SHORT_TONE, ALARM = bytes((1, 10)), bytes((3, 20))  # number, length in 0.01 s
TAKEN_CODE: Final = "grabber.frozen"
FAREWELL: Final = ("Panel is off", "The box's page works")
DARK: Final = bytes(4)
# Red, green, blue, period of blinking in 0.1 s. The rhythms differ too: nobody has to see colours.
LIGHTS: Final[dict[BoxState, bytes]] = {
    "starting": bytes((0, 0, 255, 20)),
    "ready": bytes((0, 255, 0, 0)),
    "reading": bytes((0, 255, 0, 20)),
    "attention": bytes((255, 120, 0, 3)),
    "stopped": bytes((255, 0, 0, 30)),
}
_LOG = logging.getLogger("radbox.panel")


@dataclasses.dataclass
class _Notice:
    """A line for some seconds. `request_key`: of a picture that was asked for and is not answered yet, else 0."""

    words: str
    until_s: float
    request_key: int = 0


class Show:
    """One panel, from its first word on. Times are monotonic seconds; since_s: when the service began to look."""

    def __init__(
        self, board: Board, store: Store, link: Link, since_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._store = store
        self._link = link
        self._clock = clock
        self._since_s = since_s
        self._sight: Sight | None = None
        self._looked_s = float("-inf")
        self._page, self._turned_s = 0, float("-inf")
        self._notice = _Notice("", float("-inf"))
        self._silenced: frozenset[str] = frozenset()
        self._alarm_s = float("-inf")
        self._hellos = 0
        self._lines: tuple[tuple[str, ...], float] = ((), float("-inf"))  # what was sent, and when
        self._light = b""

    def due_s(self) -> float:
        """Seconds until `step` wants to be called; a panel that has said nothing yet is waited for."""
        if self._link.hello is None:
            return LOOK_EVERY_S
        every_s = LOOK_SOON_S if self._notice.request_key else LOOK_EVERY_S
        return max(0.0, self._looked_s + every_s - self._clock())

    def step(self) -> None:
        """Look at the box if it is time, and send what has changed. Never waits."""
        if self._link.hello is None:
            return
        if self._link.hellos != self._hellos:  # a panel that was just switched on shows nothing
            self._hellos, self._lines, self._light = self._link.hellos, ((), float("-inf")), b""
        if self._sight is None or self.due_s() == 0.0:
            self._sight = look(self._board, self._store, self._since_s)
            self._looked_s = self._clock()
            self._follow_request()
            self._sound(self._sight)
        self._send(self._sight)

    def key(self, key: Key) -> None:
        """A key went down or up: the foot switch takes a picture, every other key, or without a grabber, turns the page
        and ends an alarm."""
        if not key.pressed:
            return
        foot = key.key == protocol.FOOT_SWITCH
        if foot and not self._board.panel.footswitch:
            return
        if foot and self._board.grabber.source:
            self._freeze()
            return
        if self._sight is not None:
            if self._sight.critical <= self._silenced or self._page:
                self._page = (self._page + 1) % page_count(self._sight.shown)
            else:
                self._page = 1  # an alarm: what it is about
            self._silenced = self._sight.critical
        self._turned_s = self._clock()

    def farewell(self) -> None:
        """The service ends: say so, and wait a moment until the panel has it. Raises PanelError."""
        if self._link.hello is None:
            return
        self._put_lines(FAREWELL)
        self._link.put(Kind.LIGHT, DARK)
        end_s = self._clock() + FAREWELL_S
        while not self._link.idle and self._clock() < end_s:
            self._link.step(end_s - self._clock())

    def _send(self, sight: Sight) -> None:
        now_s = self._clock()
        hello = self._link.hello
        if hello is None:
            return
        if self._page and now_s - self._turned_s >= PAGE_BACK_S:
            self._page = 0
        notice = self._notice.words if now_s < self._notice.until_s else ""
        shown = dataclasses.replace(sight.shown, notice=notice)
        lines = page_lines(shown, 0 if notice else self._page, hello.columns, hello.rows)
        if lines != self._lines[0] or now_s - self._lines[1] >= SHOW_AGAIN_S:
            self._put_lines(lines)
        if LIGHTS[sight.state] != self._light:
            self._light = LIGHTS[sight.state]
            self._link.put(Kind.LIGHT, self._light)

    def _put_lines(self, lines: tuple[str, ...]) -> None:
        hello = self._link.hello
        if hello is not None:
            filled = (*lines, *("",) * hello.rows)[: hello.rows]
            self._link.put(Kind.LINES, protocol.lines_payload(filled, hello.columns))
            self._lines = (lines, self._clock())

    def _sound(self, sight: Sight) -> None:
        now_s = self._clock()
        self._silenced &= sight.critical  # one that comes again sounds again
        if sight.critical - self._silenced and now_s - self._alarm_s >= ALARM_EVERY_S:
            self._alarm_s = now_s
            self._link.put(Kind.BEEP, ALARM)

    def _freeze(self) -> None:
        if self._notice.request_key:
            return  # one picture at a time: the first is not answered yet
        try:
            key = self._store.ask(FREEZE, {})
        except RadboxError as error:
            _LOG.error("%s: %s", error.code, error.message)
            self._tell(NOT_TAKEN, ALARM)
            return
        self._notice = _Notice(TAKING, self._clock() + ANSWER_WITHIN_S, key)
        self._looked_s = float("-inf")

    def _follow_request(self) -> None:
        if not self._notice.request_key:
            return
        answer = self._answer(self._notice.request_key)
        if answer is not None and answer.code:
            taken = answer.code == TAKEN_CODE
            self._tell(TAKEN if taken else NOT_TAKEN, SHORT_TONE if taken else ALARM)
        elif self._clock() >= self._notice.until_s:
            self._tell(NOT_TAKEN, ALARM)

    def _answer(self, request_key: int) -> RequestRow | None:
        try:
            return self._store.request(request_key)
        except RadboxError as error:
            _LOG.error("%s: %s", error.code, error.message)
            return None

    def _tell(self, words: str, tone: bytes) -> None:
        self._notice = _Notice(words, self._clock() + NOTICE_S)
        self._link.put(Kind.BEEP, tone)
