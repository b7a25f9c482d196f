"""
Caches in front of a package index, each with one CPU's worth of workers: ours, nginx, Varnish, devpi-server, proxpi.

Each is set up as somebody would who knows it well:

* nginx: ``proxy_cache`` on disk, one request per key fills, stale pages while they are refreshed, open files kept
  open. It has no purge of its own (there is a module of others): a page is *refreshed*, once for each coding, by a
  request with a field that bypasses the cache; the answer replaces what is stored. The coding is part of the key, for
  with variants by Vary a refresh leaves the others' old content in place (24 of 80 pages were stale).
* Varnish: in memory, large enough for all; pages for a day since they are purged; ``PURGE`` removes all variants of a
  URL. It compresses and expands by itself.
* devpi-server: a mirror index, behind the nginx that it generates a configuration for: stored files are sent by that,
  pages are made by Python and compressed by nginx. A project is refreshed by the request of its own web page.
* proxpi: gunicorn with one worker and 16 threads; ``DELETE /cache/<project>`` invalidates. More workers would each have
  a cache of their own, of which a DELETE reaches one.
* Ours: as its operator starts it, one worker, ``purged = true``; purges by the project's tag, answered when complete.

devpi-server and proxpi are installed once, in environments of their own (:mod:`tests.system.tools`).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.load import PAGE_FIELDS
from benchmarks.peers import Launched
from benchmarks.servers import NGINX, Nginx
from tests.system import processes
from tests.system.clients import ask
from tests.system.harness import Node, environment
from tests.system.tools import DEVPI, PROXPI, tool

PLAIN_FIELDS = PAGE_FIELDS | {"Accept-Encoding": "identity"}


class IndexSide(Protocol):
    """One that is compared. ``memory`` says what lies in its anonymous memory besides what it needs to run."""

    name: str
    url: str
    memory: str

    def page(self, project: str) -> str:
        """:return: the target of its page."""
        ...

    def pids(self) -> list[int]:
        """All its processes: their CPU is the figure."""
        ...

    def purge(self, project: str) -> None:
        """Return when the page is purged, as far as it can tell."""
        ...

    def stop(self) -> None: ...


class OurIndex:
    """See the module."""

    name = "edgecache"
    memory = ""

    def __init__(self, root: Path, origin: str) -> None:
        root.mkdir(parents=True)
        configuration = root / "edgecache.toml"
        configuration.write_text(
            f'[[site]]\nname = "index"\nprofile = "index"\nhosts = ["*"]\norigins = ["{origin}"]\npurged = true\n'
        )
        arguments = ("--config", str(configuration))
        self._node = Node(root / "node", profile="index", workers=1, size="6GiB", arguments=arguments)
        self.url = self._node.url
        try:
            self._node.start()
        except BaseException:
            self.stop()
            raise

    def page(self, project: str) -> str:
        return f"/simple/{project}/"

    def pids(self) -> list[int]:
        return self._node.family()

    def purge(self, project: str) -> None:
        self._node.purge(tags=[f"project/{project}"])

    def stop(self) -> None:
        self._node.end()


class NginxIndex(Nginx):
    """See the module."""

    name = "nginx"
    memory = ""

    def __init__(self, root: Path, origin: str) -> None:
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(root, _NGINX.format(root=root, port=port, origin=origin.removeprefix("http://")))

    def page(self, project: str) -> str:
        return f"/simple/{project}/"

    def pids(self) -> list[int]:
        return [*self.worker_pids(), *self.other_pids()]

    def purge(self, project: str) -> None:
        for fields in (PAGE_FIELDS, PLAIN_FIELDS):
            answer = ask(self.url, self.page(project), fields=fields | {"X-Refresh": "1"})
            if answer.status != 200:
                raise OSError(f"nginx: a refresh was answered {answer.status}")


_NGINX = """
  proxy_cache_path {root}/cache levels=1:2 keys_zone=all:64m max_size=40g inactive=1d use_temp_path=off;
  open_file_cache max=10000 inactive=60s;
  map $http_accept_encoding $coding {{ default ""; ~gzip gzip; }}
  upstream origin {{ server {origin}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Accept-Encoding $coding; proxy_cache_key "$request_uri $coding"; proxy_ignore_headers Vary;
      proxy_cache all; proxy_cache_lock on; proxy_cache_revalidate on; proxy_cache_background_update on;
      proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
      proxy_cache_bypass $http_x_refresh; proxy_buffers 16 64k; proxy_buffer_size 64k;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
"""


class VarnishIndex(Launched):
    """See the module."""

    name = "Varnish"
    memory = "all that is stored"

    def __init__(self, root: Path, origin: str) -> None:
        root.mkdir(parents=True)
        port = processes.free_port()
        host, _, at = origin.removeprefix("http://").partition(":")
        configuration = root / "default.vcl"
        configuration.write_text(_VARNISH % (host, at))
        command = ["varnishd", "-F", "-j", "none", "-n", str(root / "work"), "-f", str(configuration)]
        command += ["-a", f"127.0.0.1:{port}", "-s", "malloc,4g", "-p", "thread_pool_min=100"]
        super().__init__(root, command, port)

    def page(self, project: str) -> str:
        return f"/simple/{project}/"

    def purge(self, project: str) -> None:
        answer = ask(self.url, self.page(project), method="PURGE")
        if answer.status != 200:
            raise OSError(f"Varnish: PURGE was answered {answer.status}")


_VARNISH = """
vcl 4.1;
backend origin { .host = "%s"; .port = "%s"; }
sub vcl_recv {
  if (req.method == "PURGE") { return (purge); }
}
sub vcl_backend_response {
  if (bereq.url ~ "^/simple/") { set beresp.ttl = 1d; }
  set beresp.grace = 1h;
}
"""


class DevpiIndex:
    """See the module."""

    name = "devpi-server"
    memory = ""

    def __init__(self, root: Path, origin: str) -> None:
        root.mkdir(parents=True)
        commands, data = tool(DEVPI), root / "data"
        made = subprocess.run(
            [commands / "devpi-init", "--serverdir", data, "--root-passwd", "secret", "--no-root-pypi"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if made.returncode:
            raise OSError(f"devpi-init: {made.stderr[-2000:]}")
        self._stops: list[Callable[[], None]] = []
        behind, port = processes.free_port(), processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [str(commands / "devpi-server"), "--serverdir", str(data), "--port", str(behind)]
        # Keys are derived quickly: logging in is no part of this.
        command += ["--argon2-memory-cost", "64", "--argon2-time-cost", "1", "--argon2-parallelism", "1"]
        command += ["--enable-core-metadata", "--outside-url", self.url]
        try:
            self._server = Launched(root / "server", command, behind, looks=2400)
            self._stops.append(self._server.stop)
            self._front = Nginx(root / "nginx", _DEVPI.format(port=port, behind=behind, data=data))
            self._stops.append(self._front.stop)
            login = self._json("POST", "/+login", {"user": "root", "password": "secret"})
            mirror = {
                "type": "mirror",
                "mirror_url": f"{origin}/simple/",
                "mirror_web_url_fmt": f"{origin}/simple/{{name}}/",
                "mirror_provides_core_metadata": True,
                "volatile": False,
            }
            self._json("PUT", "/root/pypi", mirror, str(login["result"]["password"]))
        except BaseException:
            self.stop()
            raise

    def page(self, project: str) -> str:
        return f"/root/pypi/+simple/{project}/"

    def pids(self) -> list[int]:
        return [*self._server.pids(), *self._front.worker_pids(), *self._front.other_pids()]

    def purge(self, project: str) -> None:
        answer = ask(self.url, f"{self.page(project)}refresh", method="POST", content=b"")
        if answer.status != 302:
            raise OSError(f"devpi-server: a refresh was answered {answer.status}")

    def _json(self, method: str, path: str, document: dict[str, Any], password: str = "") -> dict[str, Any]:
        fields = {"Content-Type": "application/json", "Accept": "application/json"}
        if password:
            fields["X-Devpi-Auth"] = base64.b64encode(f"root:{password}".encode()).decode()
        answer = ask(self.url, path, method=method, fields=fields, content=json.dumps(document).encode())
        if answer.status not in (200, 201):
            raise OSError(f"devpi-server: {method} {path}: {answer}")
        found: dict[str, Any] = json.loads(answer.content)
        return found

    def stop(self) -> None:
        for stop in reversed(self._stops):
            stop()


# What devpi-gen-config says, without the map for further proxies.
_DEVPI = """
  gzip on; gzip_min_length 2000; gzip_proxied any;
  gzip_types text/plain text/css text/xml application/json application/vnd.pypi.simple.v1+json application/javascript;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {data};
    location ~ /\\+f/ {{ expires max; try_files /+files$uri @devpi; }}
    location / {{ error_page 418 = @devpi; return 418; }}
    location @devpi {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_set_header X-outside-url $scheme://$http_host; proxy_set_header X-Real-IP $remote_addr;
    }}
  }}
"""


class ProxpiIndex(Launched):
    """See the module."""

    name = "proxpi"
    memory = ""

    def __init__(self, root: Path, origin: str) -> None:
        root.mkdir(parents=True)
        commands = tool(*PROXPI)
        port = processes.free_port()
        command = [str(commands / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "16"]
        variables = environment() | {
            "PROXPI_INDEX_URL": f"{origin}/simple/",
            "PROXPI_CACHE_DIR": str(root / "cache"),
            "PROXPI_CACHE_SIZE": str(20 << 30),
            "PROXPI_LOGGING_LEVEL": "WARNING",
        }
        super().__init__(root, [*command, "proxpi.server:app"], port, variables=variables, looks=2400)

    def page(self, project: str) -> str:
        return f"/index/{project}/"

    def purge(self, project: str) -> None:
        answer = ask(self.url, f"/cache/{project}", method="DELETE")
        if answer.status != 200:
            raise OSError(f"proxpi: DELETE was answered {answer.status}")


Start = Callable[[Path, str], IndexSide]

SIDES: dict[str, Start] = {each.name: each for each in (OurIndex, NginxIndex, VarnishIndex, DevpiIndex, ProxpiIndex)}


def missing(name: str) -> str:
    """:return: the command that this machine lacks for a side; ``""``: none that is known before it is started."""
    needed = {"nginx": NGINX, "Varnish": "varnishd", "devpi-server": NGINX}.get(name)
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/local/sbin:/usr/sbin:/sbin"
    return needed if needed is not None and shutil.which(needed, path=path) is None else ""
