"""
The states of a connection, and how much it takes, holds back or throws away in each.

::

    READING --a request--> ANSWERING --its head--> SENDING --its end--> READING
       |                       |                      |
       +--- refused, idle -----+---- last response ---+--> CLOSING --> connection_lost
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Of a connection; the picture is above."""

    READING = 1
    """Waits for a request: idle, or a part of one is here."""
    ANSWERING = 2
    """The route has the request; no final response head was written."""
    SENDING = 3
    """The head was written; content follows, or the client takes its time."""
    CLOSING = 4
    """No further request is read; what comes is thrown away until the client has read the last response."""


READING, ANSWERING, SENDING, CLOSING = State

LINGER_SECONDS = 3.0
"""
A socket closed with unread octets is reset, and the reset destroys the response on its way
(RFC 9112 §9.6); so we end our side, and read until the client ends its own or this is over.
"""

LINGER_OCTETS = 1 << 20
"""A client that sends on and on without reading is cut earlier."""

HOLD_OCTETS = 64 << 10
"""
A request's content is for an upstream only when so much of it is here, and proved well-formed, or all of it: until then
a slow client keeps nobody waiting but us.
"""

HOLD_SECONDS = 1.0
"""A client that sends nothing for so long may be waiting for an answer first."""

PIPELINE_OCTETS = 16 << 10
"""With so many octets of further requests here the client is not read: some twenty of an installer's."""

PIPELINE_TURN = 4
"""Requests of one connection answered in one turn of the loop: who sends thousands at once waits, others do not."""

PIPELINE_MOST = 64 << 10
"""
With more than this here, unanswered, the current response is the last one: what a client sends ahead without reading
its responses is memory.
"""
