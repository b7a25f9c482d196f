"""Which tokens let clients past the store, as workers are told (DESIGN 10, 12)."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from edgecache.admin.publicbypass import PublicBypass
from tests.admin.harness import AdminCase


class PublicBypassTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.bypass = PublicBypass.of(self.parts)

    def judge(self, token: str) -> dict[str, Any]:
        return self.bypass.ask(token, "192.0.2.7", "GET", f"/simple/?{token}")

    def test_workers_know_the_digests_of_the_tokens_with_the_scope_as_they_come_and_go(self) -> None:
        told: list[list[str]] = []
        self.tokens.changed = lambda: told.append(self.bypass.digests)
        token = self.scoped("bypass", name="mirror")
        self.scoped("purge", name="ci")
        self.ask("DELETE", "/tokens/mirror")
        admin, mirror = (hashlib.sha256(each.encode()).hexdigest() for each in (self.token, token))
        self.assertEqual([[admin, mirror], [admin, mirror], [admin]], told)

    def test_a_token_that_is_newer_than_what_a_worker_knows_is_good(self) -> None:
        self.assertEqual({"status": 0}, self.judge(self.scoped("bypass")))

    def test_whatever_is_no_such_token_is_403_and_audited_without_it(self) -> None:
        for token, error in (("guessed-token", "token-unknown"), (self.scoped("purge"), "scope-missing")):
            self.assertEqual(403, self.judge(token)["status"])
            with open(self.parts.audit.path, "rb") as file:
                line = file.read().splitlines()[-1]
            told = orjson.loads(line)
            self.assertEqual(("refused", error, 403), (told["event"], told["error"], told["status"]))
            self.assertEqual("192.0.2.7", told["peer"])
            self.assertNotIn(token.encode(), line)

    def test_guesses_share_the_pace_of_the_admin_listener(self) -> None:
        told = [self.judge(f"guess {number}") for number in range(60)]
        self.assertEqual({403, 429}, {each["status"] for each in told})
        self.assertNotEqual("", told[-1]["retry_after"])
        self.assertEqual(429, self.ask("GET", "/status", token="another guess").status)
