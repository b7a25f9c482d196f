"""Sides measured in turn, and each compared with the first of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence

from benchmarks.servers import Side
from benchmarks.tables import table

Figures = dict[str, list[tuple[float, float]]]
"""CPU per answer and rate, by side and round."""


def alternating(sides: Sequence[Side], rounds: int, once: Callable[[Side, int], tuple[float, float]]) -> Figures:
    """:param once: side and round, of which 0 warms everything and does not count."""
    found: Figures = {}
    for number in range(rounds + 1):
        for side in sides if number % 2 else reversed(sides):
            figures = once(side, number)
            # Nobody pays for what another one has left to do.
            os.sync()
            if number:
                found.setdefault(side.name, []).append(figures)
    return found


def compared(found: Figures, first: str, cost: str, rate: str) -> str:
    """:return: a table of medians, and of the medians of each round's ratios to ``first``."""
    rows = [["", cost, f"to {first}'s", rate, f"to {first}'s"]]
    for name, mine in found.items():
        row = [name]
        for which in (0, 1):
            row.append(f"{statistics.median(figures[which] for figures in mine):.1f}")
            ratios = (figures[which] / theirs[which] for figures, theirs in zip(mine, found[first], strict=True))
            row.append(f"{statistics.median(ratios):.2f}")
        rows.append(row)
    return table(rows)
