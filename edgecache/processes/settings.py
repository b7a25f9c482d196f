"""What reading the settings needs of this machine: files, the environment, its name and size."""

from __future__ import annotations

import os
import socket

from edgecache.processes.exposed import warn_of
from edgecache.words.errors import ConfigError
from edgecache.words.reading import Document, Facts


def load(name: str | None) -> Document:
    """
    :param name: of a TOML file; ``None``: nothing is set.
    :raises ConfigError: it cannot be read, or is no TOML.
    """
    if name is None:
        return Document()
    try:
        with open(name, encoding="utf-8") as file:
            return Document.parse(file.read(), name, os.path.dirname(os.path.abspath(name)))
    except OSError as error:
        raise ConfigError(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(name, "is no UTF-8 text") from None


def local_facts() -> Facts:
    """:return: what the defaults are made of."""
    return Facts(socket.gethostname(), len(os.sched_getaffinity(0)), os.getcwd())


def read_secret(kind: str, name: str) -> str:
    """:raises OSError: no such file. :raises LookupError: no such variable."""
    if kind == "env":
        return os.environ[name]
    with open(name, encoding="utf-8") as file:
        warn_of(name, "a secret")
        return file.read().strip()
