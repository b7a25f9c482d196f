"""Real nodes in whose interpreters something is not as it should be from the start: a clock, a name server, a disk."""

from __future__ import annotations

from pathlib import Path

from tests.system.harness import IMPORT_ROOT

_PATIENT = """
from edgecache.rules import siblinghood
siblinghood.PATIENCE_SECONDS = 60.0
"""


def meddled(directory: Path, program: str) -> tuple[str, ...]:
    """
    :param directory: for the program, and nothing else.
    :param program: what each interpreter runs before anything else.
    :return: words before a command, for :attr:`tests.system.harness.Node.prefix`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(program)
    return ("env", f"PYTHONPATH={directory}:{IMPORT_ROOT}")


def patient(directory: Path) -> tuple[str, ...]:
    """
    A machine that stands still for 300 ms makes a sibling as good as silent; these wait far longer for its first sign.

    :return: as :func:`meddled` does.
    """
    return meddled(directory, _PATIENT)
