"""How many nodes of a TFLite graph the delegates took, measured the same way in LiteRT 2.x and tflite-runtime 2.14.

Neither runtime tells its execution plan to Python. Both list every node, those that were replaced too, and behind them
one node DELEGATE for each partition with the tensors that go in and come out. What lies between was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTITION = "DELEGATE"


@dataclass(frozen=True)
class Taken:
    """nodes: of the graph's `of` nodes, computed by delegates, in so many `partitions`."""

    nodes: int
    of: int
    partitions: int


def taken(interpreter: Any) -> Taken:
    """What the delegates applied so far took. Before `allocate_tensors` these are the explicit ones, after it XNNPACK's
    share is counted too. A node whose results nobody needs counts as not taken.
    """
    return count(interpreter._get_ops_details())


def count(nodes: Sequence[Mapping[str, Any]]) -> Taken:
    """nodes: of each its "op_name" and the numbers of its tensors, "inputs" and "outputs"."""
    own = [node for node in nodes if node["op_name"] != PARTITION]
    partitions = [node for node in nodes if node["op_name"] == PARTITION]
    maker = {int(tensor): index for index, node in enumerate(own) for tensor in node["outputs"]}
    inside: set[int] = set()
    for partition in partitions:
        border = {int(tensor) for tensor in partition["inputs"]}
        wanted = [int(tensor) for tensor in partition["outputs"]]
        while wanted:
            tensor = wanted.pop()
            index = maker.get(tensor, -1)
            if tensor in border or index < 0 or index in inside:
                continue
            inside.add(index)
            wanted.extend(int(other) for other in own[index]["inputs"])
    return Taken(len(inside), len(own), len(partitions))
