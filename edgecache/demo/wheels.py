"""Wheels that are built on the spot; nothing is downloaded."""

from __future__ import annotations

import io
import zipfile

PROJECT = "edgecache-demo"
MODULE = "edgecache_demo"

_EPOCH = (2020, 1, 1, 0, 0, 0)


def filename(version: str) -> str:
    """:return: of the wheel of ``version``."""
    return f"{MODULE}-{version}-py3-none-any.whl"


def wheel(version: str) -> bytes:
    """:return: a wheel with one module that knows its version; the same octets each time."""
    information = f"{MODULE}-{version}.dist-info"
    files = {
        f"{MODULE}.py": f'VERSION = "{version}"\n',
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: edgecache\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{information}/RECORD"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), text)
    return out.getvalue()
