"""The node process's end of ``Edgecache-Bypass``: which tokens let a request past the store (DESIGN 10, 12)."""

from __future__ import annotations

from typing import Any

from attrs import define

from edgecache.admin.access import Access
from edgecache.admin.answers import problem_of
from edgecache.admin.parts import AdminParts
from edgecache.admin.tokens import Tokens
from edgecache.words.errors import EdgeError
from edgecache.words.purging import Scope


@define(eq=False, repr=False)
class PublicBypass:
    """Serves the workers' ``bypass`` calls: few, for workers know the digests of the tokens that are good."""

    _parts: AdminParts
    _access: Access
    _tokens: Tokens

    @classmethod
    def of(cls, parts: AdminParts) -> PublicBypass:
        """:return: what shares guesses and audit with the admin listener of ``parts``."""
        return cls(parts, parts.access, parts.tokens)

    @property
    def digests(self) -> list[str]:
        """Of the tokens that are good for it, for workers."""
        return [token.digest.hex() for token in self._tokens.known if Scope.BYPASS in token.scopes]

    def ask(self, token: str, peer: str, method: str, path: str) -> dict[str, Any]:
        """
        A worker does not know ``token``: it is new, or none.

        :return: ``status`` 0: let it pass; else what is to be answered: ``status``, ``detail``, ``retry_after``.
        """
        try:
            self._access.admit(token, peer, Scope.BYPASS)
        except EdgeError as error:
            problem = problem_of(error)
            if problem is None:
                raise
            # 401 would ask for Authorization, which has nothing to do with it.
            status = 403 if problem.status == 401 else problem.status
            self._parts.audit.refused(
                presented=token,
                token=self._access.name_of(token),
                peer=peer,
                method=method,
                path=path,
                status=status,
                error=problem.error,
                detail=problem.detail,
            )
            waits = [value for name, value in problem.headers if name.lower() == "retry-after"]
            return {"status": status, "detail": problem.detail, "retry_after": waits[0] if waits else ""}
        return {"status": 0}
