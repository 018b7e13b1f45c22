"""Every scenario by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tools.vm.bench import Bench, Findings
from tools.vm.faults import frozen_pid1, hung_worker, power
from tools.vm.grabber import grabber
from tools.vm.idle import idle
from tools.vm.starting import boots, receives, uefi
from tools.vm.stick_scenarios import stick_images, stick_pulled, stick_update

Scenario = Callable[[Bench, Findings], None]
FIRST: Final = "boots"  # makes the snapshot that the others start from
SCENARIOS: Final[Mapping[str, Scenario]] = {
    FIRST: boots,
    "receives": receives,
    "idle": idle,
    "hung-worker": hung_worker,
    "frozen-pid1": frozen_pid1,
    "stick-images": stick_images,
    "stick-pulled": stick_pulled,
    "stick-update": stick_update,
    "grabber": grabber,
    "power": power,
    "uefi": uefi,
}
