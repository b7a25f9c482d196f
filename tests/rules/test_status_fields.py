"""Cache-Status (RFC 9211), Proxy-Status (RFC 9209), errors of ours."""

from __future__ import annotations

from typing import Any

import http_sf
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules import status_fields
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Refuse, Reuse
from edgecache.words.reasons import ForwardReason
from tests.rules.build import NOW, PLAIN, field_lines, status_of

SITE = PLAIN.all[0]


class CacheStatusTests(SynchronousTestCase):
    """RFC 9211 §2"""

    def test_a_hit(self) -> None:
        self.assertEqual(b"edge-1; hit; ttl=57", status_fields.hit(SITE, Reuse(3, 57)))
        self.assertEqual(b'edge-1; hit; ttl=-4; detail="x"', status_fields.hit(SITE, Reuse(3, -4, True), "x"))

    def test_forwarded(self) -> None:
        self.assertEqual(b"edge-1; fwd=uri-miss", status_fields.forwarded(SITE, ForwardReason.URI_MISS))
        found = status_fields.forwarded(
            SITE, ForwardReason.STALE, status=304, stored=True, collapsed=True, ttl=9, detail="d"
        )
        self.assertEqual(b'edge-1; fwd=stale; fwd-status=304; stored; collapsed; ttl=9; detail="d"', found)

    def test_ours_comes_last(self) -> None:
        found = field_lines(
            status_fields.with_cache_status(b"HTTP/1.1 200 OK\r\ncache-status: other; hit\r\n", b"edge-1; fwd=uri-miss")
        )
        self.assertEqual("other; hit, edge-1; fwd=uri-miss", found["cache-status"])

    @given(st.text(max_size=30))
    @settings(max_examples=100)
    def test_any_detail_makes_a_valid_field(self, detail: str) -> None:
        parsed: Any = http_sf.parse(status_fields.hit(SITE, Reuse(0, 1), detail), tltype="list")
        self.assertEqual(1, parsed[0][1]["ttl"])


class ProxyStatusTests(SynchronousTestCase):
    """RFC 9209 §2"""

    def test_what_went_wrong_upstream(self) -> None:
        for options, expected in (
            ({"error": "connection_timeout"}, b"proxy-status: edge-1; error=connection_timeout\r\n"),
            ({"received": 503}, b"proxy-status: edge-1; received-status=503\r\n"),
            ({"detail": 'a "b"'}, b'proxy-status: edge-1; details="a \\"b\\""\r\n'),
        ):
            self.assertEqual(expected, status_fields.proxy_status(SITE, **options))

    @given(st.text(max_size=30), st.sampled_from(("", "dns_error")), st.none() | st.integers(100, 999))
    @settings(max_examples=100)
    def test_anything_makes_a_valid_field(self, detail: str, error: str, received: int | None) -> None:
        line = status_fields.proxy_status(SITE, error=error, received=received, detail=detail)
        name, _, value = line.partition(b": ")
        parsed: Any = http_sf.parse(value.rstrip(b"\r\n"), tltype="list")
        self.assertEqual((b"proxy-status", 1), (name, len(parsed)))
        self.assertEqual(received, parsed[0][1].get("received-status"))


class RefusalTests(SynchronousTestCase):
    def test_it_says_what_is_wrong_and_is_stored_by_nobody(self) -> None:
        refuse = Refuse(503, 'no "upstream"', "connection_timeout", ((b"retry-after", b"5"),))
        octets, content = status_fields.refusal(SITE, b"n", refuse, NOW, b"edge-1; fwd=uri-miss")
        shown = field_lines(octets)
        self.assertEqual((503, b'no "upstream"\n'), (status_of(octets), content))
        self.assertEqual(
            (
                "no-store",
                "5",
                "edge-1; fwd=uri-miss",
                str(len(content)),
                'edge-1; error=connection_timeout; details="no \\"upstream\\""',
            ),
            tuple(
                shown[name]
                for name in ("cache-control", "retry-after", "cache-status", "content-length", "proxy-status")
            ),
        )

    def test_without_site_and_cause_it_still_names_the_node(self) -> None:
        shown = field_lines(status_fields.refusal(None, b"node x", Refuse(421), NOW)[0])
        self.assertEqual(("1.1 node-x", "node-x"), (shown["via"], shown["cache-status"]))

    def test_each_says_whose_it_is_and_when_it_was_made(self) -> None:
        """RFC 9209 §2.3, RFC 9110 §6.6.1: a client can tell it from the origin's."""
        for status, expected in (
            (301, None),
            (405, 'edge-1; error=http_request_error; details="so"'),
            (500, 'edge-1; error=proxy_internal_error; details="so"'),
            (504, 'edge-1; details="so"'),
        ):
            shown = field_lines(status_fields.refusal(SITE, b"n", Refuse(status, "so"), NOW)[0])
            self.assertEqual(expected, shown.get("proxy-status"))
            self.assertEqual(("edge-1", format_date(NOW).decode()), (shown["cache-status"], shown["date"]))

    def test_each_status_has_a_phrase(self) -> None:
        for status in (400, 405, 421, 431, 502, 503, 504, 508, 599):
            line = status_fields.refusal(SITE, b"n", Refuse(status), NOW)[0].split(b"\r\n")[0].split(b" ", 2)
            self.assertEqual(str(status).encode(), line[1])
            self.assertTrue(line[2])
