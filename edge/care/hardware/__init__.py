"""What the box is made of, behind one interface: `linux` reads a real board, `sim` plays one."""

from __future__ import annotations

from edge.board import Board
from edge.care.hardware.readings import Boot, Clock, Hardware, Readings, hottest_c, to_fact

__all__ = ["Boot", "Clock", "Hardware", "Readings", "hottest_c", "open_hardware", "to_fact"]


def open_hardware(board: Board) -> Hardware:
    """The hardware that `board.hardware.kind` names. Never raises: what cannot be read is absent from the readings."""
    if board.hardware.kind == "sim":
        from edge.care.hardware.sim import SimulatedHardware  # late: a board needs only its own kind

        return SimulatedHardware(board)
    from edge.care.hardware.linux import LinuxHardware

    return LinuxHardware(board)
