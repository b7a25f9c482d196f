"""Figures for people."""

from __future__ import annotations


def table(rows: list[list[str]]) -> str:
    """Columns to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
