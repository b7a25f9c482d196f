"""The fronts of purging on a node with two workers: PURGE, the Fastly API's shape, the command line, and bad input."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.system.clients import Answer, ask
from tests.system.test_purge import DEEP, ONE, OTHER, PurgeTestCase
from tests.system.versions import versions_seen


class FrontTests(PurgeTestCase):
    def changed(self) -> tuple[int, int]:
        """:return: the version that is stored everywhere, and the origin's, which is newer."""
        return self.fill(), self.versions.publish()

    def public(self, target: str, **fields: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return ask(self.node.url, target, method="PURGE", fields=named)

    def audit_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.node.data / "audit.log").read_text().splitlines()]

    def test_purge_on_the_public_listener_takes_effect_in_every_worker(self) -> None:
        old, new = self.changed()
        answer = self.public("/a/1", authorization=f"Bearer {self.node.token}")
        self.assertEqual((200, "complete"), (answer.status, json.loads(answer.content)["state"]))
        self.assertEqual({new}, versions_seen(self.node, ONE))
        self.assertEqual({old}, versions_seen(self.node, DEEP))
        line = self.audit_lines()[-1]
        self.assertEqual(("public PURGE", "127.0.0.1", "admin"), (line["front"], line["peer"], line["token"]))

    def test_without_a_token_that_allows_it_the_public_listener_answers_405_and_nothing_changes(self) -> None:
        old, _ = self.changed()
        for fields in ({}, {"authorization": "Bearer wrong"}, {"fastly-key": "wrong"}, {"authorization": "Basic eDp5"}):
            answer = self.public("/a/1", **fields)
            self.assertEqual((405, "GET, HEAD"), (answer.status, answer.fields["allow"]), fields)
        self.assertEqual({old}, versions_seen(self.node, ONE))

    def test_a_purger_of_the_fastly_api_is_understood(self) -> None:
        old, new = self.changed()
        answer = ask(
            self.node.admin_url,
            "/service/SVC/purge/blue",
            method="POST",
            fields={"Fastly-Key": self.node.token, "Fastly-Soft-Purge": "1", "Accept": "application/json"},
        )
        self.assertEqual((200, "ok"), (answer.status, json.loads(answer.content)["status"]))
        self.assertEqual({new}, versions_seen(self.node, OTHER))
        self.assertEqual({old}, versions_seen(self.node, ONE))

    def test_a_million_urls_are_refused_and_nothing_is_purged(self) -> None:
        old, _ = self.changed()
        for content, error in (
            (b'{"urls": [' + b",".join([b'"/a/1"'] * 1_000_000) + b"]}", "too-large"),
            (b'{"urls": [' + b",".join([b'"/"'] * 1_000_000) + b"]}", "too-many"),
        ):
            answer = ask(
                self.node.admin_url,
                "/purge",
                method="POST",
                fields={"Authorization": f"Bearer {self.node.token}", "Content-Type": "application/json"},
                content=content,
            )
            self.assertEqual((413, error), (answer.status, json.loads(answer.content)["error"]))
        self.assertEqual({old}, versions_seen(self.node, ONE))

    def test_the_command_line_purges_and_says_how_far_it_has_come(self) -> None:
        _, new = self.changed()
        done = self.node.edgecache("purge", "--url", "/a/1", "--wait", "complete", "--id", "by hand")
        self.assertEqual((0, "purge by hand: complete (revalidate, 1 selectors)\n", ""), tuple(done_of(done)))
        self.assertEqual({new}, versions_seen(self.node, ONE))
        wrong = self.node.edgecache("purge", "--url", "nowhere")
        self.assertEqual(1, wrong.returncode)
        self.assertIn("invalid-purge (400)", wrong.stderr)
        self.assertEqual(2, self.node.edgecache("purge", "--all", "--wait", "forever").returncode)

    def test_an_audit_finds_nothing_older_whether_it_was_fetched_again_or_not(self) -> None:
        self.changed()
        self.node.purge(urls=["/a/1", "/c/3"], prefixes=["/a/"])
        self.until_hit(ONE)
        done = self.node.edgecache("audit", "--json")
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        answers = json.loads(done.stdout)["answers"]
        verdicts = {(answer["target"], answer["verdict"]) for answer in answers}
        self.assertLessEqual({("/a/1", "current"), ("/c/3", "absent")}, verdicts)

    def test_an_audit_names_what_an_upstream_has_given_out_again(self) -> None:
        """As a cache behind us does that was not purged: only its Age tells."""
        self.fill()
        self.versions.age = 5_000
        self.addCleanup(setattr, self.versions, "age", 0)
        self.versions.publish()
        self.node.purge(urls=["/a/1"])
        self.until_hit(ONE)
        done = self.node.edgecache("audit", "--node", self.node.url)
        self.assertEqual(1, done.returncode, done.stdout + done.stderr)
        self.assertIn("/a/1", done.stdout)
        self.assertIn("older", done.stdout)


def done_of(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr
