"""``edgecache demo`` shows what it says, on real processes; each of its claims is checked by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.demo.fleet import Fleet
from edgecache.demo.story import Story


class DemoTests(SynchronousTestCase):
    def test_every_step_is_as_it_is_said_to_be(self) -> None:
        said: list[str] = []
        with tempfile.TemporaryDirectory(prefix="edgecache-demo-") as name:
            with Fleet(Path(name)) as fleet:
                # What pip gets is shown by other tests; here is what it would ask for.
                Story(fleet, said.append, pip=False).tell()
            logs = "".join(path.read_text() for path in Path(name).rglob("*.log"))
        self.assertEqual(5, sum(line[:1].isdigit() for line in said), "\n".join(said))
        self.assertNotIn("Traceback", logs)
