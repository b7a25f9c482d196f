"""Makes ``twistd edgecache`` known; :mod:`edgecache.tap` does the work, and is imported only when it is asked for."""

from twisted.application.service import ServiceMaker

edgecache = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no types here
    "edgecache", "edgecache.tap", "One node of an artifact cache.", "edgecache"
)
