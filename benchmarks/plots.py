"""A figure against another that grows by powers of ten: as a picture for people, and as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

Line = Sequence[tuple[float, float]]
"""Points: what grows, what it costs."""

_WIDTH, _HEIGHT, _MARGIN = 480, 260, 56
_COLOURS = ("#1b6ca8", "#c0392b", "#2e7d32", "#8e44ad")
_BAR = 40


def bars(lines: dict[str, Line], unit: str) -> str:
    """One row for each point; the longest bar is the most that anything costs."""
    most = max(cost for line in lines.values() for _, cost in line)
    rows = []
    for name, line in lines.items():
        rows.append(name)
        rows += [
            f"{grown:>10,.0f}  {'#' * max(1, round(cost / most * _BAR))} {cost:.1f} {unit}" for grown, cost in line
        ]
    return "\n".join(rows)


def svg(title: str, across: str, up: str, lines: dict[str, Line]) -> str:
    """What grows on a logarithmic axis, what it costs on a linear one from 0."""
    points = [point for line in lines.values() for point in line]
    low, high = (math.log10(pick(grown for grown, _ in points)) for pick in (min, max))
    most = 1.1 * max(cost for _, cost in points)

    def x(grown: float) -> float:
        return _MARGIN + (math.log10(grown) - low) / ((high - low) or 1) * (_WIDTH - 2 * _MARGIN)

    def y(cost: float) -> float:
        return _HEIGHT - _MARGIN - cost / most * (_HEIGHT - 2 * _MARGIN)

    marks = [
        _text(_WIDTH / 2, 20, title, "middle"),
        _text(_WIDTH / 2, _HEIGHT - 8, across, "middle"),
        _text(8, 36, up, "start"),
        f'<path d="M{_MARGIN} {y(most)}V{y(0)}H{_WIDTH - _MARGIN}" fill="none" stroke="#444"/>',
    ]
    for grown in sorted({grown for grown, _ in points}):
        marks.append(_text(x(grown), y(0) + 16, f"{grown:,.0f}", "middle"))
    for share in (0.5, 1.0):
        marks.append(_text(_MARGIN - 6, y(share * most) + 4, f"{share * most:.3g}", "end"))
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(grown):.1f},{y(cost):.1f}" for grown, cost in line)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks.append(_text(_WIDTH - _MARGIN, 36 + 14 * number, name, "end", colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n' + "\n".join(marks) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
