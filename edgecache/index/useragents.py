"""
Which installer sent a request, as its User-Agent tells (RFC 9110 §10.1.5).

pip, and uv after it, put a JSON object behind their name; others have products, or a comment. All of it is
what a stranger says: nothing here is trusted, and everything is bounded.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import orjson
from attrs import frozen


@frozen
class Installer:
    """
    Who downloads.

    :ivar name: lower case; ``browser``, or ``other`` for what says nothing.
    :ivar version: of the installer.
    :ivar python: version of the interpreter that it runs on or installs for.
    :ivar implementation: of Python, as ``CPython``.
    :ivar system: as ``Linux``.
    :ivar ci: does it believe to run in continuous integration? ``None`` where it does not say.
    """

    name: str
    version: str = ""
    python: str = ""
    implementation: str = ""
    system: str = ""
    ci: bool | None = None

    @property
    def label(self) -> str:
        """Name and version, as ``pip/24.0``."""
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def python_series(self) -> str:
        """The version of Python without its last part, as ``3.12``: few enough to be counted by."""
        matched = _SERIES.match(self.python)
        return matched[0] if matched is not None else ""


OTHER = Installer("other")
BROWSER = Installer("browser")

_WORD = r"[A-Za-z][A-Za-z0-9._-]{0,31}"
_RELEASE = r"[0-9][A-Za-z0-9.+!_-]{0,31}"
_PRODUCT = re.compile(rf"(?<!\S)({_WORD})/({_RELEASE})(?=[\s;,)]|$)")
_WITH_JSON = re.compile(rf"({_WORD})/({_RELEASE}) (\{{.*\}})\s*", re.DOTALL)
_NAME = re.compile(_WORD)
_VERSION = re.compile(_RELEASE)
_SERIES = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}")
# bandersnatch: (cpython 3.11.4-final0, Linux x86_64); devpi: (py3.11.2; linux).
_COMMENT = re.compile(
    r"\((?:(?P<implementation>[A-Za-z]{2,16}) |py)(?P<python>[0-9]+\.[0-9]+(?:\.[0-9]+)?)"
    r"[^,;)]*[,;] ?(?P<system>[A-Za-z]+[0-9]*)"
)

_IMPLEMENTATIONS = {
    name.lower(): name for name in ("CPython", "PyPy", "Jython", "IronPython", "GraalPy", "GraalVM", "Pyston")
}
_SYSTEMS = {
    **{name.lower(): name for name in ("Linux", "Darwin", "Windows", "FreeBSD", "OpenBSD", "NetBSD", "SunOS", "AIX")},
    "linux2": "Linux",
    "win32": "Windows",
    "macos": "Darwin",
}
# What another program's downloads go through: the other program says more.
_LIBRARIES = frozenset(("python-urllib", "python-requests", "urllib3", "aiohttp", "httpx", "curl", "libcurl"))


@functools.lru_cache(maxsize=2048)
def installer_of(user_agent: bytes) -> Installer:
    """
    :param user_agent: value of the field, ``b""`` without one.

    >>> installer_of(b"poetry/1.8.3 CPython/3.12.3 Linux/6.8.0-31-generic").label
    'poetry/1.8.3'
    """
    text = user_agent.decode("utf-8", "replace")
    matched = _WITH_JSON.fullmatch(text)
    if matched is not None:
        told = _from_json(*matched.groups())
        if told is not None:
            return told
    if text.startswith("Mozilla/"):
        return BROWSER
    products = _PRODUCT.findall(text)
    if not products or not _starts_with(text, products[0][0]):
        return OTHER
    return _from_products(text, products)


def _starts_with(text: str, name: str) -> bool:
    return text.startswith(name + "/")


def _from_json(name: str, version: str, document: str) -> Installer | None:
    """:return: ``None`` when it is no object."""
    try:
        told = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    installer, implementation, system = (_table(told, key) for key in ("installer", "implementation", "system"))
    return Installer(
        (_text(installer.get("name"), _NAME) or name).lower(),
        _text(installer.get("version"), _VERSION) or version,
        _text(told.get("python"), _VERSION),
        _text(implementation.get("name"), _NAME),
        _text(system.get("name"), _NAME),
        told.get("ci") is True,
    )


def _table(told: dict[str, Any], key: str) -> dict[str, Any]:
    found = told.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Any, form: re.Pattern[str]) -> str:
    return value if isinstance(value, str) and form.fullmatch(value) is not None else ""


def _from_products(text: str, products: list[tuple[str, str]]) -> Installer:
    name, version = next((one for one in products if one[0].lower() not in _LIBRARIES), products[0])
    python = implementation = system = ""
    for product, release in products:
        lowered = product.lower()
        if lowered in _IMPLEMENTATIONS:
            implementation, python = _IMPLEMENTATIONS[lowered], release
        elif lowered == "python-urllib":
            python = python or release
        elif lowered in _SYSTEMS:
            system = _SYSTEMS[lowered]
    if name.lower() in _IMPLEMENTATIONS or name.lower() in _SYSTEMS:
        # requests alone, on whatever: "python-requests/2.9 CPython/3.5 Linux/4.4".
        name, version = products[0]
    comment = _COMMENT.search(text)
    if comment is not None:
        python = python or comment["python"]
        given = (comment["implementation"] or "").lower()
        implementation = implementation or _IMPLEMENTATIONS.get(given, "")
        system = system or _SYSTEMS.get(comment["system"].lower(), "")
    return Installer(name.lower(), version, python, implementation, system)
