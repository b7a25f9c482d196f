"""
Writes docs/SETTINGS.md: every setting's type, bounds and default from the configuration's classes, and what it is for
from the comments of conf/edgecache.toml. ``python docs/settings_page.py``; a test holds the page to both.
"""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from edgecache.words.config import ClientSettings, Config, Secret

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "SETTINGS.md"

_HEAD = """\
# Settings

Made by `docs/settings_page.py`; [conf/edgecache.toml](../conf/edgecache.toml) is a file to begin with. A flag of the
command line overrides what the file says. What ends in `_seconds` is in seconds; sizes are octets, or `"64KiB"`,
`"512MiB"`, `"20GiB"`. A secret is the text itself, `{ file = "..." }` or `{ env = "..." }`. `twistd edgecache --check
--config FILE` names file, line and key of what cannot be.
"""
_TABLES = {"sites": "[[site]]", "others": "[[sibling]]"}
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
# A comment may begin with the default, where it is none that could be written down.
_SAID = re.compile(r"(no default|default: .*?)(?:[.:](?:\s+|$)|$)")
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Secret: "secret"}


def tables() -> Iterator[tuple[str, Any]]:
    """:return: each table's title and class."""
    attrs.resolve_types(Config)
    for attribute in attrs.fields(Config):
        kind: Any = attribute.type
        parts = [one for one in typing.get_args(kind) if attrs.has(one)]
        yield _TABLES.get(attribute.name, f"[{attribute.name}]"), parts[0] if parts else kind
        if attribute.name == "sites":
            yield "[[site.client]]", ClientSettings


def comments() -> dict[str, dict[str, str]]:
    """:return: of the example file: by table and setting, what is said of it."""
    found: dict[str, dict[str, str]] = {}
    table, last = "", ""
    for row in (ROOT / "conf" / "edgecache.toml").read_text().splitlines():
        if heading := re.match(r"(?:# )?(\[+[a-z.]+\]+)(?:\s|$)", row):
            table, last = heading[1], ""
        elif setting := re.match(r"(?:# )?([a-z_]+) = (?:[^#]|\"[^\"]*\")*?(?:\s#\s+(.*))?$", row):
            last = setting[1]
            found.setdefault(table, {})[last] = setting[2] or ""
        elif last and (more := re.match(r"#?\s{20,}#?\s*(.*)$", row)):
            found[table][last] += f" {more[1]}"
        else:
            last = ""
    return found


def _default(value: Any, meant: str) -> str:
    if said := _SAID.match(meant):
        return said[1].removeprefix("default: ")
    if value is attrs.NOTHING:
        return "no default"
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
        return "none"
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{one}"' for one in value) + "]`"
    if isinstance(value, int):
        for unit, octets in _UNITS:
            if value and value % octets == 0:
                return f'`"{value // octets}{unit}"`'
    return "none" if value is None else f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _kind(kind: Any) -> str:
    choices = [one for one in typing.get_args(kind) if one is not type(None)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f'`"{one.value}"`' for one in kind)
    if typing.get_origin(kind) is tuple:
        return f"list of {_kind(choices[0])}"
    return _kind(choices[0]) if choices else _NAMES[kind]


def _bounds(validator: Any) -> str:
    parts = getattr(validator, "_validators", None) or [getattr(validator, "validator", validator)]
    return ", ".join(f"{one.compare_op} {one.bound:g}" for one in parts if hasattr(one, "compare_op"))


def page() -> str:
    """:return: what the file should hold."""
    meanings = comments()
    lines = [_HEAD]
    for title, kind in tables():
        lines += [f"## `{title}`", "", "| setting | what it takes | default | |", "|---|---|---|---|"]
        attrs.resolve_types(kind)
        for attribute in attrs.fields(kind):
            name = {"clients": "client"}.get(attribute.name, attribute.name)
            if title == "[[site]]" and name == "client":
                continue
            meant = meanings[title][name]
            takes = ", ".join(part for part in (_kind(attribute.type), _bounds(attribute.validator)) if part)
            told = _SAID.sub("", meant).replace("|", "\\|")
            lines.append(f"| `{name}` | {takes} | {_default(attribute.default, meant)} | {told} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
