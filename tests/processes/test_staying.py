"""Whether files are still those of their names."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.staying import Staying


class StayingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.file = self.directory / "file"
        self.file.write_text("")
        self.staying = Staying.of((str(self.file), str(self.directory / "none")))

    def test_what_was_not_there_cannot_go(self) -> None:
        self.assertIsNone(self.staying.gone())

    def test_what_is_removed_or_replaced_is_gone(self) -> None:
        kept = self.directory / "kept"
        self.file.rename(kept)
        self.assertEqual(str(self.file), self.staying.gone())
        self.file.write_text("")
        self.assertEqual(str(self.file), self.staying.gone())
        kept.rename(self.file)
        self.assertIsNone(self.staying.gone())
        shutil.rmtree(self.directory)
        self.assertEqual(str(self.file), self.staying.gone())

    def test_a_disk_that_cannot_be_asked_has_lost_nothing_yet(self) -> None:
        def failing(path: str) -> os.stat_result:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "stat", failing)
        self.assertIsNone(self.staying.gone())
