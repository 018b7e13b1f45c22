"""Did anything grow? A straight line through the samples after the warm-up, per service and measure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

WARM_UP_SHARE = 0.2
# Growth over the judged part that still counts as flat: a share of the median, or so much in all.
FLAT: Mapping[str, tuple[float, float]] = {
    "rss_bytes": (0.05, 8 * 2**20),
    "pss_bytes": (0.05, 8 * 2**20),
    "descriptors": (0.0, 2.0),
    "threads": (0.0, 2.0),
    "processes": (0.0, 0.5),
}


def judge(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Verdict and figures; `passed` is false if a measure grew, temporary files were left or studies piled up."""
    judged = [one for one in samples if one["at_s"] >= WARM_UP_SHARE * samples[-1]["at_s"]]
    measures = {
        f"{service}.{name}": _line(judged, service, name, *limits)
        for service in samples[-1]["services"]
        for name, limits in FLAT.items()
    }
    studies = samples[-1]["sent"] - samples[0]["sent"]
    written = {
        service: (values["written_bytes"] - samples[0]["services"][service]["written_bytes"]) / max(1, studies)
        for service, values in samples[-1]["services"].items()
    }
    piled_up = max(one["unsettled"] for one in judged)
    temporary = statistics.median(one["temporary_files"] for one in judged)
    data = _growth([one["at_s"] for one in judged], [one["data_bytes"] for one in judged])
    return {
        "passed": all(one["flat"] for one in measures.values()) and temporary == 0 and piled_up <= 3,
        "hours": round(samples[-1]["at_s"] / 3600, 2),
        "samples": len(samples),
        "studies": samples[-1]["sent"],
        "most_unsettled": piled_up,
        "median_temporary_files": temporary,
        "data_folder_bytes": {"median": statistics.median(one["data_bytes"] for one in judged), "growth": round(data)},
        "bytes_written_per_study": {**{name: round(value) for name, value in written.items()}},
        "bytes_written_per_study_in_all": round(sum(written.values())),
        "measures": measures,
    }


def _line(
    samples: Sequence[Mapping[str, Any]], service: str, name: str, share: float, amount: float
) -> dict[str, float | bool]:
    values = [float(one["services"][service][name]) for one in samples]
    growth = _growth([one["at_s"] for one in samples], values)
    median = statistics.median(values)
    return {
        "median": median,
        "highest": max(values),
        "growth": round(growth, 1),
        "flat": growth <= max(share * median, amount),
    }


def _growth(seconds: Sequence[float], values: Sequence[float]) -> float:
    """What the fitted line gains over the judged time."""
    if len(values) < 3:
        return 0.0
    slope, _ = statistics.linear_regression(seconds, values)
    return slope * (seconds[-1] - seconds[0])
