"""The GPU's kernels compiled ahead, where they lie, and how weights and launches are laid out for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.backends.cuda_device import Kernels
from edge.reading.backends.cuda_image import image_folder, images
from edge.reading.backends.cuda_launches import Launches, Matrix
from edge.reading.backends.cuda_weights import Arena, restored, store_rows
from tools.cuda import compile as ahead
from tools.cuda import toolkit
from tools.cuda.compile import CompileError, build
from tools.cuda.usage import REGISTER_LIMITS, Usage, expected_kernels, faults, read_usage


def test_image_is_the_gpus_own_then_ptx(tmp_path):
    with pytest.raises(BackendError) as error:
        images(tmp_path, (8, 7))
    assert error.value.code == "cuda.no-image"
    ptx, cubin = tmp_path / "radbox.ptx", tmp_path / "radbox_sm_87.cubin"
    ptx.write_bytes(b"ptx")
    cubin.write_bytes(b"cubin")
    assert images(tmp_path, (8, 7)) == [cubin, ptx]
    assert images(tmp_path, (8, 6)) == [ptx]


def test_images_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RADBOX_CUDA_KERNELS", str(tmp_path))
    assert image_folder() == tmp_path
    monkeypatch.delenv("RADBOX_CUDA_KERNELS")
    assert image_folder().name == "cuda"


@pytest.mark.parametrize(("storage", "tolerance"), [("f16", 2**-10), ("i8", 1 / 127)])
def test_stored_rows_come_back_within_half_a_step(storage, tolerance):
    weight = np.random.default_rng(1).standard_normal((5, 33)).astype(np.float32)
    weight *= np.array([1e-6, 1.0, 1e6, 0.0, 3.0], np.float32)[:, None]
    stored = store_rows(weight, storage)
    assert stored.rows.shape == (5, 48)
    assert not stored.rows[:, 33:].any()
    error = np.abs(restored(stored, 33) - weight).max(axis=1)
    assert (error <= tolerance / 2 * np.abs(weight).max(axis=1)).all()


def test_arena_keeps_arrays_apart_and_aligned():
    arena = Arena()
    arena.add("first", np.arange(3, dtype=np.int8))
    arena.add("second", np.arange(2, dtype=np.float32))
    assert (arena["first"], arena["second"], arena.size_bytes) == (0, 256, 512)
    assert arena.contents()[256:264].view(np.float32).tolist() == [0.0, 1.0]


def test_heads_and_rows_that_no_kernel_fits_are_refused():
    launches, null = Launches(cast(Kernels, None), "f16", "f16"), np.uint64(0)  # refused before they are launched
    for call in (
        lambda: launches.attention_maps(null, 1, null, 1, 1, 129, 1, null),
        lambda: launches.attention_maps(null, 1, null, 1, 7000, 1, 1, null),  # two floats of shared memory a head
        lambda: launches.project_rows(null, Matrix(null, null, null), 32 * 65536, 8, 8, null, null),
        lambda: launches.linear_add(null, Matrix(null, null, null), 8, 20_000, null, null),
    ):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "kernels.bad-argument"


PTXAS = """
ptxas info    : Compiling entry function 'radbox_attend_f16_h32' for 'sm_87'
ptxas info    : Function properties for radbox_attend_f16_h32
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 97 registers, used 1 barriers, 488 bytes cmem[0]
ptxas info    : Compiling entry function 'radbox_embed' for 'sm_87'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 65 registers, 400 bytes cmem[0]
"""


def test_spills_and_registers_are_read_and_limited():
    attend, embed = read_usage(PTXAS)
    assert attend == Usage("radbox_attend_f16_h32", 97, 16, 8)
    assert "expected no spills, got 16 bytes" in attend.fault()
    assert "expected at most 64 registers, got 65" in embed.fault()
    assert Usage("radbox_attend_f16_h32", REGISTER_LIMITS["attend"], 0, 0).fault() == ""


def ptxas(kernels: int, registers: int = 40) -> str:
    """What ptxas would say of so many kernels."""
    return "".join(
        f"Compiling entry function 'radbox_k{n}' for 'sm_90'\n 0 bytes stack frame, 0 bytes spill stores, "
        f"0 bytes spill loads\n Used {registers} registers\n"
        for n in range(kernels)
    )


def test_a_kernel_that_is_missing_is_a_fault():
    assert faults(read_usage(ptxas(expected_kernels())), "here") == []
    assert faults(read_usage(ptxas(37)), "here") == ["here: expected 38 kernels, got 37"]


class Compiler:
    """One that always says the same."""

    def __init__(self, name: str, release: tuple[int, int], said: str | Callable[[], str] = "") -> None:
        self.name, self.release, self._said = name, release, said

    def compile(self, target: str) -> tuple[bytes, str]:
        said = self._said if isinstance(self._said, str) else self._said()
        return self.name.encode(), said


def test_the_oldest_compiler_that_knows_a_gpu_compiles_for_it(tmp_path, capsys):
    good = ptxas(expected_kernels())
    old, new = Compiler("old", (12, 6), good), Compiler("new", (13, 5), good)
    assert build([old, new], tmp_path, ahead.TARGETS) == []
    assert (tmp_path / "radbox_sm_87.cubin").read_bytes() == (tmp_path / "radbox.ptx").read_bytes() == b"old"
    assert (tmp_path / "radbox_sm_110.cubin").read_bytes() == b"new"
    assert build([old], tmp_path / "other", {"sm_110": (13, 0)}) == []
    assert "sm_110: left out, expected a compiler of CUDA 13.0 or newer, got none" in capsys.readouterr().out


def test_every_compiler_is_examined_when_asked(tmp_path):
    def refuse() -> str:
        raise CompileError("expected a semicolon")

    compilers = [Compiler("old", (12, 6), ptxas(expected_kernels())), Compiler("fat", (13, 0), ptxas(38, 70))]
    wrong = build([*compilers, Compiler("bad", (13, 5), refuse)], tmp_path, {"sm_90": (11, 8)}, every=True)
    assert wrong[0] == "fat sm_90 radbox_k0: expected at most 64 registers, got 70"
    assert wrong[-1] == "bad sm_90: expected a semicolon"
    assert (tmp_path / "radbox_sm_90.cubin").read_bytes() == b"old"


def test_without_a_compiler_the_build_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ahead, "found_compilers", lambda out: [])
    monkeypatch.setattr(sys, "argv", ["compile", "--out", str(tmp_path)])
    assert ahead.main() == 2
    assert "no nvcc and no NVRTC" in capsys.readouterr().err


def test_what_is_locked_is_stamped(monkeypatch, tmp_path):
    monkeypatch.setattr(toolkit, "SITE", tmp_path)
    assert not toolkit.installed()
    (tmp_path / "radbox.stamp").write_text(toolkit._wanted())
    assert toolkit.installed()
    toolkit.install()  # and asks no registry
    monkeypatch.setattr(toolkit, "LOCK", Path(__file__))
    assert not toolkit.installed()


@pytest.mark.slow
def test_kernels_compile_for_every_gpu(tmp_path):
    found = ahead.found_compilers(tmp_path)
    if not found:
        pytest.skip("no nvcc and no NVRTC on this machine; tools/check_cuda --install fetches NVRTC")
    assert build(found[:1], tmp_path, {"sm_87": (11, 5), "compute_80": (11, 0)}) == []
    assert (tmp_path / "radbox_sm_87.cubin").read_bytes().startswith(b"\x7fELF")
    assert b".visible .entry radbox_embed" in (tmp_path / "radbox.ptx").read_bytes()
