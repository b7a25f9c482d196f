"""Index servers in front of which a node stands: pypiserver, devpi-server, nginx over a tree of PEP 691 pages."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

from attrs import define, field

from edgecache.rules.indexpaths import normalised_name
from tests.system import processes
from tests.system.clients import ask
from tests.system.packages import Package
from tests.system.tools import DEVPI, tool

_JSON = "application/vnd.pypi.simple.v1+json"

# Of 50 ms: some import half of what is on a disk first.
_LOOKS = 2400


class Server:
    """Somebody's server process on loopback: started when it answers, killed at the end."""

    def __init__(self, command: list[str], probe: str, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._probe = probe
        try:
            processes.until(self._answers, f"{command[0]} at {probe}", looks=_LOOKS)
        except AssertionError:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            return ask(self._probe).status < 500
        except OSError:
            return False

    def stop(self) -> None:
        processes.kill_now(processes.family(self._process.pid))
        self._process.wait()


def pypiserver(files: Path, log: Path) -> tuple[Server, str]:
    """:return: it, over a directory of files, HTML only, with relative links; the URL of its root."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(port), "--disable-fallback"]
    return Server([*command, str(files)], f"{url}/simple/", log), url


class Devpi:
    """
    devpi-server with one index, whose pages lie below :attr:`simple_path`.

    :ivar url: of its root.
    """

    simple_path = "/root/dev/+simple/"

    def __init__(self, root: Path) -> None:
        commands, data = tool(DEVPI), root / "devpi"
        quiet = subprocess.run(
            [str(commands / "devpi-init"), "--serverdir", str(data), "--no-root-pypi", "--root-passwd", "secret"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if quiet.returncode != 0:
            raise AssertionError(f"devpi-init: {quiet.stdout}{quiet.stderr}")
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        # By default it derives a key for seconds, with a gigabyte.
        cheap = ["--argon2-memory-cost", "64", "--argon2-time-cost", "1", "--argon2-parallelism", "1"]
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        self._server = Server(
            [str(commands / "devpi-server"), "--serverdir", str(data), *listen, *cheap],
            f"{self.url}/+api",
            root / "devpi.log",
        )
        login = self._json("POST", "/+login", {"user": "root", "password": "secret"})
        self._password = str(login["result"]["password"])
        self._json("PUT", "/root/dev", {"type": "stage", "bases": [], "volatile": True})

    def upload(self, package: Package) -> None:
        """Like twine: a form."""
        fields = {
            ":action": "file_upload",
            "metadata_version": "2.1",
            "name": package.project,
            "version": package.version,
            "filetype": "bdist_wheel" if package.filename.endswith(".whl") else "sdist",
            "pyversion": "py3",
            "sha256_digest": package.sha256,
        }
        content, kind = multipart(fields, package)
        answer = ask(
            f"{self.url}/root/dev/",
            method="POST",
            fields={"Content-Type": kind, **self._credentials()},
            content=content,
        )
        if answer.status != 200:
            raise AssertionError(f"upload: {answer}")

    def _credentials(self) -> dict[str, str]:
        pair = base64.b64encode(f"root:{self._password}".encode()).decode()
        return {"X-Devpi-Auth": pair}

    def _json(self, method: str, path: str, document: dict[str, Any]) -> dict[str, Any]:
        fields = {"Content-Type": "application/json", "Accept": "application/json"}
        if hasattr(self, "_password"):
            fields |= self._credentials()
        answer = ask(f"{self.url}{path}", method=method, fields=fields, content=json.dumps(document).encode())
        if answer.status not in (200, 201):
            raise AssertionError(f"{method} {path}: {answer}")
        found: dict[str, Any] = json.loads(answer.content)
        return found

    def stop(self) -> None:
        self._server.stop()


def multipart(fields: dict[str, str], package: Package) -> tuple[bytes, str]:
    """:return: an upload form's content and its Content-Type."""
    boundary = "edgecache-tests-boundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    disposition = f'form-data; name="content"; filename="{package.filename}"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    parts.append(head.encode() + package.content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@define(eq=False)
class Tree:
    """
    A static tree of pages in both forms, as an index lays them out behind a web server.

    :ivar files_url: of the host that has the files; links are absolute to it.
    """

    root: Path
    files_url: str
    serial: int = 1
    _projects: dict[str, list[tuple[Package, dict[str, Any]]]] = field(factory=dict)

    def add(self, package: Package, **keys: Any) -> None:
        """
        Publish it: file, metadata, both pages, the list.

        :param keys: further keys of its entry, ``yanked`` for one.
        """
        name = normalised_name(package.project.encode()).decode()
        files = self.root / "packages" / name
        files.mkdir(parents=True, exist_ok=True)
        package.write(files)
        (files / f"{package.filename}.metadata").write_bytes(package.metadata)
        self._projects.setdefault(name, []).append((package, keys))
        self.serial += 1
        self.write(name)

    def write(self, name: str) -> None:
        """Write the project's pages anew, and the list."""
        entries = [self._entry(name, package, keys) for package, keys in self._projects[name]]
        versions = sorted({package.version for package, _ in self._projects[name]})
        page = {
            "meta": {"api-version": "1.1", "_last-serial": self.serial},
            "name": name,
            "versions": versions,
            "files": entries,
        }
        anchors = "".join(anchor(entry) for entry in entries)
        self._put(self.root / "simple" / name, page, anchors)
        known = sorted(self._projects)
        every = {
            "meta": {"api-version": "1.1", "_last-serial": self.serial},
            "projects": [{"name": one} for one in known],
        }
        self._put(self.root / "simple", every, "".join(f'<a href="{one}/">{one}</a><br/>\n' for one in known))

    def _entry(self, name: str, package: Package, keys: dict[str, Any]) -> dict[str, Any]:
        return {
            "filename": package.filename,
            "url": f"{self.files_url}/packages/{name}/{package.filename}",
            "hashes": {"sha256": package.sha256},
            "size": len(package.content),
            "core-metadata": {"sha256": package.metadata_sha256},
            "yanked": False,
            **keys,
        }

    def _put(self, directory: Path, document: dict[str, Any], anchors: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # In one step each: a server may be reading.
        for name, content in (
            ("index.json", json.dumps(document)),
            ("index.html", f"<!DOCTYPE html><html><body>\n{anchors}</body></html>\n"),
        ):
            temporary = directory / f".{name}.new"
            temporary.write_text(content)
            temporary.rename(directory / name)


def anchor(entry: dict[str, Any]) -> str:
    """:return: what an HTML page says of a file."""
    metadata = entry["core-metadata"]
    attributes = f' data-core-metadata="sha256={metadata["sha256"]}"' if metadata else ""
    if entry["yanked"] is not False:
        reason = entry["yanked"] if isinstance(entry["yanked"], str) else ""
        attributes += f' data-yanked="{html.escape(reason)}"'
    url = f"{entry['url']}#sha256={entry['hashes']['sha256']}"
    return f'<a href="{html.escape(url)}"{attributes}>{html.escape(entry["filename"])}</a><br/>\n'


class Nginx:
    """
    nginx: pages on one address in the form that Accept asks for (PEP 691), files on another.

    :ivar url: of the pages' host. :ivar tree: what it serves.
    """

    def __init__(self, root: Path, *, json_pages: bool = True) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists():
            raise unittest.SkipTest("nginx is not installed here")
        root.mkdir(parents=True, exist_ok=True)
        pages, files = processes.free_port(), processes.free_port()
        self.url = f"http://127.0.0.1:{pages}"
        self.tree = Tree(root / "tree", f"http://127.0.0.2:{files}")
        (root / "tree").mkdir(exist_ok=True)
        logs = root / "logs"
        logs.mkdir(exist_ok=True)
        self.access_log = logs / "access.log"
        wanted = r"~vnd\.pypi\.simple\.v1\+json json;" if json_pages else ""
        form = f"map $http_accept $form {{ default html; {wanted} }}"
        # Its workers have to read what this run's user alone may.
        user = "user root;" if os.getuid() == 0 else ""
        configuration = f"""
{user} daemon off; pid {root}/nginx.pid; error_log {logs}/error.log; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log {self.access_log}; default_type application/octet-stream;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  types {{ {_JSON} json; text/html html; text/plain metadata; }}
  {form}
  server {{ listen 127.0.0.1:{pages}; root {root}/tree;
    location /simple/ {{ index index.$form; add_header Vary Accept; }} }}
  server {{ listen 127.0.0.2:{files}; root {root}/tree; location /packages/ {{ }} }}
}}
"""
        (root / "nginx.conf").write_text(configuration)
        command = [program, "-c", str(root / "nginx.conf"), "-p", str(root), "-e", str(logs / "error.log")]
        self._server = Server(command, f"{self.url}/", root / "nginx.out")

    def stop(self) -> None:
        self._server.stop()
