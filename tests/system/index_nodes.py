"""One node with several indexes, each at a path of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.system.harness import Node


def site(path: str, *origins: str, **settings: Any) -> str:
    """
    :param path: ``""`` for the default site.
    :param settings: of ``[[site]]``.
    :return: its table.
    """
    values = {"profile": "index", "origins": list(origins), "path": path, **settings}
    # What JSON writes of strings, numbers, truths and arrays of them is TOML as well.
    return "\n".join(["[[site]]", *(f"{key} = {orjson.dumps(value).decode()}" for key, value in values.items())])


def index_node(root: Path, *tables: str, workers: int = 0, arguments: tuple[str, ...] = ()) -> Node:
    """
    :param tables: of its file; one is the default site.
    :return: not started.
    """
    root.mkdir(parents=True, exist_ok=True)
    file = root / "edgecache.toml"
    file.write_text("\n".join(tables) + "\n")
    return Node(root, profile="index", workers=workers, arguments=("--config", str(file), *arguments))
