"""From events of downloads to counts: what is one download, what a crash leaves, and what is told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.downloads import HEADER, SUFFIX, Kind, common
from edgecache.index.tabulating import Query, Row, iso_day
from edgecache.store import counts, folding, partials
from edgecache.store.folding import Answer, Downloads
from tests.quickdisk import quick_directory

ROOT = Path(__file__).parents[2]
SITE = 0xA
DAY = 20_000
NOW = (DAY * 86400 + 43200) * 1000
PIP = b'pip/24.0 {"installer":{"name":"pip","version":"24.0"},"python":"3.12.1","ci":true}'
WHEEL = b"/files/six/-/six-1.0-py3-none-any.whl"
EVERYTHING = Query(0, 2 * DAY)


def same(answer: Answer) -> Answer:
    return answer


def line(
    part: bytes = b"",
    *,
    path: bytes = WHEEL,
    agent: bytes = PIP,
    client: bytes = b"192.0.2.1",
    octets: int = 100,
    at: int = NOW,
    kind: Kind = Kind.FILE,
) -> bytes:
    told = common(kind, SITE, path, agent)
    number = zlib.crc32(told)
    return b"=%d\t%b\n%d\t%b\t\t\t%d\t%b\t%d\n" % (number, told, at, client, octets, part, number)


@contextmanager
def unwritable_heads(path: str) -> Iterator[None]:
    """Where LMDB writes the heads of what it has open at ``path``, nothing is taken."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == path and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_DSYNC:
                kept, reading = os.dup(number), os.open(path, os.O_RDONLY)
                os.dup2(reading, number, inheritable=False)
                os.close(reading)
                try:
                    yield
                finally:
                    if os.path.realpath(f"/proc/self/fd/{number}") == path:
                        os.dup2(kept, number, inheritable=False)
                    os.close(kept)
                return
    raise AssertionError(f"{path} is not open")


class FoldingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.join(quick_directory(self), "downloads")
        os.mkdir(self.directory)
        self.log = Path(self.directory).parent / "downloads.log"
        self.now = NOW / 1000
        self.written = 0
        self.downloads = self.open()

    def open(self, **options: Any) -> Downloads:
        made = Downloads(
            self.directory,
            {b"%016x" % SITE: "index"},
            options.get("log", ""),
            options.get("days", 400),
            Clock(),
            maybeDeferred,
            lambda: self.now,
        )
        self.addCleanup(self.close, made)
        return made

    def close(self, downloads: Downloads) -> None:
        if downloads._counts is not None:
            downloads._counts.close()
            downloads._counts = None

    def write(self, *lines: bytes, name: str = "") -> Path:
        """A file that nobody appends to any more."""
        self.written += 1
        path = Path(self.directory, (name or f"{self.written:06d}") + SUFFIX)
        path.write_bytes(HEADER + b"n1\n" + b"".join(lines))
        return path

    @contextmanager
    def writer(self, *lines: bytes) -> Iterator[Any]:
        """A file that somebody holds."""
        path = self.write(*lines)
        with path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def rows(self, by: tuple[str, ...] = (), **where: str) -> list[Row]:
        answer = self.successResultOf(self.downloads.ask(Query(0, 2 * DAY, by, where), same))
        return answer.rows

    def total(self, **where: str) -> int:
        return sum(int(row["downloads"]) for row in self.rows(**where))

    def files(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory) if name.endswith(SUFFIX))

    def counted(self, *lines: bytes) -> int:
        """How many downloads these are."""
        before = self.total()
        self.write(*lines)
        return self.total() - before


class OneDownloadTests(FoldingCase):
    """DESIGN 10, FIELD 3: what counts once."""

    def test_every_whole_response(self) -> None:
        self.assertEqual(3, self.counted(*[line()] * 3))

    def test_ranges_that_cover_the_file(self) -> None:
        self.assertEqual(1, self.counted(line(b"0-49/100"), line(b"50-99/100")))

    def test_a_resume_after_a_cut(self) -> None:
        """pip: Range and If-Range from what it has; some of it was sent twice."""
        self.assertEqual(1, self.counted(line(b"<0-69/100"), line(b"40-99/100")))

    def test_a_cut_that_is_not_resumed_is_none(self) -> None:
        self.assertEqual(0, self.counted(line(b"<0-69/100"), line(b"<0-20/100")))

    def test_poetry_reads_the_end_and_then_all_of_it(self) -> None:
        self.assertEqual(1, self.counted(line(b"90-99/100"), line()))

    def test_poetry_does_so_with_a_file_that_is_shorter_than_the_end_that_it_reads(self) -> None:
        self.assertEqual(1, self.counted(line(b"0-99/100"), line()))
        self.assertEqual(1, self.counted(line()))

    def test_metadata_read_by_ranges_is_none(self) -> None:
        """pip's lazy wheels; all of the file read so is one."""
        self.assertEqual(0, self.counted(line(b"90-99/100"), line(b"70-89/100"), line(b"75-79/100")))
        self.assertEqual(1, self.counted(line(b"0-69/100")))

    def test_after_a_resume_the_next_whole_one_is_another(self) -> None:
        self.assertEqual(2, self.counted(line(b"<0-69/100"), line(b"70-99/100"), line()))

    def test_parts_of_different_clients_or_files_or_sizes_do_not_add_up(self) -> None:
        for other in ({"client": b"192.0.2.2"}, {"agent": b"uv/0.5.0"}, {"path": WHEEL + b".zip"}):
            self.assertEqual(0, self.counted(line(b"0-49/100", **other)))
        self.assertEqual(0, self.counted(line(b"0-49/99"), line(b"50-99/100")))

    def test_parts_an_hour_apart_do_not_add_up(self) -> None:
        later = NOW + partials.WINDOW_MILLISECONDS + 1
        self.assertEqual(0, self.counted(line(b"0-49/100"), line(b"50-99/100", at=later)))

    def test_parts_add_up_over_files_of_events_and_restarts(self) -> None:
        self.assertEqual(0, self.counted(line(b"0-49/100")))
        self.close(self.downloads)
        self.downloads = self.open()
        self.assertEqual(1, self.counted(line(b"50-99/100")))

    def test_two_clients_behind_one_address_are_two(self) -> None:
        self.assertEqual(2, self.counted(line(b"<0-69/100"), line(), line(b"70-99/100")))

    def test_unfinished_ones_are_forgotten_in_time_and_there_are_never_too_many(self) -> None:
        self.patch(partials, "MOST_PARTIALS", 10)
        self.counted(*[line(b"0-49/100", client=b"%d" % number, at=NOW + number) for number in range(50)])
        self.assertEqual(1, self.counted(line(b"50-99/100", client=b"49", at=NOW + 49)))
        self.assertEqual(0, self.counted(line(b"50-99/100", client=b"0", at=NOW + 49)))
        self.now += 2 * 3600
        self.write(line(at=NOW + 7200_000))
        self.total()
        with self.downloads._opened()._env.begin() as txn:
            left = [txn.stat(self.downloads._opened()._db[name])["entries"] for name in (b"partials", b"expiry")]
        self.assertEqual([0, 0], left)


class CountsTests(FoldingCase):
    def test_rows_say_what_of_which_file_by_whom(self) -> None:
        self.write(line(), line(), line(at=NOW + 86_400_000))
        expected = {
            "day": "2024-10-04",
            "site": "index",
            "project": "six",
            "version": "1.0",
            "type": "bdist_wheel",
            "filename": "six-1.0-py3-none-any.whl",
            "sha256": "",
            "installer": "pip",
            "installer_version": "24.0",
            "downloads": 2,
        }
        rows = self.successResultOf(self.downloads.ask(EVERYTHING, same)).rows
        self.assertEqual([expected, {**expected, "day": "2024-10-05", "downloads": 1}], rows)

    def test_what_clients_tell_of_themselves(self) -> None:
        self.write(line(), line(agent=b"poetry/1.8.3 CPython/3.12.3 Linux/6.8"))
        keys = ("installer", "python", "system", "ci")
        expected = [("pip", "3.12", "", "yes", 1), ("poetry", "3.12", "Linux", "", 1)]
        self.assertEqual(expected, [tuple(row.values()) for row in self.rows(keys)])

    def test_a_day_knows_so_many_installers_and_the_rest_are_others(self) -> None:
        self.patch(counts, "MOST_INSTALLERS", 5)
        self.patch(counts, "MOST_CLIENTS", 7)
        agents = [b"tool%d/1.0 CPython/3.%d" % (number % 8, number) for number in range(40)]
        self.write(*[line(agent=agent) for agent in agents])
        self.assertEqual(40, self.total())
        self.close(self.downloads)
        self.downloads = self.open()
        self.write(line(agent=b"new/1.0"))
        rows = self.rows(("installer",))
        self.assertLessEqual(len(rows), 6)
        self.assertIn("other", [row["installer"] for row in rows])
        self.assertEqual(41, sum(int(row["downloads"]) for row in rows))
        self.assertLessEqual(len(self.rows(("installer", "python"))), 14)

    def test_old_days_are_forgotten(self) -> None:
        self.downloads = self.open(days=10)
        self.write(line(at=NOW - 11 * 86_400_000), line(at=NOW - 9 * 86_400_000))
        self.downloads._turn_safely(None)
        self.assertEqual(1, self.total())

    def test_a_site_that_is_no_longer_configured_has_its_id(self) -> None:
        self.write(line().replace(b"%016x" % SITE, b"00000000000000ff", 1))
        self.assertEqual([{"site": "00000000000000ff", "downloads": 1}], self.rows(("site",)))

    def test_damaged_counts_are_put_aside_and_counting_goes_on_in_another_life(self) -> None:
        self.write(line())
        first = self.successResultOf(self.downloads.ask(EVERYTHING, same))
        self.close(self.downloads)
        Path(self.directory, "counts", "data.mdb").write_bytes(b"x" * 8192)
        self.downloads = self.open()
        self.write(line())
        second = self.successResultOf(self.downloads.ask(EVERYTHING, same))
        self.assertEqual((1, 1), (first.rows[0]["downloads"], second.rows[0]["downloads"]))
        self.assertNotEqual(first.life, second.life)
        self.flushLoggedErrors()

    def test_counts_that_lmdb_has_given_up_are_opened_anew(self) -> None:
        """A write of their head has failed: nothing opens a transaction there until they are."""
        self.write(line())
        self.assertEqual(1, self.total())
        with unwritable_heads(os.path.join(self.directory, "counts", "data.mdb")):
            self.write(line())
            self.downloads._turn_safely(None)
        for _ in range(3):
            self.downloads._turn_safely(None)
        self.assertEqual(2, self.total())
        self.assertEqual([], self.files())

    def test_a_row_that_is_not_what_was_written_is_damage_too_in_whichever_table(self) -> None:
        for number, name in enumerate((b"files", b"clients", b"partials", b"expiry", b"segments")):
            with self.writer(line(), line(b"0-9/100", client=b"192.0.2.2")):
                self.downloads._turn_safely(None)
                assert self.downloads._counts is not None
                env, databases = self.downloads._counts._env, self.downloads._counts._db
                with env.begin(write=True) as txn, txn.cursor(databases[name]) as cursor:
                    cursor.first()
                    key = cursor.key()[:5] if name == b"expiry" else cursor.key()
                    txn.put(key, b"\xff\xff\xff", db=databases[name])
                self.write(line(), line(b"10-19/100", client=b"192.0.2.2"))
                self.downloads._turn_safely(None)
                self.flushLoggedErrors()
                self.assertEqual((number + 1, 2), (self.downloads.folded.failures, self.total()), name)

    def test_where_the_map_is_full_the_oldest_day_goes(self) -> None:
        self.patch(counts, "_MAP", 1 << 20)
        for day in range(20):
            names = [b"/files/p/-/p-%d.%d.tar.gz" % (day, number) for number in range(400)]
            self.write(*[line(path=name, at=NOW + day * 86400_000) for name in names])
            self.downloads._turn_safely(None)
        for _ in range(20):
            self.downloads._turn_safely(None)
        days = {row["day"] for row in self.rows(("day",))}
        self.assertEqual((True, False), (iso_day(DAY + 19) in days, iso_day(DAY) in days))


class FilesTests(FoldingCase):
    """Reading while others write; removing what is done."""

    def test_a_file_without_writer_goes_when_it_is_counted(self) -> None:
        self.write(line())
        self.assertEqual((1, []), (self.total(), self.files()))

    def test_one_that_is_held_is_counted_and_stays(self) -> None:
        with self.writer(line()) as file:
            self.assertEqual((1, 1), (self.total(), len(self.files())))
            file.write(line())
            self.assertEqual(2, self.total())
        self.assertEqual((2, []), (self.total(), self.files()))

    def test_a_line_is_counted_when_it_is_whole(self) -> None:
        with self.writer(line()[:-30]) as file:
            self.assertEqual(0, self.total())
            file.write(line()[-30:])
            self.assertEqual(1, self.total())

    def test_what_was_said_once_is_known_after_a_restart(self) -> None:
        told, event = line().splitlines(keepends=True)
        with self.writer(told, event) as file:
            self.assertEqual(1, self.total())
            self.close(self.downloads)
            self.downloads = self.open()
            file.write(event * 2)
            self.assertEqual(3, self.total())

    def test_a_line_that_a_kill_cut_is_lost_and_no_other(self) -> None:
        self.write(line(), line()[:-5])
        self.assertEqual((1, [], 0), (self.total(), self.files(), self.downloads.folded.damaged_lines))

    def test_what_is_no_event_is_passed_over(self) -> None:
        self.write(line(), b"\0" * 700 + b"\n", line())
        self.assertEqual((2, 1), (self.total(), self.downloads.folded.damaged_lines))

    def test_more_than_one_batch_is_counted_before_the_answer(self) -> None:
        self.patch(folding, "BATCH_OCTETS", 1000)
        self.write(*[line()] * 100)
        self.assertEqual((100, []), (self.total(), self.files()))

    def test_a_line_that_never_ends_does_not_stop_anybody(self) -> None:
        self.patch(folding, "BATCH_OCTETS", 1000)
        self.write(b"x" * 5000 + b"\n", line())
        self.assertEqual((1, []), (self.total(), self.files()))

    def test_a_file_that_a_power_cut_brought_back_is_not_counted_again(self) -> None:
        """Its removal may not have been on disk yet."""
        path = self.write(line(), name="back")
        content = path.read_bytes()
        self.assertEqual(1, self.total())
        path.write_bytes(content)
        self.close(self.downloads)
        self.downloads = self.open()
        self.downloads._tidy()
        self.assertEqual((1, []), (self.total(), self.files()))
        self.total()
        self.assertEqual({}, self.downloads._opened().segments())

    def test_a_killed_worker_s_unnamed_file_goes_at_the_start(self) -> None:
        Path(self.directory, "x" + SUFFIX + ".new").write_bytes(b"")
        self.downloads._tidy()
        self.assertEqual(["counts"], os.listdir(self.directory))

    def test_it_turns_each_second_until_it_is_stopped(self) -> None:
        clock = self.downloads._timers
        assert isinstance(clock, Clock)
        self.downloads.start()
        self.write(line())
        clock.advance(1.0)
        self.assertEqual([], self.files())
        self.write(line())
        self.successResultOf(Deferred.fromCoroutine(self.downloads.stop()))
        self.assertEqual(([], []), (self.files(), clock.getDelayedCalls()))

    def test_a_directory_that_cannot_be_made_is_said_and_tried_again(self) -> None:
        self.close(self.downloads)
        os.rmdir(self.directory)
        Path(self.directory).write_text("in the way")
        for _ in range(3):
            self.downloads._turn_safely(None)
        self.assertEqual(3, self.downloads.folded.failures)
        os.unlink(self.directory)
        os.mkdir(self.directory)
        self.write(line())
        self.assertEqual(1, self.total())


class LogTests(FoldingCase):
    def setUp(self) -> None:
        super().setUp()
        self.downloads = self.open(log=str(self.log))

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def test_a_line_per_download_and_page(self) -> None:
        self.write(line(), line(b"0-9/100"), line(path=b"/simple/six/", kind=Kind.PAGE))
        self.total()
        self.assertEqual(["download", "simple"], [each.split("|")[0] for each in self.lines()])

    def test_what_a_killed_turn_had_written_is_not_there_twice(self) -> None:
        self.write(line())
        self.total()
        self.write(line(), line())

        def killed(batch: counts.Batch) -> None:
            batch._txn.abort()
            raise OSError(5, "killed")

        self.patch(counts.Batch, "commit", killed)
        self.downloads._turn_safely(None)
        self.assertEqual(3, len(self.lines()))
        self.patch(counts.Batch, "commit", KEPT_COMMIT)
        self.assertEqual((3, 3), (self.total(), len(self.lines())))

    def test_after_a_rotation_there_is_a_new_one(self) -> None:
        self.write(line(), line())
        self.total()
        self.log.rename(f"{self.log}.1")
        self.write(line())
        self.total()
        self.assertEqual(1, len(self.lines()))

    def test_one_that_cannot_be_written_loses_lines_and_no_counts(self) -> None:
        self.log.mkdir()
        self.write(line())
        self.assertEqual((1, 1), (self.total(), self.downloads.folded.log_lines_lost))


class FullDiskTests(FoldingCase):
    """The limit on a file's size stands for the disk."""

    def test_events_wait_until_there_is_room_and_are_counted_once(self) -> None:
        self.downloads = self.open(log=str(self.log))
        self.write(line())
        self.assertEqual(1, self.total())
        paths = [b"/files/p%d/-/p%d-1.0.tar.gz" % (number, number) for number in range(3000)]
        self.write(*[line(path=path) for path in paths])
        size = os.path.getsize(os.path.join(self.directory, "counts", "data.mdb"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, hard))
        try:
            for _ in range(3):
                self.downloads._turn_safely(None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        self.assertEqual((3, 1), (self.downloads.folded.failures, len(self.files())))
        self.assertEqual((3001, []), (self.total(), self.files()))


KEPT_COMMIT = counts.Batch.commit

_FOLDER = """
import sys
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from edgecache.store import folding
from edgecache.store.folding import Downloads
folding.BATCH_OCTETS = 400
downloads = Downloads(sys.argv[1], {}, sys.argv[2], 400, Clock(), maybeDeferred, lambda: float(sys.argv[3]))
downloads._tidy()
print("ready", flush=True)
while True:
    downloads.turn()
    print("turn", flush=True)
"""

_WORKER = """
import sys
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from edgecache.index.downloads import Kind, common
from edgecache.words.messages import Request
from edgecache.wire import downloads
downloads.FILE_OCTETS = 3000
class Counts:
    def add(self, counter, n=1): raise AssertionError
turns = []
events = downloads.DownloadEvents(sys.argv[1], "n1", False, Counts(), Clock(), turns.append, maybeDeferred)
request = Request(b"GET", b"/", b"", [])
request.told = downloads.Told(common(Kind.FILE, 10, b"/files/six/-/six-1.0.tar.gz", b"pip/24.0"))
head = b"HTTP/1.1 200 OK\\r\\n"
number = 0
while True:
    # What finished in this turn, before it is written.
    print(number + 7, flush=True)
    for _ in range(7):
        events.done(request, head, 100, True, b"192.0.2.1\\t\\t")
        number += 1
    turns.pop()()
    print("written", number, flush=True)
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


class CrashTests(FoldingCase):
    """Real processes, really killed."""

    lives = int(os.environ.get("EDGECACHE_DOWNLOADS_CRASHES", "3"))

    def test_killed_at_any_point_the_counts_and_the_log_have_every_event_once(self) -> None:
        self.close(self.downloads)
        chance = random.Random(2026)
        due = 0
        for _ in range(self.lives):
            for _ in range(30):
                lines = [line(), line(b"0-49/100", client=b"%d" % due), line(b"50-99/100", client=b"%d" % due)]
                self.write(*lines, name=f"{chance.getrandbits(60):x}")
                due += 2
            process = child(_FOLDER, self.directory, str(self.log), str(self.now))
            assert process.stdout is not None
            self.assertEqual("ready\n", process.stdout.readline())
            for _ in range(chance.randrange(4)):
                process.stdout.readline()
            # Somewhere in a turn.
            for _ in range(chance.randrange(30_000)):
                pass
            process.kill()
            process.communicate()
        self.downloads = self.open(log=str(self.log))
        self.downloads._tidy()
        self.assertEqual((due, []), (self.total(), self.files()))
        self.assertEqual(due, len(self.log.read_text().splitlines()))
        self.total()
        self.assertEqual({}, self.downloads._opened().segments())

    def test_a_killed_worker_loses_at_most_what_finished_in_that_turn(self) -> None:
        chance = random.Random(7)
        least = most = 0
        for _ in range(self.lives):
            process = child(_WORKER, self.directory)
            assert process.stdout is not None
            seen = [process.stdout.readline() for _ in range(chance.randrange(1, 200))]
            process.kill()
            seen += process.stdout.readlines()
            process.communicate()
            written = [int(each.split()[1]) for each in seen if each.startswith("written ") and each.endswith("\n")]
            began = [int(each) for each in seen if each.strip().isdigit()]
            least += max(written, default=0)
            most += max(began, default=0)
        found = self.total()
        self.assertTrue(least <= found <= most, (least, found, most))
        self.assertEqual([], self.files())
