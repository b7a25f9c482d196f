"""
From a TOML text and flags to a :class:`~edgecache.words.config.Config`.

What a table may hold is what its attrs class in :mod:`edgecache.words.config` has;
an unknown or impossible setting is a :class:`~edgecache.words.errors.ConfigError`
that names file, line and key, or the flag.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

import attrs
from attrs import define, field, frozen

from edgecache.words.config import Config, Secret
from edgecache.words.errors import ConfigError
from edgecache.words.places import Path, line_of, lines_of

DATA = "edgecache-data"
"""The default data directory, below the working directory: no file says it, so none is its base."""

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SETTING = re.compile(r"\[(\w+)\] (\w+)")
# What a table is called in the file where that is not the name of the attribute.
_TABLES = {"sites": "site", "others": "sibling", "clients": "client"}
_PATHS = frozenset(
    (
        ("node", "data"),
        ("tls", "certificate"),
        ("tls", "key"),
        ("upstream", "ca"),
        ("upstream", "client_certificate"),
        ("upstream", "client_key"),
        ("siblings", "ca"),
        ("siblings", "certificate"),
        ("siblings", "key"),
        ("index", "download_log"),
        ("log", "access"),
    )
)

T = TypeVar("T")
ReadSecret = Callable[[str, str], str]
"""``("file", path)`` or ``("env", name)`` to the secret; raises ``OSError`` or ``LookupError``."""


@frozen
class Facts:
    """
    What the defaults need to know about this machine.

    :ivar host: its name.
    :ivar cpus: that this process may use.
    :ivar here: the working directory; the default data directory is below it.
    """

    host: str
    cpus: int
    here: str


@define(eq=False, repr=False)
class Document:
    """
    Settings as written, and where each was written.

    :ivar base: the directory to which paths in it are relative.
    """

    name: str = "the configuration"
    base: str = "."
    data: dict[str, Any] = field(factory=dict)
    _lines: dict[Path, int] = field(factory=dict)
    _flags: dict[Path, str] = field(factory=dict)

    @classmethod
    def parse(cls, text: str, name: str, base: str) -> Document:
        """:param name: of the file, as errors shall show it."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            place = re.search(r" \(at line (\d+), column (\d+)\)", message)
            if place:
                raise ConfigError(f"{name}:{place[1]}", message.replace(place[0], "")) from None
            raise ConfigError(name, message) from None
        return cls(name, base, data, lines_of(text))

    def override(self, flag: str, path: Path, value: Any) -> None:
        """A flag takes the place of a setting; ``path`` leads through tables that are made as needed."""
        place: Any = self.data
        for step in path[:-1]:
            place = place[step] if isinstance(step, int) else place.setdefault(step, {})
        place[path[-1]] = value
        self._flags[path] = flag

    def flag(self, path: Path) -> bool:
        """Did a flag say it?"""
        return path in self._flags

    def written(self, path: Path) -> bool:
        """Does a flag say it, or a line of the file that begins with its key? Otherwise it may be a default."""
        return path in self._flags or path in self._lines

    def where(self, path: Path) -> str:
        """:return: the place of ``path`` for people: a flag, or file, line and key."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._flags:
                return self._flags[path[:length]]
        line = line_of(self._lines, path)
        place = self.name if line is None else f"{self.name}:{line}"
        return f"{place}: {_shown(path)}" if path else place

    def placed(self, error: ConfigError) -> ConfigError:
        """:return: the same with its file and line, where it is about a setting (``[table] key``) that is written."""
        named = _SETTING.match(error.where)
        line = None if named is None else self._lines.get((named[1], named[2]))
        return error if line is None else ConfigError(f"{self.name}:{line}: {error.where}", error.problem)


def _shown(path: Path) -> str:
    """``[store] size``, ``[[site]] hosts``: the key as a reader of the file looks for it."""
    names = [step for step in path if isinstance(step, str)]
    if len(names) == 1:
        return names[0]
    header = f"[[{names[0]}]]" if len(path) > 1 and isinstance(path[1], int) else f"[{names[0]}]"
    return f"{header} {'.'.join(names[1:])}"


def octets(text: str) -> int:
    """
    A size as people write it.

    :raises ValueError: when it is none.

    >>> octets("1.5 MiB")
    1572864
    """
    match = _SIZE.fullmatch(text.strip())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no size: a number, then KiB, MiB, GiB or TiB")
    return int(float(match[1]) * _UNITS[match[2]])


def build(document: Document, facts: Facts, read_secret: ReadSecret) -> Config:
    """
    Make the tree. Checks that concern several settings at once are :mod:`edgecache.words.checking`'s.

    :raises ConfigError: at the first setting that cannot be used.
    """
    node = document.data.setdefault("node", {})
    if isinstance(node, dict):
        node.setdefault("id", _identifier(facts.host))
        node.setdefault("workers", facts.cpus)
        node.setdefault("data", str(PurePosixPath(facts.here) / DATA))
    sites = document.data.get("site", [])
    if isinstance(sites, list):
        for site in sites:
            if isinstance(site, dict) and "name" not in site:
                site["name"] = _site_name(site)
    return _Builder(document, read_secret).table(Config, document.data, ())


def plain(config: Config) -> dict[str, Any]:
    """:return: ``config`` as JSON can carry it to a worker, secrets included; :func:`from_plain` reads it."""
    return _named(attrs.asdict(config, value_serializer=_serialise, filter=lambda _, value: value is not None))


def from_plain(tree: dict[str, Any]) -> Config:
    """:return: the config that :func:`plain` was given."""
    return _Builder(Document("the node's message", "/", tree), _no_secret).table(Config, tree, ())


def _named(tree: dict[str, Any]) -> dict[str, Any]:
    """:return: ``tree`` with its tables called as in a file."""
    named: dict[str, Any] = {}
    for attribute, value in tree.items():
        if isinstance(value, list | tuple):
            value = [_named(each) if isinstance(each, dict) else each for each in value]
        named[_TABLES.get(attribute, attribute)] = value
    return named


def _serialise(_owner: Any, _attribute: Any, value: Any) -> Any:
    match value:
        case enum.Enum():
            return value.value
        case Secret():
            return value.value
        case _:
            return value


def _no_secret(kind: str, name: str) -> str:
    raise LookupError(f"{kind} {name} has to be read by the node process")


def _identifier(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", host)[:64].strip("-.") or "node"


def _site_name(site: dict[str, Any]) -> str:
    """Stable as long as the first host and the path are: a site's identity in the store comes from its name."""
    hosts, path = site.get("hosts"), site.get("path")
    first = hosts[0] if isinstance(hosts, list) and hosts else "*"
    return ("default" if first == "*" else str(first)) + (path if isinstance(path, str) else "")


@define(eq=False, repr=False)
class _Builder:
    _document: Document
    _read_secret: ReadSecret

    def table(self, kind: type[T], data: Any, path: Path) -> T:
        """One attrs class from one table."""
        if not isinstance(data, dict):
            raise self._error(path, "is a table")
        attrs.resolve_types(cast(Any, kind))
        # attrs' own typing wants its protocol; every kind here is an attrs class.
        fields: Any = attrs.fields(cast(Any, kind))
        known = {_TABLES.get(attribute.name, attribute.name): attribute for attribute in fields}
        for name in data:
            if name not in known:
                raise self._error((*path, name), _unknown(name, list(known)))
        values: dict[str, Any] = {}
        for name, attribute in known.items():
            if name in data:
                values[attribute.name] = self._checked(attribute, data[name], (*path, name))
            elif attribute.default is attrs.NOTHING:
                if name == "site":
                    values[attribute.name] = ()
                else:
                    raise self._error((*path, name), "is missing")
        return kind(**values)

    def _checked(self, attribute: Any, raw: Any, path: Path) -> Any:
        try:
            value = self._value(attribute.type, raw, path)
            if attribute.validator is not None and value is not None:
                attribute.validator(None, attribute, value)
        except ValueError as error:
            raise self._error(path, str(error).replace(f"'{attribute.name}' ", "")) from None
        return value

    def _value(self, kind: Any, raw: Any, path: Path) -> Any:
        """:raises ValueError: when ``raw`` is nothing of ``kind``."""
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is types.UnionType:
            (kind,) = (argument for argument in arguments if argument is not types.NoneType)
            return self._value(kind, raw, path)
        if typing.get_origin(kind) is tuple:
            if not isinstance(raw, list | tuple):
                names = ".".join(step for step in path if isinstance(step, str))
                tables = attrs.has(arguments[0])
                raise ValueError(f"is an array of tables: [[{names}]]" if tables else 'is a list: ["..."]')
            return tuple(self._value(arguments[0], element, (*path, at)) for at, element in enumerate(raw))
        if kind is Secret:
            return self._secret(raw, path)
        if attrs.has(kind):
            return self.table(kind, raw, path)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return _choice(kind, raw)
        if kind is int:
            return _integer(raw, sized=path[-1] == "size" or str(path[-1]).endswith("_octets"))
        if kind is float:
            return _number(raw)
        if not isinstance(raw, kind):
            raise ValueError({bool: "is true or false", str: "is a string"}[kind])
        return self._path(raw) if path in _PATHS and raw not in ("", "-") else raw

    def _path(self, raw: str) -> str:
        return str(PurePosixPath(self._document.base) / raw)

    def _secret(self, raw: Any, path: Path) -> Secret:
        if isinstance(raw, str):
            return Secret(raw)
        if isinstance(raw, dict) and len(raw) == 1:
            ((kind, name),) = raw.items()
            if kind in ("file", "env") and isinstance(name, str):
                try:
                    return Secret(self._read_secret(kind, self._path(name) if kind == "file" else name))
                except OSError as error:
                    raise self._error(path, f"cannot read {error.filename}: {error.strerror}") from None
                except LookupError:
                    raise self._error(path, f"{name} is not set in the environment") from None
        raise ValueError('is a string, { file = "..." } or { env = "..." }')

    def _error(self, path: Path, problem: str) -> ConfigError:
        return ConfigError(self._document.where(path), problem)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no such setting; is {near[0]!r} meant?" if near else "there is no such setting"


def _choice(kind: type[enum.Enum], raw: Any) -> enum.Enum:
    try:
        return kind(raw)
    except ValueError:
        raise ValueError("is one of " + ", ".join(repr(member.value) for member in kind)) from None


def _integer(raw: Any, sized: bool) -> int:
    if sized and isinstance(raw, str):
        return octets(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError("is a whole number" + (', or a size such as "20GiB"' if sized else ""))
    return raw


def _number(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError("is a number")
    return float(raw)
