"""The dashboard's colours: what is written can be read, by day and by night."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import edgecache.admin

STYLE = Path(edgecache.admin.__file__).parent / "page" / "style.css"
LEAST = 4.5
"""WCAG 2.2, 1.4.3 (AA)."""
WRITTEN = [
    *((ink, ground) for ink in ("text", "soft", "bad") for ground in ("ground", "panel")),
    *((kind, f"{kind}-ground") for kind in ("good", "bad", "wait")),
    *((ink, "panel") for ink in ("first", "second")),
    # Of buttons.
    *(("panel", ground) for ground in ("first", "bad")),
]


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    parts = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


class ContrastTests(SynchronousTestCase):
    def test_it_is_black_on_white_that_differs_most(self) -> None:
        self.assertAlmostEqual(21.0, contrast("#000", "#ffffff"))

    def test_every_colour_is_read_on_its_ground(self) -> None:
        blocks = re.findall(r":root {(.*?)}", STYLE.read_text(), re.DOTALL)
        themes = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks]
        self.assertEqual(2, len(themes))
        for theme in themes:
            for ink, ground in WRITTEN:
                self.assertGreaterEqual(contrast(theme[ink], theme[ground]), LEAST, (ink, ground, theme[ground]))
