"""Where in a TOML text a key stands, so that an error can name its line; ``tomllib`` does not tell."""

from __future__ import annotations

import re

Path = tuple[str | int, ...]
"""Keys from the root down; an element of an array of tables is its index."""

_KEY = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEYS = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*")
_ONE = re.compile(_KEY)
_HEADER = re.compile(rf"\s*(\[\[?){_KEYS.pattern}\]")
# What ends the plain part of a value: a string, a comment, or a bracket.
_INSIDE = re.compile(r"""\"\"\"|'''|"(?:\\.|[^"\\])*"|'[^']*'|\#.*|[\[\]{}]""")


def lines_of(text: str) -> dict[Path, int]:
    """
    Line (from 1) of every table header and every key that begins a line.

    :param text: a document that ``tomllib`` accepts.

    >>> lines_of("[store]\\nsize = 1\\n[[site]]\\n[[site]]\\nhosts = []")[("site", 1, "hosts")]
    5
    """
    lines: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    depth, quote = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        at = 0
        if quote:
            at = line.find(quote) + len(quote)
            if at < len(quote):
                continue
            quote = ""
        elif depth == 0:
            if header := _HEADER.match(line):
                table = _table(header[2], header[1] == "[[", arrays)
                lines.setdefault(table, number)
                continue
            if key := _KEYS.match(line):
                lines[table + _split(key[1])] = number
                at = key.end()
        while inside := _INSIDE.search(line, at):
            at = inside.end()
            token = inside[0]
            if token in ('"""', "'''"):
                end = line.find(token, at)
                if end < 0:
                    quote = token
                    break
                at = end + len(token)
            elif token in "[{":
                depth += 1
            elif token in "]}":
                depth -= 1
    return lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """:return: the line of ``path``, or of the nearest table around it that has one."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _split(keys: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in _ONE.findall(keys))


def _table(keys: str, array: bool, arrays: dict[Path, int]) -> Path:
    """The path of a header, with the index of the last element wherever it passes an array."""
    path: Path = ()
    names = _split(keys)
    for name in names[:-1]:
        path = (*path, name)
        if path in arrays:
            path = (*path, arrays[path])
    path = (*path, names[-1])
    if array:
        arrays[path] = arrays.get(path, -1) + 1
        path = (*path, arrays[path])
    return path
