"""Secrets that can be found again however they were written, and everything that a node says or keeps."""

from __future__ import annotations

import base64
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.system import processes
from tests.system.harness import Node

_LEAST = 8
_READ = 1 << 20


def forms(secret: str) -> Iterator[bytes]:
    """
    :param secret: of at least some length: what is short is found everywhere.
    :return: ``secret`` as it is, and as it looks percent-encoded, in base64 wherever that begins, and in hexadecimal.
    """
    octets = secret.encode()
    assert len(octets) >= _LEAST, secret
    yield octets
    yield urllib.parse.quote(secret, safe="").encode()
    yield octets.hex().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # The octets beside it are not known: what they have a part in is left out.
            text = encode(b"\0" * before + octets).rstrip(b"=")
            yield text[(0, 2, 3)[before] : -1]


def found(secrets: Iterable[str], shown: dict[str, bytes]) -> list[str]:
    """
    :param shown: what was said or kept, by where.
    :return: where which secret is, and what is around it.
    """
    wanted = {form: secret for secret in secrets for form in forms(secret)}
    pattern = re.compile(b"|".join(map(re.escape, sorted(wanted, key=len, reverse=True))))
    return [
        f"{wanted[hit[0]]!r} in {where}: ...{text[max(0, hit.start() - 80) : hit.end() + 20]!r}"
        for where, text in shown.items()
        for hit in pattern.finditer(text)
    ]


def kept(directory: Path, *but: str) -> dict[str, bytes]:
    """:return: the files below ``directory`` with what they hold, but for those named; of sparse ones what is there."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in but]
    return {str(path.relative_to(directory)): b"".join(_written(path)) for path in files}


def _written(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size, at = path.stat().st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            yield os.pread(file.fileno(), end - at, at)
            at = end


def told(node: Node, *targets: str) -> dict[str, bytes]:
    """:return: what the admin listener answers to GETs of these, to who may see everything, and what processes show."""
    shown = {}
    for target in targets:
        answer = node.admin("GET", target)
        shown[target] = repr(answer.fields).encode() + answer.content
        assert answer.status in (200, 404, 400), (target, answer)
    for pid in node.family():
        shown[f"command line of {pid}"] = processes.command_line(pid).encode()
    return shown
