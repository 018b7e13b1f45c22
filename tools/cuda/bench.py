"""Our kernels on a GPU: correct against numpy, then their speed against PyTorch at the same shapes. JSON and a table.

    tools/bench_cuda [--out FILE] [--driver pycuda|cuda-core] [--sizes S,M,box] [--rounds 30] [--seconds 300]

Builds what it needs: the kernels, with the oldest compiler here that knows the GPU, else after fetching NVRTC. Numbers
are checked through every package that opens the GPU, speed is taken through the first. Competitors take turns within
each round; a figure is the median over rounds of the GPU time of 64 steps; rounds end early when --seconds are over.
Weights are random: this is about speed. Without torch the peers are left out and the file says so. `--driver shim`:
numerics on this CPU. Writes FILE (build/bench_cuda.json) and the same name with .md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import random as shuffling
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tools.cuda.bare  # noqa: F401  (first: a GPU machine need not have the box's own packages)
from edge.errors import BackendError
from edge.reading.backends.cuda_decoder import CudaSession
from edge.reading.backends.cuda_device import DRIVERS, CudaDevice, Kernels, open_device
from edge.reading.backends.cuda_image import load_images
from edge.reading.backends.cuda_weights import STORAGE_TYPES, Storage
from edge.reading.ops.arrays import F32
from edge.reading.ops.shape import DecoderShape
from tools.cuda import toolkit
from tools.cuda.bench_table import table
from tools.cuda.cases import all_cases
from tools.cuda.compile import OUT, PTX_TARGET, TARGETS, build, found_compilers
from tools.cuda.decoder_cases import BOX, SMALL, decode, random_weights
from tools.cuda.rig import Rig, random
from tools.cuda.torch_peer import TorchDecoder

SIZES = {
    "S": (DecoderShape(4096, 256, 6, 8, 1024, 64, 256), 196),
    "M": (DecoderShape(8192, 512, 12, 8, 2048, 64, 512), 400),
    "box": (BOX, 256),
    "tiny": (SMALL, 67),
}
"""Shape and image tokens; S and M are those of the issue, box the bundle's, tiny for the tests."""


@dataclass
class Entry:
    """A competitor: `run` puts `tokens` steps on the GPU and returns its seconds there."""

    name: str
    run: Callable[[], float]
    seconds: list[float]


def load_kernels(device: CudaDevice) -> tuple[Kernels, str]:
    """The kernels for this GPU, compiled now, and by what. Raises BackendError `cuda.no-image`, `cuda.bad-image`."""
    major, minor = device.facts.capability
    target = f"sm_{major}{minor}"
    OUT.mkdir(parents=True, exist_ok=True)
    if not found_compilers(OUT):
        try:
            toolkit.install()
        except subprocess.CalledProcessError:
            print("bench_cuda: no compiler here and none could be fetched; an earlier build is used", file=sys.stderr)
    able = [c for c in found_compilers(OUT) if c.release >= TARGETS.get(target, c.release)]
    known = {target: TARGETS.get(target, (0, 0)), PTX_TARGET: TARGETS[PTX_TARGET]}
    for fault in build(able, OUT, known):
        print(f"bench_cuda: {fault}", file=sys.stderr)
    kernels, image = load_images(device, OUT)
    return kernels, f"{image} by {able[0].name if able else 'an earlier build'}"


def open_every(chosen: str | None) -> list[CudaDevice]:
    """The GPU through each package that opens it, or through the chosen one. Raises BackendError when there is none."""
    if chosen is not None:
        return [open_device((chosen,))]
    opened = []
    for name in DRIVERS:
        try:
            opened.append(open_device((name,)))
        except BackendError as error:
            print(f"bench_cuda: {error.code}: {error.message}", file=sys.stderr)
    return opened or [open_device()]


def numerics(device: CudaDevice, kernels: Kernels, pattern: str) -> dict[str, Any]:
    """Every case whose name has `pattern`; the failures by name."""
    rig, failures = Rig(device, kernels), {}
    cases = all_cases()
    for storage in STORAGE_TYPES:
        for name, shape, tokens in (("small", SMALL, (1, 67)), ("box", BOX, (256,))):
            cases[f"decoder-{name}-{storage}"] = _decoder_case(device, kernels, shape, storage, tokens)
    cases = {name: case for name, case in cases.items() if re.search(pattern, name)}
    for name, case in cases.items():
        try:
            case(rig)
        except (AssertionError, BackendError) as error:
            failures[name] = str(error).splitlines()[0] if str(error) else "a check without words"
    return {"cases": len(cases), "failures": failures}


def _decoder_case(
    device: CudaDevice, kernels: Kernels, shape: DecoderShape, storage: Storage, tokens: tuple[int, ...]
) -> Callable[[Rig], None]:
    return lambda rig: decode(device, kernels, shape, storage, tokens)


def token_bytes(shape: DecoderShape, image_tokens: int, storage: Storage) -> int:
    """What one token has to read: matrices, the image's keys and values, the cache half full."""
    d, element = shape.width, {"f16": 2, "i8": 1}[storage]
    matrices = shape.layers * (4 * d * d + 2 * d * shape.ffn) + shape.vocabulary * d
    keys = shape.layers * 2 * d * (image_tokens + shape.positions // 2)
    return (matrices + keys) * element


class Ours:
    """Our decoder on one image, run as the graph (`choose`'s work without the host's part) or launch by launch."""

    def __init__(
        self, device: CudaDevice, kernels: Kernels, shape: DecoderShape, image: tuple[F32, F32], storage: Storage
    ) -> None:
        self._device, self._image, self._shape = device, image, shape
        weights = random_weights(shape)
        self.session = CudaSession(device, kernels, shape, weights, matrix=storage, keys=storage)
        self.session.begin(*image)
        self.session.step(0)
        self.graph = device.capture(self.session.record_step)

    def begin_s(self) -> float:
        """Wall seconds of an image's keys and values, upload included."""
        start = time.perf_counter()
        self.session.begin(*self._image)
        return time.perf_counter() - start

    def run(self, tokens: int, graph: bool) -> float:
        """GPU seconds of `tokens` steps, one after another."""
        self.session.begin(*self._image)
        start = self._device.mark()
        for _ in range(min(tokens, self._shape.positions)):
            if graph:
                self.graph.launch()
            else:
                self.session.record_step()
        end = self._device.mark()
        self._device.wait()
        return self._device.elapsed_s(start, end)

    def wall(self, tokens: int) -> float:
        """Wall seconds of `tokens` calls of `step`, as the worker makes them: a wait and copies after each."""
        self.session.begin(*self._image)
        start = time.perf_counter()
        for token in range(min(tokens, self._shape.positions)):
            self.session.step(token % self._shape.vocabulary)
        return time.perf_counter() - start


def torch_seconds(torch: Any, step: Callable[[], None], tokens: int) -> float:
    """GPU seconds of `tokens` calls."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(tokens):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000.0


def torch_module() -> Any:
    """torch when it is installed and sees a GPU, else None."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    return torch if torch.cuda.is_available() else None


def speed(device: CudaDevice, kernels: Kernels, size: str, tokens: int, rounds: int, limit_s: float) -> dict[str, Any]:
    """Medians of every competitor at one size, from as many rounds as fit the time, at least one."""
    end_s = time.monotonic() + limit_s
    shape, n = SIZES[size]
    tokens = min(tokens, shape.positions)
    image = random(1, n, shape.channels), abs(random(2, shape.layers, n))
    ours = {storage: Ours(device, kernels, shape, image, storage) for storage in STORAGE_TYPES}
    entries = []
    for storage, decoder in ours.items():
        entries.append(Entry(f"ours {storage} graph", partial(decoder.run, tokens, True), []))
        entries.append(Entry(f"ours {storage} launches", partial(decoder.run, tokens, False), []))
        entries.append(Entry(f"ours {storage} step calls, wall", partial(decoder.wall, tokens), []))
    torch = torch_module()
    peers = {}
    if torch is not None:
        for attention in ("sdpa", "eager"):
            peer = TorchDecoder(shape, random_weights(shape), attention)
            peer.begin(*image)
            peers[attention] = peer
            for graph in (False, True):
                name = f"torch fp16 {attention} {'graph' if graph else 'eager'}"
                step = peer.runner(graph=graph)
                entries.append(Entry(name, partial(torch_seconds, torch, step, tokens), []))
    order = shuffling.Random(1)
    done = 0
    for number in range(rounds + 2):
        if done and time.monotonic() > end_s:
            break
        order.shuffle(entries)
        for entry in entries:
            seconds = entry.run()
            if number >= 2:  # the first two warm up
                entry.seconds.append(seconds)
        done += number >= 2
    figures = {entry.name: _figures(entry, tokens) for entry in sorted(entries, key=lambda e: e.name)}
    for storage in STORAGE_TYPES:
        read = token_bytes(shape, n, storage)
        graph_figure = figures[f"ours {storage} graph"]
        graph_figure["bytes_per_token"] = read
        graph_figure["gigabytes_per_second"] = read * graph_figure["tokens_per_second"] / 1e9
    result = {
        "shape": vars(shape),
        "image_tokens": n,
        "tokens": tokens,
        "rounds": done,
        "figures": figures,
        "begin_seconds": {s: statistics.median(o.begin_s() for _ in range(5)) for s, o in ours.items()},
        "torch": torch.__version__ if torch is not None else "absent or without a GPU: no peers",
        "agreement": {a: _agreement(ours["f16"].session, peer, image) for a, peer in peers.items()},
    }
    for decoder in ours.values():
        decoder.graph.free()
        decoder.session.free()
    return result


def _figures(entry: Entry, tokens: int) -> dict[str, float]:
    ordered = sorted(entry.seconds)
    median = statistics.median(ordered)
    return {
        "tokens_per_second": tokens / median if median else 0.0,
        "microseconds_per_token": median / tokens * 1e6,
        "fastest_microseconds": ordered[0] / tokens * 1e6,
        "slowest_microseconds": ordered[-1] / tokens * 1e6,
    }


def _agreement(session: CudaSession, peer: TorchDecoder, image: tuple[F32, F32]) -> dict[str, float]:
    """Greatest difference of the logits over a few steps, relative to the greatest logit."""
    session.begin(*image)
    peer.begin(*image)
    worst = 0.0
    for token in (1, 5, 3, 2):
        ours, theirs = session.step(token)[0], peer.step(token)
        worst = max(worst, float(abs(ours - theirs).max() / abs(theirs).max()))
    return {"worst_normalised_difference": worst}


def gpu_state() -> dict[str, str]:
    """What nvidia-smi says of clocks, power and heat, where it is."""
    wanted = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active"
    try:
        command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(wanted.split(","), (word.strip() for word in said.splitlines()[0].split(",")), strict=False))


def main() -> int:
    """Exit 1 when a number is wrong, 2 without a GPU; a slow kernel is only written down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=toolkit.ROOT / "build" / "bench_cuda.json")
    options.add_argument("--driver", choices=(*DRIVERS, "shim"), help="default: each that opens the GPU")
    options.add_argument("--sizes", default="S,M,box")
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--seconds", type=float, default=300.0, help="for the speed of all sizes")
    options.add_argument("--cases", default="", help="only the checks with this in their name")
    chosen = options.parse_args()
    try:
        if chosen.driver == "shim":
            shim = importlib.import_module("tools.cuda.shim_device")
            devices: list[CudaDevice] = [shim.open_shim(shim.build_shim())]
            loaded = [(devices[0].load(b""), "shim by g++")]
        else:
            devices = open_every(chosen.driver)
            loaded = [load_kernels(device) for device in devices]
    except BackendError as error:
        print(f"bench_cuda: {error.code}: {error.message}", file=sys.stderr)
        return 2
    checked = {
        device.driver_name: numerics(device, kernels, chosen.cases)
        for device, (kernels, _) in zip(devices, loaded, strict=True)
    }
    device, (kernels, image) = devices[0], loaded[0]
    sizes = chosen.sizes.split(",")
    share_s = chosen.seconds / len(sizes)
    report = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device.facts.name,
        "capability": device.facts.capability,
        "cuda_driver": device.facts.driver_version,
        "driver": device.driver_name,
        "python": platform.python_version(),
        "image": image,
        "gpu_before": gpu_state(),
        "numerics": checked,
        "sizes": {s: speed(device, kernels, s, chosen.tokens, chosen.rounds, share_s) for s in sizes},
        "gpu_after": gpu_state(),
    }
    for opened in reversed(devices):
        opened.close()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    chosen.out.with_suffix(".md").write_text(table(report))
    print(table(report))
    return 1 if any(one["failures"] for one in checked.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
