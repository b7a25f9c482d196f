"""
Caches in front of failing origins: nginx, HAProxy, Varnish and Squid as Debian has them, and a node of ours.

Each peer is set up as somebody would who knows it well and wants a cache that moves on to another origin:

* nginx: one ``upstream`` per site with shared state, an origin is out for 10 s after one failure;
  ``proxy_next_upstream`` for all that it knows; one request per key fills (``proxy_cache_lock``); stale content for
  every failure, refreshed in the background.
* HAProxy: its own cache; active checks every 2 s, twice failed is down; a bad answer or none takes a server out at once
  (``observe layer7``); every retryable failure is asked elsewhere (``retry-on``, ``redispatch``). Its origins are
  equals, for a retry never goes to a ``backup`` while the first is up.
* Varnish: active checks every 2 s, two of three must be good; what fails is retried on the next backend; a day of
  grace; a failing refresh in the background is given up.
* Squid: origins as parents, taken in order; ``retry_on_error``; one failed connection takes a parent out; collapsed
  forwarding. It has no active checks of HTTP.
* Ours: as its operator starts it, two workers, nothing set but the sites.

``deadlines`` of None leaves each at the deadlines that it has by default (HAProxy has none; the usual 5 s and 30 s
stand in); :data:`SHORT` gives it ours, as far as it has settings for them.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

from benchmarks.characters import HEALTH
from benchmarks.servers import NGINX, Nginx
from tests.system import processes
from tests.system.harness import Node

Sites = Mapping[str, Sequence[int]]
"""Ports of each site's origins, by the site's host."""


@frozen
class Deadlines:
    """Seconds until connected, from the request to the head, between two reads of content, and for all attempts."""

    connect: int
    head: int
    stall: int
    all: int


SHORT = Deadlines(connect=2, head=5, stall=3, all=12)


class Peer(Protocol):
    """A cache in front of the sites."""

    name: str
    url: str

    def stop(self) -> None: ...


class Launched:
    """A server of one command with everything that it writes below ``root``; stopped by the ids of its processes."""

    def __init__(
        self,
        root: Path,
        command: Sequence[str],
        port: int,
        *,
        variables: Mapping[str, str] | None = None,
        looks: int = 400,
    ) -> None:
        """
        :param variables: its environment; ``None``: ours.
        :param looks: of 50 ms until it must have its port.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{port}"
        self._log = root / "output.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=variables
            )
        try:
            processes.until(lambda: self._answers(port), f"{command[0]} ({self._log})", looks=looks)
        except BaseException:
            self.stop()
            raise

    def _answers(self, port: int) -> bool:
        if self._process.poll() is not None:
            raise OSError(f"{self._process.args!r} ended: {self._log.read_text(errors='replace')[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def pids(self) -> list[int]:
        return processes.family(self._process.pid)

    def stop(self) -> None:
        processes.kill_now(self.pids())
        self._process.wait()


class NginxPeer(Nginx):
    """See the module."""

    name = "nginx"

    def __init__(self, root: Path, sites: Sites, *, ordered: bool, deadlines: Deadlines | None) -> None:
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        # One deadline serves for the head and between two reads: the head's is the longer one.
        short = deadlines and (
            f"proxy_connect_timeout {deadlines.connect}s; proxy_read_timeout {deadlines.head}s; "
            f"proxy_next_upstream_timeout {deadlines.all}s;"
        )
        body = _NGINX_CACHE.format(root=root, short=short or "")
        for number, (host, ports) in enumerate(sites.items()):
            servers = "".join(
                f"server 127.0.0.1:{each} max_fails=1 fail_timeout=10s{' backup' if ordered and at else ''}; "
                for at, each in enumerate(ports)
            )
            default = "" if number else "default_server backlog=1024"
            body += _NGINX_SITE.format(number=number, host=host, port=port, servers=servers, default=default)
        super().__init__(root, body, workers=2)


_NGINX_CACHE = """
  proxy_cache_path {root}/cache levels=1:2 keys_zone=all:16m max_size=1g inactive=1d use_temp_path=off;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_cache all; proxy_cache_key $host$request_uri; proxy_cache_lock on; proxy_cache_revalidate on;
  proxy_cache_background_update on;
  proxy_cache_use_stale error timeout invalid_header updating http_500 http_502 http_503 http_504;
  proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
  {short}
"""

_NGINX_SITE = """
  upstream site{number} {{ zone site{number} 256k; {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} {default}; server_name {host};
    location / {{ proxy_pass http://site{number}; }}
  }}
"""


class HaproxyPeer(Launched):
    """See the module."""

    name = "HAProxy"

    def __init__(self, root: Path, sites: Sites, *, ordered: bool, deadlines: Deadlines | None) -> None:
        root.mkdir(parents=True)
        port = processes.free_port()
        connect, server = (deadlines.connect, deadlines.head) if deadlines else (5, 30)
        text = _HAPROXY.format(port=port, connect=connect, server=server)
        for number, host in enumerate(sites):
            text += f"  use_backend site{number} if {{ hdr(host) -i {host} }}\n"
        text += "  default_backend site0\n"
        for number, ports in enumerate(sites.values()):
            text += _HAPROXY_SITE.format(number=number, health=HEALTH)
            text += "".join(f"  server origin{each} 127.0.0.1:{each}\n" for each in ports)
        configuration = root / "haproxy.cfg"
        configuration.write_text(text)
        super().__init__(root, ["haproxy", "-db", "-f", str(configuration)], port)


_HAPROXY = """
global
  maxconn 8000
  nbthread 2
defaults
  mode http
  timeout connect {connect}s
  timeout server {server}s
  timeout client 120s
  timeout check 2s
  retries 3
  option redispatch 1
  retry-on all-retryable-errors
cache all
  total-max-size 64
  max-object-size 2000000
  max-age 86400
  process-vary on
frontend public
  bind 127.0.0.1:{port} backlog 1024
"""

_HAPROXY_SITE = """
backend site{number}
  balance roundrobin
  http-request cache-use all
  http-response cache-store all
  option httpchk GET {health}
  default-server check inter 2s fall 2 rise 2 observe layer7 error-limit 1 on-error mark-down
"""


class VarnishPeer(Launched):
    """See the module."""

    name = "Varnish"

    def __init__(self, root: Path, sites: Sites, *, ordered: bool, deadlines: Deadlines | None) -> None:
        root.mkdir(parents=True)
        port = processes.free_port()
        short = deadlines and (
            f".connect_timeout = {deadlines.connect}s; .first_byte_timeout = {deadlines.head}s; "
            f".between_bytes_timeout = {deadlines.stall}s;"
        )
        declared, built, chosen = "", "", ""
        for number, (host, ports) in enumerate(sites.items()):
            first, rest = f"first{number}", f"rest{number}"
            built += f"  new {first} = directors.{'fallback' if ordered else 'round_robin'}();\n"
            built += f"  new {rest} = directors.round_robin();\n"
            for at, each in enumerate(ports):
                place = f'.host = "127.0.0.1"; .port = "{each}";'
                declared += f"backend origin{each} {{ {place} .probe = checked; {short or ''} }}\n"
                built += f"  {first}.add_backend(origin{each});\n"
                if at or len(ports) == 1:
                    built += f"  {rest}.add_backend(origin{each});\n"
            chosen += _VARNISH_SITE.format(host=host, first=first, rest=rest)
        chosen += "  set bereq.backend = first0.backend();\n"
        configuration = root / "default.vcl"
        configuration.write_text(_VARNISH.format(health=HEALTH, declared=declared, built=built, chosen=chosen))
        command = ["varnishd", "-F", "-j", "none", "-n", str(root / "work"), "-f", str(configuration)]
        command += ["-a", f"127.0.0.1:{port}", "-s", "malloc,128m", "-p", "thread_pool_min=100"]
        super().__init__(root, command, port)


_VARNISH_SITE = """
  if (bereq.http.host == "{host}") {{
    set bereq.backend = {first}.backend();
    if (bereq.retries > 0) {{ set bereq.backend = {rest}.backend(); }}
    return (fetch);
  }}
"""

_VARNISH = """
vcl 4.1;
import directors;
probe checked {{ .url = "{health}"; .interval = 2s; .timeout = 2s; .window = 3; .threshold = 2; .initial = 2; }}
{declared}
sub vcl_init {{
{built}
}}
sub vcl_backend_fetch {{
{chosen}
}}
sub vcl_backend_response {{
  if (beresp.status >= 500) {{
    if (bereq.is_bgfetch) {{ return (abandon); }}
    if (bereq.retries < 1) {{ return (retry); }}
  }}
  set beresp.grace = 1d;
}}
sub vcl_backend_error {{
  if (!bereq.is_bgfetch && bereq.retries < 1) {{ return (retry); }}
}}
"""


class SquidPeer(Launched):
    """See the module."""

    name = "Squid"

    def __init__(self, root: Path, sites: Sites, *, ordered: bool, deadlines: Deadlines | None) -> None:
        root.mkdir(parents=True)
        # A squid that root started becomes this user.
        if Path("/proc/self").stat().st_uid == 0:
            shutil.chown(root, "proxy")
        port = processes.free_port()
        first = next(iter(sites))
        text = _SQUID.format(root=root, port=port, first=first)
        if deadlines:
            text += f"read_timeout {deadlines.head} seconds\nforward_timeout {deadlines.all} seconds\n"
            text += f"connect_timeout {deadlines.connect} seconds\n"
        for number, (host, ports) in enumerate(sites.items()):
            text += f"acl site{number} dstdomain {host}\n"
            for each in ports:
                way = "" if ordered else "round-robin"
                wait = f"connect-timeout={deadlines.connect}" if deadlines else ""
                text += f"cache_peer 127.0.0.1 parent {each} 0 no-query no-digest originserver name=origin{each} "
                text += f"connect-fail-limit=1 {way} {wait}\ncache_peer_access origin{each} allow site{number}\n"
        configuration = root / "squid.conf"
        configuration.write_text(text)
        super().__init__(root, ["squid", "-N", "-f", str(configuration)], port)


_SQUID = """
http_port 127.0.0.1:{port} accel vhost defaultsite={first}
visible_hostname squid
pid_filename {root}/squid.pid
cache_log {root}/cache.log
access_log none
coredump_dir {root}
pinger_enable off
cache_mem 64 MB
maximum_object_size_in_memory 4 MB
collapsed_forwarding on
retry_on_error on
negative_ttl 0 seconds
minimum_expiry_time 0 seconds
shutdown_lifetime 0 seconds
http_access allow all
never_direct allow all
"""


class OurPeer:
    """See the module."""

    name = "edgecache"

    def __init__(self, root: Path, sites: Sites, *, ordered: bool, deadlines: Deadlines | None = None) -> None:
        assert deadlines is None, "a node is measured with its own deadlines"
        root.mkdir(parents=True)
        configuration = root / "edgecache.toml"
        configuration.write_text("".join(self._site(at, *site, ordered) for at, site in enumerate(sites.items())))
        self.node = Node(root, workers=2, arguments=("--config", str(configuration)))
        self.url = self.node.url
        try:
            self.node.launch()
            try:
                self.node.wait_ready()
            except processes.NeverHappened:
                # On a machine that is busy with something else, nine nodes that start take their time.
                self.node.wait_ready()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _site(number: int, host: str, ports: Sequence[int], ordered: bool) -> str:
        # The harness names a profile on the command line, which is about the site that takes every host.
        hosts = f'"{host}"' if number else '"*"'
        origins = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
        policy = "ordered" if ordered else "round-robin"
        return (
            f'[[site]]\nname = "{host}"\nprofile = "plain"\nhosts = [{hosts}]\n'
            f'origins = [{origins}]\npolicy = "{policy}"\n'
        )

    def stop(self) -> None:
        self.node.end()


Start = Callable[..., Peer]

PEERS: dict[str, tuple[str, Start]] = {
    each.name: (command, each)
    for command, each in (
        (NGINX, NginxPeer),
        ("haproxy", HaproxyPeer),
        ("varnishd", VarnishPeer),
        ("squid", SquidPeer),
    )
}
"""The command and the class of each that is not ours."""


def installed() -> dict[str, Start]:
    """The peers that this machine has; daemons may be outside of a user's PATH."""
    return {name: start for name, (command, start) in PEERS.items() if shutil.which(command, path=_PATH)}


def leave_at_termination() -> None:
    """SIGTERM ends the benchmark as an interrupt does, through every ``finally``; peers would outlive it otherwise."""

    def leave(*_: object) -> None:
        # Only once: the servers are being stopped.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(1)

    signal.signal(signal.SIGTERM, leave)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
