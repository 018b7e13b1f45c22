"""The figures of tools/bench_cuda as a table in Markdown, for docs/cuda.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(report: Mapping[str, Any]) -> str:
    """One row per competitor and size: tokens a second, microseconds a token, and ours over the best peer."""
    release = report["cuda_driver"]
    lines = [
        f"{report['when']}, {report['device']}, driver of CUDA {release // 1000}.{release % 1000 // 10}, through "
        f"{report['driver']}, {report['image']}.",
        "",
        *(_checked(name, numerics) for name, numerics in report["numerics"].items()),
        "",
        "| size | competitor | tokens/s | µs a token (fastest to slowest) | GB/s of weights and keys |",
        "|---|---|---:|---:|---:|",
    ]
    for size, result in report["sizes"].items():
        for name, figure in sorted(result["figures"].items(), key=lambda pair: -pair[1]["tokens_per_second"]):
            spread = f"{figure['fastest_microseconds']:.0f} to {figure['slowest_microseconds']:.0f}"
            rate = f"{figure['gigabytes_per_second']:.0f}" if "gigabytes_per_second" in figure else ""
            per_token = f"{figure['microseconds_per_token']:.0f} ({spread})"
            lines.append(f"| {size} | {name} | {figure['tokens_per_second']:.0f} | {per_token} | {rate} |")
    lines += ["", *(_ratio(size, result) for size, result in report["sizes"].items())]
    return "\n".join(lines) + "\n"


def _checked(name: str, numerics: Mapping[str, Any]) -> str:
    failures = numerics["failures"]
    wrong = f", wrong: {', '.join(failures)}" if failures else ", all right"
    return f"Checked through {name}: {numerics['cases']} cases{wrong}."


def _ratio(size: str, result: Mapping[str, Any]) -> str:
    """Graph against graph, float16 against float16: like for like."""
    figures, begin = result["figures"], result["begin_seconds"]
    peers = {name: figure["tokens_per_second"] for name, figure in figures.items() if name.startswith("torch")}
    image = f"an image's keys and values {begin['f16'] * 1e3:.2f} ms"
    if not peers:
        return f"- {size}: {result['rounds']} rounds, {image}; torch {result['torch']}."
    best = max(peers, key=lambda name: peers[name])
    ours = {name: figures[f"ours {name} graph"]["tokens_per_second"] / peers[best] for name in ("f16", "i8")}
    agreement = max(one["worst_normalised_difference"] for one in result["agreement"].values())
    return (
        f"- {size}: {result['rounds']} rounds, {image}; against the best peer ({best}) f16 {ours['f16']:.2f} times, "
        f"int8 {ours['i8']:.2f} times; logits differ by at most {agreement:.1e}; torch {result['torch']}."
    )
