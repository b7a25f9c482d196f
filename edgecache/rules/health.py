"""
When an address of an upstream is asked less, or not at all, and when it comes back (FIELD 1, DESIGN 8).

The node process alone decides and publishes one word per address in the mapped page; workers read
:func:`share` out of it.
"""

from __future__ import annotations

HEALTHY_WORD = 0
EJECTED_WORD = 1
SUSPECT_WORD = 2
FIRST_MILLISECOND = 1000
"""A larger word is the moment at which slow start began, in milliseconds of the monotonic clock."""

LEAST_SHARE = 0.05
"""With less an address that recovers would not be asked at all where little is asked."""


def share(word: int, now: float, slow_start_seconds: float) -> float:
    """
    How much of its normal share of requests an address gets.

    :param word: of the address in the page.
    :param now: monotonic seconds of the clock that all processes of the machine share.
    :return: 0.0 (others first) to 1.0.

    >>> share(HEALTHY_WORD, 100.0, 30.0), share(EJECTED_WORD, 100.0, 30.0), share(100_000, 115.0, 30.0)
    (1.0, 0.0, 0.5)
    """
    if word >= FIRST_MILLISECOND:
        elapsed = now - word / 1000
        if elapsed >= slow_start_seconds:
            return 1.0
        return max(LEAST_SHARE, elapsed / slow_start_seconds)
    return 1.0 if word == HEALTHY_WORD else 0.0
