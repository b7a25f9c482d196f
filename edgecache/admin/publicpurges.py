"""The node process's end of ``PURGE`` on the public listener: a worker has read it, the token decides (DESIGN 12)."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import define

from edgecache.admin.access import Access
from edgecache.admin.answers import Answer, Problem, problem_of
from edgecache.admin.parts import AdminParts
from edgecache.admin.purges import WAIT, WAIT_SECONDS, Purges, purged
from edgecache.words.errors import EdgeError
from edgecache.words.purging import Scope

_ALLOW = (("Allow", "GET, HEAD"),)


@define(eq=False, repr=False)
class PublicPurges:
    """Serves the workers' ``purge`` calls."""

    _purges: Purges
    _access: Access

    @classmethod
    def of(cls, parts: AdminParts) -> PublicPurges:
        """:return: what shares guesses, paces and audit with the admin listener of ``parts``."""
        return cls(Purges(parts), parts.access)

    async def purge(self, url: str, token: str, soft: bool, peer: str) -> dict[str, Any]:
        """:return: status, fields and content of the answer."""
        try:
            allowed = self._access.admit(token, peer, Scope.PURGE)
            document = {"urls": [url], "mode": self._purges.mode(soft=soft)}
            answer = purged(
                await self._purges.purge(document, WAIT, WAIT_SECONDS, allowed, peer=peer, front="public PURGE")
            )
        except EdgeError as error:
            problem = problem_of(error)
            if problem is None:
                raise
            if problem.status in (401, 403):
                # To whoever may not, this listener does not know the method.
                problem = Problem(405, problem.error, problem.detail, _ALLOW)
            self._purges.parts.audit.refused(
                presented=token,
                token=self._access.name_of(token),
                peer=peer,
                method="PURGE",
                path=url,
                status=problem.status,
                error=problem.error,
                detail=problem.detail,
            )
            content = {"error": problem.error, "detail": problem.detail}
            answer = Answer(content, problem.status, headers=problem.headers)
        return {
            "status": answer.status,
            "fields": [list(line) for line in answer.headers],
            "content": orjson.dumps(answer.content, option=orjson.OPT_APPEND_NEWLINE).decode(),
        }
