"""Figures for people."""

from __future__ import annotations

from collections.abc import Iterable


def table(rows: list[list[str]]) -> str:
    """Columns to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def told(verdicts: Iterable[tuple[bool, str]]) -> int:
    """Print which goals were reached. :return: exit status."""
    missed = 0
    for reached, text in verdicts:
        print(f"{'reached' if reached else 'MISSED '}  {text}")
        missed |= not reached
    return int(missed)
