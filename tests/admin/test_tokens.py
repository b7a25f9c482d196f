"""The admin token's file, and tokens over restarts."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from edgecache.admin.tokens import Tokens, digest
from edgecache.words.errors import StartError
from edgecache.words.purging import ALL_SCOPES, Scope
from tests.admin.harness import AdminCase


class FileTests(AdminCase):
    def restart(self) -> Tokens:
        tokens = Tokens(self.control, self.tokens.path)
        self.done(tokens.load())
        return tokens

    def read(self) -> str:
        with open(self.tokens.path) as file:
            return file.read().strip()

    def write(self, content: str) -> None:
        with open(self.tokens.path, "w") as file:
            file.write(content)

    def test_the_first_start_writes_a_token_that_only_its_owner_reads(self) -> None:
        self.assertEqual(0o600, os.stat(self.tokens.path).st_mode & 0o777)
        self.assertGreater(len(self.token), 40)

    def test_a_later_start_keeps_the_file_and_its_tokens(self) -> None:
        made = self.done(self.tokens.create("ci", frozenset((Scope.PURGE,))))
        tokens = self.restart()
        self.assertEqual(self.token, self.read())
        admin, ci = tokens.match(self.token), tokens.match(made)
        assert admin is not None and ci is not None
        self.assertEqual(
            (("admin", ALL_SCOPES), ("ci", {Scope.PURGE})), ((admin.name, admin.scopes), (ci.name, ci.scopes))
        )

    def test_control_keeps_no_token(self) -> None:
        made = self.done(self.tokens.create("ci", ALL_SCOPES))
        with open(os.path.join(self.data, "control", "data.mdb"), "rb") as file:
            content = file.read()
        self.assertTrue(digest(made) in content)
        for token in (made, self.token):
            self.assertFalse(token.encode() in content)

    def test_the_file_decides_what_the_admin_token_is(self) -> None:
        self.write("an operator's own token\n")
        tokens = self.restart()
        self.assertIsNone(tokens.match(self.token))
        self.assertIsNotNone(tokens.match("an operator's own token"))
        self.assertEqual(1, len(tokens.known))

    def test_a_removed_file_means_a_new_token(self) -> None:
        os.unlink(self.tokens.path)
        tokens = self.restart()
        self.assertIsNone(tokens.match(self.token))
        self.assertIsNotNone(tokens.match(self.read()))

    def test_a_file_with_nothing_in_it_is_no_password(self) -> None:
        for content in ("", "\n", "short"):
            self.write(content)
            tokens = self.restart()
            self.assertIsNone(tokens.match(content.strip()))
            self.assertGreater(len(self.read()), 40)

    def test_a_file_that_others_can_read_is_closed_to_them(self) -> None:
        os.chmod(self.tokens.path, 0o644)
        self.restart()
        self.assertEqual(0o600, os.stat(self.tokens.path).st_mode & 0o777)
        self.assertEqual(self.token, self.read())

    def test_a_link_is_not_followed(self) -> None:
        other = os.path.join(self.data, "other")
        with open(other, "w") as file:
            file.write("somebody else's secret")
        os.unlink(self.tokens.path)
        os.symlink(other, self.tokens.path)
        tokens = Tokens(self.control, self.tokens.path)
        self.failureResultOf(Deferred.fromCoroutine(tokens.load()), StartError)

    def test_an_empty_or_odd_presented_token_is_nobodys(self) -> None:
        for presented in ("", " ", self.token[:-1], self.token + "x", "\udcff", "ü"):
            self.assertIsNone(self.tokens.match(presented))
