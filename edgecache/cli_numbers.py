"""Numbers on the command line: what is none is said of the flag that has it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.python import usage


def whole(flag: str, least: int, most: float = inf) -> Callable[[str], int]:
    """:return: reads a whole number for ``optParameters``; raises ``UsageError``."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            to = f" to {most}" if most < inf else ""
            raise usage.UsageError(f"{flag} is a whole number from {least}{to}, not {text!r}")
        return int(text)

    return read


def seconds(flag: str) -> Callable[[str], float]:
    """:return: reads a number of seconds likewise."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0.0 <= number < inf:
            raise usage.UsageError(f"{flag} is a number of seconds, not {text!r}")
        return number

    return read
