"""What is accepted, and what it means; and that another strict parser reads it the same way."""

from __future__ import annotations

import re

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.fieldlines import RequestRefused, Section
from edgecache.wire.memo import GENERATION_OCTETS, LEAST, LONGEST, Memo
from edgecache.wire.requests import Framed, Lines, fault, parse
from edgecache.words.config import LimitSettings
from edgecache.words.messages import field_values
from tests.wire.rig import Rig, judge

LIMITS = LimitSettings()


def read(head: bytes, *, trusted: bool = False, secure: bool = False) -> Framed:
    return parse(head, LIMITS, secure=secure, trusted=trusted)


class AcceptedTests(SynchronousTestCase):
    def request(self, first: bytes, *lines: bytes, **options: bool) -> Framed:
        return read(b"\r\n".join((first, *lines, b"", b"")), **options)

    def test_origin_form(self) -> None:
        request = self.request(b"GET /a/b%2Fc?d=e&f HTTP/1.1", b"Host: A.Example:8080").request
        self.assertEqual(
            (b"GET", b"/a/b%2Fc?d=e&f", b"a.example:8080"), (request.method, request.target, request.authority)
        )

    def test_hosts_as_people_have_them(self) -> None:
        for host in (b"localhost", b"127.0.0.1:80", b"[::1]:8080", b"[fe80::1]", b"my_service.local.", b"a-b", b"A"):
            self.assertEqual(host.lower(), self.request(b"GET / HTTP/1.1", b"Host: " + host).request.authority)

    def test_absolute_form_is_reduced_and_its_authority_replaces_host(self) -> None:
        """RFC 9112 §3.2.2"""
        request = self.request(b"GET HTTP://B:81/x?y HTTP/1.1", b"X: 1", b"Host: a").request
        self.assertEqual((b"/x?y", b"b:81"), (request.target, request.authority))
        self.assertEqual([b"b:81"], field_values(request.fields, b"host"))

    def test_absolute_form_without_path(self) -> None:
        for method, target, expected in (
            (b"GET", b"http://a", b"/"),
            (b"GET", b"https://a?b", b"/?b"),
            (b"OPTIONS", b"http://a", b"*"),
            (b"OPTIONS", b"*", b"*"),
        ):
            self.assertEqual(expected, self.request(method + b" " + target + b" HTTP/1.1", b"Host: a").request.target)

    def test_names_are_lower_case_and_values_without_outer_white_space(self) -> None:
        fields = self.request(b"GET / HTTP/1.1", b"HOST:a", b"X-Y: \t b  c\t ", b"X-Y:", b"Z: \xe9").request.fields
        self.assertEqual([(b"host", b"a"), (b"x-y", b"b  c"), (b"x-y", b""), (b"z", b"\xe9")], fields)

    def test_http_1_0_may_do_without_host_and_ends_after_one_request(self) -> None:
        framed = self.request(b"GET / HTTP/1.0")
        self.assertEqual((b"", 0, False), (framed.request.authority, framed.request.minor, framed.persistent))
        self.assertTrue(self.request(b"GET / HTTP/1.0", b"Connection: x, Keep-Alive").persistent)

    def test_a_later_minor_version_is_read_as_1_1(self) -> None:
        """RFC 9110 §2.5"""
        self.assertTrue(self.request(b"GET / HTTP/1.2", b"Host: a").persistent)

    def test_connection_close_in_any_line_and_case(self) -> None:
        self.assertFalse(
            self.request(b"GET / HTTP/1.1", b"Host: a", b"Connection: x", b"Connection: y ,CLOSE").persistent
        )

    def test_length(self) -> None:
        framed = self.request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 42")
        self.assertEqual((True, 42, 42), (framed.request.has_content, framed.request.content_length, framed.length))

    def test_length_zero_is_no_content_but_known(self) -> None:
        request = self.request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 0").request
        self.assertEqual((False, 0), (request.has_content, request.content_length))

    def test_chunked_in_any_case(self) -> None:
        framed = self.request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: \tChunked ")
        self.assertEqual(
            (True, True, None), (framed.chunked, framed.request.has_content, framed.request.content_length)
        )

    def test_an_expectation_without_content_is_none(self) -> None:
        self.assertFalse(self.request(b"GET / HTTP/1.1", b"Host: a", b"Expect: 100-continue").expects)

    def test_an_expectation_of_http_1_0_is_ignored(self) -> None:
        """RFC 9110 §10.1.1"""
        self.assertFalse(self.request(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1").expects)

    def test_an_unknown_method_is_somebody_elses_business(self) -> None:
        self.assertEqual(b"M-SEARCH", self.request(b"M-SEARCH / HTTP/1.1", b"Host: a").request.method)

    def test_fields_between_workers_come_from_workers_only(self) -> None:
        lines = (b"Host: a", b"Edgecache-Epoch: 7", b"edgecache-min-serial: 9")
        self.assertEqual(
            [b"host", b"edgecache-min-serial"],
            [name for name, _ in self.request(b"GET / HTTP/1.1", *lines).request.fields],
        )
        self.assertEqual(3, len(self.request(b"GET / HTTP/1.1", *lines, trusted=True).request.fields))

    def test_exactly_as_large_as_allowed(self) -> None:
        start = b"GET / HTTP/1.1\r\nHost: a\r\n"
        read(start + b"X: y\r\n" * 99 + b"\r\n")
        read(start + b"X: " + b"y" * (16384 - len(start) - 7) + b"\r\n\r\n")
        read(b"GET /" + b"a" * (8192 - 16) + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    def test_only_a_request_with_nothing_special_is_straight(self) -> None:
        self.assertTrue(self.request(b"GET / HTTP/1.1", b"Host: a").straight)
        for first, *lines in (
            (b"HEAD / HTTP/1.1", b"Host: a"),
            (b"GET / HTTP/1.0", b"Connection: keep-alive"),
            (b"GET / HTTP/1.1", b"Host: a", b"Connection: close"),
            (b"GET / HTTP/1.1", b"Host: a", b"Content-Length: 1"),
        ):
            self.assertFalse(self.request(first, *lines).straight)


HEADS = (
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"\r\nHEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
)
ODD = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b"\x0b", b":", b",", b";", b"\x7f", b"\x80", b"0", b"_", b"#"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good request with up to three octets put in, taken out, or swapped."""
    data = bytearray(draw(st.sampled_from(HEADS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.one_of(ODD, st.binary(min_size=0, max_size=2)))
    return bytes(data)


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data``, cut at up to six places."""
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=200)
    @given(st.data())
    def test_the_verdict_does_not_depend_on_packets(self, data: st.DataObject) -> None:
        octets = data.draw(mutated())
        pieces = data.draw(pieces_of(octets))
        whole, cut = Rig(), Rig()
        self.assertEqual(judge([octets], whole), judge(pieces, cut), (octets, pieces))
        seen = [[(r.method, r.target, r.fields) for r in rig.requests] for rig in (whole, cut)]
        self.assertEqual(*seen)
        self.assertEqual([c.content for c in whole.contents], [c.content for c in cut.contents])

    @settings(max_examples=200)
    @given(mutated())
    def test_what_is_accepted_reads_the_same_in_another_parser(self, octets: bytes) -> None:
        """Two parsers that differ are what smuggling needs; h11 is as strict as we mean to be."""
        rig = Rig()
        judge([octets], rig)
        if not rig.requests:
            return
        other = h11.Connection(h11.SERVER)
        other.receive_data(octets.removeprefix(b"\r\n"))
        event = other.next_event()
        ours = rig.requests[0]
        self.assertIsInstance(event, h11.Request, octets)
        self.assertEqual(ours.method, event.method)
        theirs = re.sub(rb"(?i)^https?://[^/?]*", b"", event.target)
        self.assertEqual(ours.target.lstrip(b"/*"), theirs.lstrip(b"/*"))
        self.assertEqual(
            [line for line in ours.fields if line[0] != b"host"],
            [(name.lower(), value) for name, value in event.headers if name.lower() != b"host"],
        )
        if rig.contents and rig.contents[0].finished and rig.contents[0].source.failed is None:
            content = b""
            while isinstance(event := other.next_event(), h11.Data):
                content += bytes(event.data)
            self.assertIsInstance(event, h11.EndOfMessage)
            self.assertEqual(rig.contents[0].content, content)

    @settings(max_examples=150)
    @given(mutated())
    def test_a_head_is_refused_whole_exactly_when_its_lines_are_faulty_or_its_meaning_is(self, octets: bytes) -> None:
        octets = octets.removeprefix(b"\r\n")
        end = octets.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        try:
            read(octets[:end])
        except RequestRefused:
            return
        self.assertIsNone(fault(octets[:end], LIMITS))


class LinesTests(SynchronousTestCase):
    """A head that comes line by line."""

    def test_what_was_looked_at_is_not_looked_at_again(self) -> None:
        lines, here = Lines(), b"GET / HTTP/1.1\r\nHost: a\r\n"
        self.assertIsNone(lines.fault(here, LIMITS))
        self.assertIsNone(lines.fault(b"?" * len(here) + b"X: y\r\nY:", LIMITS))
        refused = lines.fault(b"?" * len(here) + b"X: y\r\nY\r\n", LIMITS)
        self.assertEqual((400, "malformed field line"), (refused and refused.status, refused and refused.detail))

    def test_its_fields_are_counted_all_the_same(self) -> None:
        lines, here = Lines(), b"GET / HTTP/1.1\r\n"
        for _ in range(LIMITS.fields):
            here += b"X: y\r\n"
            self.assertIsNone(lines.fault(here, LIMITS))
        refused = lines.fault(here + b"X: y\r\n", LIMITS)
        self.assertEqual(431, refused and refused.status)


class MemoTests(SynchronousTestCase):
    LINES = b"Host: a\r\nX: y\r\n"

    def test_the_same_field_lines_are_read_once(self) -> None:
        sections: Memo[Section] = Memo()
        framed = [
            parse(first + b"\r\n" + self.LINES + b"\r\n", LIMITS, secure=False, trusted=False, sections=sections)
            for first in (b"GET /1 HTTP/1.1", b"HEAD /2 HTTP/1.1", b"GET http://b/ HTTP/1.1", b"GET / HTTP/1.0")
        ]
        fields = [each.request.fields for each in framed]
        self.assertEqual([True, False, False], [other is fields[0] for other in fields[1:]])
        self.assertEqual([b"a", b"a", b"b", b"a"], [each.request.authority for each in framed])
        self.assertEqual([True, True, True, False], [each.persistent for each in framed])

    def test_remembered_lines_do_not_excuse_a_bad_request_line(self) -> None:
        sections: Memo[Section] = Memo()
        for first, status in ((b"GET / HTTP/1.1", None), (b"GET  / HTTP/1.1", 400), (b"GET /" + b"a" * 9000, 414)):
            try:
                parse(first + b"\r\n" + self.LINES + b"\r\n", LIMITS, secure=False, trusted=False, sections=sections)
            except RequestRefused as refused:
                self.assertEqual(status, refused.status)
            else:
                self.assertIsNone(status)

    def test_http_1_0_is_not_remembered_for_http_1_1(self) -> None:
        sections: Memo[Section] = Memo()
        parse(b"GET / HTTP/1.0\r\nX: y\r\n\r\n", LIMITS, secure=False, trusted=False, sections=sections)
        with self.assertRaises(RequestRefused):
            parse(b"GET / HTTP/1.1\r\nX: y\r\n\r\n", LIMITS, secure=False, trusted=False, sections=sections)

    def test_short_heads_are_not_many_more_than_those_of_installers(self) -> None:
        memo: Memo[int] = Memo()
        for n in range(20_000):
            memo.put(b"%d" % n, n)
        self.assertLessEqual(len(memo._young) + len(memo._old), 2 * GENERATION_OCTETS // LEAST)
        self.assertEqual(19_999, memo.get(b"19999"))

    def test_what_is_asked_for_stays_and_the_rest_goes(self) -> None:
        memo: Memo[int] = Memo()
        memo.put(b"kept", 1)
        memo.put(b"x" * (LONGEST + 1), 2)
        for n in range(3 * GENERATION_OCTETS // 4000):
            memo.put(b"%04000d" % n, n)
            self.assertEqual(1, memo.get(b"kept"))
        self.assertIsNone(memo.get(b"x" * (LONGEST + 1)))
        self.assertIsNone(memo.get(b"%04000d" % 0))
        self.assertIsNotNone(memo.get(b"%04000d" % n))


class TransferEncodingMutationTests(SynchronousTestCase):
    """Every octet in every place around the name and the value of Transfer-Encoding."""

    def test_each_is_refused_or_means_what_it_says(self) -> None:
        shapes = (
            b"Transfer-Encoding:%cchunked",
            b"Transfer-Encoding: %c chunked",
            b"Transfer-Encoding: chunked%c",
            b"Transfer-Encoding%c: chunked",
            b"Transfer%cEncoding: chunked",
            b"%cTransfer-Encoding: chunked",
            b"X: y%cTransfer-Encoding: chunked",
            b"X: y\r%cTransfer-Encoding: chunked",
            b"X: y%c\nTransfer-Encoding: chunked",
            b"X: y\r\n%cTransfer-Encoding: chunked",
            b"Transfer-Encoding: chun%cked",
            b"Transfer-Encoding%cX: y",
        )
        for shape in shapes:
            for octet in range(256):
                line = shape % bytes([octet])
                rig = Rig()
                verdict = judge([b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n0\r\n\r\n"], rig)
                codings = field_values(rig.requests[0].fields, b"transfer-encoding") if rig.requests else []
                if not rig.requests:
                    self.assertEqual((b"400", True), (verdict.status, verdict.closed), line)
                elif codings:
                    self.assertEqual([b"chunked"], codings, line)
                    self.assertTrue(rig.requests[0].has_content, line)
                else:  # another name, or the middle of a value
                    self.assertNotIn(octet, b"\r\n\0", line)
                    self.assertFalse(rig.requests[0].has_content, line)
