"""Power cuts while a box takes images in and writes a backup to a stick; the stick loses its power too.

Afterwards the box must hold all that it acknowledged. Every archive that was said to be written, and every other one
that has its final name, must restore whole, with all that was acknowledged before it began; whatever else lies on
the stick must be told from a backup.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.board import load_board
from edge.care import restore
from edge.care.archive_parts import UNFINISHED
from edge.care.backup import Options
from edge.errors import BackupError, RadboxError
from tools.powercut.backing_up import BackingUp, Note
from tools.powercut.figures import Tally
from tools.powercut.processes import Stuck, wait_until
from tools.powercut.receivers import Radbox, Unbootable
from tools.powercut.sender import SUCCESS, Answer, Sender
from tools.powercut.workplace import Workplace

BOX_BYTES, STICK_BYTES = 1 << 30, 1 << 30
BOX_FULL_ENOUGH, STICK_FULL_ENOUGH = 0.2, 0.3  # share of each after which new ones are taken
AFTER_S = (0.2, 6.0)  # from the start of the backup to the cut
FILL_S = 1.5  # a new box takes images in before its first backup: a small archive is seldom caught half
CALLED_AE = "RADBOX"
PASSPHRASE = "one of a dozen words"
ARCHIVES = "*.rbk"


class _Box:
    """A box and a stick through several cuts."""

    def __init__(self, place: Workplace, seed: int, number: int) -> None:
        self.place, self.seed = place, seed
        self.disk = place.disk(f"box-{number}", BOX_BYTES)
        self.stick = place.disk(f"stick-{number}", STICK_BYTES)
        self.folder = place.folder / f"box-{number}"
        self.receiver = Radbox(self.folder, self.disk.mount, seed)
        self.passphrase_file = self.folder / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.acknowledged: set[int] = set()
        self.sizes: dict[str, int] = {}  # bytes of archives that were said to be written
        self.disk.plug()
        self.stick.plug()
        self.receiver.start()

    def back_up_and_cut(self, batch: int, after_s: float, tally: Tally) -> tuple[list[Note], list[Answer]]:
        """Send and back up at once, cut after `after_s`; what the box said by then."""
        sender = Sender(self.receiver.port, CALLED_AE, self.seed, batch, self.folder / f"answers-{batch}.txt")
        wait_until(lambda: sender.answered() or sender.ended(), "a first C-STORE Success")
        if not sender.answered():
            raise Stuck(f"expected a first C-STORE Success, got none: {self.receiver.last_words()}")
        if not self.acknowledged:
            time.sleep(FILL_S)
        board_file = self.folder / "board.toml"
        process = BackingUp(board_file, self.receiver.home, self.stick.mount, self.passphrase_file)
        time.sleep(after_s)
        cut_s = time.monotonic()
        self.place.cut_power()
        sender.close()
        process.close()
        self.place.clear()
        answers = [answer for answer in sender.answers() if answer.at_s < cut_s]
        self.acknowledged |= {answer.number for answer in answers if answer.status == SUCCESS}
        notes = [note for note in process.notes() if note.at_s < cut_s]
        for note in notes:
            tally.count(note.kind)
            if note.kind == "failed":
                tally.refused += 1
                tally.tell(f"a backup was refused: {note.words}")
        tally.acknowledged += sum(note.kind == "written" for note in notes)
        return notes, answers

    def recover(self, before: set[int], notes: list[Note], answers: list[Answer], tally: Tally) -> None:
        """Power on and compare; `before`: acknowledged before this cut's images. Raises Unbootable."""
        if not self.disk.check() or not self.stick.check():
            raise Unbootable("a file system needs a person to repair it")
        self.disk.plug()
        self.stick.plug()
        self.receiver.start()
        fates = self.receiver.fates(self.acknowledged)
        for number in [number for number, fate in fates.items() if fate != "whole"]:
            tally.lost += 1
            tally.tell(f"object {number} was acknowledged and is {fates[number]}")
            self.acknowledged.discard(number)
        tally.count("objects compared", len(fates))
        tally.stray += self.receiver.stray()
        for words in self._archive_faults(before, notes, answers, tally):
            tally.damaged += 1
            tally.tell(words)

    def _archive_faults(
        self, before: set[int], notes: list[Note], answers: list[Answer], tally: Tally
    ) -> Iterator[str]:
        began_s = {note.archive: note.at_s for note in notes if note.kind == "begin"}
        written = {note.archive for note in notes if note.kind == "written"}
        lying = {path.name: path for path in self.stick.mount.glob(ARCHIVES)}
        for name, size in self.sizes.items():
            if name not in lying or lying[name].stat().st_size != size:
                yield f"{name} was written before and is gone or cut short"
        for name in sorted(written | set(lying) - set(self.sizes)):
            if name not in lying:
                yield f"{name} was said to be written, and is gone"
                continue
            began = began_s.get(name, 0.0)
            promised = before | {one.number for one in answers if one.status == SUCCESS and one.at_s < began}
            fault = self._restore(lying[name], promised)
            tally.count("restored")
            if fault:
                yield f"{name}: {fault}"
            self.sizes[name] = lying[name].stat().st_size
        for path in self.stick.mount.glob(f"{ARCHIVES}{UNFINISHED}"):
            if path.name.removesuffix(UNFINISHED) not in began_s:
                continue  # of an earlier cut, looked at then
            fault = self._restore(path, before)
            tally.count("unfinished, told from a backup" if fault.startswith("backup.") else "unfinished, yet whole")
            if fault and not fault.startswith("backup."):
                yield f"an unfinished backup was restored, {fault}"

    def _restore(self, archive: Path, promised: set[int]) -> str:
        """Restore onto a fresh box; what is wrong with it, a code of `backup.` where it is refused."""
        fresh = self.place.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        board = dataclasses.replace(load_board(self.folder / "board.toml"), data_dir=fresh)
        box = Radbox(self.folder, self.disk.mount, self.seed)
        box.home = fresh
        try:
            options = Options(tell=lambda line: None)
            broken = restore.restore(board, archive, PASSPHRASE.encode(), options)
            fates = box.fates(promised)
            stray = box.stray()
        except BackupError as error:
            return error.code
        except (RadboxError, Unbootable) as error:
            return f"does not restore: {error}"
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        lacking = sum(fate != "whole" for fate in fates.values())
        return f"{lacking} objects lacking, {broken} broken, {stray} stray" if lacking or broken or stray else ""

    def full(self) -> bool:
        """True once box and stick have had their time."""
        return self.disk.used_share() > BOX_FULL_ENOUGH or self.stick.used_share() > STICK_FULL_ENOUGH

    def end(self) -> None:
        """Throw both away."""
        self.place.clear()
        self.place.discard(self.disk)
        self.place.discard(self.stick)


def cut_while_backing_up(place: Workplace, seed: int, cuts: int, progress: Callable[[Tally], None]) -> Tally:
    """Cut the power of box and stick `cuts` times."""
    tally = Tally("radbox backup")
    moments = random.Random(f"{seed} backup")
    start_s = time.monotonic()
    while tally.cuts < cuts:
        box = _Box(place, seed, tally.cuts + 1)
        full = False
        while not full and tally.cuts < cuts:
            tally.cuts += 1
            before = set(box.acknowledged)
            try:
                notes, answers = box.back_up_and_cut(tally.cuts, moments.uniform(*AFTER_S), tally)
                box.recover(before, notes, answers, tally)
                full = box.full()
            except Unbootable as error:
                tally.unbootable += 1
                tally.tell(str(error))
                break
            tally.seconds = time.monotonic() - start_s
            progress(tally)
        box.end()
    return tally
