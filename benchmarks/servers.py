"""The servers that are measured: nginx as origin, nginx's proxy_cache with one worker, and a node with one worker."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from tests.system import processes
from tests.system.contents import PIECE, Artifact
from tests.system.harness import Node

NGINX = "nginx"

_COMMON = """
daemon off; pid {root}/nginx.pid; error_log {root}/error.log; {user}
worker_processes {workers}; worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  access_log {access}; default_type application/octet-stream;
  sendfile on; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
  scgi_temp_path {root}/t5;
  {body}
}}
"""

_ORIGIN = """
  server {{
    listen 127.0.0.1:{port} {ssl} reuseport backlog=1024;
    {secure}
    root {files};
    add_header Cache-Control "public, max-age=86400";
    location /miss/ {{ rewrite ^/miss/([^/]+)/ /packages/$1.whl break; }}
  }}
"""

_CACHE = """
  proxy_cache_path {root}/cache levels=1:2 keys_zone=all:64m max_size=40g inactive=1d use_temp_path=off;
  upstream origin {{ server {origin}; keepalive 64; }}
  {trust}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    listen 127.0.0.1:{tls_port} ssl backlog=1024;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:1m;
    location / {{
      proxy_pass {scheme}://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache all; proxy_cache_lock on; proxy_buffers 16 64k; proxy_buffer_size 64k;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
"""


# A node checks the origin's certificate and its name, and agrees on TLS 1.3.
_TRUST = """
  proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate}; proxy_ssl_name localhost;
  proxy_ssl_protocols TLSv1.2 TLSv1.3;
"""


class Side(Protocol):
    """One of the two that are compared."""

    name: str

    def url(self, tls: bool) -> str: ...

    def counted(self, tls: bool) -> list[int]:
        """The processes whose CPU is the figure: those that serve."""
        ...

    def besides(self, tls: bool) -> list[int]:
        """The side's other processes."""
        ...

    def stop(self) -> None: ...


class Nginx:
    """One nginx with everything that it writes below ``root``."""

    def __init__(self, root: Path, body: str, *, workers: int = 1, access: str = "off") -> None:
        root.mkdir(parents=True)
        user = "user root;" if _is_root() else ""
        configuration = root / "nginx.conf"
        configuration.write_text(_COMMON.format(root=root, workers=workers, access=access, user=user, body=body))
        self._process = subprocess.Popen([NGINX, "-c", str(configuration)], start_new_session=True)
        processes.until(self.worker_pids, f"nginx's workers ({root}/error.log)")

    def worker_pids(self) -> list[int]:
        return [pid for pid in self._family() if "worker process" in processes.command_line(pid)]

    def other_pids(self) -> list[int]:
        return sorted(set(self._family()) - set(self.worker_pids()))

    def _family(self) -> list[int]:
        return processes.family(self._process.pid)

    def stop(self) -> None:
        processes.kill_now(self._family())
        self._process.wait()


class OriginServer(Nginx):
    """
    ``/packages/<size>.whl`` for each size, fresh for a day; ``/miss/<size>/<anything>`` gives the same content.

    :ivar certificate: what it shows where it speaks TLS.
    """

    def __init__(
        self, root: Path, sizes: list[int], *, access: bool = False, tls: tuple[Path, Path] | None = None
    ) -> None:
        """:param tls: a certificate for loopback and its key; without it, it is a plain one."""
        self.port = processes.free_port()
        self.scheme = "http" if tls is None else "https"
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        self.certificate = None if tls is None else tls[0]
        self.access_log = root / "access.log"
        files = root / "files"
        (files / "packages").mkdir(parents=True)
        for size in sizes:
            write_artifact(files / "packages" / f"{size}.whl", artifact(size))
        secure = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]}; ssl_protocols TLSv1.3;" if tls else ""
        body = _ORIGIN.format(port=self.port, ssl="ssl" if tls else "", secure=secure, files=files)
        super().__init__(root / "nginx", body, workers=2, access=str(self.access_log) if access else "off")

    def requests(self) -> int:
        """Lines of the access log."""
        return len(self.access_log.read_text().splitlines())


class NginxCache(Nginx):
    """proxy_cache with one worker, plain and TLS."""

    name = "nginx"

    def __init__(self, root: Path, origin: OriginServer, certificate: Path, key: Path) -> None:
        self._ports = {False: processes.free_port(), True: processes.free_port()}
        body = _CACHE.format(
            root=root,
            origin=f"127.0.0.1:{origin.port}",
            scheme=origin.scheme,
            trust="" if origin.certificate is None else _TRUST.format(certificate=origin.certificate),
            port=self._ports[False],
            tls_port=self._ports[True],
            certificate=certificate,
            key=key,
        )
        super().__init__(root, body)

    def url(self, tls: bool) -> str:
        return f"{'https' if tls else 'http'}://127.0.0.1:{self._ports[tls]}"

    def counted(self, tls: bool) -> list[int]:
        return self.worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return self.other_pids()


class EdgeNode:
    """Two nodes with one worker each, for a node's public listener is either plain or TLS."""

    name = "edgecache"

    def __init__(
        self, root: Path, origin: OriginServer, certificate: Path, key: Path, *, profile: str, size: str = "8GiB"
    ) -> None:
        root.mkdir(parents=True)
        upstream = "" if origin.certificate is None else f'[upstream]\nca = "{origin.certificate}"\n'
        public = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        self._nodes = {}
        for tls, text in ((False, upstream), (True, upstream + public)):
            configuration = root / f"{'tls' if tls else 'plain'}.toml"
            configuration.write_text(text)
            arguments = ("--config", str(configuration))
            self._nodes[tls] = Node(
                root / str(tls), origin.url, profile=profile, workers=1, size=size, arguments=arguments
            )
        try:
            for node in self._nodes.values():
                node.start()
        except BaseException:
            self.stop()
            raise

    def url(self, tls: bool) -> str:
        url = self._nodes[tls].url
        return url.replace("http:", "https:") if tls else url

    def counted(self, tls: bool) -> list[int]:
        return self._nodes[tls].worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return sorted(set(self._nodes[tls].family()) - set(self.counted(tls)))

    def family(self) -> list[int]:
        """Every process of the plain one."""
        return self._nodes[False].family()

    def stop(self) -> None:
        for node in self._nodes.values():
            node.end()


def artifact(size: int) -> Artifact:
    """The content of the benchmark's object of this size."""
    return Artifact(f"benchmark {size}", size)


def write_artifact(path: Path, content: Artifact) -> None:
    with path.open("wb") as file:
        for start in range(0, content.size, PIECE):
            file.write(content.read(start, PIECE))


def _is_root() -> bool:
    return Path("/proc/self").stat().st_uid == 0


class Program:
    """A benchmark's own server in a process of its own: ``script --serve PORT ARGUMENTS``."""

    def __init__(self, name: str, script: str, *arguments: str) -> None:
        self.name = name
        self._port = processes.free_port()
        self._process = subprocess.Popen([sys.executable, script, "--serve", str(self._port), *arguments])
        processes.until(self._answers, name)

    def url(self, tls: bool) -> str:
        return f"http://127.0.0.1:{self._port}"

    def counted(self, tls: bool) -> list[int]:
        return [self._process.pid]

    def besides(self, tls: bool) -> list[int]:
        return []

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._port)) == 0
