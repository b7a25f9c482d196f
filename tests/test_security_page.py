"""docs/SECURITY.md names the tests of its claims; they are there."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "SECURITY.md").read_text()


class SecurityPageTests(SynchronousTestCase):
    def test_every_test_that_it_names_is_there(self) -> None:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
        self.assertGreater(len(named), 30)
        missing = [
            f"{file}::{name}"
            for file, name in named
            if not (ROOT / file).exists()
            or (name and not re.search(rf"(?:class|def) {name}\b", (ROOT / file).read_text()))
        ]
        self.assertEqual([], missing)

    def test_every_setting_that_it_names_is_one(self) -> None:
        settings = (ROOT / "conf" / "edgecache.toml").read_text()
        named = set(re.findall(r"`\[+\w+\]+ (\w+)", PAGE))
        self.assertGreater(len(named), 1)
        self.assertEqual(
            [], sorted(name for name in named if not re.search(rf"^(?:# )?{name} = ", settings, re.MULTILINE))
        )
