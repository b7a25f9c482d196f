"""One connection: order, persistence, content, interim responses, ends (RFC 9112 §9)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.connection import Connection
from edgecache.wire.sending import BURST
from edgecache.wire.states import HOLD_OCTETS, LINGER_OCTETS, PIPELINE_MOST, PIPELINE_OCTETS, PIPELINE_TURN
from edgecache.words.config import LimitSettings
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream
from tests.memnet import MemoryTransport
from tests.wire.rig import OK, Given, Rig, Waking

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = OK + b"\r\nok"
LAST = OK + b"Connection: close\r\n\r\nok"


def head(status: bytes = b"200 OK", *lines: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(line + b"\r\n" for line in lines)


class PersistenceTests(SynchronousTestCase):
    def test_requests_are_answered_on_one_connection(self) -> None:
        rig = Rig()
        client = rig.connect()
        for n in range(3):
            rig.say(GET % n, client)
        self.assertEqual(ANSWER * 3, client.received)
        self.assertFalse(client.ended)

    def test_byte_by_byte_is_the_same(self) -> None:
        rig = Rig()
        client = rig.connect()
        client.transport.write(GET % 1 + GET % 2)
        rig.network.settle(1)
        rig.turns()
        self.assertEqual(ANSWER * 2, client.received)

    def test_the_same_octets_are_the_same_request(self) -> None:
        """The parse memo: what rules made of a head is kept with it."""
        rig = Rig()
        rig.say(GET % 1 + GET % 1 + GET % 2, rig.say(GET % 1))
        self.assertEqual([True, True, False], [request is rig.requests[0] for request in rig.requests[1:]])

    def test_requests_with_content_share_nothing(self) -> None:
        rig = Rig()
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
        rig.say(post + b"x", rig.say(post + b"y"))
        self.assertIsNot(rig.requests[0], rig.requests[1])
        self.assertEqual([b"y", b"x"], [content.content for content in rig.contents])

    def test_close_is_honoured_and_said(self) -> None:
        client = Rig().say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertEqual(LAST, client.received)
        self.assertTrue(client.ended)

    def test_http_1_0_ends_after_one_response(self) -> None:
        client = Rig().say(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(LAST, client.received)
        self.assertTrue(client.ended)

    def test_http_1_0_may_ask_to_stay(self) -> None:
        rig = Rig()
        client = rig.say(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(OK + b"Connection: keep-alive\r\n\r\nok", client.received)
        rig.say(GET % 1, client)
        self.assertTrue(client.received.endswith(ANSWER))

    def test_a_connection_has_a_number_of_requests(self) -> None:
        rig = Rig(limits=evolve(LimitSettings(), requests_per_connection=2))
        client = rig.say(GET % 1 + GET % 2 + GET % 3)
        self.assertEqual(ANSWER + LAST, client.received)
        self.assertTrue(client.ended)
        self.assertEqual(2, len(rig.requests))

    def test_nothing_is_taken_for_a_request_after_the_last_one(self) -> None:
        rig = Rig()
        rig.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % 2)
        self.assertEqual(1, len(rig.requests))

    def test_an_empty_line_before_a_request_is_forgiven(self) -> None:
        """RFC 9112 §2.2"""
        rig = Rig()
        client = rig.say(b"\r\n" + GET % 1 + b"\r\n" + GET % 2)
        self.assertEqual(ANSWER * 2, client.received)

    def test_and_so_is_one_before_the_next_however_they_are_cut_into_packets(self) -> None:
        rig = Rig()
        client = rig.say(GET % 1)
        for packet in (b"\r\n", GET % 1, b"\r\n", GET % 1, b"\r\n" + GET % 1):
            rig.say(packet, client)
        self.assertEqual(ANSWER * 4, client.received)

    def test_a_protocol_switch_is_not_made(self) -> None:
        """``curl --http2``: served as HTTP/1.1, and so is what follows."""
        rig = Rig()
        upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        self.assertEqual(ANSWER * 2, rig.say(upgrade + GET % 2).received)


class PipeliningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.route = self.rig.later

    def test_the_second_request_waits_for_the_first_answer(self) -> None:
        client = self.rig.say(GET % 1 + GET % 2)
        self.assertEqual([b"/1"], [request.target for request in self.rig.requests])
        self.rig.downstreams[0].send(OK, b"ok")
        self.assertEqual([b"/1", b"/2"], [request.target for request in self.rig.requests])
        self.rig.downstreams[0].send(OK, b"ok")
        self.rig.network.settle()
        self.assertEqual(ANSWER * 2, client.received)

    def test_more_than_a_few_waiting_requests_stop_the_reading(self) -> None:
        many = (GET % 1) * (2 * PIPELINE_OCTETS // len(GET % 1))
        client = self.rig.say(many + many)
        self.assertFalse(self.rig.link.b.is_reading())
        self.rig.route = self.rig.at_once
        self.rig.downstreams[0].send(OK, b"ok")
        self.rig.turns()
        self.assertTrue(self.rig.link.b.is_reading())
        self.assertEqual((many + many).count(b"GET"), client.received.count(ANSWER))

    def test_thousands_at_once_do_not_nest(self) -> None:
        self.rig.route = self.rig.at_once
        client = self.rig.say((GET % 1) * 5000)
        self.rig.turns()
        self.assertEqual(ANSWER * 5000, client.received)

    def test_a_few_are_answered_in_one_turn_of_the_loop_and_then_it_is_the_others_turn(self) -> None:
        self.rig.route = self.rig.at_once
        client = self.rig.say((GET % 1) * 1000)
        self.assertEqual(ANSWER * PIPELINE_TURN, client.received)
        other = self.rig.say(GET % 2)
        self.assertEqual(ANSWER, other.received)
        self.assertLess(client.received.count(ANSWER), 1000)
        self.rig.turns()
        self.assertEqual(ANSWER * 1000, client.received)

    def test_the_end_of_the_clients_side_waits_for_its_turn_as_well(self) -> None:
        self.rig.route = self.rig.at_once
        client = self.rig.connect()
        client.transport.write((GET % 1) * 10)
        client.transport.write_eof()
        self.rig.turns()
        self.assertEqual(ANSWER * 10, client.received)
        self.assertTrue(client.lost)

    def test_what_is_sent_ahead_without_reading_is_not_kept(self) -> None:
        client = self.rig.connect()
        client.transport.write((GET % 1) * (4 * PIPELINE_MOST // len(GET % 1)))
        # As much as a loop's transport reads at once.
        self.rig.network.settle(4 * PIPELINE_MOST)
        kept = self.rig.listener._connections
        self.assertEqual([0], [len(each._intake.pending) for each in kept])
        self.rig.downstreams[0].send(OK, b"ok")
        self.rig.turns()
        self.assertEqual((OK + b"Connection: close\r\n\r\nok", 1), (client.received, len(self.rig.requests)))
        self.assertTrue(client.lost)

    def test_a_bad_request_is_answered_after_the_good_ones_before_it(self) -> None:
        client = self.rig.say(GET % 1 + b"nonsense\r\n\r\n")
        self.assertEqual(b"", client.received)
        self.rig.downstreams[0].send(OK, b"ok")
        self.rig.network.settle()
        self.assertTrue(client.received.startswith(ANSWER + b"HTTP/1.1 400 "))
        self.assertTrue(client.ended)

    def test_a_client_that_does_not_read_is_given_no_second_response(self) -> None:
        client = self.rig.connect()
        self.rig.link.b.stalled = True
        self.rig.say(GET % 1 + GET % 2, client)
        self.rig.downstreams[0].send(head(b"200 OK", b"Content-Length: 100000"), bytes(100_000))
        self.assertEqual(1, len(self.rig.requests))
        self.rig.link.b.stalled = False
        self.rig.network.settle()
        self.assertEqual(2, len(self.rig.requests))

    def test_the_client_may_end_its_side_before_it_has_all_responses(self) -> None:
        client = self.rig.connect()
        client.transport.write(GET % 1 + GET % 2)
        client.transport.write_eof()
        self.rig.network.settle()
        for downstream in (self.rig.downstreams[0],) * 2:
            downstream.send(OK, b"ok")
        self.rig.network.settle()
        self.assertEqual(ANSWER * 2, client.received)
        self.assertTrue(client.lost)


class StraightTests(SynchronousTestCase):
    """Which responses may be written past the transport as a whole: :meth:`Connection.straight_socket`."""

    SOCKET = 77

    def offered(self, request: bytes, octets: int = 1000, *, secure: bool = False, before: bytes = b"") -> int:
        rig = Rig(secure=secure)
        offered = []

        def route(request: object, downstream: Any) -> None:
            downstream._descriptor = self.SOCKET
            if before:
                rig.link.b.stalled = True
                downstream.put([before], 0)
            offered.append(downstream.straight_socket(octets))
            downstream.send(OK, b"ok")
            offered.append(downstream.straight_socket(octets))

        rig.route = route
        rig.say(request)
        self.assertEqual(-1, offered[1], "it has been answered")
        return offered[0]

    def test_a_plain_request_of_http_1_1(self) -> None:
        self.assertEqual(self.SOCKET, self.offered(GET % 1))
        self.assertEqual(self.SOCKET, self.offered(GET % 1, BURST))

    def test_what_has_to_be_framed_or_ends_the_connection_is_not(self) -> None:
        for request in (
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        ):
            self.assertEqual(-1, self.offered(request), request)

    def test_neither_more_than_a_turns_worth_nor_while_something_is_on_its_way(self) -> None:
        self.assertEqual(-1, self.offered(GET % 1, BURST + 1))
        self.assertEqual(-1, self.offered(GET % 1, before=b"HTTP/1.1 103 Early Hints\r\n\r\n"))


class NoContentTests(SynchronousTestCase):
    """RFC 9112 §6.3: whatever is sent."""

    def answer(self, method: bytes, status: bytes, how: str) -> tuple[bytes, Given]:
        source = Given(2, b"ok", complete=True)
        rig = Rig()

        def route(request: object, downstream: object) -> None:
            begin = head(status, b"Content-Length: 2")
            arguments = {"send": (b"ok",), "send_pieces": ([b"o", b"k"],), "send_from": (source, 0, 2)}[how]
            getattr(downstream, how)(begin, *arguments)

        rig.route = route
        client = rig.say(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertFalse(client.ended)
        return client.received, source

    def test_none_to_head_and_none_with_204_and_304(self) -> None:
        for how in ("send", "send_pieces", "send_from"):
            for method, status in ((b"HEAD", b"200 OK"), (b"HEAD", b"404 No"), (b"HEAD", b"304 Not Modified")):
                received, source = self.answer(method, status, how)
                self.assertEqual(head(status, b"Content-Length: 2") + b"\r\n", received)
                self.assertEqual([], source.readers)
            self.assertTrue(self.answer(b"GET", b"200 OK", how)[0].endswith(b"\r\n\r\nok"))

    def test_204_and_304_in_pieces(self) -> None:
        for how in ("send_pieces", "send_from"):
            for status in (b"204 No Content", b"304 Not Modified"):
                self.assertTrue(self.answer(b"GET", status, how)[0].endswith(b"\r\n\r\n"))


class FreedTests(SynchronousTestCase):
    """Without the collector, which comes too seldom for thousands of connections, and takes its time then."""

    def test_what_was_refused_or_broke_off_is_freed_when_its_connection_is_closed(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        content = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhe"
        chunks = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for octets in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200, chunks + b"none\r\n", content):
            rig = Rig()
            connection = Connection(rig.listener)
            transport = MemoryTransport(connection)
            connection.connection_made(transport)
            connection.data_received(octets)
            gone = weakref.ref(connection._intake)
            connection.connection_lost(None)
            transport.protocol = asyncio.Protocol()
            del connection
            rig.turns()
            self.assertIsNone(gone(), octets[:40])


class ContentTests(SynchronousTestCase):
    def test_content_with_a_length(self) -> None:
        rig = Rig()
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + GET % 2)
        self.assertEqual(b"hello", rig.contents[0].content)
        self.assertEqual(ANSWER * 2, client.received)

    def test_chunked_content_without_its_extensions_and_trailers(self) -> None:
        rig = Rig()
        client = rig.say(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'5;a;b=c;d="e f"\r\nhello\r\n0001\r\n!\r\n000;x=y\r\nX-Trailer: y\r\n\r\n' + GET % 2
        )
        self.assertEqual(b"hello!", rig.contents[0].content)
        self.assertEqual(ANSWER * 2, client.received)

    def test_long_chunked_content_is_passed_on_before_its_end(self) -> None:
        rig = Rig()
        start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = rig.say(start + b"%x\r\n" % HOLD_OCTETS + bytes(HOLD_OCTETS - 1))
        self.assertEqual([], rig.requests)
        rig.say(b"\0", client)
        self.assertEqual(HOLD_OCTETS, len(rig.contents[0].content))
        rig.say(b"\r\n0\r\n\r\n", client)
        self.assertEqual(ANSWER, client.received)

    def test_slow_chunked_content_is_passed_on_after_a_while(self) -> None:
        rig = Rig()
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        self.assertEqual([], rig.requests)
        rig.seconds(3)
        self.assertEqual(b"a", rig.contents[0].content)
        rig.say(b"0\r\n\r\n", client)
        self.assertEqual(ANSWER, client.received)

    def test_long_content_with_a_length_too(self) -> None:
        rig = Rig()
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(HOLD_OCTETS - 1))
        self.assertEqual([], rig.requests)
        rig.say(b"\0", client)
        self.assertEqual(HOLD_OCTETS, len(rig.contents[0].content))
        rig.say(bytes(100_000 - HOLD_OCTETS), client)
        self.assertEqual(ANSWER, client.received)

    def test_who_sends_octet_by_octet_waits_until_all_are_here(self) -> None:
        """What is behind the route would have to wait for each of them."""
        for begin, octet, end in (
            (b"Content-Length: 20\r\n\r\n", b"a", b""),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n"),
        ):
            rig = Rig()
            client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\n" + begin)
            for _ in range(19):
                rig.say(octet, client)
                rig.seconds(0.75)
            self.assertEqual([], rig.requests)
            rig.say(octet + end, client)
            self.assertEqual((b"a" * 20, ANSWER), (rig.contents[0].content, client.received))

    def test_what_goes_no_further_is_answered_without_its_content(self) -> None:
        rig = Rig()
        rig.listener.passes = lambda request: False
        rig.route = lambda request, downstream: downstream.send(OK, b"ok")
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhello")
        self.assertEqual(OK + b"Connection: close\r\n\r\nok", client.received)

    def test_a_fault_in_later_content_is_400_and_the_route_is_told(self) -> None:
        rig = Rig()
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        rig.seconds(3)
        rig.say(b"nonsense\r\n", client)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
        self.assertTrue(client.ended)
        self.assertIsNotNone(rig.contents[0].source.failed)
        self.assertTrue(rig.downstreams[0].gone)
        rig.downstreams[0].send(OK, b"ok")
        self.assertEqual(1, client.received.count(b"HTTP/1.1"))

    def test_who_answers_because_of_that_fault_is_too_late(self) -> None:
        answered = []

        def route(request: Request, downstream: Downstream) -> None:
            source = downstream.request_content()

            class Answering:
                def wake(self) -> None:
                    if source.failed is not None:
                        answered.append(source.failed)
                        downstream.send(OK, b"ok")

            source.attach(Answering())

        for fault in (b"nonsense\r\n", None):
            rig = Rig(route=route)
            client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            rig.seconds(3)
            if fault is None:
                client.transport.write_eof()
                rig.network.settle()
            else:
                rig.say(fault, client)
            self.assertEqual((b"HTTP/1.1 400 ", 1), (client.received[:13], client.received.count(b"HTTP/1.1 ")))
        self.assertEqual(2, len(answered))

    def test_what_broke_off_while_the_one_before_was_answered_gets_400(self) -> None:
        """Nobody would wait for the rest of it, and so nobody would end its connection."""
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
        chunks = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        halves = (post + b"\r\nhello", post + b"Expect: 100-continue\r\n\r\n", chunks + b"5\r\nhello\r\n", b"GET / HTT")
        for half in halves:
            rig = Rig()
            rig.route = rig.later
            client = rig.say(GET % 1 + half)
            client.transport.write_eof()
            rig.network.settle()
            rig.downstreams[0].send(OK, b"ok")
            rig.network.settle()
            self.assertEqual(ANSWER + b"HTTP/1.1 400 ", client.received[: len(ANSWER) + 13], half)
            self.assertTrue(client.ended)
            self.assertEqual(1, len(rig.requests))

    def test_unread_content_stops_the_reading(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.connect()
        rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", client)
        client.transport.write(bytes(1_000_000))
        rig.network.settle(1000)
        self.assertFalse(rig.link.b.is_reading())
        source = rig.downstreams[0].request_content()
        waiting = source.received
        self.assertLess(waiting, 70_000)
        self.assertEqual(waiting, len(source.read(0, 1 << 20)))
        self.assertEqual(b"", source.read(waiting, 1 << 20))
        rig.network.settle(1000)
        self.assertGreater(source.received, waiting)

    def test_the_connection_ends_after_an_answer_before_the_content(self) -> None:
        """What follows would be taken for the next request otherwise."""
        rig = Rig()
        rig.route = lambda request, downstream: downstream.send(OK, b"ok")
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        rig.seconds(3)
        self.assertEqual(LAST, client.received)
        self.assertEqual(1, len(rig.requests))

    def test_the_connection_stays_when_the_content_was_complete_though_nobody_read_it(self) -> None:
        rig = Rig()
        rig.route = lambda request, downstream: downstream.send(OK, b"ok")
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + GET % 2)
        self.assertEqual(ANSWER * 2, client.received)

    def test_content_that_breaks_off_is_known_to_its_reader(self) -> None:
        rig = Rig()
        client = rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell")
        rig.seconds(3)
        client.transport.close()
        rig.network.settle()
        self.assertIsNotNone(rig.contents[0].source.failed)
        self.assertEqual(b"", rig.contents[0].source.read(0, 10))

    def test_a_client_that_ends_its_side_too_early_gets_400(self) -> None:
        for octets in (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell", b"GET / HT"):
            rig = Rig()
            client = rig.connect()
            client.transport.write(octets)
            client.transport.write_eof()
            rig.network.settle()
            self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "), octets)
            self.assertTrue(client.lost)


class InterimTests(SynchronousTestCase):
    EXPECTING = b"POST / HTTP/1.%d\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"

    def test_100_once_the_content_is_wanted(self) -> None:
        rig = Rig()
        client = rig.say(self.EXPECTING % 1)
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.received)
        rig.say(b"hello", client)
        self.assertTrue(client.received.endswith(ANSWER))

    def test_no_100_when_the_content_is_here_already(self) -> None:
        self.assertEqual(ANSWER, Rig().say(self.EXPECTING % 1 + b"hello").received)

    def test_no_100_to_http_1_0(self) -> None:
        rig = Rig()
        client = rig.say(self.EXPECTING % 0)
        self.assertEqual(b"", client.received)
        self.assertEqual(LAST, rig.say(b"hello", client).received)

    def test_a_refusal_instead_of_100_ends_the_connection(self) -> None:
        rig = Rig()
        rig.route = lambda request, downstream: downstream.send(OK, b"ok")
        client = rig.say(self.EXPECTING % 1)
        self.assertEqual(LAST, client.received)
        self.assertTrue(client.ended)

    def test_an_upstreams_interim_response_is_passed_on(self) -> None:
        rig = Rig()

        def route(request: object, downstream: object) -> None:
            downstream.interim(103, head(b"103 Early Hints", b"Link: <x>"))
            downstream.send(OK, b"ok")
            downstream.interim(103, head(b"103 Too Late"))

        rig.route = route
        self.assertEqual(head(b"103 Early Hints", b"Link: <x>") + b"\r\n" + ANSWER, rig.say(GET % 1).received)
        self.assertEqual(LAST, rig.say(b"GET / HTTP/1.0\r\n\r\n").received)


class EndTests(SynchronousTestCase):
    def test_a_client_that_leaves_wakes_who_asked_to_know(self) -> None:
        rig, waking = Rig(), Waking()
        rig.route = lambda request, downstream: downstream.on_gone(waking)
        rig.say(GET % 1)
        rig.link.cut()
        self.assertEqual(1, waking.count)
        self.assertTrue(rig.downstreams[0].gone)

    def test_nobody_is_woken_once_the_response_was_sent(self) -> None:
        rig, waking = Rig(), Waking()

        def route(request: object, downstream: object) -> None:
            downstream.on_gone(waking)
            downstream.send(OK, b"ok")

        rig.route = route
        rig.say(GET % 1)
        rig.link.cut()
        self.assertEqual(0, waking.count)

    def test_an_answer_to_a_client_that_left_goes_nowhere(self) -> None:
        rig, source = Rig(), Given(2, b"ok", complete=True)
        rig.route = rig.later
        rig.say(GET % 1)
        rig.link.cut()
        downstream = rig.downstreams[0]
        downstream.interim(103, b"")
        downstream.send(OK, b"ok")
        downstream.send_pieces(OK, [b"ok"])
        downstream.send_from(OK, source, 0, 2)
        self.assertEqual([], source.readers)
        self.assertEqual(b"", bytes(rig.link.b.outbox))

    def test_a_second_answer_to_the_same_request_goes_nowhere(self) -> None:
        rig = Rig()

        def route(request: object, downstream: object) -> None:
            downstream.send(OK, b"ok")
            downstream.send(OK, b"no")

        rig.route = route
        self.assertEqual(ANSWER, rig.say(GET % 1).received)

    def test_what_still_comes_after_an_error_is_read_so_that_the_client_can_read_the_answer(self) -> None:
        """RFC 9112 §9.6: closing with unread octets would reset the connection."""
        rig = Rig()
        client = rig.connect()
        server = rig.link.b
        server.protocol.data_received(b"nonsense\r\n\r\n")
        server.protocol.data_received(bytes(100_000))
        self.assertEqual((True, False, True), (server._eof, server._closing, server.is_reading()))
        rig.network.settle()
        self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
        self.assertTrue(server._lost)

    def test_but_not_for_ever(self) -> None:
        rig = Rig()
        connection = rig.connect()
        server = rig.link.b
        server.protocol.data_received(b"nonsense\r\n\r\n")
        self.assertFalse(server._closing)
        server.protocol.data_received(bytes(LINGER_OCTETS + 1))
        self.assertTrue(server._closing)
        self.assertFalse(connection.lost)

    def test_requests_octets_and_connections_are_counted(self) -> None:
        rig = Rig()
        client = rig.say(GET % 1)
        self.assertEqual(
            (1, len(client.received), 1, 1),
            tuple(
                map(
                    rig.counters.get,
                    (Counter.REQUESTS, Counter.BYTES_SENT, Counter.CONNECTIONS, Counter.CONNECTIONS_OPEN),
                )
            ),
        )
        rig.link.cut()
        self.assertEqual(0, rig.counters.get(Counter.CONNECTIONS_OPEN))


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[tuple[object, ...]] = []
        self.rig = Rig(on_done=lambda *line: self.lines.append(line))

    def test_each_exchange_is_told_once(self) -> None:
        started = self.rig.network.clock.seconds()
        self.rig.say(GET % 1 + b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        first, second = self.rig.requests
        self.assertEqual(
            [(first, OK, 2, True, started, b"192.0.2.1"), (second, OK, 0, True, started, b"192.0.2.1")], self.lines
        )

    def test_what_was_no_request_is_told_too(self) -> None:
        self.rig.say(b"nonsense\r\n\r\n")
        ((request, begin, _, complete, _, _),) = self.lines
        self.assertEqual((None, True), (request, complete))
        self.assertTrue(begin.startswith(b"HTTP/1.1 400 "))

    def test_a_client_that_left_is_incomplete(self) -> None:
        self.rig.route = self.rig.later
        self.rig.say(GET % 1)
        self.rig.link.cut()
        self.assertEqual([(self.rig.requests[0], b"", 0, False)], [line[:4] for line in self.lines])

    def test_what_was_not_answered_has_not_the_head_of_what_was(self) -> None:
        client = self.rig.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.rig.route = self.rig.later
        self.rig.say(GET % 1, client)
        self.rig.link.cut()
        self.assertEqual([(OK, True), (b"", False)], [(line[1], line[3]) for line in self.lines])
