"""Which statements the impression repeats: critical first, then urgent, then routine; a few lines, never all."""

from __future__ import annotations

from typing import get_args

from edge.report.graph import Graph, Urgency
from edge.report.schema import Report

IMPRESSION_LINES = 4


def impression(report: Report, graph: Graph) -> tuple[int, ...]:
    """Indices into `report.statements`, most urgent first; at most IMPRESSION_LINES.

    Within one urgency: the more probable first. A statement whose code the graph does not have counts as routine, so
    that it can still be read. `check` fails the report if a critical statement finds no room here.
    """
    ranks = {urgency: rank for rank, urgency in enumerate(get_args(Urgency))}

    def order(index: int) -> tuple[int, float, int]:
        statement = report.statements[index]
        node = graph.nodes.get(statement.finding)
        return (ranks[node.urgency if node else "routine"], -statement.probability, index)

    return tuple(sorted(range(len(report.statements)), key=order)[:IMPRESSION_LINES])
