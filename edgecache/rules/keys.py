"""What a cache key says, for people (:func:`edgecache.rules.asking.ask` makes it)."""

from __future__ import annotations

from attrs import frozen


@frozen
class Keyed:
    """
    :ivar site: id of the site.
    :ivar authority: if that is part of the key, else ``b""``.
    :ivar target: below the site's own path; of a form of a page, that of the page.
    """

    site: int
    authority: bytes
    target: bytes

    @classmethod
    def of(cls, key: bytes) -> Keyed | None:
        """:return: what ``key`` says; ``None`` of one that is none of ours."""
        site, _, rest = key.partition(b" ")
        authority, _, rest = rest.partition(b" ")
        try:
            return cls(int(site, 16), authority, rest.partition(b"\n")[0])
        except ValueError:
            return None
