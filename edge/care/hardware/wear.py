"""How much of its rated life a board's storage has used up, in percent (more than 100 is possible: NVMe).

eMMC: JEDEC JESD84-B51, EXT_CSD bytes 268 and 269 (DEVICE_LIFE_TIME_EST_TYP_A/B: 0x01 to 0x0A are steps of 10 %, 0x0B
is past the end) and 267 (PRE_EOL_INFO: 2 is 80 %, 3 is 90 % of the reserved blocks); the kernel shows them in
`life_time` and `pre_eol_info` (drivers/mmc/core/mmc.c). NVMe: NVM Express Base Specification, SMART / Health
Information (log 02h), Percentage Used; the kernel shows it nowhere, and asking needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from edge.care.hardware.programs import Run, run_program
from edge.care.hardware.sysfs import Tree, whole

STEP_PERCENT: Final = 10.0
HIGHEST_STEP: Final = 0x0B
PRE_EOL_PERCENT: Final = {2: 80.0, 3: 90.0}
LIMIT_PERCENT: Final = 255.0  # the field is one byte
_EMMC = re.compile(r"mmcblk\d+")
_NVME = re.compile(r"(nvme\d+)n\d+")


def wear_percent(tree: Tree, run: Run = run_program) -> dict[str, float]:
    """Wear by the name of the disk. run: starts a program and gives its output."""
    disks = [path.name for path in tree.find("sys/block/*")]
    worn = {disk: _emmc_percent(tree, disk) for disk in disks if _EMMC.fullmatch(disk)}
    controllers = {found[1] for disk in disks if (found := _NVME.fullmatch(disk))}
    worn.update((name, _nvme_percent(name, run)) for name in sorted(controllers))
    return {disk: percent for disk, percent in worn.items() if percent is not None}


def _emmc_percent(tree: Tree, disk: str) -> float | None:
    device = tree.path(f"sys/block/{disk}/device")
    steps = [whole(word, 16) for word in (tree.text(device / "life_time") or "").split()]
    used = [min(step, 10) * STEP_PERCENT for step in steps if step is not None and 1 <= step <= HIGHEST_STEP]
    reserve = PRE_EOL_PERCENT.get(whole(tree.text(device / "pre_eol_info") or "", 16) or 0)
    return max([*used, *([] if reserve is None else [reserve])], default=None)


def _nvme_percent(name: str, run: Run) -> float | None:
    """From nvme-cli or smartmontools, where one is installed and may ask."""
    for command, keys in (
        (("nvme", "smart-log", "--output-format=json", f"/dev/{name}"), ("percent_used",)),
        (("smartctl", "--json", "-A", f"/dev/{name}"), ("nvme_smart_health_information_log", "percentage_used")),
    ):
        percent = _number_at(run(command), keys)
        if percent is not None:
            return percent
    return None


def _number_at(output: bytes | None, keys: Sequence[str]) -> float | None:
    try:
        value: Any = json.loads(output or b"null")
    except (ValueError, RecursionError):
        return None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LIMIT_PERCENT:
        return None
    return float(value)
