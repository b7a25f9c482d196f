"""How often one address may present wrong credentials."""

# Note [right credentials of a busy guesser]
#
# Whoever is over the limit must not learn whether a guess is right, so right credentials are refused as well; but an
# address can be that of many, one of whom has a job with an old token. Clients that were let in from an address while
# it had attempts left stay let in from there. All that a guesser could still find out is the password of somebody
# who uses the same address.

from __future__ import annotations

import ipaddress

from attrs import define, field

MINUTE = 60.0

MOST_ADDRESSES = 10_000
"""Remembered at most; the oldest are forgotten."""


@define(eq=False, repr=False)
class _Attempts:
    left: float
    at: float
    known: set[str] = field(factory=set)


@define(eq=False, repr=False)
class Guesses:
    """
    Failed attempts of each address: a bucket of ``per_minute``, refilled within a minute.

    See Note [right credentials of a busy guesser]. Times are monotonic seconds.
    """

    _per_minute: int
    _of: dict[bytes, _Attempts] = field(factory=dict)

    def failed(self, peer: bytes, now: float) -> float:
        """
        Wrong credentials came from ``peer``.

        :return: 0.0, or the seconds after which it may try again.
        """
        attempts = self._attempts(peer, now)
        if attempts is None:
            attempts = self._of[network(peer)] = _Attempts(float(self._per_minute), now)
            if len(self._of) > MOST_ADDRESSES:
                del self._of[next(iter(self._of))]
        if attempts.left < 1.0:
            return self._wait(attempts)
        attempts.left -= 1.0
        return 0.0

    def waits(self, peer: bytes, client: str, now: float) -> float:
        """
        Right credentials came from ``peer``. Costs nothing while nobody has failed.

        :param client: whose they are.
        :return: 0.0, or the seconds after which they are looked at.
        """
        if not self._of:
            return 0.0
        attempts = self._attempts(peer, now)
        if attempts is None or client in attempts.known:
            return 0.0
        if attempts.left < 1.0:
            return self._wait(attempts)
        attempts.known.add(client)
        return 0.0

    def _attempts(self, peer: bytes, now: float) -> _Attempts | None:
        """:return: what is left of its attempts; ``None`` when it has all of them."""
        place = network(peer)
        attempts = self._of.get(place)
        if attempts is None:
            return None
        attempts.left += max(0.0, now - attempts.at) * self._per_minute / MINUTE
        attempts.at = now
        if attempts.left >= self._per_minute:
            del self._of[place]
            return None
        return attempts

    def _wait(self, attempts: _Attempts) -> float:
        return (1.0 - attempts.left) * MINUTE / self._per_minute


def network(peer: bytes) -> bytes:
    """
    :param peer: an address as text.
    :return: what counts as one client: of IPv6 the network, since a host has all addresses of it.

    >>> network(b"2001:db8::1") == network(b"2001:db8::2:3"), network(b"192.0.2.1")
    (True, b'192.0.2.1')
    """
    if b":" not in peer:
        return peer
    try:
        return ipaddress.IPv6Address(peer.decode("ascii")).packed[:8]
    except ValueError:
        return peer
