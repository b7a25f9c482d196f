"""``/verify``: looking through the whole store for damage (:mod:`edgecache.store.scrubbing`)."""

from __future__ import annotations

from typing import Any

import lmdb
from attrs import define

from edgecache.admin.answers import Answer, Problem, retry_after
from edgecache.admin.parts import AdminParts
from edgecache.admin.purges import json_document
from edgecache.admin.requests import AdminRequest
from edgecache.admin.verified import verify_document
from edgecache.store.scrubbing import LEAST_RATE, RATE, AlreadyRunning, Scrubbing
from edgecache.words.purging import Token

_MOST_RATE = 1 << 40


@define(eq=False, repr=False)
class VerifyRoutes:
    """The routes' handlers."""

    _parts: AdminParts

    async def get(self, request: AdminRequest, token: Token) -> Answer:
        """How far it is."""
        self._scrubbing()
        return Answer(verify_document(self._parts))

    async def post(self, request: AdminRequest, token: Token) -> Answer:
        """``{"rate_bytes": 67108864}``: begin a pass. Damaged content is dropped as it is found."""
        scrubbing = self._scrubbing()
        try:
            scrubbing.start(_rate(json_document(request)))
        except AlreadyRunning as error:
            raise Problem(409, "already-running", "A pass is running; DELETE /verify ends it.") from error
        except lmdb.Error as error:
            raise Problem(503, "not-read", f"The store cannot be read ({error}).", retry_after(1.0)) from error
        return Answer(verify_document(self._parts), 202)

    async def delete(self, request: AdminRequest, token: Token) -> Answer:
        """End the pass that runs; harmless without one."""
        self._scrubbing().cancel()
        return Answer(verify_document(self._parts))

    def _scrubbing(self) -> Scrubbing:
        if self._parts.scrubbing is None:
            raise Problem(421, "voter", "This node is a voter: it stores nothing. Ask one that does.")
        return self._parts.scrubbing


def _rate(document: Any) -> int:
    if not isinstance(document, dict) or not document.keys() <= {"rate_bytes"}:
        raise Problem(400, "invalid-verify", 'The body must be {} or {"rate_bytes": ...}.')
    rate = document.get("rate_bytes", RATE)
    if not isinstance(rate, int) or not LEAST_RATE <= rate <= _MOST_RATE:
        raise Problem(400, "invalid-verify", f"rate_bytes must be a number of octets a second from {LEAST_RATE}.")
    return rate
