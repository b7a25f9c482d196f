"""``/feed`` over the admin listener: waiting for changes, and streams of them."""

from __future__ import annotations

from typing import Any

import orjson

from edgecache.admin.feeds import HEARTBEAT_SECONDS, STALL_SECONDS
from edgecache.rules.cursors import cursor_of
from edgecache.siblings.feed import PACE_SECONDS
from edgecache.words.purging import Scope
from tests.admin.harness import NOW, AdminCase, Client, with_purge
from tests.siblings.spreads import HandFleet


class FeedCase(AdminCase):
    """Of three nodes; a purge is effective when the test says so."""

    config = with_purge(feed_listeners=3)

    def make_spread(self) -> HandFleet:
        self.fleet = HandFleet(lambda: NOW)
        return self.fleet

    def begin(self, path: str, **fields: str) -> Client:
        client = Client(self.site, "192.0.2.9")
        fields = {"host": "x", "authorization": f"Bearer {self.token}"} | fields
        lines = [f"GET {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
        client.send("\r\n".join([*lines, "", ""]).encode())
        self.addCleanup(client.transport.loseConnection)
        return client

    def stream(self, path: str = "/feed", **fields: str) -> Client:
        return self.begin(path, accept="text/event-stream", **fields)

    def octets(self, client: Client) -> bytes:
        """What came since it was looked at last."""
        found = bytes(client.transport.value())
        client.transport.clear()
        return found

    def events(self, client: Client) -> list[dict[str, Any]]:
        lines = self.octets(client).split(b"\n")
        return [orjson.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]

    def cursor(self) -> str:
        return str(self.ask("GET", "/feed").json["cursor"])

    def purge(self, purge_id: str, **document: Any) -> None:
        """Accepted here, not effective yet."""
        client = Client(self.site, "192.0.2.9")
        content = orjson.dumps({"id": purge_id, **document})
        client.send(
            f"POST /purge?timeout=0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        self.assertEqual(503, client.receive().status)

    def settle(self) -> None:
        self.fleet.settle(self.control.name, self.control.head().sequence)
        self.clock.advance(PACE_SECONDS)

    def effective(self, purge_id: str, **document: Any) -> None:
        self.purge(purge_id, **document)
        self.settle()


class LongPollTests(FeedCase):
    def test_without_a_place_one_for_now_is_given_at_once(self) -> None:
        self.effective("old", urls=["/a"])
        answer = self.ask("GET", "/feed")
        self.assertEqual((200, [], False), (answer.status, answer.json["events"], answer.json["more"]))
        later = self.ask("GET", f"/feed?since={answer.json['cursor']}&timeout=0")
        self.assertEqual([], later.json["events"])

    def test_it_is_answered_when_a_purge_is_effective_and_not_when_it_is_accepted(self) -> None:
        client = self.begin(f"/feed?since={self.cursor()}&timeout=30")
        self.purge("x", tags=["t"], urls=["/a"], serials={"Six": 7})
        self.assertEqual(b"", client.transport.value())
        self.settle()
        document = client.receive().json
        (event,) = document["events"]
        self.assertEqual(document["cursor"], event["cursor"])
        self.assertEqual(("change", "x", "revalidate", False), tuple(event[k] for k in ("type", "id", "mode", "all")))
        self.assertEqual((["six"], ["/a"], {"six": 7}), (event["projects"], event["urls"], event["serials"]))
        self.assertEqual((["t", "project/six"], ["index", "files"]), (event["tags"], event["sites"]))
        self.assertEqual(("eu-1", NOW, NOW), tuple(event[k] for k in ("accepted_by", "accepted_at", "given_at")))

    def test_projects_are_named_as_pages_are(self) -> None:
        place = self.cursor()
        self.effective("x", tags=["project/Foo.Bar"])
        (event,) = self.ask("GET", f"/feed?since={place}&timeout=0").json["events"]
        self.assertEqual(["foo-bar"], event["projects"])

    def test_when_nothing_comes_it_is_answered_after_the_timeout(self) -> None:
        client = self.begin(f"/feed?since={self.cursor()}&timeout=20")
        self.clock.advance(19.9)
        self.assertEqual(b"", client.transport.value())
        self.clock.advance(0.1)
        self.assertEqual([], client.receive().json["events"])

    def test_one_who_leaves_leaves_nothing_behind(self) -> None:
        cursor = self.cursor()
        before = len(self.clock.getDelayedCalls())
        client = self.begin(f"/feed?since={cursor}")
        self.assertEqual(1, self.parts.feed.listeners)
        client.transport.loseConnection()
        self.assertEqual((0, before), (self.parts.feed.listeners, len(self.clock.getDelayedCalls())))

    def test_no_more_listen_than_are_allowed(self) -> None:
        cursor = self.cursor()
        for _ in range(2):
            self.begin(f"/feed?since={cursor}")
        self.stream()
        answer = self.ask("GET", f"/feed?since={cursor}")
        self.assertEqual(
            (503, "too-many-listeners", "5"), (answer.status, answer.json["error"], answer.headers["retry-after"])
        )

    def test_what_cannot_be_understood_is_refused(self) -> None:
        for query in (
            "since=nonsense",
            "since=",
            "timeout=x",
            "timeout=-1",
            "timeout=nan",
            "who=me",
            "timeout=1&timeout=2",
        ):
            answer = self.ask("GET", f"/feed?{query}")
            self.assertEqual(400, answer.status, query)

    def test_it_takes_a_token_with_the_scope(self) -> None:
        self.assertEqual(401, self.ask("GET", "/feed", token=None, peer="127.0.0.1", host="localhost").status)
        self.assertEqual(403, self.ask("GET", "/feed", token=self.scoped("purge")).status)
        self.assertEqual(200, self.ask("GET", "/feed", token=self.scoped("status")).status)


class StreamTests(FeedCase):
    def test_changes_come_as_they_become_effective_each_with_its_place(self) -> None:
        client = self.stream()
        head = self.octets(client)
        self.assertIn(b"Content-Type: text/event-stream\r\n", head)
        self.assertIn(b"retry: ", head)
        self.purge("x", urls=["/a"])
        self.assertEqual(b"", self.octets(client))
        self.settle()
        octets = bytes(client.transport.value())
        (event,) = self.events(client)
        self.assertEqual("x", event["id"])
        self.assertIn(b"event: change\nid: " + event["cursor"].encode() + b"\ndata: ", octets)
        self.effective("y", urls=["/a"])
        self.assertEqual(["y"], [each["id"] for each in self.events(client)])

    def test_a_reader_who_comes_back_goes_on_where_he_was(self) -> None:
        cursor = self.cursor()
        self.effective("x", urls=["/a"])
        self.effective("y", urls=["/a"])
        found = self.events(self.stream(last_event_id=cursor))
        self.assertEqual(["x", "y"], [each["id"] for each in found])
        # A browser sends what it has seen in the field, and the URL as it was at first.
        found = self.events(self.stream(f"/feed?since={cursor}", last_event_id=found[0]["cursor"]))
        self.assertEqual(["y"], [each["id"] for each in found])

    def test_a_reader_whose_place_is_gone_is_told(self) -> None:
        client = self.stream(last_event_id="AXDtIzbkdKTSAAAAAAAAAAnHkVrK")
        self.assertIn(b"HTTP/1.1 400 ", self.octets(client))
        client = self.stream(last_event_id=cursor_of({99: 1}))
        octets = bytes(client.transport.value())
        self.assertIn(b"event: reset\n", octets)
        self.assertEqual(["reset"], [each["type"] for each in self.events(client)])

    def test_while_nothing_changes_there_is_a_sign_of_life(self) -> None:
        client = self.stream()
        self.octets(client)
        self.clock.advance(HEARTBEAT_SECONDS - 0.1)
        self.assertEqual(b"", self.octets(client))
        self.clock.advance(0.1)
        self.assertIn(b"\n: still here\n\n", b"\n" + self.octets(client).partition(b"\r\n")[2])

    def test_what_becomes_effective_while_a_slow_reader_takes_the_last_is_not_missed(self) -> None:
        client = self.stream()
        client.channel.pauseProducing()
        self.effective("x", urls=["/a"])
        self.effective("y", urls=["/a"])
        client.channel.resumeProducing()
        self.assertEqual(["x", "y"], [each["id"] for each in self.events(client)])

    def test_a_reader_who_takes_nothing_is_cut(self) -> None:
        client = self.stream()
        client.channel.pauseProducing()
        self.effective("x", urls=["/a"])
        self.clock.advance(STALL_SECONDS)
        self.clock.advance(0.0)
        self.assertFalse(client.transport.connected)
        self.assertEqual(0, self.parts.feed.listeners)

    def test_one_who_leaves_leaves_nothing_behind(self) -> None:
        client = self.stream()
        client.transport.loseConnection()
        self.assertEqual((0, []), (self.parts.feed.listeners, self.clock.getDelayedCalls()))

    def test_it_ends_when_its_token_is_revoked(self) -> None:
        client = self.stream(authorization=f"Bearer {self.scoped(Scope.STATUS.value)}")
        self.octets(client)
        self.assertEqual(200, self.ask("DELETE", "/tokens/scoped").status)
        self.clock.advance(HEARTBEAT_SECONDS)
        self.assertTrue(self.octets(client).endswith(b"0\r\n\r\n"))
        self.assertEqual(0, self.parts.feed.listeners)
