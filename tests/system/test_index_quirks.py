"""What each client of an index needs (FIELD 3), asked for with what it really sends (:mod:`tests.system.recorded`)."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import orjson
import zstandard
from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.clients import Answer
from tests.system.harness import Node
from tests.system.index_nodes import index_node, site
from tests.system.packages import Package, wheel
from tests.system.recorded import (
    BANDERSNATCH_GET,
    BANDERSNATCH_LIST,
    PIP_22_FILE,
    PIP_22_HEAD,
    PIP_22_PAGE,
    PIP_25_PAGE,
    PIP_26_FILE,
    PIP_26_HEAD,
    PIP_26_PAGE,
    PIP_26_RANGE,
    POETRY_FILE,
    POETRY_METADATA,
    POETRY_PAGE,
    POETRY_TAIL,
    TWINE_UPLOAD,
    UV_FILE,
    UV_HEAD,
    UV_METADATA,
    UV_PAGE,
    Recorded,
    send,
    uv_range,
    uv_refresh,
)
from tests.system.serial_index import JSON, SerialIndex

DAY = "/day"
"""The site whose pages are covered by purges."""
FOLLOWED = "/followed"
"""The site whose pages are covered as long as the origin's list is looked at."""
STRICT = "/strict"
"""The site whose pages are validated for whoever asks."""
GONE = "/gone"
"""The site whose origin is not there."""

RETRIED_BY_PIP = (500, 502, 503, 520, 527)


class World:
    """One origin, whose links lead to another host, and one node before it with the sites above."""

    def __init__(self) -> None:
        self._ends = contextlib.ExitStack()
        root = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="edgecache-quirks-")))
        try:
            self.index = SerialIndex(file_host="127.0.0.2").start()
            self._ends.callback(self.index.stop)
            self.node = index_node(
                root / "node",
                site("", self.index.url),
                # Nothing but the list is short-lived there.
                site(DAY, self.index.url, purged=True, page_seconds=0.0, recently_validated_seconds=0.0),
                site(
                    FOLLOWED,
                    self.index.url,
                    page_seconds=0.0,
                    recently_validated_seconds=0.0,
                    follow_seconds=600.0,
                    follow_fetch_seconds=5.0,
                ),
                site(STRICT, self.index.url, page_seconds=0.0, recently_validated_seconds=0.0),
                site(GONE, f"http://127.0.0.1:{processes.free_port()}"),
            )
            self._ends.callback(self.node.end)
            self.node.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._ends.close()


_worlds: list[World] = []


def tearDownModule() -> None:
    for world in _worlds:
        world.close()


class QuirkTestCase(SynchronousTestCase):
    """Each test has a project of its own, ``self.name``, with one file that nobody has asked for yet."""

    world: ClassVar[World]
    _numbers: ClassVar[list[int]] = []

    @classmethod
    def setUpClass(cls) -> None:
        if not _worlds:
            _worlds.append(World())
        cls.world = _worlds[0]

    def setUp(self) -> None:
        self._numbers.append(0)
        self.name = f"project-{len(self._numbers)}"
        self.file = wheel(self.name, "1.0", padding=300_000)
        self.index.upload(self.file)
        self.index.origin.forget()
        self.index.file_origin.forget()

    @property
    def index(self) -> SerialIndex:
        return self.world.index

    @property
    def node(self) -> Node:
        return self.world.node

    def ask(self, recorded: Recorded, target: str, *more: str, status: int = 200) -> Answer:
        answer = send(self.node.url, recorded, target, *more)
        self.assertEqual(status, answer.status, f"{recorded.method} {target}: {answer}")
        return answer

    def page(self, recorded: Recorded, site: str = "", *more: str, status: int = 200) -> Answer:
        return self.ask(recorded, f"{site}/simple/{self.name}/", *more, status=status)

    def wait_stored(self, site: str = "") -> None:
        """A page is sent before it is stored: until it is found there."""
        processes.until(lambda: self.page(PIP_26_PAGE, site).hit, "the page in the store")

    def asked(self, path: str | None = None) -> int:
        """How often the origin was asked for the page."""
        return self.index.origin.count(path or f"/simple/{self.name}/")

    def link(self, site: str = "", package: Package | None = None) -> str:
        """The path of a file, as the page has it."""
        at = f"{self.node.url}{site}/simple/{self.name}/"
        wanted = (package or self.file).filename
        files = orjson.loads(self._plain(self.page(PIP_26_PAGE, site)))["files"]
        return urlsplit(urljoin(at, next(file["url"] for file in files if file["filename"] == wanted))).path

    def _plain(self, answer: Answer) -> bytes:
        match answer.fields.get("content-encoding", ""):
            case "gzip":
                return gzip.decompress(answer.content)
            case "zstd":
                return zstandard.ZstdDecompressor().decompressobj().decompress(answer.content)
            case coding:
                self.assertEqual("", coding)
                return answer.content

    def document(self, answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self._plain(answer))
        return found


class PageFreshnessTests(QuirkTestCase):
    """pip sends max-age=0 up to 26.1, and obeys what it is told since."""

    def setUp(self) -> None:
        super().setUp()
        # Else what is asked for within its first second is never too old.
        self.index.age = 100
        self.addCleanup(setattr, self.index, "age", 0)

    def test_max_age_0_is_answered_from_the_store_while_purges_cover_the_page(self) -> None:
        self.wait_stored(DAY)
        for recorded in (PIP_22_PAGE, PIP_25_PAGE):
            self.assertTrue(self.page(recorded, DAY).hit)
        self.assertEqual(1, self.asked())

    def test_and_when_it_was_validated_a_moment_ago(self) -> None:
        self.wait_stored()
        for recorded in (PIP_22_PAGE, PIP_25_PAGE):
            self.assertTrue(self.page(recorded).hit)
        self.assertEqual(1, self.asked())

    def test_else_it_is_validated(self) -> None:
        self.page(PIP_26_PAGE, STRICT)
        before = self.asked()
        self.assertFalse(self.page(PIP_22_PAGE, STRICT).hit)
        self.assertEqual(before + 1, self.asked())
        self.assertIn("if-none-match", self.index.origin.seen[-1].fields)

    def test_without_it_a_page_is_fresh_for_its_lifetime(self) -> None:
        self.wait_stored()
        for recorded in (PIP_26_PAGE, UV_PAGE, POETRY_PAGE):
            self.page(recorded)
        self.assertEqual(1, self.asked())

    def test_clients_are_told_max_age_0_and_a_strong_tag_that_a_304_repeats(self) -> None:
        for recorded in (PIP_26_PAGE, UV_PAGE):
            answer = self.page(recorded)
            self.assertRegex(answer.fields["cache-control"], r"(^|[ ,])max-age=0($|[ ,])")
            self.assertRegex(answer.fields["etag"], r'^"[^"]+"$')
            for more in (f"If-None-Match: {answer.fields['etag']}", f"If-None-Match: W/{answer.fields['etag']}"):
                again = self.page(recorded, "", more, status=304)
                for name in ("etag", "cache-control", "vary", "x-pypi-last-serial"):
                    self.assertEqual(answer.fields[name], again.fields[name], name)

    def test_uv_s_refresh_asks_the_origin_and_costs_no_content(self) -> None:
        etag = self.page(UV_PAGE).fields["etag"]
        before = self.asked()
        again = self.page(uv_refresh(etag), status=304)
        self.assertEqual(etag, again.fields["etag"])
        self.assertEqual(before + 1, self.asked())
        self.index.upload(wheel(self.name, "2.0"))
        newer = self.page(uv_refresh(etag))
        self.assertEqual(2, len(self.document(newer)["files"]))


class PageFormTests(QuirkTestCase):
    def test_content_type_of_pages(self) -> None:
        """pip and uv take no page without one that they know."""
        for recorded in (PIP_22_PAGE, PIP_26_PAGE, UV_PAGE, POETRY_PAGE, BANDERSNATCH_LIST):
            self.assertEqual(JSON, self.page(recorded).fields["content-type"])
            self.assertEqual(JSON, self.ask(recorded, "/simple/").fields["content-type"])
        self.assertRegex(self.page(POETRY_METADATA).fields["content-type"], r"^text/html(;|$)")
        for target in (f"/pypi/{self.name}/json", f"/pypi/{self.name}/1.0/json"):
            self.assertEqual("application/json", self.ask(BANDERSNATCH_GET, target).fields["content-type"])

    def test_codings_have_tags_of_their_own_and_say_the_same(self) -> None:
        found = {}
        for recorded, coding in ((PIP_26_PAGE, "gzip"), (UV_PAGE, "zstd"), (BANDERSNATCH_LIST, "gzip")):
            answer = self.page(recorded)
            self.assertEqual(coding, answer.fields["content-encoding"])
            for name in ("accept", "accept-encoding"):
                self.assertIn(name, answer.fields["vary"].lower())
            found[coding] = (answer.fields["etag"], self.document(answer)["files"])
        self.assertNotEqual(found["gzip"][0], found["zstd"][0])
        self.assertEqual(found["gzip"][1], found["zstd"][1])
        self.assertEqual(1, self.asked())

    def test_no_weak_tag_is_sent_whatever_the_origin_does(self) -> None:
        """uv never sends one back."""
        self.index.weak = True
        self.addCleanup(setattr, self.index, "weak", False)
        for target in (f"/simple/{self.name}/", f"/pypi/{self.name}/json", "/simple/"):
            for recorded in (UV_PAGE, PIP_26_PAGE):
                self.assertRegex(self.ask(recorded, f"{STRICT}{target}").fields["etag"], r'^"')
        path = self.link(STRICT)
        self.assertRegex(self.ask(UV_FILE, path).fields["etag"], r'^"')

    def test_head_has_the_length_that_get_has(self) -> None:
        """uv ends with an error where they differ."""
        path = self.link()
        for target in (f"/simple/{self.name}/", "/simple/", f"/pypi/{self.name}/json", path, f"{path}.metadata"):
            for get in (UV_PAGE, PIP_26_PAGE, UV_FILE, PIP_26_FILE):
                # Before and after there is content of that form.
                before = self.ask(Recorded("HEAD", get.lines), target)
                content = self.ask(get, target).content
                for head in (before, self.ask(Recorded("HEAD", get.lines), target)):
                    self.assertEqual(str(len(content)), head.fields["content-length"], target)

    def test_accept_ranges_is_said_only_where_it_is_true(self) -> None:
        path = self.link()
        for target in (f"/simple/{self.name}/", "/simple/", f"/pypi/{self.name}/json", path, f"{path}.metadata"):
            whole = self.ask(UV_FILE, target)
            part = send(self.node.url, uv_range(1, 5), target)
            self.assertIn(part.status, (200, 206), f"{target}: {part}")
            if whole.fields.get("accept-ranges") == "bytes" or target == path:
                self.assertEqual((206, whole.content[1:6]), (part.status, part.content), target)
                self.assertEqual("bytes", whole.fields["accept-ranges"])

    def test_no_interim_response_is_passed_on(self) -> None:
        """Python's http.client takes any but 100 for the answer."""
        self.index.interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        self.addCleanup(setattr, self.index, "interim", b"")
        self.page(PIP_26_PAGE, STRICT)
        self.ask(BANDERSNATCH_GET, f"{STRICT}/pypi/{self.name}/json")

    def test_a_name_is_normalised_and_slashed_here(self) -> None:
        """PEP 503"""
        spelt = self.name.replace("-", "__").upper()
        for target in (f"/simple/{spelt}/", f"/simple/{self.name}", f"/simple/{spelt}"):
            for recorded in (PIP_22_PAGE, POETRY_PAGE):
                answer = send(self.node.url, recorded, target)
                self.assertIn(answer.status, (301, 308))
                led = urlsplit(urljoin(f"{self.node.url}{target}", answer.fields["location"])).path
                self.assertEqual(f"/simple/{self.name}/", led)
        self.assertEqual([], self.index.origin.seen)


class FailureTests(QuirkTestCase):
    def test_what_cannot_be_had_is_503_with_retry_after(self) -> None:
        """pip retries no 504, and sleeps for as long as Retry-After says."""
        digest = "0" * 64
        file = f"{GONE}/files/{self.name}/{digest}/{self.file.filename}"
        for recorded, target in (
            (PIP_22_PAGE, f"{GONE}/simple/{self.name}/"),
            (PIP_26_PAGE, f"{GONE}/simple/{self.name}/"),
            (UV_PAGE, f"{GONE}/simple/"),
            (BANDERSNATCH_GET, f"{GONE}/pypi/{self.name}/json"),
            (PIP_26_FILE, file),
            (PIP_26_FILE, f"{file}.metadata"),
            (POETRY_TAIL, file),
        ):
            answer = send(self.node.url, recorded, target)
            self.assertIn(answer.status, RETRIED_BY_PIP, f"{target}: {answer}")
            self.assertTrue(0 < int(answer.fields["retry-after"]) <= 10, answer.fields)

    def test_metadata_that_was_promised_and_is_not_there_is_no_404(self) -> None:
        """pip gives up on that; after a 503 it asks again."""
        self.index.lose_metadata(self.file)
        path = self.link()
        for recorded in (PIP_26_FILE, UV_METADATA, POETRY_METADATA):
            self.assertIn("retry-after", self.ask(recorded, f"{path}.metadata", status=503).fields)

    def test_a_page_that_is_not_there_is_believed_for_a_moment_and_purged_like_others(self) -> None:
        target = f"{DAY}/simple/new-{self.name}/"
        for recorded in (PIP_22_PAGE, UV_PAGE, PIP_26_PAGE):
            self.ask(recorded, target, status=404)
        self.assertEqual(1, self.asked(f"/simple/new-{self.name}/"))
        self.index.upload(wheel(f"new-{self.name}", "1.0"))
        self.node.purge(tags=[f"project/new-{self.name}"])
        self.ask(PIP_26_PAGE, target)

    def test_the_files_of_a_project_that_is_gone_are_gone(self) -> None:
        """devpi keeps links on a 404; an index that removed malware must not."""
        path = self.link(DAY)
        self.ask(PIP_26_FILE, path)
        self.index.withdraw(self.name)
        self.node.purge(tags=[f"project/{self.name}"])
        self.page(PIP_26_PAGE, DAY, status=404)
        self.ask(PIP_26_FILE, path, status=404)
        self.ask(UV_METADATA, f"{path}.metadata", status=404)


class FileTests(QuirkTestCase):
    """Ranges of files that nobody has fetched yet."""

    def test_pip_s_fast_deps(self) -> None:
        """HEAD with a length and Accept-Ranges, then ranges with no-cache, which a content's own digest may ignore."""
        size = len(self.file.content)
        path = self.link()
        for head in (PIP_22_HEAD, PIP_26_HEAD):
            answer = self.ask(head, path)
            self.assertEqual((str(size), "bytes"), (answer.fields["content-length"], answer.fields["accept-ranges"]))
        for first, last in ((size - 3884, size - 1), (size - 10240, size - 3885), (157, 10396)):
            part = self.ask(PIP_26_RANGE, path, f"Range: bytes={first}-{last}", "Cache-Control: no-cache", status=206)
            self.assertEqual(self.file.content[first : last + 1], part.content)
            self.assertEqual(f"bytes {first}-{last}/{size}", part.fields["content-range"])
        self.assertEqual(self.file.content, self.ask(PIP_22_FILE, path).content)
        before = len(self.index.file_origin.seen)
        self.ask(PIP_26_RANGE, path, "Range: bytes=157-10396", "Cache-Control: no-cache", status=206)
        self.assertEqual(before, len(self.index.file_origin.seen))

    def test_uv_s_end_of_the_wheel(self) -> None:
        path = self.link()
        size = int(self.ask(UV_HEAD, path).fields["content-length"])
        self.assertEqual(len(self.file.content), size)
        part = self.ask(uv_range(size - 16_384, size - 1), path, status=206)
        self.assertEqual(self.file.content[-16_384:], part.content)
        self.assertEqual(f"bytes {size - 16_384}-{size - 1}/{size}", part.fields["content-range"])

    def test_poetry_s_last_10000_octets_come_first_of_all(self) -> None:
        path = self.link()
        size = len(self.file.content)
        part = self.ask(POETRY_TAIL, path, status=206)
        self.assertEqual(self.file.content[-10_000:], part.content)
        self.assertEqual(f"bytes {size - 10_000}-{size - 1}/{size}", part.fields["content-range"])
        self.assertEqual(self.file.content, self.ask(POETRY_FILE, path).content)

    def test_a_resume_goes_on_where_it_ended_or_is_answered_whole(self) -> None:
        """pip fails when a 206 begins elsewhere."""
        path = self.link()
        etag = self.ask(PIP_26_FILE, path).fields["etag"]
        part = self.ask(PIP_26_RANGE, path, "Range: bytes=100000-", f"If-Range: {etag}", status=206)
        self.assertEqual(self.file.content[100_000:], part.content)
        size = len(self.file.content)
        self.assertEqual(f"bytes 100000-{size - 1}/{size}", part.fields["content-range"])
        whole = self.ask(PIP_26_RANGE, path, "Range: bytes=100000-", 'If-Range: "another"')
        self.assertEqual(self.file.content, whole.content)

    def test_files_are_immutable_and_say_what_they_hash_to(self) -> None:
        for recorded in (PIP_22_FILE, PIP_26_FILE, UV_FILE, POETRY_FILE, BANDERSNATCH_GET):
            answer = self.ask(recorded, self.link())
            self.assertEqual(self.file.content, answer.content)
            self.assertIn("immutable", answer.fields["cache-control"])
            self.assertRegex(answer.fields["repr-digest"], r"(^|, )sha-256=:")
        self.assertEqual(1, len(self.index.file_origin.seen))

    def test_metadata_is_the_file_s(self) -> None:
        path = self.link()
        for recorded in (PIP_26_FILE, UV_METADATA, POETRY_METADATA):
            answer = self.ask(recorded, f"{path}.metadata")
            self.assertEqual(self.file.metadata, self._plain(answer))


class MirrorTests(QuirkTestCase):
    def test_releases_have_absolute_links_to_this_node_however_it_is_called(self) -> None:
        port = urlsplit(self.node.url).port
        for name in (f"127.0.0.1:{port}", f"edge.example:{port}"):
            for target in (f"/pypi/{self.name}/json", f"/pypi/{self.name}/1.0/json"):
                head = Recorded("GET", tuple(line.replace("Host:", f"Host: {name}") for line in BANDERSNATCH_GET.lines))
                document = self.document(self.ask(head, target))
                entries = [
                    *document["urls"],
                    *(one for all_of in document.get("releases", {}).values() for one in all_of),
                ]
                for entry in entries:
                    self.assertEqual(f"http://{name}", "{0.scheme}://{0.netloc}".format(urlsplit(entry["url"])))
                    content = self.ask(BANDERSNATCH_GET, urlsplit(entry["url"]).path).content
                    self.assertEqual(entry["digests"]["sha256"], hashlib.sha256(content).hexdigest())

    def test_bandersnatch_finds_the_list_where_it_looks_for_it(self) -> None:
        answer = send(self.node.url, BANDERSNATCH_LIST, "/simple")
        self.assertIn(answer.status, (301, 308))
        led = urlsplit(urljoin(f"{self.node.url}/simple", answer.fields["location"])).path
        self.assertEqual("/simple/", led)
        listed = {
            one["name"]: one["_last-serial"] for one in self.document(self.ask(BANDERSNATCH_LIST, led))["projects"]
        }
        self.assertLessEqual(listed.items(), self.index.serials().items())

    def _listed(self, site: str) -> int:
        """The project's serial, as the node's list has it."""
        projects = self.document(self.ask(BANDERSNATCH_LIST, f"{site}/simple/"))["projects"]
        return next((int(one["_last-serial"]) for one in projects if one["name"] == self.name), 0)

    def test_no_purge_names_the_list_so_that_it_is_validated_often_where_they_are_pushed(self) -> None:
        self._listed(DAY)
        serial = self.index.upload(wheel(self.name, "2.0"))
        self.node.purge(tags=[f"project/{self.name}"])
        self.assertEqual(serial, self._listed(DAY))
        for target in (f"{DAY}/pypi/{self.name}/json", f"{DAY}/simple/{self.name}/"):
            self.assertEqual(str(serial), self.ask(BANDERSNATCH_GET, target).fields["x-pypi-last-serial"], target)

    def test_no_page_is_older_than_the_list_says_when_it_is_asked_for_again(self) -> None:
        """bandersnatch tries three times, and then its serial stays where it is."""
        targets = (f"{FOLLOWED}/pypi/{self.name}/json", f"{FOLLOWED}/simple/{self.name}/")
        for target in targets:
            self.ask(BANDERSNATCH_GET, target)
        self.index.upload(wheel(self.name, "2.0"))
        said = self._listed(FOLLOWED)
        self.assertEqual(self.index.serial(self.name), said)
        for target in targets:
            processes.until(
                lambda target=target: int(self.ask(BANDERSNATCH_GET, target).fields["x-pypi-last-serial"]) >= said,
                f"{target} with serial {said}",
            )

    def test_an_index_that_went_back_is_not_followed(self) -> None:
        """Like devpi: a lower serial is no answer."""
        self.index.upload(wheel(self.name, "2.0"))
        page = self.page(PIP_26_PAGE, DAY)
        self.index.set_back(self.name, 1)
        self.node.purge(tags=[f"project/{self.name}"])
        after = send(self.node.url, PIP_26_PAGE, f"{DAY}/simple/{self.name}/")
        if after.status != 503:
            self.assertEqual(page.fields["x-pypi-last-serial"], after.fields["x-pypi-last-serial"])
            self.assertEqual(self.document(page)["files"], self.document(after)["files"])
        processes.until(lambda: "serial" in self.node.log, "a line in the log")


class PublisherTests(QuirkTestCase):
    def test_an_upload_goes_elsewhere(self) -> None:
        for content in (b"", os.urandom(302_038)):
            answer = send(self.node.url, TWINE_UPLOAD, "/legacy/", content=content)
            self.assertEqual(405, answer.status)
            self.assertEqual({"GET", "HEAD"}, set(answer.fields["allow"].replace(" ", "").split(",")))
            self.assertEqual("close", answer.fields["connection"])
        self.assertEqual([], self.index.origin.seen)
