"""Events and log lines of downloads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.distributions import distribution_of
from edgecache.index.downloads import HEADER, Event, Kind, Reader, common, log_line, sent_range
from edgecache.index.tabulating import Query, Row, day_number, iso_day, merged, tabulated

COMMON = common(Kind.FILE, 0xABC, b"/files/six/-/six-1.16.0-py2.py3-none-any.whl", b"pip/24.0 {\t}")
WHOLE = b"1532053159123\t192.0.2.7\tTLSv1.3\tTLS_AES_256_GCM_SHA384\t11053\t\t3"


def parse(line: bytes, told: bytes = COMMON) -> Event | None:
    reader = Reader()
    reader.read(b"=3\t" + told)
    return reader.read(line)


class EventTests(SynchronousTestCase):
    def test_a_whole_response(self) -> None:
        event = parse(WHOLE)
        assert event is not None
        expected = (1532053159123, b"192.0.2.7", b"TLSv1.3", 11053, None)
        self.assertEqual(expected, (event.time, event.client, event.tls, event.octets, event.part))
        self.assertEqual((Kind.FILE, b"%016x" % 0xABC, b"pip/24.0 {\t}"), (event.kind, event.site, event.user_agent))
        self.assertEqual(day_number("2018-07-20"), event.day)

    def test_a_part_and_the_begin_of_a_whole_one(self) -> None:
        for given_, part, begun in ((b"5-9/20", (5, 10, 20), False), (b"<0-9/20", (0, 10, 20), True)):
            event = parse(b"1\t\t\t\t5\t" + given_ + b"\t3")
            assert event is not None
            self.assertEqual((part, begun), (event.part, event.begun))

    def test_what_a_power_cut_left_is_none(self) -> None:
        for line in (b"", b"\0" * 80, WHOLE[:40], b"x" + WHOLE, WHOLE + b"4"):
            self.assertIsNone(parse(line), line)
        for given_ in (b"9-5/20", b"5-20/20", b"5-9", b"<"):
            self.assertIsNone(parse(b"1\t\t\t\t5\t" + given_ + b"\t3"), given_)
        for told in (COMMON[:20], COMMON.replace(b"D\t", b"E\t"), b""):
            self.assertIsNone(parse(WHOLE, told))

    def test_more_digits_than_a_time_has_are_damage_for_no_calendar_knows_that_day(self) -> None:
        for digits in (15, 20, 5000):
            self.assertIsNone(parse(b"9" * digits + WHOLE[13:]), digits)
            self.assertIsNone(parse(WHOLE.replace(b"11053", b"9" * (digits + 5))), digits)
        last = parse(b"9" * 14 + WHOLE[13:])
        assert last is not None
        self.assertEqual("5138-11-16", iso_day(last.day))

    def test_damaged_lines_are_counted_and_no_others(self) -> None:
        reader = Reader()
        for line in (HEADER + b"n1", b"=3\t" + COMMON, WHOLE, b"\0\0", WHOLE + b"4"):
            reader.read(line)
        self.assertEqual(2, reader.damaged)

    @given(st.binary(max_size=120))
    def test_no_octets_break_the_parser(self, line: bytes) -> None:
        parse(line)
        parse(WHOLE, line)

    def test_what_was_sent_of_a_part_or_of_a_response_that_broke_off(self) -> None:
        part = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-199/1000\r\ncontent-length: 100\r\n"
        self.assertEqual([b"100-199/1000", b"100-149/1000", None], [sent_range(part, sent) for sent in (100, 50, 0)])
        whole = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nContent-Length: 1000\r\n"
        self.assertEqual(b"<0-9/1000", sent_range(whole, 10))
        for head in (b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n", b"HTTP/1.1 200 OK\r\n", b""):
            self.assertIsNone(sent_range(head, 9))


class LogLineTests(SynchronousTestCase):
    """FIELD 3"""

    def test_a_download(self) -> None:
        event = parse(WHOLE)
        assert event is not None
        self.assertEqual(
            b"download|Fri, 20 Jul 2018 02:19:19 GMT|(null)|/files/six/-/six-1.16.0-py2.py3-none-any.whl|TLSv1.3|"
            b"TLS_AES_256_GCM_SHA384|six|1.16.0|bdist_wheel|pip/24.0 {\t}\n",
            log_line(event, distribution_of(event.path)),
        )

    def test_a_page_and_what_is_missing(self) -> None:
        event = parse(b"1532053159123\t\t\t\t0\t\t3", common(Kind.PAGE, 1, b"/simple/six/", b""))
        assert event is not None
        self.assertEqual(
            b"simple|Fri, 20 Jul 2018 02:19:19 GMT|(null)|/simple/six/|(null)|(null)|(null)|(null)|(null)|(null)\n",
            log_line(event, None),
        )

    def test_a_filename_neither_ends_the_field_nor_the_line(self) -> None:
        for path in (b"/files/a/-/a-1%0A%7C2.tar.gz", b"/packages/a|evil|1|sdist/a-1.tar.gz"):
            event = parse(b"0\t\t\t\t0\t\t3", common(Kind.FILE, 1, path, b"x"))
            assert event is not None
            line = log_line(event, distribution_of(event.path))
            self.assertEqual((1, 9), (line.count(b"\n"), line.count(b"|")), path)


def row(day: int, project: str, installer: str, downloads: int) -> Row:
    return {"day": day, "project": project, "installer": installer, "downloads": downloads}


class TableTests(SynchronousTestCase):
    rows = (row(1, "a", "pip", 2), row(1, "b", "pip", 3), row(2, "a", "uv", 4))

    def test_rows_are_added_up_by_what_is_asked_for(self) -> None:
        self.assertEqual(
            [{"project": "a", "downloads": 6}, {"project": "b", "downloads": 3}],
            tabulated(self.rows, Query(0, 9, ("project",))),
        )
        self.assertEqual([{"downloads": 9}], tabulated(self.rows, Query(0, 9, ())))

    def test_only_what_fits(self) -> None:
        expected = [{"day": "1970-01-02", "downloads": 2}]
        self.assertEqual(expected, tabulated(self.rows, Query(0, 9, ("day",), {"project": "a", "installer": "pip"})))

    def test_files_are_not_counted_by_what_clients_tell_of_themselves(self) -> None:
        self.assertTrue(Query(0, 9, ("day", "python", "installer")).possible)
        self.assertFalse(Query(0, 9, ("python",), {"project": "a"}).possible)

    def test_nodes_are_added_up_and_a_node_asked_twice_counts_once(self) -> None:
        """The higher of two answers of one node is the later one."""
        answers = [
            ("n1 x", [row(1, "a", "pip", 5)]),
            ("n2 y", [row(1, "a", "pip", 7), row(1, "b", "pip", 1)]),
            ("n1 x", [row(1, "a", "pip", 6)]),
            ("n1 z", [row(1, "a", "pip", 10)]),
        ]
        self.assertEqual([row(1, "a", "pip", 23), row(1, "b", "pip", 1)], merged(answers))
