"""A study's files, and a decoding child that is killed meanwhile."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edge.errors import DecodeError
from edge.reading.decode_child import CRASHED, Decoder
from edge.reading.decode_study import decode_study
from edge.reading.radiograph import Radiograph
from edge.reading.renderings import sweep_renderings
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import PhantomOptions, make_phantom


class Unlucky(Decoder):
    """The real decoder, whose child is gone for the first `crashes` files."""

    def __init__(self, crashes: int) -> None:
        super().__init__(timeout_s=20.0, memory_bytes=1 << 30)
        self.crashes = crashes
        self.asked = 0

    def read(self, path: Path) -> tuple[Radiograph, ...]:
        self.asked += 1
        if self.asked <= self.crashes:
            raise DecodeError("expected a decoded image, got a decoder that was ended by SIGKILL", code=CRASHED)
        return super().read(path)


@pytest.mark.parametrize(("crashes", "images", "codes"), [(1, 1, []), (2, 1, []), (3, 0, [CRASHED])])
def test_a_killed_child_is_tried_again(tmp_path: Path, crashes: int, images: int, codes: list[str]) -> None:
    """The kernel kills for lack of memory, too: that says nothing of the file. Three times says something."""
    path = tmp_path / "one.dcm"
    save_file(phantom_dataset(make_phantom(PhantomOptions(size=(600, 500)))), path)
    decoder = Unlucky(crashes)
    with closing(decoder):
        study = decode_study(decoder, [path])
    assert (len(study.radiographs), [one.code for one in study.refusals]) == (images, codes)
    assert decoder.asked == min(crashes + 1, 3)


def test_pictures_without_a_report_are_swept(tmp_path: Path) -> None:
    for folder in ("rendered/1/1", "rendered/1/2", "rendered/2/1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "image.png").touch()
    assert sweep_renderings(tmp_path, {"rendered/1/2"}) == 2
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.png"))] == ["rendered/1/2/image.png"]
    assert not (tmp_path / "rendered" / "2").exists()
    assert sweep_renderings(tmp_path / "empty", set()) == 0
