"""What commands write, and where."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """For the result."""
    sys.stdout.write(line + "\n")


def tell(line: str) -> None:
    """For whoever watches."""
    sys.stderr.write(line + "\n")
