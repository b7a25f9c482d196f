"""``PURGE <url>`` on the public listener (DESIGN 12): what counts as one that a token might allow."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.purgerequests import PurgeRequest, purge_request
from edgecache.words.messages import Request

BEARER = (b"authorization", b"Bearer t1")
KEY = (b"fastly-key", b"t1")


def request(*fields: tuple[bytes, bytes], method: bytes = b"PURGE", **more: Any) -> Request:
    parts = {"target": b"/simple/a/?x", "authority": b"a.example:8080", "fields": list(fields), **more}
    return Request(method, **parts)


class PurgeRequestTests(SynchronousTestCase):
    def test_the_url_is_what_the_client_calls_the_resource(self) -> None:
        expected = PurgeRequest("http://a.example:8080/simple/a/?x", "t1")
        for line in (BEARER, KEY, (b"authorization", b"bEARER  t1 ")):
            self.assertEqual(expected, purge_request(request(line)))
        secure = PurgeRequest("https://a.example:8080/x", "t1")
        self.assertEqual(secure, purge_request(request(KEY, secure=True, target=b"/x")))

    def test_without_exactly_one_token_it_is_none(self) -> None:
        for lines in ((), (BEARER, KEY), (KEY, KEY), (BEARER, BEARER), ((b"authorization", b"Basic eDp5"), KEY)):
            self.assertIsNone(purge_request(request(*lines)), lines)

    def test_other_methods_content_and_what_is_no_text_are_none(self) -> None:
        self.assertIsNone(purge_request(request(KEY, method=b"GET")))
        self.assertIsNone(purge_request(request(KEY, has_content=True)))
        self.assertIsNone(purge_request(request(KEY, target=b"*")))
        self.assertIsNone(purge_request(request(KEY, target=b"/\xff")))
        self.assertIsNone(purge_request(request((b"fastly-key", b"\xff"))))

    def test_a_soft_purge_has_to_be_asked_for(self) -> None:
        for value, soft in ((b"1", True), (b"true", True), (b"0", False), (b"", False)):
            found = purge_request(request(KEY, (b"fastly-soft-purge", value)))
            assert found is not None
            self.assertEqual(soft, found.soft, value)

    def test_the_token_is_in_no_repr(self) -> None:
        self.assertNotIn("secret", repr(PurgeRequest("http://a/", "secret")))
