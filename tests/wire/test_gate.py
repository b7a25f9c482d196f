"""What a worker asks the node process about a token, and what it says of wrong credentials (DESIGN 10, 12)."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.channel import ChannelClosed
from edgecache.rules.asking import ask
from edgecache.rules.decisions import Refuse
from edgecache.rules.guesses import Guesses
from edgecache.wire.gate import LOG_SECONDS, MOST_WAITING, Gate
from edgecache.words.config import Access, ClientSettings, Secret
from edgecache.words.counters import Counter
from edgecache.words.credentials import digested
from tests.rules.build import asked, request, sites

PEER = b"192.0.2.7"


class Counts:
    def __init__(self) -> None:
        self.of: dict[int, int] = {}

    def add(self, counter: int, n: int = 1) -> None:
        self.of[counter] = self.of.get(counter, 0) + n


class GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: list[tuple[dict[str, Any], Deferred[dict[str, Any]]]] = []
        self.counts, self.clock = Counts(), Clock()
        self.gate = Gate(self.call, self.counts, self.clock, Guesses(2))

    def call(self, op: str, **payload: Any) -> Deferred[dict[str, Any]]:
        answer: Deferred[dict[str, Any]] = Deferred()
        self.calls.append((payload, answer))
        return answer

    def refused(self, token: str) -> Deferred[Refuse | None]:
        by = asked(f"Edgecache-Bypass: {token}", of=sites(), target="/a?b")
        return Deferred.fromCoroutine(self.gate.refused(by, PEER))

    def test_tokens_are_known_by_their_digests_until_the_next_word(self) -> None:
        one, other = b"one", b"other"
        self.assertFalse(self.gate.knows(one))
        self.gate.tokens_are([hashlib.sha256(token).hexdigest() for token in (one, other)])
        self.assertEqual([True, True, False], [self.gate.knows(token) for token in (one, other, b"")])
        self.gate.tokens_are([])
        self.assertFalse(self.gate.knows(one))

    def test_the_node_process_judges_what_is_not_known(self) -> None:
        for told, status, fields in (
            ({"status": 0}, 0, ()),
            ({"status": 403, "detail": "No.", "retry_after": ""}, 403, ()),
            ({"status": 429, "detail": "Slow.", "retry_after": "3"}, 429, ((b"retry-after", b"3"),)),
        ):
            answer = self.refused("t")
            payload, waiting = self.calls.pop()
            self.assertEqual({"token": "t", "peer": "192.0.2.7", "method": "GET", "path": "/a?b"}, payload)
            waiting.callback(told)
            refuse = self.successResultOf(answer)
            self.assertEqual((status, fields), (0, ()) if refuse is None else (refuse.status, refuse.fields))

    def test_strangers_do_not_fill_the_channel(self) -> None:
        waiting = [self.refused(f"guess {number}") for number in range(MOST_WAITING)]
        refuse = self.successResultOf(self.refused("one more"))
        assert refuse is not None
        self.assertEqual((503, MOST_WAITING), (refuse.status, len(self.calls)))
        self.calls[0][1].callback({"status": 0})
        self.assertIsNone(self.successResultOf(waiting[0]))
        self.assertNoResult(self.refused("now"))
        for _, answer in self.calls[1:]:
            answer.callback({"status": 0})

    def test_without_the_node_process_nobody_gets_past(self) -> None:
        answer = self.refused("t")
        self.calls[0][1].errback(ChannelClosed())
        refuse = self.successResultOf(answer)
        assert refuse is not None
        self.assertEqual(503, refuse.status)
        self.assertEqual(0, self.gate.waiting)

    def test_wrong_credentials_are_counted_and_told_once_a_minute_and_never_shown(self) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        private = sites(access=Access.TOKEN, clients=(ClientSettings("ci", token=Secret(digested(b"right"))),))
        statuses = []
        for seconds in (0.0, 0.0, 0.0, LOG_SECONDS):
            self.clock.advance(seconds)
            wrong = request("Authorization: Bearer wrong-secret")
            challenge = ask(wrong, private)
            assert isinstance(challenge, Refuse)
            statuses.append(self.gate.denied(wrong, challenge, PEER).status)
        self.assertEqual([401, 401, 429, 401], statuses)
        self.assertEqual({Counter.DENIED: 4}, self.counts.of)
        told = [event for event in events if event.get("log_namespace") == "edgecache.wire.gate"]
        self.assertEqual(2, len(told))
        self.assertNotIn("wrong-secret", str(told))
