"""What the status panel shows, on a terminal: a simulated panel at the other end of a pty, or a capture in words.

    tools/panel --link var/panel      then, with `[panel] device = "var/panel"` in the board: radbox panel --board FILE

Space or Enter is the foot switch, 1 to 9 are keys, q ends.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import tty
from collections.abc import Sequence
from pathlib import Path

from edge.care.panel.protocol import FOOT_SWITCH
from edge.care.panel.replay import read_capture, replay
from edge.care.panel.simulated import Light, SimulatedPanel, send, serve

STEP_S = 0.1
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module docstring."""
    parser = argparse.ArgumentParser("tools/panel", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--link", type=Path, help="a name for the pty, for the board's panel.device")
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="print a capture of `radbox panel --capture FILE`")
    parsed = parser.parse_args(arguments)
    if parsed.replay:
        for at_s, words in replay(read_capture(parsed.replay), parsed.columns, parsed.rows):
            print(f"{at_s:10.3f} s  {words}")
        return 0
    if not sys.stdin.isatty():
        parser.error("expected a terminal, got something else")
    show(SimulatedPanel(parsed.columns, parsed.rows), parsed.link)
    return 0


def show(panel: SimulatedPanel, link: Path | None) -> None:
    """Until q is typed."""
    master, slave = os.openpty()
    tty.setraw(slave)
    device = os.ttyname(slave)
    if link:
        link.unlink(missing_ok=True)
        link.symlink_to(device)
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        send(master, panel.start())
        while _type(panel, master):
            serve(panel, master, STEP_S)
            sys.stdout.write(HOME_AND_CLEAR + picture(panel, str(link or device)) + "\n")
            sys.stdout.flush()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        if link:
            link.unlink(missing_ok=True)


def picture(panel: SimulatedPanel, device: str) -> str:
    """The panel as lines of text."""
    width = max(len(line) for line in panel.screen)
    edge = "+" + "-" * (width + 2) + "+"
    lines = [f"| {line.ljust(width)} |" for line in panel.screen]
    return "\n".join(
        [f"panel at {device}", edge, *lines, edge, f"light: {in_words(panel.light)}  tones: {panel.beeps}"]
    )


def in_words(light: Light | None) -> str:
    """For example "255 120 0, blinks every 0.3 s"."""
    if light is None or not (light.red or light.green or light.blue):
        return "dark"
    colour = f"{light.red} {light.green} {light.blue}"
    return f"{colour}, blinks every {light.period_s:g} s" if light.period_s else f"{colour}, steady"


def _type(panel: SimulatedPanel, master: int) -> bool:
    """Hand on what was typed; False for q."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return True
    typed = os.read(sys.stdin.fileno(), 1).decode("ascii", "replace")
    if typed in (" ", "\n", "\r") or typed in "123456789":
        key = int(typed) if typed.isdigit() else FOOT_SWITCH
        send(master, panel.press(key) + panel.press(key, pressed=False))
    return typed not in ("q", "")


if __name__ == "__main__":
    sys.exit(main())
