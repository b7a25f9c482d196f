"""What is stored and said of the files that an index names (DESIGN 10)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.artifacts import digest_in_path, elsewhere, is_named, missing, named_head, part, plan
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import WHOLE, Ahead, Forward, Pass, Reuse, Store
from edgecache.rules.digests import Digest
from edgecache.rules.policy import on_request, on_response
from edgecache.rules.presenting import DOUBT_SECONDS, present
from edgecache.rules.reusing import on_failure
from edgecache.rules.selectors import Selector, tag_selector
from edgecache.words.config import Profile
from edgecache.words.errors import WrongDigest
from edgecache.words.messages import Head
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Flag, Stored
from tests.rules.build import INDEX, NOW, asked, head, sites

CONTENT = b"what was uploaded"
SHA256 = hashlib.sha256(CONTENT).digest()
DIGEST = Digest("sha-256", SHA256)
PATH = f"/files/six/{SHA256.hex()}/six-1.0.whl"


def file(*lines: str, target: str = PATH, **more: Any) -> Asked:
    return asked(*lines, of=INDEX, target=target, **more)


def planned(asked: Asked, answer: Head, size: int | None = len(CONTENT)) -> Stored:
    found = plan(asked, answer, DIGEST, size, floor=7, responded_at=NOW, told=None)
    assert isinstance(found, Store)
    assert found.stored is found.own
    return found.stored


def lines(serialised: bytes) -> dict[str, str]:
    found = {}
    for line in serialised.decode().split("\r\n")[1:-1]:
        name, _, value = line.partition(": ")
        assert name not in found, name
        found[name] = value
    return found


class KeyTests(SynchronousTestCase):
    def test_a_file_is_one_however_its_path_is_spelt(self) -> None:
        """Nobody shall fill the store with copies of it."""
        for target in (f"{PATH}?x=1", PATH.replace("six-1.0", "%73ix%2D1.0"), f"{PATH}?"):
            self.assertEqual(file().key_hash, file(target=target).key_hash, target)
            self.assertEqual(file().selectors, file(target=target).selectors, target)
        self.assertNotEqual(file().key_hash, file(target=PATH.replace("1.0", "1.1")).key_hash)

    def test_it_has_one_representation(self) -> None:
        coded = file("Accept-Encoding: gzip, zstd", "Accept: text/html")
        self.assertEqual(file().key_hash, coded.key_hash)
        self.assertIn((b"accept-encoding", b"identity"), coded.upstream_fields)

    def test_whatever_its_name_ends_in(self) -> None:
        self.assertTrue(file(target="/files/six/-/six.whatever").file)

    def test_its_path_has_its_digest_but_not_that_of_its_metadata(self) -> None:
        for target, expected in ((PATH, DIGEST), (f"{PATH}.metadata", None), ("/files/six/-/six-1.0.whl", None)):
            artifact = file(target=target).artifact
            assert artifact is not None
            self.assertEqual(expected, digest_in_path(artifact), target)


class StoringTests(SynchronousTestCase):
    def test_it_is_kept_until_evicted_whatever_its_host_says(self) -> None:
        for said in ("no-store", "private, max-age=0", "max-age=1, must-revalidate"):
            stored = planned(file(), head(f"Cache-Control: {said}", "Expires: 0"))
            self.assertGreater(stored.fresh_until, NOW + 300 * 86_400)
            self.assertFalse(stored.flags & (Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE))
            self.assertEqual((SHA256, 7, len(CONTENT)), (stored.digest, stored.floor, stored.size))

    def test_what_clients_are_told_is_ours(self) -> None:
        said = head(
            'ETag: "theirs"',
            "Cache-Control: no-store",
            "Set-Cookie: a=b",
            "Strict-Transport-Security: max-age=9",
            "Content-Encoding: x-gzip",
            "Repr-Digest: sha-256=:AAAA:",
            "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT",
            "Content-Type: application/zip",
            "Via: 1.1 theirs",
        )
        stored = planned(file(), said)
        told = lines(stored.head)
        self.assertEqual(
            {
                "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT",
                "content-type": "application/zip",
                "etag": f'"{SHA256.hex()}"',
                "repr-digest": f"sha-256=:{base64.b64encode(SHA256).decode()}:",
                "cache-control": "max-age=365000000, immutable",
                "x-content-type-options": "nosniff",
                "date": told["date"],
                "via": "1.1 theirs, 1.1 edge-1",
                "accept-ranges": "bytes",
                "content-length": str(len(CONTENT)),
            },
            told,
        )
        self.assertEqual(told["etag"].encode(), stored.etag)
        self.assertTrue(stored.head.endswith(b"content-length: %d\r\n" % len(CONTENT)))

    def test_for_how_long_clients_may_keep_it_is_a_setting(self) -> None:
        site = sites(profile=Profile.INDEX, client_file_max_age_seconds=60)
        stored = planned(asked(of=site, target=PATH), head())
        self.assertEqual("max-age=60, immutable", lines(stored.head)["cache-control"])

    def test_ranges_are_offered_only_where_the_length_is_known(self) -> None:
        self.assertNotIn("accept-ranges", lines(planned(file(), head(), None).head))

    def test_a_browser_runs_nothing_of_it(self) -> None:
        for said in ("text/html", "application/xhtml+xml", "image/svg+xml", "application/javascript", "nonsense"):
            stored = planned(file(), head(f"Content-Type: {said}"))
            self.assertEqual("application/octet-stream", lines(stored.head)["content-type"], said)
        metadata = file(target=f"{PATH}.metadata")
        self.assertEqual("text/plain; charset=utf-8", lines(planned(metadata, head()).head)["content-type"])

    def test_its_project_names_it(self) -> None:
        site = INDEX.all[0].id
        self.assertIn(tag_selector(site, b"project/six"), planned(file(), head()).selectors)
        self.assertIn(Selector("url", site, PATH.encode()).hash, planned(file(), head()).selectors)

    def test_404_is_believed_for_some_seconds_and_purged_with_its_project(self) -> None:
        answer = missing(file(), "the page does not name it")
        plan = on_response(
            file(),
            Forward(ForwardReason.URI_MISS),
            answer,
            length=0,
            delimited_by_close=False,
            requested_at=NOW,
            responded_at=NOW,
            floor=7,
        )
        assert isinstance(plan, Store)
        self.assertEqual((404, NOW + 10), (plan.stored.status, plan.stored.fresh_until))
        self.assertIn(tag_selector(INDEX.all[0].id, b"project/six"), plan.stored.selectors)
        told = lines(plan.stored.head)
        self.assertEqual("max-age=0", told["cache-control"])
        self.assertIn("error=destination_not_found", told["proxy-status"])


class ReusingTests(SynchronousTestCase):
    def decided(self, *lines: str, stored: Stored | None = None, purged: PurgeMode | None = None) -> Any:
        request = file(*lines)
        return on_request(request, stored or planned(file(), head()), purged, True, NOW + 1000)

    def test_a_fenced_node_serves_it(self) -> None:
        """DESIGN 9: digest-named files are not fenced."""
        self.assertIsInstance(self.decided(), Reuse)

    def test_what_is_not_named_by_digest_is_fenced(self) -> None:
        stored = planned(file(), head())
        stored.digest = b""
        self.assertFalse(is_named(file(), stored))
        self.assertIsInstance(self.decided(stored=stored), Forward)

    def test_no_cache_changes_nothing(self) -> None:
        """FIELD 3: pip's lazy wheels ask so for each of their ranges."""
        self.assertIsInstance(self.decided("Cache-Control: no-cache", "Range: bytes=0-9"), Reuse)

    def test_a_purge_makes_it_ask(self) -> None:
        decided = self.decided(purged=PurgeMode.REVALIDATE)
        self.assertIsInstance(decided, Forward)
        self.assertIsNotNone(decided.stored)

    def test_without_an_answer_it_is_served_stale(self) -> None:
        decided = self.decided(purged=PurgeMode.REVALIDATE)
        self.assertIsInstance(on_failure(file(), decided, NOW + 1000, None), Reuse)


class DoubtTests(SynchronousTestCase):
    """A client may have the begin of wrong content, under the right entity tag."""

    def test_if_range_is_answered_with_all_of_it_for_a_while(self) -> None:
        stored = planned(file(), head())
        resumed = file("Range: bytes=5-", f'If-Range: "{SHA256.hex()}"')
        self.assertIsNot(WHOLE, present(resumed, stored))
        stored.flags |= Flag.DOUBTED
        self.assertIs(WHOLE, present(resumed, stored, int(DOUBT_SECONDS) - 1))
        self.assertIsNot(WHOLE, present(resumed, stored, int(DOUBT_SECONDS)))
        self.assertIsNot(WHOLE, present(file("Range: bytes=5-"), stored))


class PartTests(SynchronousTestCase):
    """A range far ahead is fetched on its own, and nothing vouches for it."""

    def part(self, *lines: str, status: int = 206, digest: Digest | None = DIGEST, etag: bytes = b"") -> Pass | None:
        return part(file(), head(*lines, status=status), Ahead(10, 20, 100, etag), digest, NOW)

    def test_it_says_that_it_is_unverified_and_is_not_to_be_stored(self) -> None:
        found = self.part("Content-Range: bytes 10-19/100", 'ETag: "theirs"', "Set-Cookie: a=b")
        assert found is not None
        self.assertEqual("unverified", found.detail)
        told = lines(found.head)
        self.assertEqual("bytes 10-19/100", told["content-range"])
        self.assertEqual("no-store", told["cache-control"])
        self.assertEqual(f'"{SHA256.hex()}"', told["etag"])
        self.assertEqual("10", told["content-length"])
        self.assertNotIn("set-cookie", told)
        self.assertNotIn("repr-digest", told)

    def test_another_range_or_file_is_none(self) -> None:
        for said in ("bytes 0-19/100", "bytes 10-20/100", "bytes 10-19/101", "bytes 10-19/*", "nonsense"):
            self.assertIsNone(self.part(f"Content-Range: {said}"), said)
        self.assertIsNone(self.part(status=200))
        self.assertIsNone(self.part("Content-Range: bytes 10-19/100", status=200))

    def test_of_what_no_digest_names_the_entity_tag_decides(self) -> None:
        said = "Content-Range: bytes 10-19/100"
        self.assertIsNotNone(self.part(said, 'ETag: "a"', digest=None, etag=b'"a"'))
        self.assertIsNone(self.part(said, 'ETag: "b"', digest=None, etag=b'"a"'))
        self.assertIsNone(self.part(said, digest=None, etag=b'"a"'))


class ElsewhereTests(SynchronousTestCase):
    """What a file's host answers when it is not the file."""

    URL = "https://files.example/a/six-1.0.whl"

    def test_a_redirect_is_the_client_s_to_follow(self) -> None:
        """DESIGN 12: redirects choose no upstream."""
        for location, expected in (
            ("https://other.example/x", b"https://other.example/x"),
            ("../b/six.whl", b"https://files.example/b/six.whl"),
        ):
            told = elsewhere(file(), head(f"Location: {location}", "Set-Cookie: a=b", status=302), self.URL)
            assert told is not None
            self.assertEqual(
                (302, [(b"location", expected), (b"cache-control", b"no-store")]), (told.status, told.fields)
            )

    def test_that_it_may_not_be_had_is_passed_on(self) -> None:
        told = elsewhere(file(), head("WWW-Authenticate: Basic", status=403, reason="Forbidden"), self.URL)
        assert told is not None
        self.assertEqual(403, told.status)
        self.assertIsNone(told.get(b"www-authenticate"))

    def test_everything_else_is_a_failure(self) -> None:
        for status in (500, 503, 429, 206, 418, 304, 204):
            self.assertIsNone(elsewhere(file(), head(status=status), self.URL), status)
        self.assertIsNone(elsewhere(file(), head(status=302), self.URL))
        self.assertIsNone(elsewhere(file(), head("Location: http://[half/", status=302), self.URL))


class HeadTests(SynchronousTestCase):
    def test_head_tells_the_length_that_the_page_says(self) -> None:
        """FIELD 3: lazy wheels begin with it."""
        told = lines(named_head(file(method="HEAD"), Head(200, b"OK"), DIGEST, 17, NOW))
        self.assertEqual(("17", "bytes"), (told["content-length"], told["accept-ranges"]))


class WrongTests(SynchronousTestCase):
    def test_wrong_content_is_our_upstream_s_failure(self) -> None:
        refused = on_failure(file(), Forward(ForwardReason.URI_MISS), NOW, WrongDigest("origin", 0.1))
        self.assertEqual(503, refused.status)  # type: ignore[union-attr]
