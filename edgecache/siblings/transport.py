"""
The port by which a node speaks to its siblings: calls with a message each way (DESIGN 9).

Over it nothing is certain but this: an answer is that sibling's own, to this very message. A call that failed may have
arrived; messages are such that twice is the same as once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import Deferred

from edgecache.words.errors import EdgeError

Message = dict[str, Any]
"""What JSON can carry: strings, numbers, lists, dicts; octets as text."""


class Call(enum.Enum):
    """What a sibling is asked; the value is the last segment of the path."""

    PULL = "pull"
    PUSH = "push"
    STATE = "state"


Handler = Callable[[str, Message], Coroutine[Deferred[Any], Any, Message]]
"""
Answers one call: the id of the member that asks, as its certificate says it, and its message.

It may raise :class:`Refused`. Anything else that it raises is logged and answered with an error.
"""


@define(eq=False, repr=False)
class Refused(EdgeError):
    """
    A handler does not do what it was asked: the asker gets a :class:`CallRefused` with the same words.

    :ivar code: a word that programs can compare.
    :ivar detail: a sentence for people.
    """

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@define(eq=False, repr=False)
class CallFailed(EdgeError):
    """
    No answer that can be used.

    :ivar sibling: its id.
    :ivar problem: for people.
    """

    sibling: str
    problem: str

    def __str__(self) -> str:
        return f"{self.sibling}: {self.problem}"


@define(eq=False, repr=False)
class CallTimedOut(CallFailed):
    """None within the time of one call."""


@define(eq=False, repr=False)
class CertificateRefused(CallFailed):
    """One of the two does not accept the other's certificate."""


@define(eq=False, repr=False)
class CallRefused(CallFailed):
    """
    It answered that it does not do this.

    :ivar status: of its answer.
    :ivar code: its word for why.
    """

    status: int
    code: str


class Transport(Protocol):
    """To all siblings."""

    async def call(self, sibling: str, call: Call, message: Message) -> Message:
        """
        Ask one sibling, and wait for its answer for the time of one call at most.

        :raises CallFailed: one of the kinds above.
        """
        ...
