"""Where a process died, by what Python told of it."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.aside import MARK
from edgecache.store.crashing import condemn_after, died_in


def told(*current: str) -> list[str]:
    """A worker with two threads, of which the second one died there, the innermost first."""
    return [
        "Fatal Python error: Aborted",
        "",
        "Thread 0x00007f5f6a8fd6c0 (most recent call first):",
        '  File "/somewhere/edgecache/store/small.py", line 5 in store',
        "",
        "Current thread 0x00007f5ffbfeab80 (most recent call first):",
        *(f'  File "/somewhere/{name}", line 7 in it' for name in current),
        "",
        "Extension modules: lmdb.cpython (total: 1)",
    ]


class DiedInTests(SynchronousTestCase):
    def test_it_died_in_the_environment_that_its_innermost_call_was_to(self) -> None:
        for expected, module in (
            ("small", "reading"),
            ("small", "queues"),
            ("control", "controlreading"),
            ("control", "control"),
            (os.path.join("downloads", "counts"), "counts"),
        ):
            self.assertEqual(expected, died_in(told(f"edgecache/store/{module}.py", "edgecache/node.py")), module)

    def test_who_opens_several_died_in_the_one_that_is_being_opened(self) -> None:
        for innermost in ("environments", "opening"):
            lines = told(f"edgecache/store/{innermost}.py", *["edgecache/store/environments.py"] * 2)
            self.assertEqual("small", died_in(lines))
            lines[-3] = lines[-3].replace(" in it", " in _open_control")
            self.assertEqual("control", died_in(lines), innermost)
        lines[-3] = lines[-3].replace(" in _open_control", " in _begun_anew")
        self.assertEqual("control", died_in(lines), "an older copy, which begins anew")

    def test_a_death_elsewhere_condemns_nothing(self) -> None:
        self.assertIsNone(died_in(told("edgecache/wire/connection.py", "edgecache/store/reading.py")))
        self.assertIsNone(died_in(told("asyncio/runners.py")))
        self.assertIsNone(died_in(told()))
        self.assertIsNone(died_in(["Traceback (most recent call last):"]))
        self.assertIsNone(died_in([]))

    def test_what_it_died_in_is_marked(self) -> None:
        with tempfile.TemporaryDirectory() as data:
            self.assertEqual("control", condemn_after(data, told("edgecache/store/controlrows.py"), "worker 1"))
            self.flushLoggedErrors()
            self.assertEqual([f"control{MARK}"], os.listdir(data))
