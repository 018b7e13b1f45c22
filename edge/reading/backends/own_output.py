"""What a child process says to its parent, apart from what makers' libraries print."""

from __future__ import annotations

import os


def own_output() -> int:
    """The descriptor of what was standard output; what libraries print goes to standard error from now on."""
    out = os.dup(1)
    os.dup2(2, 1)
    return out
