"""Which files of an index a requirements file means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import Tag
from twisted.trial.unittest import SynchronousTestCase

from edgecache.admin.address import AdminFailed
from edgecache.admin.progress import Progress
from edgecache.admin.requirements import Read, Wanted, choose, read_requirements
from edgecache.admin.warming import targets_of

LINUX = [Tag("cp311", "cp311", "manylinux_2_17_x86_64"), Tag("py3", "none", "any")]


def file(filename: str, **keys: Any) -> dict[str, Any]:
    return {
        "filename": filename,
        "url": f"../../files/{filename}",
        "hashes": {"sha256": filename.ljust(64, "0")},
        **keys,
    }


class ReadingTests(SynchronousTestCase):
    def read(self, text: str, **others: str) -> Read:
        root = Path(self.mktemp())
        root.mkdir()
        for name, content in {"main": text, **others}.items():
            (root / f"{name}.txt").write_text(content)
        return read_requirements([str(root / "main.txt")])

    def names(self, read: Read) -> list[str]:
        return [f"{one.name}{one.specifier}" for one in read.wanted]

    def test_names_versions_comments_and_continued_lines(self) -> None:
        read = self.read("Zope.Interface==6.0  # why\n\n# none\nattrs >= 23, \\\n   < 25\nhttp_sf[all]\n")
        self.assertEqual(["zope-interface==6.0", "attrs<25,>=23", "http-sf"], self.names(read))
        self.assertEqual([], read.skipped)

    def test_hashes_of_sha256_are_kept(self) -> None:
        (wanted,) = self.read("a==1 \\\n  --hash=sha256:AB12 \\\n  --hash=sha256:cd34 --hash=md5:ff\n").wanted
        self.assertEqual(("a", frozenset(("ab12", "cd34"))), (wanted.name, wanted.hashes))

    def test_files_that_are_named_are_read_once_and_constraints_constrain(self) -> None:
        read = self.read("-r other.txt\n-c limits.txt\nb\n", other="a\n-r main.txt\n", limits="a<2\nc==1\n")
        self.assertEqual(["a<2", "b"], self.names(read))

    def test_what_is_no_file_of_an_index_is_skipped_and_said(self) -> None:
        read = self.read(
            "-e ./here\n./wheel.whl\nx @ https://a.example/x.whl\ny; python_version < '3'\n--index-url https://i.example\nok\n"
        )
        self.assertEqual(["ok"], self.names(read))
        expected = ["-e ./here", "./wheel.whl", "x @ https://a.example/x.whl", "y; python_version < '3'"]
        self.assertEqual(expected, [what for what, _ in read.skipped])

    def test_a_file_that_is_not_there_is_an_error(self) -> None:
        self.assertRaisesRegex(AdminFailed, "other.txt: No such file", self.read, "-r other.txt")


class ChoosingTests(SynchronousTestCase):
    def chosen(
        self, requirement: str, *files: Any, everything: bool = False, hashes: tuple[str, ...] = ()
    ) -> list[str]:
        (parsed,) = read_one(requirement)
        wanted = Wanted(parsed.name, parsed.specifier, frozenset(hashes))
        return [one.filename for one in choose(wanted, {"files": list(files)}, everything=everything, tags=LINUX)]

    def test_the_newest_version_that_fits(self) -> None:
        files = [file(f"a-{version}.tar.gz") for version in ("1.0", "1.10", "1.9", "2.0", "3.0rc1")]
        self.assertEqual(["a-2.0.tar.gz"], self.chosen("a", *files))
        self.assertEqual(["a-1.10.tar.gz"], self.chosen("a<2", *files))
        self.assertEqual(["a-1.9.tar.gz"], self.chosen("a==1.9", *files))
        self.assertEqual(["a-3.0rc1.tar.gz"], self.chosen("a>=3.0rc1", *files))
        self.assertEqual([], self.chosen("a>3", *files))

    def test_of_a_version_the_wheel_that_fits_best_or_the_source(self) -> None:
        anywhere, here = file("a-1-py3-none-any.whl"), file("a-1-cp311-cp311-manylinux_2_17_x86_64.whl")
        elsewhere, source = file("a-1-cp311-cp311-win_amd64.whl"), file("a-1.tar.gz")
        for files, expected in (
            ((source, elsewhere, anywhere, here), [here]),
            ((source, elsewhere, anywhere), [anywhere]),
            ((source, elsewhere), [source]),
            ((elsewhere,), []),
        ):
            self.assertEqual([one["filename"] for one in expected], self.chosen("a", *files))
        self.assertEqual(4, len(self.chosen("a", source, elsewhere, anywhere, here, everything=True)))

    def test_hashes_choose_among_versions(self) -> None:
        old, new = file("a-1.tar.gz"), file("a-2.tar.gz")
        self.assertEqual(["a-1.tar.gz"], self.chosen("a", old, new, hashes=(old["hashes"]["sha256"],)))
        self.assertEqual([], self.chosen("a==2", old, new, hashes=(old["hashes"]["sha256"],)))

    def test_what_is_yanked_or_for_another_python_is_not_chosen_unless_it_is_named(self) -> None:
        good, yanked = file("a-1.tar.gz"), file("a-2.tar.gz", yanked="broken")
        self.assertEqual(["a-1.tar.gz"], self.chosen("a", good, yanked))
        self.assertEqual(["a-2.tar.gz"], self.chosen("a==2", good, yanked))
        self.assertEqual(["a-1.tar.gz"], self.chosen("a", good, file("a-3.tar.gz", **{"requires-python": ">=99"})))

    def test_files_of_others_on_the_page_are_left_alone(self) -> None:
        self.assertEqual(
            [], self.chosen("a", file("b-1.tar.gz"), file("a-nonsense.exe"), file("a_b-1-py3-none-any.whl"))
        )


def read_one(requirement: str) -> list[Wanted]:

    parsed = Requirement(requirement)
    return [Wanted(parsed.name, parsed.specifier)]


class TargetTests(SynchronousTestCase):
    def test_paths_and_urls_are_targets_and_all_else_is_an_error(self) -> None:
        lines = ["/a?b=1", "https://user@Edge.example/c", "# no", "", "http://h.example"]
        self.assertEqual([("/a?b=1", ""), ("/c", "Edge.example"), ("/", "h.example")], targets_of(lines))
        for line in ("a/b", "ftp://a.example/x", "--json"):
            self.assertRaises(AdminFailed, targets_of, [line])


class Stream:
    def __init__(self, terminal: bool) -> None:
        self.written, self.terminal = "", terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.written += text

    def flush(self) -> None:
        pass


class ProgressTests(SynchronousTestCase):
    def shown(self, terminal: bool) -> str:
        stream, now = Stream(terminal), [100.0]
        progress = Progress(stream, lambda: now[0])  # type: ignore[arg-type]  # what it uses of one
        for second in range(12):
            now[0] = 100.0 + second
            progress.show(f"{second} done")
        progress.end("all done")
        return stream.written

    def test_on_a_terminal_one_line_changes(self) -> None:
        shown = self.shown(True)
        self.assertEqual(13, shown.count("\r\x1b[K"))
        self.assertTrue(shown.endswith("all done\n"))
        self.assertEqual(1, shown.count("\n"))

    def test_in_a_log_there_is_a_line_now_and_then_and_the_last_one(self) -> None:
        self.assertEqual(["0 done", "5 done", "10 done", "all done"], self.shown(False).splitlines())

    def test_nobody_looks(self) -> None:
        progress = Progress(None)
        progress.show("x")
        progress.end("y")
