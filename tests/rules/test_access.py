"""Who may read a site, how often an address may be wrong, and what an index takes as an upload (DESIGN 10, 12)."""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.access import presented
from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Freshen, Refuse, Store
from edgecache.rules.guesses import MOST_ADDRESSES, Guesses
from edgecache.rules.lookups import BUDGET, POSITIONS
from edgecache.rules.outbound import outbound
from edgecache.rules.presenting import complete
from edgecache.rules.siblinghood import look_up
from edgecache.rules.varying import variant_of
from edgecache.words.config import Access, ClientSettings, Profile, Secret
from edgecache.words.credentials import digested
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag
from tests.rules.build import asked, head, request, respond, sites


def secret(text: str) -> Secret:
    return Secret(digested(text.encode()))


CLIENTS = (
    ClientSettings("ci", token=secret("ci-token")),
    ClientSettings("alice", user="alice", password=secret("s:cret")),
)
GUARDED = sites(profile=Profile.INDEX, access=Access.TOKEN, clients=CLIENTS)
PLAIN = sites(access=Access.TOKEN, clients=CLIENTS)


def basic(pair: str) -> str:
    return "Authorization: Basic " + base64.b64encode(pair.encode()).decode()


def answer(*lines: str, of: Any = GUARDED, **more: Any) -> Asked | Refuse:
    return ask(request(*lines, **{"target": "/simple/x/", **more}), of)


def refused(*lines: str, **more: Any) -> int:
    found = answer(*lines, **more)
    return found.status if isinstance(found, Refuse) else 0


class ClientTests(SynchronousTestCase):
    def test_tokens_and_passwords_as_installers_send_them(self) -> None:
        for line, client in (
            ("Authorization: Bearer ci-token", "ci"),
            ("authorization: bearer  ci-token ", "ci"),
            (basic("anybody:ci-token"), "ci"),
            (basic("__token__:ci-token"), "ci"),
            (basic("ci-token:"), "ci"),
            (basic("ci-token"), "ci"),
            (basic("alice:s:cret"), "alice"),
        ):
            found = answer(line)
            assert isinstance(found, Asked), line
            self.assertEqual(client, found.client, line)

    def test_everybody_else_is_asked_for_credentials(self) -> None:
        ci = "Authorization: Bearer ci-token"
        for lines in (
            (),
            ("Authorization: Bearer nothing",),
            ("Authorization: Bearer",),
            ("Authorization: ci-token",),
            ("Authorization: Digest ci-token",),
            ("Authorization: Basic ci-token",),
            (ci, ci),
            (basic("alice:"),),
            (basic(":"),),
            (basic("alice:ci"),),
            (basic("bob:s:cret"),),
            (basic(digested(b"ci-token").replace("sha256:", "x:")),),
            ("Authorization: Bearer " + digested(b"ci-token"),),
            ("Authorization: Bearer s:cret",),
        ):
            found = answer(*lines)
            assert isinstance(found, Refuse), lines
            self.assertEqual((401, False), (found.status, found.close), lines)
            self.assertEqual(((b"www-authenticate", b'Basic realm="main", charset="UTF-8"'),), found.fields)

    def test_a_purge_and_what_no_index_takes_are_not_asked_for_a_client_s_credentials(self) -> None:
        for method in ("PURGE", "POST", "DELETE"):
            self.assertEqual(405, refused(method=method), method)
        self.assertEqual(401, refused(method="HEAD"))
        self.assertEqual(401, refused(method="POST", of=PLAIN))

    def test_credentials_go_nowhere(self) -> None:
        line = "Authorization: Bearer ci-token"
        for of in (GUARDED, PLAIN):
            found = asked(line, of=of, target="/simple/x/")
            self.assertFalse(found.authorized)
            out = outbound(found, Forward(ForwardReason.URI_MISS))
            alone = outbound(found, Forward(ForwardReason.URI_MISS, alone=True))
            home = look_up(found, Forward(ForwardReason.URI_MISS), b"")
            for fields in (out.fields, alone.fields, home.fields, found.request.fields):
                self.assertNotIn("authorization", {name.decode() for name, _ in fields})
        one, other = (asked(text, of=PLAIN) for text in (line, basic("alice:s:cret")))
        self.assertEqual(variant_of(one, (b"authorization",)), variant_of(other, (b"authorization",)))

    def test_the_key_is_the_same_for_all_clients(self) -> None:
        one, other = (asked(text, of=GUARDED) for text in ("Authorization: Bearer ci-token", basic("alice:s:cret")))
        self.assertEqual(one.key, other.key)

    def test_siblings_and_workers_have_let_it_in_already(self) -> None:
        positions = f"{POSITIONS.decode()}: n:{'00' * 16}:1"
        found = answer(positions, f"{BUDGET.decode()}: 100")
        assert isinstance(found, Asked)
        self.assertEqual(("", False), (found.client, found.gated))
        self.assertIsInstance(ask(request(), GUARDED, admitted=True), Asked)

    def test_what_an_origin_keeps_for_one_user_is_the_site_s_whose_credentials_it_is_asked_with(self) -> None:
        """RFC 9111 §5.2.2.7; GitLab says it of every page."""
        says = head("Cache-Control: max-age=0, private, must-revalidate", 'ETag: "a"')
        for more, stored in (
            ({"origin_authorization": Secret("Bearer x")}, True),
            ({"origins": ("http://u:p@o.test",)}, True),
            ({"origins": ("http://o.test/team/of/feed@view",)}, False),
            ({}, False),
            ({"origin_authorization": Secret("Bearer x"), "profile": Profile.PLAIN}, False),
        ):
            by = asked(of=sites(**{"profile": Profile.INDEX, **more}), target="/simple/x/")
            found = respond(by, says)
            self.assertEqual(stored, isinstance(found, Store), more)
            if isinstance(found, Store):
                kept = complete(found.stored, 10, b"c" * 16)
                fresh = respond(
                    by, head("Cache-Control: private", status=304), forward=Forward(ForwardReason.STALE, kept)
                )
                assert isinstance(fresh, Freshen)
                self.assertFalse(fresh.stored.flags & Flag.ALWAYS_VALIDATE)

    def test_an_open_site_asks_nobody_and_is_looked_at_no_further(self) -> None:
        found = asked("Authorization: Bearer x", of=sites(profile=Profile.INDEX))
        self.assertEqual(("", False), (found.client, found.gated))

    def test_what_is_presented(self) -> None:
        for value, expected in (
            (b"Basic " + base64.b64encode(b"u:p"), (b"u", b"p")),
            (b"Basic " + base64.b64encode(b"u:p:q"), (b"u", b"p:q")),
            (b"Basic " + base64.b64encode(b"u:"), (None, b"u")),
            (b"BEARER t", (None, b"t")),
            (b"Basic !!!!", (None, None)),
            (b"", (None, None)),
        ):
            self.assertEqual(expected, presented([(b"authorization", value)]), value)


class UncachedTests(SynchronousTestCase):
    def test_the_token_is_for_get_and_head_and_for_us_alone(self) -> None:
        found = asked("Edgecache-Bypass: t", of=sites())
        self.assertEqual((b"t", True), (found.uncached, found.gated))
        self.assertNotIn(b"edgecache-bypass", dict(found.upstream_fields) | dict(found.own_fields))
        self.assertIsNone(asked("Edgecache-Bypass: t", of=sites(), method="POST").uncached)

    def test_two_tokens_are_none_that_anybody_knows(self) -> None:
        self.assertEqual(b"t, t", asked("Edgecache-Bypass: t", "Edgecache-Bypass: t", of=sites()).uncached)


class GuessTests(SynchronousTestCase):
    HERE, THERE = b"192.0.2.1", b"2001:db8::1"

    def spent(self) -> Guesses:
        guesses = Guesses(3)
        self.assertEqual([0.0] * 3, [guesses.failed(self.HERE, 100.0) for _ in range(3)])
        return guesses

    def test_so_many_in_a_minute_and_then_one_after_the_other(self) -> None:
        guesses = self.spent()
        self.assertEqual(20.0, guesses.failed(self.HERE, 100.0))
        self.assertEqual(10.0, guesses.failed(self.HERE, 110.0))
        self.assertEqual(0.0, guesses.failed(self.HERE, 120.5))
        self.assertGreater(guesses.failed(self.HERE, 121.0), 0.0)

    def test_right_ones_wait_as_well_so_that_a_guess_tells_nothing(self) -> None:
        guesses = self.spent()
        self.assertEqual(20.0, guesses.waits(self.HERE, "ci", 100.0))
        self.assertEqual(0.0, guesses.waits(self.THERE, "ci", 100.0))
        self.assertEqual(0.0, guesses.waits(self.HERE, "ci", 121.0))

    def test_who_was_let_in_from_there_before_stays_let_in(self) -> None:
        guesses = Guesses(3)
        guesses.failed(self.HERE, 100.0)
        self.assertEqual(0.0, guesses.waits(self.HERE, "ci", 100.0))
        for _ in range(9):
            guesses.failed(self.HERE, 100.0)
        self.assertEqual(0.0, guesses.waits(self.HERE, "ci", 100.0))
        self.assertGreater(guesses.waits(self.HERE, "alice", 100.0), 0.0)

    def test_a_network_of_ipv6_is_one_client(self) -> None:
        guesses = Guesses(1)
        guesses.failed(b"2001:db8::1", 0.0)
        self.assertGreater(guesses.failed(b"2001:db8::ffff:2", 0.0), 0.0)
        self.assertEqual(0.0, guesses.failed(b"2001:db8:0:1::1", 0.0))

    def test_it_is_forgotten_when_it_is_over_and_bounded(self) -> None:
        guesses = self.spent()
        guesses.failed(self.THERE, 100.0)
        self.assertEqual([0.0, 0.0], [guesses.waits(peer, "x", 200.0) for peer in (self.HERE, self.THERE)])
        for number in range(MOST_ADDRESSES + 10):
            guesses.failed(b"10.%d.%d.1" % divmod(number, 256), 200.0)
        self.assertEqual(MOST_ADDRESSES, len(guesses._of))


class UploadTests(SynchronousTestCase):
    OF = sites(profile=Profile.INDEX, upload="/legacy/", upload_octets=100)
    FORM = "Content-Type: multipart/form-data; boundary=x"

    def post(self, *lines: str, of: Any = OF, length: int | None = 10, **more: Any) -> Asked | Refuse:
        options = {"target": "/legacy/", "method": "POST", **more}
        return ask(request(self.FORM, *lines, has_content=True, content_length=length, **options), of)

    def status(self, *lines: str, **more: Any) -> int:
        found = self.post(*lines, **more)
        return found.status if isinstance(found, Refuse) else 0

    def test_it_is_off_unless_configured(self) -> None:
        self.assertEqual(405, self.status(of=sites(profile=Profile.INDEX)))

    def test_it_goes_to_the_origin_with_the_client_s_credentials_and_little_else(self) -> None:
        lines = ("Authorization: Basic eA==", "User-Agent: twine", "Cookie: a", "X-Forwarded-For: 10.0.0.1")
        found = self.post(*lines)
        assert isinstance(found, Asked)
        self.assertEqual((True, False, False), (found.upload, found.joinable, found.fills))
        sent = dict(outbound(found, Forward(ForwardReason.METHOD, alone=True)).fields)
        self.assertEqual(
            {"authorization", "user-agent", "content-type", "via", "cdn-loop"}, {name.decode() for name in sent}
        )
        self.assertEqual(b"Basic eA==", sent[b"authorization"])

    def test_only_post_there_and_nothing_elsewhere(self) -> None:
        self.assertEqual(405, self.status(target="/simple/"))
        for method, allow in (("PUT", b"GET, HEAD, POST"), ("DELETE", b"GET, HEAD, POST")):
            found = self.post(method=method)
            assert isinstance(found, Refuse)
            self.assertEqual((405, ((b"allow", allow),), True), (found.status, found.fields, found.close))
        get = asked(of=self.OF, target="/legacy/")
        self.assertFalse(get.upload)

    def test_it_is_bounded_and_framed_by_its_length(self) -> None:
        for length, status in ((None, 411), (101, 413), (100, 0)):
            self.assertEqual(status, self.status(length=length), length)
        self.assertEqual(415, refused("Content-Type: text/plain", of=self.OF, **self.posting()))

    def posting(self) -> dict[str, Any]:
        return {"target": "/legacy/", "method": "POST", "has_content": True, "content_length": 1}

    def test_the_site_s_own_credentials_are_not_lent_to_it(self) -> None:
        for of in (
            sites(profile=Profile.INDEX, upload="/legacy/", origins=("http://u:p@o.test",)),
            sites(profile=Profile.INDEX, upload="/legacy/", origin_authorization=Secret("Bearer x")),
        ):
            self.assertEqual(401, self.status(of=of))
            self.assertEqual(0, self.status("Authorization: Basic eA==", of=of))

    def test_its_credentials_are_the_origin_s_and_no_client_s(self) -> None:
        of = sites(profile=Profile.INDEX, upload="/legacy/", access=Access.TOKEN, clients=CLIENTS)
        found = self.post("Authorization: Basic eA==", of=of)
        assert isinstance(found, Asked)
        self.assertIn((b"authorization", b"Basic eA=="), found.own_fields)
