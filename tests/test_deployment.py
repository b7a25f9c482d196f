"""What conf/ has for deploying: each file can be used, and says what the program and the documentation say."""

from __future__ import annotations

import configparser
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import urlsplit

import yaml
from twisted.trial.unittest import SynchronousTestCase

from edgecache import cli, tap
from edgecache.cli_certs import CertsOptions
from edgecache.processes.settings import load, local_facts, read_secret
from edgecache.words.checking import checked
from edgecache.words.config import Config, LimitSettings
from edgecache.words.reading import build

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "DEPLOY.md").read_text()
LOGROTATE = ROOT / "conf" / "logrotate" / "edgecache"
UNIT = ROOT / "conf" / "systemd" / "edgecache.service"
COMPOSE = ROOT / "conf" / "compose"
NODES = ("eu", "us", "ap")


def configuration(path: Path) -> Config:
    document = load(str(path))
    return checked(build(document, local_facts(), read_secret), document)


def understood(*words: str) -> Config:
    """What twistd makes of ``edgecache`` and these words."""
    options = tap.Options()
    options.parseOptions(words)
    return options.config


class ComposeTests(SynchronousTestCase):
    """Three regions and an origin on one machine."""

    def setUp(self) -> None:
        self.services: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yml").read_text())["services"]

    def mounts(self, name: str) -> dict[str, str]:
        """What a service finds where."""
        pairs = [volume.split(":") for volume in self.services[name]["volumes"]]
        return {pair[1]: pair[0] for pair in pairs}

    def test_the_nodes_are_those_that_have_a_file(self) -> None:
        self.assertEqual({*NODES, "certificates", "origin"}, set(self.services))
        self.assertEqual(set(NODES), {path.stem for path in COMPOSE.glob("*.toml")})

    def test_each_node_is_started_with_its_own_file(self) -> None:
        for name in NODES:
            flag, where = self.services[name]["command"]
            mounts = self.mounts(name)
            self.assertEqual(f"./{name}.toml", mounts[where])
            self.assertEqual(name, mounts["/data"], "its data are its own")
            self.assertEqual(name, understood(flag, str(COMPOSE / f"{name}.toml")).node.id)

    def test_each_knows_the_others_by_name_and_port(self) -> None:
        for name in NODES:
            config = configuration(COMPOSE / f"{name}.toml")
            self.assertEqual(sorted({*NODES} - {name}), sorted(one.id for one in config.others))
            self.assertEqual(["http://origin:8000"], list(config.sites[0].origins))
            for other in config.others:
                theirs = configuration(COMPOSE / f"{other.id}.toml").listen
                for url, listen in (
                    (other.control_url, theirs.siblings),
                    (other.content_url, theirs.content),
                    (other.public_url, theirs.public),
                ):
                    where = urlsplit(url)
                    self.assertEqual(
                        (other.id, [where.port]), (where.hostname, [int(at.split(":")[1]) for at in listen])
                    )

    def test_the_certificates_are_made_for_the_names_and_where_the_nodes_look(self) -> None:
        (script,) = self.services["certificates"]["command"]
        self.assertIn(" ".join(NODES), script)
        made = re.findall(r"edgecache (certs .*)", script.replace("$$node", "eu"))
        options = cli.Options()
        for command in made:
            options.parseOptions(shlex.split(command))  # type: ignore[no-untyped-call]
            self.assertIsInstance(options.subOptions, CertsOptions)
            self.assertIn(options.subOptions["out"], self.mounts("certificates"))
        siblings = configuration(COMPOSE / "eu.toml").siblings
        assert siblings is not None
        for path in (siblings.ca, siblings.certificate, siblings.key):
            self.assertEqual("certificates", self.mounts("eu")[str(Path(path).parent)])

    def test_a_new_volume_belongs_to_the_image_s_user(self) -> None:
        made = re.search(r"^RUN mkdir (.*) && chown (\S+) (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert made is not None
        volumes = {at for name in self.services for at, of in self.mounts(name).items() if not of.startswith(".")}
        self.assertEqual((volumes, made[1]), (set(made[1].split()), made[3]))

    def test_nothing_is_reached_from_elsewhere(self) -> None:
        ports = [port for name in NODES for port in self.services[name]["ports"]]
        self.assertEqual([], [port for port in ports if not port.startswith("127.0.0.1:")])
        self.assertEqual(len(ports), len({port.split(":")[1] for port in ports}))


class ThreeRegionsTests(SynchronousTestCase):
    """What docs/DEPLOY.md has of three machines."""

    def test_the_file_of_a_node_can_be_used_with_the_certificates_that_the_page_makes(self) -> None:
        section = PAGE.partition("\n## Three regions\n")[2].partition("\n## ")[0]
        directory = Path(self.mktemp()).absolute()
        made: dict[str, str] = {}
        for words in re.findall(r"^\$ edgecache (certs .*)$", section, re.MULTILINE):
            options = cli.Options()
            options.parseOptions(shlex.split(words.replace("--out certs", f"--out {directory}")))  # type: ignore[no-untyped-call]
            self.assertIsInstance(options.subOptions, CertsOptions)
            self.assertEqual(0, options.subOptions.act(lambda line: None), words)
            if "--host" in words:
                made[words.split()[-3]] = words.split()[-1]
        (file,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
        (directory / "edgecache.toml").write_text(file)
        config = configuration(directory / "edgecache.toml")
        self.assertEqual(sorted(made), sorted([config.node.id, *(one.id for one in config.others)]))
        for one in config.others:
            for url, listens in ((one.control_url, config.listen.siblings), (one.content_url, config.listen.content)):
                self.assertEqual(made[one.id], urlsplit(url).hostname)
                self.assertEqual([urlsplit(url).port], [int(at.split(":")[1]) for at in listens])


class SystemdTests(SynchronousTestCase):
    def setUp(self) -> None:
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's page says
        unit.read(UNIT)
        self.service = unit["Service"]

    def test_its_commands_are_commands_that_there_are(self) -> None:
        words = shlex.split(self.service["ExecStart"])
        flags = words[words.index("edgecache") + 1 :]
        self.assertEqual("/etc/edgecache/edgecache.toml", flags.pop())
        understood(*flags, str(ROOT / "conf" / "edgecache.toml"))
        self.assertIn("-n edgecache", self.service["ExecStart"], "in the foreground")
        # A system without procps has no /bin/kill.
        self.assertEqual("/bin/sh -c 'kill -HUP $MAINPID'", self.service["ExecReload"])

    def test_systemd_understands_every_line(self) -> None:
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("there is no systemd-analyze (Debian: systemd)")
        unit = Path(self.mktemp()).absolute() / "edgecache.service"
        unit.parent.mkdir()
        # Installed where these tests run, not where the unit says.
        text = UNIT.read_text().replace("/opt/edgecache/bin/twistd", sys.executable)
        unit.write_text(text)
        self.assertEqual("", self.said(program, unit))
        unit.write_text(text.replace("KillMode=mixed", "KillMode=gently"))
        self.assertIn("gently", self.said(program, unit), "it says what is wrong")

    def said(self, program: str, unit: Path) -> str:
        ran = subprocess.run([program, "verify", unit], capture_output=True, text=True, timeout=60, check=False)
        # Of other units, which this machine may have.
        return "".join(line for line in ran.stderr.splitlines(True) if unit.name in line)

    def test_logs_that_are_files_are_where_the_service_may_write_and_logrotate_looks(self) -> None:
        text = LOGROTATE.read_text()
        (log,) = re.findall(r'access = "(.*)"', text)
        (pattern,) = re.findall(r"^(/\S+) \{$", text, re.MULTILINE)
        self.assertTrue(fnmatch.fnmatch(log, pattern))
        self.assertEqual(Path("/var/log") / self.service["LogsDirectory"], Path(log).parent)
        self.assertIn(f'access = "{log}"', PAGE)
        self.assertIn(f"systemctl try-reload-or-restart {UNIT.stem}\n", text)
        self.assertIn(f"    su {self.service['User']} {self.service['Group']}\n", text)

    def test_what_the_page_installs_is_what_the_unit_runs(self) -> None:
        program, file = self.service["ExecStart"].split()[0], self.service["ExecStart"].split()[-1]
        self.assertIn(f"# {program} edgecache --check --config {file}\n", PAGE, "by root, who may note the plugins")
        directories = [f"/var/lib/{self.service['StateDirectory']}", f"/var/log/{self.service['LogsDirectory']}"]
        user = self.service["User"]
        self.assertIn(f"# install -d -o {user} -g {user} {' '.join(directories)}\n", PAGE)

    def test_downloads_may_finish(self) -> None:
        self.assertGreater(int(self.service["TimeoutStopSec"]), LimitSettings().drain_seconds)
        self.assertEqual("mixed", self.service["KillMode"], "SIGTERM is for the node process, which drains its workers")
