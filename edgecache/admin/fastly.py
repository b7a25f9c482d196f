"""
The Fastly API's shape of purging, for the purgers that speak it already (FIELD 3).

The id of the service is whatever they are configured with: a key is a tag of every site. Their token is
one of ours, in ``Fastly-Key``.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import define

from edgecache.admin.access import peer_of
from edgecache.admin.answers import Answer, Problem, retry_after
from edgecache.admin.purges import Purges, json_document, no_content
from edgecache.admin.requests import AdminRequest
from edgecache.siblings.purger import PurgeAnswer
from edgecache.words.purging import STATES, PurgeState, Token

_KEY = re.compile(rb"/service/[^/]+/purge/(.+)", re.DOTALL)

MOST_KEYS = 256
"""Of one bulk purge, as there."""


@define(eq=False, repr=False)
class Fastly:
    """
    Handlers. They answer 200 once a purge is durable, since that is what these clients take for success;
    ``wait`` and ``timeout`` may be asked for here too.
    """

    _purges: Purges

    async def one(self, request: AdminRequest, token: Token, service: str, key: str) -> Answer:
        """``POST /service/<id>/purge/<key>``"""
        no_content(request)
        # Not the router's word for it: that resolves escaped slashes, and drops the last one.
        raw = _KEY.fullmatch(request.path)
        if raw is None:
            raise Problem(404, "not-found", f"Nothing is at {request.path.decode('utf-8', 'backslashreplace')}.")
        answer = await self._purge(request, token, {"tags": [_text(unquote_to_bytes(raw[1]))]})
        return _told(answer)

    async def bulk(self, request: AdminRequest, token: Token, service: str) -> Answer:
        """``POST /service/<id>/purge``: keys in a document, or in ``Surrogate-Key``."""
        keys = self._keys(request)
        answer = await self._purge(request, token, {"tags": keys})
        # There each key has an id of its own; here one purge has them all.
        return _told(answer, dict.fromkeys(keys, answer.entry.purge_id))

    async def everything(self, request: AdminRequest, token: Token, service: str) -> Answer:
        """``POST /service/<id>/purge_all``"""
        no_content(request)
        return _told(await self._purge(request, token, {"all": True}))

    def _keys(self, request: AdminRequest) -> list[str]:
        listed = request.field(b"surrogate-key")
        if listed:
            no_content(request)
            keys: Any = [_text(key) for key in listed.split()]
        else:
            document = json_document(request, MOST_KEYS)
            if not isinstance(document, dict) or set(document) != {"surrogate_keys"}:
                detail = 'Send {"surrogate_keys": ["..."]}, or the keys in the field Surrogate-Key.'
                raise Problem(400, "invalid-purge", detail)
            keys = document["surrogate_keys"]
            if not isinstance(keys, list):
                raise Problem(400, "invalid-purge", f"surrogate_keys must be a list of strings, not {keys!r}.")
        if not 0 < len(keys) <= MOST_KEYS:
            raise Problem(400, "invalid-purge", f"{len(keys)} keys are not from 1 to {MOST_KEYS}.")
        for key in keys:
            if not isinstance(key, str):
                raise Problem(400, "invalid-purge", f"surrogate_keys: {key!r} is no string.")
        return list(keys)

    async def _purge(self, request: AdminRequest, token: Token, document: dict[str, Any]) -> PurgeAnswer:
        wait, timeout = self._purges.wanted(request)
        document["mode"] = self._purges.mode(soft=self._purges.is_soft(request))
        return await self._purges.purge(document, wait, timeout, token, peer=peer_of(request), front="fastly")


def _told(answer: PurgeAnswer, more: dict[str, str] | None = None) -> Answer:
    purge_id = answer.entry.purge_id
    if STATES.index(answer.state) < STATES.index(PurgeState.DURABLE):
        content = {"status": "error", "msg": "Too few nodes have it yet; it spreads on.", "id": purge_id}
        return Answer(content, 503, headers=retry_after(1.0))
    return Answer({**(more or {}), "status": "ok", "id": purge_id})


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid-purge", f"The key {octets!r} is not UTF-8.") from None
