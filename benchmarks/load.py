"""Load by wrk with what pip really sends, and what it cost the processes that served it."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import tempfile
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.servers import Side
from tests.system import processes
from tests.system.contents import Artifact, first_difference

# As pip 26.3 sends them (captured from it); a page, and a file.
_AGENT = (
    'pip/26.3 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm","libc":{"lib":"glibc","version":"2.36"},'
    '"name":"Debian GNU/Linux","version":"12"},"implementation":{"name":"CPython","version":"3.11.7"},'
    '"installer":{"name":"pip","version":"26.3"},"openssl_version":"OpenSSL 3.0.19 27 Jan 2026","python":"3.11.7",'
    '"rustc_version":"1.95.0","setuptools_version":"65.5.0","system":{"name":"Linux","release":"6.18.44"}}'
)
PAGE_FIELDS = {
    "User-Agent": _AGENT,
    "Accept-Encoding": "gzip, deflate",
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "Connection": "keep-alive",
}
FILE_FIELDS = {"User-Agent": _AGENT, "Accept-Encoding": "identity", "Accept": "*/*", "Connection": "keep-alive"}

_DONE = """
function done(summary, latency, requests)
  io.write(string.format(
    '\\nRESULT {"requests": %d, "octets": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""

_NUMBERED = """
local number = 0
function request()
  number = number + 1
  return wrk.format("GET", "%s" .. number)
end
"""

_AT_RANDOM = """
math.randomseed(os.time())
function request()
  return wrk.format("GET", "%s" .. math.random(0, %d))
end
"""


@frozen
class Load:
    """
    One run against one side.

    :ivar cpu_seconds: of the serving processes; ``besides_seconds`` of the side's other ones.
    """

    requests: int
    octets: int
    seconds: float
    p99_seconds: float
    cpu_seconds: float
    besides_seconds: float

    def answers(self, size: int) -> float:
        """How many contents of ``size`` that was; large ones count by the octets that came."""
        return self.requests if size < 1 << 20 else self.octets / size


class BadRun(Exception):
    """A run that proves nothing: errors, or not the answers that were to be measured."""


def run(
    side: Side,
    tls: bool,
    target: str,
    *,
    connections: int,
    seconds: int,
    fields: dict[str, str],
    numbered: bool = False,
    below: int = 0,
) -> Load:
    """
    wrk with one thread for so long; ``numbered`` appends 1, 2, 3 and so on to the target, ``below`` a random number
    from 0 up to that.

    On a machine that is busy with something else, the handshakes of all connections can take a whole short run: such a
    run is tried again.

    :raises BadRun: any answer failed, or was not 2xx, or none came six times.
    """
    for _ in range(6):
        load = _run_once(side, tls, target, connections, seconds, fields, _numbers(target, numbered, below))
        if load.octets:
            return load
    raise BadRun(f"{side.name} {target}: no octet in six runs of {seconds} s")


def _numbers(target: str, numbered: bool, below: int) -> str:
    """Lua that says what is asked for."""
    if below:
        return _AT_RANDOM % (target, below - 1)
    return _NUMBERED % target if numbered else ""


def _run_once(
    side: Side, tls: bool, target: str, connections: int, seconds: int, fields: dict[str, str], lines: str
) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_DONE + lines)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", script.name]
        for name, value in fields.items():
            command += ["-H", f"{name}: {value}"]
        counted, besides = side.counted(tls), side.besides(tls)
        before = _cpu([*counted, *besides])
        ran = subprocess.run([*command, f"{side.url(tls)}{target}"], capture_output=True, text=True, check=False)
        after = _cpu([*counted, *besides])
    line = next((line for line in ran.stdout.splitlines() if line.startswith("RESULT ")), None)
    if ran.returncode != 0 or line is None:
        raise BadRun(f"{side.name} {target}: wrk ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"]:
        raise BadRun(f"{side.name} {target}: {ran.stdout}")
    if not set(counted) <= set(after):
        raise BadRun(f"{side.name} {target}: a process that served is gone")
    # nginx's cache loader ends a minute after the start: what is not there any more is not counted.
    cost = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
    return Load(
        result["requests"],
        result["octets"],
        result["seconds"],
        result["p99"],
        sum(cost[pid] for pid in counted),
        sum(cost.get(pid, 0.0) for pid in besides),
    )


def _cpu(pids: list[int]) -> dict[int, float]:
    """Seconds of those that are alive."""
    found = {}
    for pid in pids:
        try:
            found[pid] = processes.cpu_seconds(pid)
        except ProcessLookupError:
            continue
    return found


def get(
    url: str, target: str, fields: dict[str, str], due: Artifact | None = None, status: int = 200, start: int = 0
) -> dict[str, str]:
    """
    One request; its fields in lower case, and what TLS agreed on as ``tls``.

    :param start: octet of ``due`` with which the content begins; it ends with the last one.
    :raises BadRun: another status, or the content is not exactly ``due``.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # self-signed, made on the spot, on loopback
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=60, context=context)
    else:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        connection.request("GET", target, headers=fields)
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        if isinstance(connection.sock, ssl.SSLSocket):
            got["tls"] = " ".join(str(word) for word in (connection.sock.cipher() or ())[:2])
        position = start
        while piece := response.read(1 << 18):
            if due is not None and first_difference(due, position, piece) is not None:
                raise BadRun(f"{url}{target}: wrong octets after {position}")
            position += len(piece)
        if response.status != status or (due is not None and position != due.size):
            raise BadRun(f"{url}{target}: {response.status}, {position} octets, {got}")
        return got
    finally:
        connection.close()


def is_hit(fields: dict[str, str]) -> bool:
    """By nginx's or our own account."""
    parameters = [part.strip() for part in fields.get("cache-status", "").split(";")[1:]]
    return fields.get("x-cache") == "HIT" or "hit" in parameters


def require_hit(
    side: Side, tls: bool, target: str, fields: dict[str, str], due: Artifact, *, requests: int = 100
) -> str:
    """
    See that the side serves exactly this content from its store; gives what TLS agreed on.

    :raises BadRun: not within so many requests.
    """
    got: dict[str, str] = {}
    for _ in range(requests):
        got = get(side.url(tls), target, fields, due)
        if is_hit(got):
            return got.get("tls", "")
    raise BadRun(f"{side.name} {target}: no hit in {requests} requests: {got}")
