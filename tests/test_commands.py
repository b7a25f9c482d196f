"""docs/COMMANDS.md has every command with its flags and exit statuses, and no other; its examples are understood."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from edgecache import cli
from edgecache.index.tabulating import KEYS
from edgecache.words.errors import ConfigError

PAGE = (Path(__file__).parent.parent / "docs" / "COMMANDS.md").read_text()
INHERITED = {"--version", "--help"}


def flags_of(options: Any) -> set[str]:
    """Every flag that a parser takes, long and short, those of its own subcommands too."""
    found = {f"--{name}" for name in options.longOpt if name.rstrip("=")}
    found = {name.rstrip("=") for name in found}
    found |= {f"-{name}" for name in options.shortOpt.replace(":", "")}
    for _, _, inner, _ in getattr(options, "subCommands", ()):
        found |= flags_of(inner())
    return found - INHERITED


def imported(*modules: str) -> set[str]:
    """:return: all that is there when these are."""
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


class ImportTests(SynchronousTestCase):
    """An upload waits for its purge, and that for what the command imports."""

    def test_what_is_to_be_done_is_read_without_a_reactor_and_without_any_command(self) -> None:
        found = imported("edgecache.cli")
        self.assertEqual(
            set(), found & {"treq", "twisted.web", "twisted.internet.tcp", "uvloop", "edgecache.cli_purge"}
        )

    def test_a_purge_has_nothing_of_other_commands_and_of_the_node(self) -> None:
        found = imported("edgecache.cli", "edgecache.cli_purge")
        self.assertIn("treq", found)
        others = {"edgecache.cli_warm", "edgecache.demo", "edgecache.store", "edgecache.index", "lmdb", "packaging"}
        self.assertEqual(set(), found & others)


class WhereTests(SynchronousTestCase):
    """``--config``: which node is meant."""

    def test_of_the_node_s_file_only_that_matters_where_it_is(self) -> None:
        """Whoever asks a node need not have its secrets, and asks above all when something is wrong with the file."""
        data = Path(self.mktemp())
        data.mkdir()
        (data / "admin.token").write_text("t1")
        file = data / "node.toml"
        file.write_text(
            f'[node]\ndata = "{data.absolute()}"\n[listen]\nadmin = ["0.0.0.0:9081"]\n[store]\nsiez = 1\n'
            '[[site]]\nprofile = "index"\norigins = ["https://index.example"]\n'
            'origin_authorization = { env = "EDGECACHE_TESTS_SET_NO_SUCH_THING" }\n'
        )
        options = cast(Any, cli.Options)()
        options.parseOptions(["--config", str(file), "status"])
        where = options.where()
        self.assertEqual(("http://127.0.0.1:9081", "t1"), (where.url, where.token))

    def test_and_what_is_wrong_with_that_is_said(self) -> None:
        file = Path(self.mktemp())
        file.write_text("[listen]\nadmim = []\n")
        options = cast(Any, cli.Options)()
        options.parseOptions(["--config", str(file), "status"])
        self.assertIn("is 'admin' meant?", str(self.assertRaises(ConfigError, options.where)))


class CommandsPageTests(SynchronousTestCase):
    def sections(self) -> dict[str, str]:
        parts = re.split(r"^## (\w+)$", PAGE, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    def commands(self) -> dict[str, Any]:
        return {name: cast(Any, kind)() for name, _, kind, _ in cli.Options.subCommands}

    def test_every_command_has_a_section_in_the_order_of_the_help(self) -> None:
        self.assertEqual(list(self.commands()), list(self.sections()))
        for name in self.commands():
            self.assertIn(name, str(cast(Any, cli.Options)()))

    def test_every_flag_is_in_its_section_and_every_flag_there_is_one(self) -> None:
        for name, options in self.commands().items():
            rows = re.findall(r"^\| (`-[^|]*) \|", self.sections()[name], re.MULTILINE)
            shown = {flag for row in rows for flag in re.findall(r"`(--?[\w-]+)`", row)}
            self.assertEqual(flags_of(options), shown, name)

    def test_the_flags_of_all_commands_are_told_first(self) -> None:
        own = cast(Any, cli.Options)()
        own.subCommands = []
        rows = re.findall(r"^\| (`-[^|]*) \|", PAGE.partition("\n## ")[0], re.MULTILINE)
        shown = {flag for row in rows for flag in re.findall(r"`(--?[\w-]+)`", row)}
        self.assertEqual(flags_of(own), shown - INHERITED)

    def test_every_command_has_help_and_says_what_its_exit_statuses_mean(self) -> None:
        for name, options in self.commands().items():
            statuses = re.findall(r"\*\*(\d+)\*\*", self.sections()[name].partition("Exit status:")[2])
            self.assertIn("0", statuses, name)
            self.assertGreaterEqual(len(statuses), 2, name)
            self.assertGreater(len(options.longdesc), 40)
            self.assertTrue(options.synopsis.startswith("Usage: edgecache "))

    def test_every_command_but_the_demo_speaks_json(self) -> None:
        silent = [name for name, options in self.commands().items() if "--json" not in flags_of(options)]
        self.assertEqual(["demo"], silent)

    def test_what_is_no_number_is_said_of_its_flag(self) -> None:
        for words, expected in (
            (["audit", "--keys", "0"], "--keys is a whole number from 1, not '0'"),
            (["audit", "--keys", "many"], "--keys is a whole number from 1, not 'many'"),
            (["purge", "--all", "--timeout", "nan"], "--timeout is a number of seconds, not 'nan'"),
            (["warm", "--most", "-1", "/a"], "--most is a whole number from 1, not '-1'"),
            (["warm", "--at-a-time", "1.5", "/a"], "--at-a-time is a whole number from 1, not '1.5'"),
            (["downloads", "--from", "yesterday"], "--from: 'yesterday' is no day as 2018-07-20"),
            (["downloads", "--by", "day,who"], f"--by: 'who' is none of {', '.join(KEYS)}"),
            (["downloads", "--by", "filename,ci"], "--by: what clients tell of themselves is not counted by file"),
            (["certs", "ca", "--days", "36501"], "--days is a whole number from 1 to 36500, not '36501'"),
        ):
            error = self.assertRaises(usage.UsageError, cast(Any, cli.Options)().parseOptions, words)
            self.assertEqual(expected, str(error))

    def test_a_purge_says_which_serials_made_it_necessary(self) -> None:
        purge = cast(Any, cli.Options)()
        purge.parseOptions(["purge", "--serial", "Foo.Bar=7", "--serial", "six=12"])
        self.assertEqual({"serials": {"Foo.Bar": 7, "six": 12}}, purge.subOptions.document())
        for text in ("six", "six=", "=7", "six=new"):
            words = ["purge", "--serial", text]
            error = self.assertRaises(usage.UsageError, cast(Any, cli.Options)().parseOptions, words)
            self.assertIn("--serial is PROJECT=N", str(error))

    def test_every_example_is_understood(self) -> None:
        lines = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
        examples = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ edgecache")]
        self.assertGreater(len(examples), 15)
        for words in examples:
            options = cast(Any, cli.Options)()
            options.parseOptions(words[1:])
            self.assertIsNotNone(options.subCommand, words)
