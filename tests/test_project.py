"""The project's own promises: types, lint, layers, documented settings, commands of the README that are real."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from edgecache import cli, tap
from edgecache.processes.settings import load, local_facts, read_secret
from edgecache.words.checking import checked
from edgecache.words.config import ClientSettings, Config, SiteSettings
from edgecache.words.reading import build, octets
from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CONF = ROOT / "conf" / "edgecache.toml"
README = (ROOT / "README.md").read_text()

CHOSEN = {
    # No default, or one that depends on the machine: the example shows a value instead.
    ("node", "id"),
    ("node", "region"),
    ("node", "data"),
    ("node", "workers"),
    ("site", "name"),
    ("site", "profile"),
    ("site", "origins"),
    ("tls", "certificate"),
    ("tls", "key"),
    ("upstream", "ca"),
}


class ToolTests(SynchronousTestCase):
    """What a reviewer need not look for."""

    def clean(self, *command: str) -> None:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual(0, done.returncode, done.stdout[-4000:] + done.stderr[-4000:])

    def test_types(self) -> None:
        self.clean("mypy")

    def test_lint(self) -> None:
        self.clean("ruff", "check", ".")

    def test_layers(self) -> None:
        self.clean("lint-imports", "--config", "setup.cfg")


class ConfigurationTests(SynchronousTestCase):
    """conf/edgecache.toml is the reference of settings."""

    def tables(self) -> dict[str, Any]:
        """Every table's attrs class, by its name in the file."""
        attrs.resolve_types(Config)
        found: dict[str, Any] = {}
        for attribute in attrs.fields(Config):
            kind: Any = attribute.type
            found[attribute.name] = next((one for one in getattr(kind, "__args__", ()) if attrs.has(one)), kind)
        found["site"] = found.pop("sites") and SiteSettings
        found["sibling"] = found.pop("others") and SiblingSettings
        return found

    def example(self) -> dict[str, Any]:
        """The file with its commented settings switched on."""
        text = re.sub(
            r"^# (\[+(?:tls|siblings?|site\.client)\]+|[a-z_]+ = .*)$", r"\1", CONF.read_text(), flags=re.MULTILINE
        )
        data = tomllib.loads(text)
        return {**data, "site": data["site"][0], "sibling": data["sibling"][0]}

    def test_it_can_be_used(self) -> None:
        document = load(str(CONF))
        config = checked(build(document, local_facts(), read_secret), document)
        self.assertEqual("eu-1", config.node.id)

    def test_the_one_of_a_voter_can_be_used_and_has_what_the_nodes_need_to_know_of_it(self) -> None:
        document = load(str(CONF.with_name("voter.toml")))
        config = checked(build(document, local_facts(), read_secret), document)
        assert config.siblings is not None
        self.assertEqual((True, "vote-1", ()), (config.siblings.voter, config.node.id, config.listen.public))
        # As docs/SIBLINGS.md has it.
        page = (ROOT / "docs" / "SIBLINGS.md").read_text()
        self.assertIn(f'id = "{config.node.id}"\ncontrol_url = "https://vote.example:8443"\nvoter = true', page)

    def test_every_setting_is_documented(self) -> None:
        example = self.example()
        missing = [
            f"[{table}] {attribute.name}"
            for table, kind in self.tables().items()
            for attribute in attrs.fields(kind)
            if {"clients": "client"}.get(attribute.name, attribute.name) not in example.get(table, {})
        ]
        client = example["site"].get("client", [{}])[0]
        missing += [one.name for one in attrs.fields(ClientSettings) if one.name not in client]
        self.assertEqual([], missing)

    def test_what_it_shows_are_the_defaults(self) -> None:
        document = load(str(CONF))
        config = checked(build(document, local_facts(), read_secret), document)
        different = []
        for table, kind in self.tables().items():
            if table in ("siblings", "sibling"):
                continue
            shown = config.sites[0] if table == "site" else getattr(config, table)
            for attribute in attrs.fields(kind):
                if (table, attribute.name) in CHOSEN:
                    continue
                if getattr(shown, attribute.name) != attribute.default:
                    different.append(f"[{table}] {attribute.name}: {attribute.default!r} is the default")
        self.assertEqual([], different)

    def test_what_it_shows_of_siblings_are_the_defaults(self) -> None:
        chosen = {"ca", "certificate", "key", "id", "region", "control_url", "content_url"}
        chosen |= {"previous_quorum", "previous_lease_seconds"}
        example = self.example()
        for table, kind in (("siblings", SiblingsSettings), ("sibling", SiblingSettings)):
            for attribute in attrs.fields(kind):
                if attribute.name not in chosen:
                    raw = example[table][attribute.name]
                    shown = octets(raw) if attribute.name.endswith("_octets") else raw
                    shown = tuple(shown) if isinstance(shown, list) else shown
                    self.assertEqual(getattr(attribute.default, "value", attribute.default), shown, attribute.name)

    def test_every_setting_that_a_page_shows_is_one(self) -> None:
        known = {**self.tables(), "client": ClientSettings}
        blocks = [
            (page.name, block)
            for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
            for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
        ]
        self.assertGreater(len(blocks), 5)

        def unknown(table: str, rows: Any) -> list[str]:
            found = []
            for row in rows if isinstance(rows, list) else [rows]:
                names = {attribute.name for attribute in attrs.fields(known[table])} | {"client"}
                for name, value in row.items():
                    found += [] if name in names else [f"[{table}] {name}"]
                    found += unknown(name, value) if name == "client" else []
            return found

        for page, block in blocks:
            for table, rows in tomllib.loads(block).items():
                self.assertEqual([], unknown(table, rows), page)

    def test_every_setting_says_what_it_is_for_unless_its_name_does(self) -> None:
        plain = {"tls_handshake_seconds", "requests_per_connection", "body_octets"}
        settings = [row for row in CONF.read_text().splitlines() if re.match(r"(# )?[a-z_]+ = ", row)]
        self.assertGreater(len(settings), 50)
        bare = [row for row in settings if "  #" not in row and not re.search(r"\S # ", row)]
        self.assertEqual(plain, {row.split(" =")[0] for row in bare})

    def test_the_page_of_settings_is_what_it_would_be_if_it_were_made_now(self) -> None:
        # python docs/settings_page.py makes it.
        done = subprocess.run(
            [sys.executable, "-c", "import settings_page; print(settings_page.page(), end='')"],
            cwd=ROOT / "docs",
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'docs'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(("", (ROOT / "docs" / "SETTINGS.md").read_text()), (done.stderr, done.stdout))


class ReadmeTests(SynchronousTestCase):
    """The commands in it are commands that there are."""

    def commands(self) -> list[list[str]]:
        """Every command line of the console blocks, its words."""
        found = []
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    found += [shlex.split(part.replace(".venv/bin/", "")) for part in re.split(r"&&", line[2:])]
        return found

    def test_the_first_screen_has_the_two_commands(self) -> None:
        screen = "\n".join(README.splitlines()[:24])
        self.assertIn("pip install . && .venv/bin/twistd -n edgecache\n", screen)
        self.assertIn("pip install -e '.[test]' && .venv/bin/python -m pytest\n", screen)

    def test_every_twistd_command_is_understood(self) -> None:
        commands = [words for words in self.commands() if words[0] == "twistd"]
        self.assertGreater(len(commands), 4)
        for words in commands:
            flags = words[words.index("edgecache") + 1 :]
            if flags == [] or "--help" in flags:
                continue
            done = subprocess.run(
                [str(BIN / "twistd"), "edgecache", "--check", *(flag for flag in flags if flag != "--check")],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr), words)

    def test_every_edgecache_command_is_understood(self) -> None:
        commands = [words[1:] for words in self.commands() if words[0] == "edgecache"]
        self.assertGreater(len(commands), 0)
        for words in commands:
            options = cast(Any, cli.Options)()
            options.parseOptions(words)
            self.assertIsNotNone(options.subCommand)

    def test_every_path_that_it_links_is_there(self) -> None:
        links = re.findall(r"\]\(([^)#:]+)\)", README)
        self.assertGreater(len(links), 2)
        self.assertEqual([], [link for link in links if not (ROOT / link).exists()])

    def test_the_test_command_is_the_one_that_ci_runs(self) -> None:
        ci = (ROOT / ".ci" / "run").read_text()
        for words in ("install --quiet -e '.[test]'", "-m pytest"):
            self.assertIn(words, ci)
            self.assertIn(words.replace(" --quiet", ""), README)


class DocumentationTests(SynchronousTestCase):
    """docs/ names what there is."""

    PAGES = sorted((ROOT / "docs").glob("*.md"))

    def test_every_path_that_a_page_links_is_there(self) -> None:
        links = [(page, link) for page in self.PAGES for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
        self.assertGreater(len(links), 10)
        self.assertEqual([], [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()])

    def test_the_tests_that_hold_a_promise_are_there(self) -> None:
        named: list[str] = []
        for row in (ROOT / "docs" / "PROMISES.md").read_text().replace(",\n", ", ").splitlines():
            if row.startswith("**Tests.**"):
                where = ""
                for word in re.findall(r"[\w/]+\.py", row):
                    where = f"{word.rpartition('/')[0]}/" if "/" in word else where
                    named.append(word if "/" in word else where + word)
        self.assertGreater(len(named), 12)
        self.assertEqual([], [name for name in named if not (ROOT / name).exists()])

    def test_the_page_of_tests_has_every_long_form(self) -> None:
        page = (ROOT / "docs" / "TESTING.md").read_text()
        sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
        read = set(re.findall(r"environ(?:\.get)?[\[(]\s*\"(EDGECACHE_[A-Z_]+)\"", sources))
        self.assertGreater(len(read), 8)
        self.assertEqual(set(), {name for name in read if f"{name}=" not in page})

    def test_the_runbook_has_every_warning(self) -> None:
        source = (ROOT / "edgecache" / "admin" / "warnings.py").read_text()
        codes = set(re.findall(r"_(?:critical|warning)\(\s*\"([a-z-]+)\"", source))
        self.assertGreater(len(codes), 15)
        headings = re.findall(r"^## (.*)$", (ROOT / "docs" / "RUNBOOK.md").read_text(), re.MULTILINE)
        self.assertEqual(set(), codes - {code for heading in headings for code in heading.split(", ")})

    def test_the_runbook_has_every_alert(self) -> None:
        rules = (ROOT / "conf" / "prometheus" / "alerts.yml").read_text()
        alerts = set(re.findall(r"- alert: (\w+)", rules))
        self.assertGreater(len(alerts), 10)
        named = set(re.findall(r"\bEdgecache\w+", (ROOT / "docs" / "RUNBOOK.md").read_text()))
        self.assertEqual(alerts, named)

    def test_every_edgecache_command_in_it_is_understood(self) -> None:
        blocks = [
            block for page in self.PAGES for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        ]
        rows = [
            row[2:].partition(" #")[0]
            for block in blocks
            for row in block.replace("\\\n", " ").splitlines()
            if row[:2] == "$ "
        ]
        commands = [
            shlex.split(row.replace(".venv/bin/", ""))[1:] for row in rows if re.match(r"(\.venv/bin/)?edgecache ", row)
        ]
        self.assertGreater(len(commands), 8)
        for words in commands:
            options = cast(Any, cli.Options)()
            options.parseOptions(words)
            self.assertIsNotNone(options.subCommand)


class PluginTests(SynchronousTestCase):
    def test_twistd_finds_it(self) -> None:
        found = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        self.assertEqual("edgecache.tap", found["edgecache"].module)

    def test_every_flag_is_in_its_help(self) -> None:
        text = str(cast(Any, tap.Options)())
        for flag in ["config", "origin", "profile", "listen", "admin", "data", "size", "workers", "node", "check"]:
            self.assertIn(f"--{flag}", text)


class PackageTests(SynchronousTestCase):
    """What pip installs, from a wheel and from a checkout."""

    def setUp(self) -> None:
        self.source = Path(self.mktemp()).absolute() / "source"
        left = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests.*")
        shutil.copytree(ROOT, self.source, ignore=left)

    def build(self, what: str) -> zipfile.ZipFile:
        out = self.source.parent / what
        out.mkdir()
        code = f"import sys; from setuptools.build_meta import build_{what} as build; build(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(out)], cwd=self.source, capture_output=True, text=True, check=False
        )
        self.assertEqual(0, done.returncode, done.stderr[-2000:])
        (wheel,) = out.glob("*.whl")
        return zipfile.ZipFile(wheel)

    def check(self, *paths: str) -> str:
        """What ``twistd edgecache --check`` says with ``paths`` in the place of site-packages' newest entry."""
        done = subprocess.run(
            [str(BIN / "twistd"), "edgecache", "--check", "--origin", "http://a.example"],
            cwd=self.source.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def test_a_wheel_has_the_plugin_and_nothing_that_is_not_ours(self) -> None:
        with self.build("wheel") as wheel:
            names = wheel.namelist()
            installed = self.source.parent / "site"
            wheel.extractall(installed)
        self.assertIn("twisted/plugins/edgecache_plugin.py", names)
        self.assertIn("edgecache/py.typed", names)
        tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
        self.assertEqual({"edgecache", "twisted"}, tops)
        self.assertEqual(
            ["twisted/plugins/edgecache_plugin.py"], [name for name in names if name.startswith("twisted")]
        )
        self.assertEqual("edgecache: the settings can be used\n", self.check(str(installed)))

    def test_an_editable_install_is_a_path_where_twisted_looks_for_plugins(self) -> None:
        with self.build("editable") as wheel:
            (path,) = [wheel.read(name).decode().strip() for name in wheel.namelist() if name.endswith(".pth")]
        self.assertEqual(str(self.source), path)
        self.assertEqual("edgecache: the settings can be used\n", self.check(path))


class TreeTests(SynchronousTestCase):
    """Things that rot without a test."""

    def test_twisted_plugins_is_no_package_of_ours(self) -> None:
        """An ``__init__.py`` there would hide Twisted's own plugins."""
        self.assertEqual([], sorted((ROOT / "twisted").rglob("__init__.py")))

    def test_what_is_itself_and_no_value_shows_nothing_of_what_is_in_it(self) -> None:
        """A log could show a secret with it; and to make what would show it is a tenth of a start (decision 280)."""
        for path in (ROOT / "edgecache").rglob("*.py"):
            for made in re.findall(r"^ *@(?:define|frozen)\(eq=False.*\)$", path.read_text(), re.MULTILINE):
                self.assertIn("repr=False", made, path)

    def test_a_change_is_told_in_a_fragment(self) -> None:
        fragments = [path.name for path in (ROOT / "changes").iterdir()]
        self.assertNotEqual([], fragments)
        for name in fragments:
            self.assertRegex(name, r"^\+?[\w-]+\.(feature|bugfix|doc|removal|misc)(\.\d+)?\.md$")
