"""Power cuts while a receiver takes images in, the same for ours, storescp and Orthanc.

One disk lives through several cuts, as a box's does. After each, the receiver starts again by itself and what it
acknowledged before this cut is compared, byte for byte; before a disk goes, everything it ever acknowledged on it is.
An acknowledgement counts if the sender had it before the cut.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tools.powercut.disk import Disk
from tools.powercut.figures import Tally
from tools.powercut.processes import Stuck, kill_descendants, wait_until
from tools.powercut.receivers import Receiver, Unbootable
from tools.powercut.sender import SUCCESS, Sender
from tools.powercut.workplace import Workplace

DISK_BYTES = 1 << 30
FULL_ENOUGH = 0.4  # share of the disk after which a new one is taken
CALLED_AE = "RADBOX"
AFTER_FIRST_S = (0.3, 1.5)  # from the first acknowledgement to the cut
AT_START_S = (0.0, 1.5)  # from the start of the process to the cut
AT_START_EVERY = 8  # one cut of so many comes while the service starts, every second one of these on an empty disk


class _Life:
    """One disk from new to full, the receiver on it, and what that receiver acknowledged."""

    def __init__(self, place: Workplace, kind: type[Receiver], seed: int, number: int) -> None:
        name = f"{kind.name}-{number}"
        self.place = place
        self.disk: Disk = place.disk(name, DISK_BYTES)
        self.receiver = kind(place.folder / name, self.disk.mount, seed)
        self.new: set[int] = set()  # acknowledged and not compared yet
        self.earlier: set[int] = set()  # compared once, and whole
        self.running = False
        self.disk.plug()

    def send_and_cut(self, seed: int, batch: int, after_s: float, tally: Tally) -> None:
        """Take images in, cut the power `after_s` after the first Success, and note what was acknowledged by then."""
        if not self.running:
            self.receiver.start()
        answers = self.place.folder / f"{self.receiver.name}-answers-{batch}.txt"
        sender = Sender(self.receiver.port, CALLED_AE, seed, batch, answers)
        wait_until(lambda: sender.answered() or sender.ended(), "a first C-STORE Success")
        if not sender.answered():
            raise Stuck(f"expected a first C-STORE Success, got {sender.answers()[:3]}: {self.receiver.last_words()}")
        time.sleep(after_s)
        cut_s = time.monotonic()
        self.place.cut_power()
        self.running = False
        sender.close()
        self.place.clear()
        before = [answer for answer in sender.answers() if answer.at_s < cut_s]
        new = {answer.number for answer in before if answer.status == SUCCESS}
        tally.acknowledged += len(new)
        tally.refused += len(before) - len(new)
        self.new |= new
        answers.unlink()

    def cut_at_start(self, after_s: float) -> None:
        """Cut the power `after_s` after the process was started."""
        kill_descendants(spare=self.disk.processes())
        self.running = False
        self.receiver.launch()
        time.sleep(after_s)
        self.place.cut_power()
        self.place.clear()

    def recover(self, tally: Tally) -> None:
        """Power on, start by itself, compare. Raises Unbootable."""
        if not self.disk.check():
            raise Unbootable("the file system needs a person to repair it")
        self.disk.plug()
        self.receiver.start()
        self.running = True
        self.earlier |= self._compare(self.new, tally)
        self.new = set()
        stray = self.receiver.stray()
        if stray:
            tally.stray += stray
            tally.tell(f"{stray} records point to no whole file")

    def _compare(self, numbers: set[int], tally: Tally) -> set[int]:
        fates = self.receiver.fates(numbers)
        for number, fate in sorted(fates.items()):
            if fate != "whole":
                tally.tell(f"object {number} was acknowledged and is {fate}")
        tally.lost += sum(fate == "lost" for fate in fates.values())
        tally.damaged += sum(fate == "damaged" for fate in fates.values())
        return {number for number, fate in fates.items() if fate == "whole"}

    def end(self, tally: Tally) -> None:
        """Compare everything once more, if it runs, and throw the disk away."""
        if self.running:
            try:
                self._compare(self.earlier, tally)
            except Unbootable as error:
                tally.unbootable += 1
                tally.tell(str(error))
        self.place.clear()
        self.place.discard(self.disk)


def cut_while_receiving(
    place: Workplace, kind: type[Receiver], seed: int, cuts: int, progress: Callable[[Tally], None]
) -> Tally:
    """Cut the power of one kind of receiver `cuts` times. Raises Stuck where the harness itself fails."""
    tally = Tally(kind.name)
    moments = random.Random(f"{seed} {kind.name}")
    start_s = time.monotonic()
    life: _Life | None = None
    for number in range(1, cuts + 1):
        at_start = number % AT_START_EVERY == 0
        if life is not None and number % (2 * AT_START_EVERY) == 0:
            life.end(tally)
            life = None
        life = life or _Life(place, kind, seed, number)
        tally.cuts += 1
        try:
            if at_start:
                tally.count("cuts while it started")
                life.cut_at_start(moments.uniform(*AT_START_S))
            else:
                life.send_and_cut(seed, number, moments.uniform(*AFTER_FIRST_S), tally)
            life.recover(tally)
            ended = life.disk.used_share() > FULL_ENOUGH
        except Unbootable as error:
            life.running = False
            tally.unbootable += 1
            tally.tell(str(error))
            ended = True
        if ended:
            life.end(tally)
            life = None
        tally.seconds = time.monotonic() - start_s
        progress(tally)
    if life is not None:
        life.end(tally)
    return tally
