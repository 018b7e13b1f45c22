"""What takes part in the benchmark: something that decodes one token at a time, at positions 24 to 40 of 64."""

from __future__ import annotations

from typing import Protocol

TURN = (3, 6)
"""The first three bring the weights back into the caches that the contestant before has filled."""


class NotInstalled(Exception):
    """The peer's package is not in this environment."""


class Contestant(Protocol):
    """name: of the program and the number type; kind: "int8", "int4", "float", or "limit" for the roofline.

    turn: untimed and timed calls of `token` before the next contestant has its turn. One decoded token per `token()`,
    which returns its seconds if they are not those of the call. `rewind()` goes back to position 24, untimed.
    """

    name: str
    kind: str
    turn: tuple[int, int]

    def rewind(self) -> None: ...

    def token(self) -> float | None: ...
