"""Which file a path means (DESIGN 10)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.catalogue import Catalogue, NamedFile
from edgecache.index.documents import BadPage
from edgecache.rules.indexpaths import ArtifactAsked, artifact_of
from tests.index.pages import FILE, SHA256, derived, file, of_json, project

DIGEST = bytes.fromhex(SHA256)
OTHER = bytes(32)
URL = b"https://files.example/six-1.0.tar.gz"
NAME = FILE.encode()


def find(
    sha256: bytes, *files: dict[str, Any], name: bytes = NAME, companion: bytes = b"", **page: Any
) -> NamedFile | None:
    catalogue = Catalogue.parse(of_json(project(*files, **page)).octets)
    return catalogue.find(ArtifactAsked(b"six", sha256, name, companion))


class FindTests(SynchronousTestCase):
    """By filename, and by digest where the path and the page have one."""

    def test_what_a_page_says_of_a_file(self) -> None:
        given = file(size=7, core_metadata={"sha256": "0f" * 32})
        expected = NamedFile(NAME, URL, DIGEST, 7, b"\x0f" * 32)
        self.assertEqual(expected, find(DIGEST, given))
        self.assertEqual(NamedFile(NAME, URL, DIGEST), find(DIGEST, file()))

    def test_a_digest_that_the_page_gives_decides(self) -> None:
        self.assertIsNone(find(OTHER, file()))
        twice = (file(url="a.zip"), file(url="b.zip", hashes={"sha256": OTHER.hex()}))
        for digest, url in ((DIGEST, b"a.zip"), (OTHER, b"b.zip"), (b"", b"a.zip")):
            found = find(digest, *twice)
            assert found is not None
            self.assertTrue(found.url.endswith(url))
            self.assertEqual(digest or DIGEST, found.sha256)

    def test_a_digest_that_only_the_path_gives_must_be_met_all_the_same(self) -> None:
        self.assertEqual(NamedFile(NAME, URL, OTHER), find(OTHER, file(hashes={})))
        self.assertEqual(NamedFile(NAME, URL, b""), find(b"", file(hashes={"md5": "0f"})))

    def test_metadata_that_is_promised(self) -> None:
        """PEP 658, 714."""
        for told, digest in ((True, b""), ({}, b""), ({"md5": "0f"}, b""), ({"sha256": SHA256}, DIGEST), (False, None)):
            found = find(DIGEST, file(core_metadata=told))
            assert found is not None
            self.assertEqual(digest, found.metadata_sha256, told)

    def test_what_belongs_to_a_file_is_found_by_it(self) -> None:
        found = find(DIGEST, file(core_metadata=True), companion=b".metadata")
        self.assertEqual(NamedFile(NAME, URL, DIGEST, metadata_sha256=b""), found)

    def test_a_signature_that_is_listed_as_a_file_is_one(self) -> None:
        name = FILE + ".asc"
        given = file(filename=name, url=name, hashes={"sha256": OTHER.hex()})
        found = find(OTHER, file(), given, companion=b".asc")
        assert found is not None
        self.assertEqual((name.encode(), OTHER), (found.filename, found.sha256))

    def test_the_link_is_without_fragment(self) -> None:
        found = find(DIGEST, file(url=URL.decode() + "#egg=six"))
        assert found is not None
        self.assertEqual(URL, found.url)

    def test_what_the_page_does_not_list_is_not_there(self) -> None:
        for name in (b"six-2.0.tar.gz", b"SIX-1.0.tar.gz", b"", b"\xff"):
            self.assertIsNone(find(b"", file(), name=name))

    def test_nothing_of_a_quarantined_project_is_there(self) -> None:
        """PEP 792."""
        self.assertIsNone(find(DIGEST, file(), project_status={"status": "quarantined"}))

    def test_every_link_of_a_page_leads_to_its_file(self) -> None:
        names = ["six-1.0+l.tar.gz", "a b.whl", "ä.zip", "x'\".whl", "six.whl", "six.whl.metadata", "six.whl.asc"]
        files = [file(filename=name, url=f"/{n}", hashes={"sha256": f"{n:064x}"}) for n, name in enumerate(names)]
        document = of_json(project(*files))
        catalogue = Catalogue.parse(document.octets)
        self.assertEqual(len(names), len(catalogue))
        for n, line in enumerate(derived(document).split(b'"url":"../..')[1:]):
            asked = artifact_of(line.partition(b'"')[0])
            assert asked is not None
            found = catalogue.find(asked)
            assert found is not None
            self.assertEqual((names[n].encode(), b"https://index.example/%d" % n), (found.filename, found.url))

    def test_other_documents_have_no_catalogue(self) -> None:
        for document in (b"", b"[]", b'{"projects": []}', b'{"files": [1]}', b'{"files": [{}]}'):
            self.assertRaises(BadPage, Catalogue.parse, document)
