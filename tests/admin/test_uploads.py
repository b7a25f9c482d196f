"""What an upload purges, and how the project is read out of it (DESIGN 10)."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.admin.forms import project_of_form
from edgecache.admin.uploads import Uploads
from tests.admin.harness import NOW, AdminCase
from tests.siblings.spreads import HandFleet

TYPE = 'multipart/form-data; boundary="a b"'


def form(*parts: tuple[str, bytes], end: bytes = b"--a b--\r\n") -> bytes:
    """Each: parameters of its disposition, content."""
    lines = [b"--a b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (named.encode(), it) for named, it in parts]
    return b"".join(lines) + end


ACTION = ('name=":action"', b"file_upload")
NAME = ('name="name"', b"My.Project")
FILE = ('name="content"; filename="name"', b"--not a b\r\n" * 100)


class FormTests(SynchronousTestCase):
    def test_the_field_called_name_names_it(self) -> None:
        for octets in (
            form(ACTION, NAME, FILE),
            form(FILE, NAME),
            form(NAME, end=b"--a b\r\nConte"),
            form(ACTION, NAME) + b"x" * 99,
        ):
            self.assertEqual(b"my-project", project_of_form(TYPE, octets))

    def test_what_is_none_is_not_guessed(self) -> None:
        for octets in (
            b"",
            form(ACTION, FILE),
            form(ACTION, FILE, NAME)[:400],
            form(('name="name"; filename="x"', b"My.Project")),
            form(('name="name"', b"../x")),
            form(('name="name"', b"x" * 1000)),
            form(('name="name"', b"")),
            b"name=My.Project",
        ):
            self.assertIsNone(project_of_form(TYPE, octets), octets[:80])
        for kind in ("multipart/form-data", "multipart/form-data; boundary=", "", "application/json"):
            self.assertIsNone(project_of_form(kind, form(NAME)), kind)

    @given(st.integers(0, 300))
    def test_a_form_that_is_cut_names_it_or_nothing(self, octets: int) -> None:
        self.assertIn(project_of_form(TYPE, form(ACTION, NAME, ACTION)[:octets]), (None, b"my-project"))


class UploadTests(AdminCase):
    def make_spread(self) -> HandFleet:
        self.fleet = HandFleet(lambda: NOW)
        return self.fleet

    def begin(self, octets: bytes = form(ACTION, NAME)) -> Deferred[dict[str, Any]]:
        begin = base64.b64encode(octets).decode()
        self.addCleanup(self.clock.advance, 5.0)
        return Deferred.fromCoroutine(Uploads(self.parts).uploaded("index", TYPE, begin, "192.0.2.7"))

    def named(self) -> set[tuple[str, str]]:
        purge = self.ask("GET", "/status").json["purges"]["recent"][0]
        self.assertEqual(("revalidate", "(upload)"), (purge["mode"], purge["token"]))
        site = next(one["id"] for one in self.ask("GET", "/status").json["sites"] if one["name"] == "index")
        self.assertEqual({site}, {each["site"] for each in purge["sample"]})
        return {(each["kind"], each["value"]) for each in purge["sample"]}

    def test_its_project_and_the_list_are_purged_on_a_majority_before_it_is_answered(self) -> None:
        answer = self.begin()
        self.assertNoResult(answer)
        self.assertEqual({("tag", "project/my-project"), ("url", "/simple/")}, self.named())
        self.fleet.apply("us-1", self.fleet.told[0].purge_id)
        self.assertEqual({"state": "durable"}, self.successResultOf(answer))

    def test_who_cannot_be_reached_is_waited_for_no_longer_than_a_publisher_would(self) -> None:
        answer = self.begin()
        self.clock.advance(5.0)
        self.assertEqual({"state": "local"}, self.successResultOf(answer))

    def test_where_no_name_can_be_read_all_pages_of_the_site_are_purged(self) -> None:
        self.begin(form(ACTION, FILE))
        self.assertEqual({("prefix", "/simple/"), ("prefix", "/pypi/")}, self.named())

    def test_a_node_that_takes_no_purge_yet_has_it_for_itself(self) -> None:
        self.fleet.joining = "This node is joining."
        self.assertEqual({"state": "local"}, self.successResultOf(self.begin()))
        self.assertEqual(([], 2), (self.fleet.told, len(self.control.read.rows_since(0)) - 1))

    def test_it_is_audited(self) -> None:
        self.begin()
        with open(self.parts.audit.path, "rb") as file:
            line = orjson.loads(file.read().splitlines()[-1])
        self.assertEqual(("purged", "upload", "192.0.2.7"), (line["event"], line["front"], line["peer"]))
