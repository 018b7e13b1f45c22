"""Which board file fits this machine: what it is made of (`found`), what speaks for and against each (`propose`)."""

from __future__ import annotations

from edge.board_probe.found import Found, look
from edge.board_probe.propose import Proposal, proposals

__all__ = ["Found", "Proposal", "look", "proposals"]
