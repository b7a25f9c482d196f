"""What a miss costs a worker while its node has more and more siblings, who have what is asked for (simulated)."""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import sys
from pathlib import Path

from attrs import frozen

from benchmarks.load import PAGE_FIELDS, run
from benchmarks.servers import OriginServer
from edgecache.siblings.certificates import make_ca, make_node
from tests.system import processes
from tests.system.harness import environment

OCTETS = 8192
_HERE = Path(__file__).parent
_ROUNDS = 4


@frozen
class Misses:
    """:ivar cpu: microseconds of the asking worker per miss that is stored; its threads' as well."""

    siblings: int
    cpu: float
    p99_seconds: float


class Asker:
    """A :class:`~benchmarks.servers.Side`: ``asker.py`` with ``members`` as its siblings, by id, with their ports."""

    name = "asker"

    def __init__(self, root: Path, certificates: Path, origin: OriginServer, members: dict[str, int]) -> None:
        root.mkdir(parents=True)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        text = ['[node]\nid = "asker"', f'data = "{root}/data"', "workers = 1"]
        text += [f'[[site]]\nprofile = "plain"\nhosts = ["*"]\norigins = ["{origin.url}"]\nfill = "home"']
        ports = {origin.url: origin.port}
        if members:
            mine = f'certificate = "{certificates}/asker.pem"\nkey = "{certificates}/asker.key"'
            text += ['[listen]\nsiblings = ["127.0.0.1:1"]\ncontent = ["127.0.0.1:2"]']
            text += [f'[siblings]\nca = "{certificates}/ca.pem"\nweight = 0.001\n{mine}']
        for name, port in members.items():
            # Nearly every key's home is a sibling, however many there are.
            url = f"https://127.0.0.1:{port}"
            ports[url] = port
            text += [
                f'[[sibling]]\nid = "{name}"\ncontrol_url = "https://127.0.0.1:{port + 20000}"\ncontent_url = "{url}"'
            ]
        configuration = root / "asker.toml"
        configuration.write_text("\n".join(text) + "\n")
        descriptor = self._listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "asker.py"), str(configuration), str(descriptor), json.dumps(ports)],
            pass_fds=[descriptor],
            env=environment(),
        )

    def url(self, tls: bool) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def counted(self, tls: bool) -> list[int]:
        return [self._process.pid]

    def besides(self, tls: bool) -> list[int]:
        return []

    def stop(self) -> None:
        processes.kill_now([self._process.pid])
        self._process.wait()
        self._listening.close()


def measure(root: Path, numbers: list[int], seconds: int) -> list[Misses]:
    """For each number of siblings in ``numbers``."""
    certificates = root / "certificates"
    now = datetime.datetime.now(datetime.UTC)
    make_ca(certificates, now)
    members = {f"s{number + 1}": processes.free_port() for number in range(max(numbers))}
    for name in ("asker", *members):
        make_node(certificates, now, name, ["127.0.0.1"])
    origin = OriginServer(root / "origin", [OCTETS])
    words = [word for name, port in members.items() for word in (name, str(port))]
    simulated = subprocess.Popen([sys.executable, str(_HERE / "simulated.py"), str(certificates), str(OCTETS), *words])
    found = []
    try:
        for number in numbers:
            asker = Asker(root / f"asker-{number}", certificates, origin, dict(list(members.items())[:number]))
            try:
                runs = [
                    run(
                        asker,
                        False,
                        f"/miss/{OCTETS}/{each}-",
                        connections=16,
                        seconds=seconds,
                        fields=PAGE_FIELDS,
                        numbered=True,
                    )
                    for each in range(_ROUNDS + 1)
                ][1:]
            finally:
                asker.stop()
            cpu = min(one.cpu_seconds / one.requests for one in runs) * 1e6
            found.append(Misses(number, cpu, min(one.p99_seconds for one in runs)))
    finally:
        processes.kill_now([simulated.pid])
        simulated.wait()
        origin.stop()
    return found
