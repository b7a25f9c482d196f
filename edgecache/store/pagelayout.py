"""
Where what is in the mapped page (DESIGN 4): a header, the words of addresses, and the blocks of the workers.

Everything is one aligned 8-byte slot, read and written in one access, so that nobody locks anything.
"""

from __future__ import annotations

from edgecache.words.counters import SLOTS

MAGIC = 0x6567_6361_6368_6503
"""First slot; its last octet is the version of the layout."""

PINS = 4096
"""Contents that one worker can pin at a time."""

FENCED = float("-inf")
"""A lease that has never been valid."""

FREE = float("inf")
"""A lease that does not end: the node has no siblings."""

PER_PLACE = 2
"""Blocks of one worker's place: block ``index`` and block ``index + workers`` are those of worker ``index``."""

FOLLOWED = 32
"""Sites, the first so many configured, whose project list can be followed."""

SLOT = 8
"""Octets of one."""

HEADER = 64
"""Slots of it; the words of addresses follow, then the blocks."""

# In the header.
BLOCKS_AT, ADDRESSES_AT = 1, 2
EPOCH_AT, TRIMMED_AT, DRAINING_AT, FULL_SMALL_AT, FULL_BLOBS_AT = 8, 9, 10, 11, 12
FRESH_UNTIL_AT = 16
FOLLOWED_AT = 24

# In a block, behind its counters.
BEAT_AT = SLOTS
PINS_AT = SLOTS + 8
BLOCK = PINS_AT + 2 * PINS
"""Slots of one."""
