"""
Pages that are not what was written: whatever is read is right or missing, and no start dies twice of the same.

``EDGECACHE_DAMAGED_PAGES`` says how many stores are damaged (default 8), ``EDGECACHE_SEED`` which is the first.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.quickdisk import quick_directory

COUNT = int(os.environ.get("EDGECACHE_DAMAGED_PAGES", "8"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))

ROOT = Path(__file__).parents[2]

# A free page that is none: the start died of it, or failed, again and again; a page of another that ended its process.
KNOWN = (1000, 1004, 1055)


class DamagedPagesTests(SynchronousTestCase):
    def test_what_is_read_is_right_or_missing_and_what_ends_a_process_does_not_end_the_next(self) -> None:
        room = Path(quick_directory(self))
        seeds = [str(seed) for seed in (*KNOWN, *range(SEED, SEED + COUNT))]
        command = [sys.executable, "-m", "tests.store.damaging", str(room / "whole"), str(room), *seeds]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        told = [json.loads(line) for line in ended.stdout.splitlines()]
        self.assertEqual(seeds, [each["seed"] for each in told], ended.stderr)
        wrong = [each for each in told if each["first"] > 0 or each["then"]]
        self.assertEqual([], wrong, f"EDGECACHE_SEED={SEED}")
        if COUNT > 100:
            # What is recorded in docs/TESTING.md.
            died = sum(each["first"] < 0 for each in told)
            sys.stdout.write(f"\nEDGECACHE_SEED={SEED}: {len(told)} stores, {died} ended their process\n")
