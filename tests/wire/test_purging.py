"""``PURGE`` on the public listener: a real connection in front of a node process that the test plays."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.channel import CallRefused, ChannelClosed
from edgecache.rules import status_fields
from edgecache.rules.purgerequests import purge_request
from edgecache.wire.purging import MOST_WAITING, PublicPurging
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream
from tests.wire.rig import Rig

PURGE = b"PURGE /a?b HTTP/1.1\r\nHost: edge.example\r\nFastly-Key: t1\r\nFastly-Soft-Purge: 1\r\n\r\n"


@define(eq=False)
class NodeProcess:
    """Answers calls when the test says so."""

    calls: list[tuple[str, dict[str, Any], Deferred[dict[str, Any]]]] = field(factory=list)

    def call(self, op: str, **payload: Any) -> Deferred[dict[str, Any]]:
        self.calls.append((op, payload, Deferred()))
        return self.calls[-1][2]

    def tell(self, status: int = 200, **fields: str) -> None:
        self.calls.pop(0)[2].callback({"status": status, "fields": list(fields.items()), "content": '{"id": "é"}\n'})

    def fail(self, error: Exception) -> None:
        self.calls.pop(0)[2].errback(error)


class PublicPurgingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.node = NodeProcess()
        self.purging = PublicPurging(
            self.node.call, b"1.1 eu-1", lambda refuse: status_fields.refusal(None, b"eu-1", refuse, 0.0), lambda: 0.0
        )
        self.rig = Rig(route=self.route)

    def route(self, request: Request, downstream: Downstream) -> None:
        named = purge_request(request)
        assert named is not None
        self.answering = Deferred.fromCoroutine(self.purging.answer(named, downstream))

    def test_the_node_process_is_asked_with_everything_it_needs_and_its_answer_is_passed_on(self) -> None:
        client = self.rig.say(PURGE)
        self.assertEqual(
            [("purge", {"url": "http://edge.example/a?b", "token": "t1", "soft": True, "peer": "192.0.2.1"})],
            [call[:2] for call in self.node.calls],
        )
        self.node.tell(202, Retry="1")
        self.rig.network.settle()
        head, _, content = client.received.partition(b"\r\n\r\n")
        self.assertEqual('{"id": "é"}\n'.encode(), content)
        lines = head.split(b"\r\n")
        self.assertEqual(b"HTTP/1.1 202 Accepted", lines[0])
        for line in (b"retry: 1", b"cache-control: no-store", b"via: 1.1 eu-1", b"content-length: 13"):
            self.assertIn(line, lines)
        self.assertIn(b"date: Thu, 01 Jan 1970 00:00:00 GMT", lines)
        self.rig.say(PURGE, client)
        self.assertEqual(1, len(self.node.calls))

    def test_a_node_process_that_is_gone_or_fails_leaves_it_unknown(self) -> None:
        for error in (ChannelClosed(), CallRefused("purge", "why")):
            client = self.rig.say(PURGE)
            self.node.fail(error)
            self.rig.network.settle()
            self.assertTrue(client.received.startswith(b"HTTP/1.1 503 "), client.received)
            self.assertIn(b"retry-after: 1", client.received)
        self.assertEqual(0, self.purging.waiting)

    def test_strangers_cannot_fill_the_channel(self) -> None:
        clients = [self.rig.say(PURGE) for _ in range(MOST_WAITING + 1)]
        self.assertEqual(MOST_WAITING, len(self.node.calls))
        self.assertTrue(clients[-1].received.startswith(b"HTTP/1.1 503 "))
        self.node.tell()
        self.rig.say(PURGE)
        self.assertEqual(MOST_WAITING, len(self.node.calls))

    def test_a_client_that_left_is_not_written_to(self) -> None:
        client = self.rig.say(PURGE)
        client.transport.abort()
        self.rig.network.settle()
        self.node.tell()
        self.successResultOf(self.answering)
        self.assertEqual(b"", client.received)
