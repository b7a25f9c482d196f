"""
Tokens: who may do what on the admin listener (DESIGN 11, 12).

Control keeps digests only. A token has 256 random bits, so a plain sha256 of it tells
nothing and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from edgecache.store.control import Control
from edgecache.syncing import sync_directory
from edgecache.words.errors import StartError
from edgecache.words.purging import ALL_SCOPES, Scope, Token

_log = Logger()

ADMIN = "admin"
"""Name of the token with all scopes that lies in ``DATA/admin.token``."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a token may be called."""

_LEAST_OCTETS = 16


def digest(token: str) -> bytes:
    """:return: what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def new_token() -> str:
    """:return: a token that nobody can guess."""
    return "edge_" + secrets.token_urlsafe(32)


@define(eq=False, repr=False)
class Tokens:
    """
    The tokens of this node.

    :ivar path: of the admin token's file.
    :ivar changed: called when a token was made or revoked.
    """

    _control: Control
    path: str
    _known: list[Token] = field(factory=list)
    changed: Callable[[], None] = lambda: None

    @property
    def known(self) -> list[Token]:
        """All tokens, as digests."""
        return list(self._known)

    async def load(self) -> None:
        """
        Read the tokens; make the admin token's file if there is none. The file decides what that token is.

        :raises StartError: the file cannot be read or written.
        :raises ControlFailed: control cannot.
        """
        self._known = self._control.read.tokens()
        token = Token(ADMIN, digest(self._admin_token()), ALL_SCOPES)
        if token not in self._known:
            await self._keep(token)

    def match(self, presented: str) -> Token | None:
        """:return: the token that ``presented`` is. How long this takes tells nothing about any of them."""
        asked = digest(presented)
        found = None
        for token in self._known:
            if hmac.compare_digest(token.digest, asked):
                found = token
        return found

    async def create(self, name: str, scopes: frozenset[Scope]) -> str:
        """
        Make a token, in place of one of the same name.

        :return: the token, which cannot be had again.
        :raises ControlFailed: it could not be written.
        """
        made = new_token()
        await self._keep(Token(name, digest(made), scopes))
        return made

    async def revoke(self, name: str) -> bool:
        """
        :return: was there one? It no longer works.
        :raises ControlFailed: it could not be written.
        """
        removed = await self._control.remove_token(name)
        self._known = [token for token in self._known if token.name != name]
        self.changed()
        return removed

    async def _keep(self, token: Token) -> None:
        await self._control.put_token(token)
        self._known = [each for each in self._known if each.name != token.name] + [token]
        self.changed()

    def _admin_token(self) -> str:
        try:
            found = _read(self.path)
            if found is None:
                found = new_token()
                _write(self.path, found)
                _log.info("a token with all scopes is in {path}", path=self.path)
        except OSError as error:
            raise StartError(f"admin token {self.path}: {os.strerror(error.errno or 0)}") from error
        return found


def _read(path: str) -> str | None:
    """:return: the token in the file; ``None`` when there is no file, or nothing in it that can be one."""
    try:
        # A link could make us show, or overwrite, a file of somebody else's choice.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            _log.warn("{path} could be read by others; it no longer can, but change the token", path=path)
            os.fchmod(descriptor, 0o600)
        found = file.read(4096).strip()
    if len(found) < _LEAST_OCTETS:
        _log.warn(
            "{path} has no token of at least {least} characters; a new one is made", path=path, least=_LEAST_OCTETS
        )
        return None
    return found


def _write(path: str, token: str) -> None:
    """All of it or nothing, and only for our own eyes."""
    unfinished = f"{path}.new"
    if os.path.lexists(unfinished):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(descriptor)
    os.replace(unfinished, path)
    sync_directory(os.path.dirname(path) or ".")
