"""Where a node's admin listener is, and with which token it is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import define, field, frozen

from edgecache.words.errors import EdgeError

ADMIN_FILE = "admin.token"
"""Below the data directory: the token with all scopes, which the first start writes."""


@define(eq=False, repr=False)
class AdminFailed(EdgeError):
    """
    The node could not be asked, or said no.

    :ivar problem: what to tell the operator.
    :ivar again: it may be another thing later.
    :ivar retry_after: seconds, if the node said so.
    """

    problem: str
    again: bool = False
    retry_after: float = 0.0

    def __str__(self) -> str:
        return self.problem


@frozen
class AdminAddress:
    """
    Where to ask, and with what.

    :ivar url: of the admin listener, ``http://127.0.0.1:8081``.
    """

    url: str
    token: str = field(repr=False)


def find_token(data: str, environment: Mapping[str, str]) -> str:
    """
    :param data: the node's data directory.
    :return: ``EDGECACHE_TOKEN``, else what the node has written.
    :raises AdminFailed: there is neither.
    """
    if environment.get("EDGECACHE_TOKEN"):
        return environment["EDGECACHE_TOKEN"].strip()
    path = os.path.join(data, ADMIN_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problem = f"no token: {path}: {reason}; name the data directory, or set EDGECACHE_TOKEN"
        raise AdminFailed(problem) from error
