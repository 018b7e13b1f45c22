"""A hung delegate cannot be interrupted, only ended: the process dies, and systemd starts the next one.

The kernel's own timer (setitimer(2), counted on the monotonic clock) with SIGALRM left at its default ends the process
even while native code holds Python's lock, where a thread of ours would wait for ever. On its way `faulthandler` writes
the stack, from its C signal handler, so that the next worker knows what ended this one.
"""

from __future__ import annotations

import faulthandler
import signal
import threading


class Deadline:
    """One stage at a time: `arm` before it, `disarm` when nothing is at work.

    Only a service has one: in a thread of another program (a box inside a test) it does nothing, because the timer
    belongs to the whole process.
    """

    def __init__(self, stack_to: int | None = None) -> None:
        """stack_to: a descriptor that the stack is written to when the limit is over or native code crashes."""
        self._own = threading.current_thread() is threading.main_thread()
        if not self._own:
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if stack_to is not None:
            faulthandler.register(signal.SIGALRM, file=stack_to, all_threads=False, chain=True)
            faulthandler.enable(file=stack_to, all_threads=False)

    @property
    def own(self) -> bool:
        """True in a service, whose process is its own."""
        return self._own

    def arm(self, seconds: float) -> None:
        """End the process if nothing is heard within `seconds`; replaces an earlier limit."""
        if self._own:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def disarm(self) -> None:
        """The stage has ended."""
        self.arm(0.0)

    def close(self) -> None:
        """Disarm, and let go of the descriptor."""
        self.disarm()
        if self._own:
            faulthandler.unregister(signal.SIGALRM)
            faulthandler.disable()
