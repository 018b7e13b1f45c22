"""A hung delegate cannot be interrupted, only ended: the process dies, and systemd starts the next one.

The kernel's own timer (setitimer(2), counted on the monotonic clock) with SIGALRM left at its default ends the process
even while native code holds Python's lock, where a thread of ours would wait for ever.
"""

from __future__ import annotations

import signal
import threading


class Deadline:
    """One stage at a time: `arm` before it, `disarm` when nothing is at work.

    Only a service has one: in a thread of another program (a box inside a test) it does nothing, because the timer
    belongs to the whole process.
    """

    def __init__(self) -> None:
        self._own = threading.current_thread() is threading.main_thread()
        if self._own:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def arm(self, seconds: float) -> None:
        """End the process if nothing is heard within `seconds`; replaces an earlier limit."""
        if self._own:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def disarm(self) -> None:
        """The stage has ended."""
        self.arm(0.0)
