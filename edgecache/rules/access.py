"""Who may read a site (DESIGN 10): its clients, by token or by user and password."""

from __future__ import annotations

import base64
import binascii
import hmac

from attrs import define

from edgecache.rules.decisions import Refuse
from edgecache.words.config import Access, SiteSettings
from edgecache.words.credentials import digested
from edgecache.words.messages import Fields, Head, field_values, without

PRIVATE = b"cache-control: private\r\n"
"""On what clients of such a site are sent, after whatever the origin says: another shared cache may be on the way, and
must not keep it for everybody (RFC 9111 §5.2.2.7)."""

_BEARER, _BASIC = b"bearer", b"basic"


@define(eq=False, repr=False)
class Clients:
    """
    The clients of one site, known by the digests of their secrets.

    :ivar realm: of the challenge.
    """

    realm: bytes
    _tokens: tuple[tuple[str, bytes], ...]
    _passwords: tuple[tuple[str, bytes, bytes], ...]

    @classmethod
    def of(cls, site: SiteSettings) -> Clients | None:
        """:return: ``None``: everybody may read."""
        if site.access is Access.OPEN:
            return None
        tokens = [(one.name, one.token.value.encode()) for one in site.clients if one.token is not None]
        passwords = [
            (one.name, one.user.encode(), one.password.value.encode())
            for one in site.clients
            if one.password is not None
        ]
        return cls(site.name.encode("ascii", "replace"), tuple(tokens), tuple(passwords))

    def admit(self, fields: Fields) -> str | None:
        """
        How long this takes says nothing about any client's secret.

        :param fields: of the request.
        :return: name of the client whose credentials they have; ``None``: nobody's.
        """
        user, secret = presented(fields)
        if secret is None:
            return None
        digest = digested(secret).encode()
        found = None
        for name, known in self._tokens:
            if hmac.compare_digest(known, digest):
                found = name
        for name, known_user, known in self._passwords:
            # Both are compared, whatever comes of the first.
            if hmac.compare_digest(known_user, user or b"") & hmac.compare_digest(known, digest):
                found = name
        return found

    def challenge(self) -> Refuse:
        """:return: what whoever has no credentials is told; installers send theirs only then."""
        realm = self.realm.replace(b"\\", b"").replace(b'"', b"")
        fields = ((b"www-authenticate", b'Basic realm="%b", charset="UTF-8"' % realm),)
        return Refuse(401, "This site is for its clients: send a token, or a user and a password.", fields=fields)


def unlent(head: Head) -> Head:
    """
    :param head: of an origin's answer to the site's own credentials.
    :return: 503 instead of 401: a client has nothing to put right, and must not be asked to. Where something is stored
        it is served stale then.
    """
    if head.status != 401:
        return head
    kept = without(head.fields, (b"www-authenticate",))
    return Head(503, b"Service Unavailable", [*kept, (b"retry-after", b"60")])


def presented(fields: Fields) -> tuple[bytes | None, bytes | None]:
    """
    :return: user and secret of an Authorization field: of Basic (RFC 7617) the password, or the user where that is
        empty (``https://token@host/``); of Bearer (RFC 6750) the token, and no user. ``None``: nothing usable.
    """
    values = field_values(fields, b"authorization")
    if len(values) != 1:
        return None, None
    scheme, _, rest = values[0].partition(b" ")
    rest = rest.strip(b" ")
    if scheme.lower() == _BEARER and rest:
        return None, rest
    if scheme.lower() != _BASIC:
        return None, None
    try:
        user, _, password = base64.b64decode(rest, validate=True).partition(b":")
    except binascii.Error:
        return None, None
    if password:
        return user, password
    return (None, user) if user else (None, None)
