"""Answers with what clients get of a page, where that has to be derived first (DESIGN 10)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define
from twisted.logger import Logger

from edgecache.fills.deriving import TooMuchToDerive
from edgecache.index.errors import BadPage
from edgecache.processes.background import background
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, NotModified, Refuse
from edgecache.rules.presenting import present
from edgecache.rules.representations import SOURCE
from edgecache.rules.reusing import RETRY_AFTER
from edgecache.upstream.responses import Response
from edgecache.words.ports import Downstream
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Stored

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_log = Logger()

_FAILED = Refuse(500, "the node failed to answer; its log says why")
_LATER = Refuse(503, "Too many pages are being made at present.", fields=(RETRY_AFTER,))


@define(eq=False, repr=False)
class Representing:
    """Answers of one worker."""

    _fills: Fills

    def answer(
        self,
        downstream: Downstream,
        asked: Asked,
        base: Stored,
        record_hash: bytes,
        age: int,
        cache_status: bytes,
        document: bytes | None = None,
    ) -> None:
        """
        Answer with what is derived from a page, which has to be derived first; the key's owner does that.

        :param document: content of ``base``, if it is at hand.
        """
        answered = self._answer(downstream, asked, base, record_hash, age, cache_status, document)
        background(answered, "answer with what is derived from a page")

    async def _answer(
        self,
        downstream: Downstream,
        asked: Asked,
        base: Stored,
        record_hash: bytes,
        age: int,
        cache_status: bytes,
        document: bytes | None,
    ) -> None:
        derivations = self._fills.derivations
        here = document is not None or asked.bypass or derivations.has_form(asked, base)
        owner = None if here else self._fills.owners.elsewhere(asked.key_hash)
        if owner is not None and await self._fills.owners.ask(owner, asked, downstream, as_it_is):
            return
        if asked.representation is SOURCE and document is None:
            self._fills.sender.send_later(downstream, asked, base, record_hash, age, cache_status)
            return
        if asked.representation is not SOURCE:
            prototype = derivations.view(asked, base).prototype
            if asked.conditions is not None and isinstance(present(asked, prototype, age), NotModified):
                self._fills.sender.send_content(downstream, asked, prototype, b"", age, cache_status)
                return
        refuse: Refuse | None = _FAILED
        try:
            content = await derivations.content(asked, base, record_hash, document)
            refuse = None
        except BadPage as bad:
            _log.error("{target}: cannot be derived: {why}", target=asked.target.decode("latin-1"), why=bad.why)
            return
        except TooMuchToDerive:
            refuse = _LATER
            return
        finally:
            if refuse is not None:
                self._fills.refuse(asked, refuse, downstream)
        if content is None:
            # Evicted meanwhile: nothing is left that could be validated.
            self._fills.join(asked, Forward(ForwardReason.URI_MISS), asked.key_hash, downstream)
            return
        self._send(downstream, asked, base, content, age, cache_status)

    async def answer_once(
        self, downstream: Downstream, asked: Asked, base: Stored, cache_status: bytes, document: bytes
    ) -> None:
        """Answer with what is derived from a page that is not stored; neither is that."""
        refuse: Refuse | None = _FAILED
        try:
            content = await self._fills.derivations.derived(asked, document)
            refuse = None
        except TooMuchToDerive:
            refuse = _LATER
            return
        finally:
            if refuse is not None:
                self._fills.refuse(asked, refuse, downstream)
        self._send(downstream, asked, base, content, -1, cache_status)

    def derive_ahead(self, asked: Asked, base: Stored, record_hash: bytes, document: bytes) -> None:
        """Somebody will want it in a moment."""
        background(self._derive_ahead(asked, base, record_hash, document), "derive what a client gets")

    async def _derive_ahead(self, asked: Asked, base: Stored, record_hash: bytes, document: bytes) -> None:
        # Whoever wants what is too much will be told.
        with suppress(TooMuchToDerive):
            await self._fills.derivations.content(asked, base, record_hash, document)

    def _send(
        self, downstream: Downstream, asked: Asked, base: Stored, content: bytes, age: int, cache_status: bytes
    ) -> None:
        sent = base if asked.representation is SOURCE else self._fills.derivations.view(asked, base).sized(len(content))
        self._fills.sender.send_content(downstream, asked, sent, content, age, cache_status)


def as_it_is(response: Response) -> Response:
    """:return: the owner's response: an origin has nothing that it could go on with."""
    return response
