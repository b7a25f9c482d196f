"""The origin of a node that was given none: the index that pip on this machine uses (DESIGN 11)."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from twisted.logger import Logger

from edgecache.words.checking import listens_at
from edgecache.words.config import Config
from edgecache.words.endpoints import origin_url
from edgecache.words.errors import StartError

_log = Logger()

_SECONDS = 60
# The help text shows the default after the option's description, whatever the line breaks.
_DEFAULT = re.compile(r"--index-url\b.*?\(default:?\s+(\S+?)\)", re.DOTALL)
_NO_PIP = "no pip here to ask for its index; give --origin URL"

Run = Callable[[Sequence[str], Mapping[str, str]], str]
"""Runs pip with arguments and an environment and returns its output; raises ``StartError``."""


def default_origin(
    config: Config,
    environ: Mapping[str, str] = os.environ,
    run: Run | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> str:
    """
    Ask pip. This node's own listener is skipped: it may well be what pip is set to by now.

    :param meanwhile: called while pip looks for its answer, which takes it half a second.
    :return: the URL, credentials included.
    :raises StartError: there is no pip, or its index is not served over HTTP.
    """
    for source, url in _candidates(environ, run or partial(_run_pip, meanwhile)):
        try:
            parsed = origin_url(url)
        except ValueError as error:
            raise StartError(f"{source} cannot be the origin ({error}); give --origin URL") from None
        if listens_at(config, parsed.host, parsed.port):
            _log.warn("{source} is this node itself ({url}); looking further", source=source, url=parsed.shown)
            continue
        _log.info("origin {url}, from {source}", url=parsed.shown, source=source)
        return url
    raise StartError("pip knows no index besides this node; give --origin URL")


def split_index(url: str) -> tuple[str, str]:
    """
    :param url: of an index, as installers are given it.
    :return: the origin, and where below it the pages are. Links of a page that go one level above the pages
        lead to the origin's root, there as here.

    >>> split_index("https://index.example/team/+simple/")
    ('https://index.example/team', '/+simple/')
    """
    parts = urlsplit(url)
    above, _, last = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=above)), f"/{last}/" if last else "/"


def _candidates(environ: Mapping[str, str], run: Run) -> Iterator[tuple[str, str]]:
    if url := environ.get("PIP_INDEX_URL"):
        yield "PIP_INDEX_URL", url
    # Without the variable, which pip would put first here too.
    bare = {name: value for name, value in environ.items() if name != "PIP_INDEX_URL"}
    if url := _configured(run(["config", "list"], bare)):
        yield "pip's configuration", url
    nothing = {name: value for name, value in bare.items() if not name.startswith("PIP_")}
    # A wide terminal: the help text is not broken in the middle of a URL.
    help_text = run(["install", "--help"], {**nothing, "PIP_CONFIG_FILE": os.devnull, "COLUMNS": "1000"})
    if found := _DEFAULT.search(help_text):
        yield "pip's own default", found[1]


def _configured(listing: str) -> str | None:
    """What ``pip config list`` says for ``pip install``: its own section comes before the global one."""
    found = {}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.endswith(".index-url"):
            found[key.removesuffix(".index-url")] = str(ast.literal_eval(value))
    return found.get("install") or found.get("global")


def _run_pip(meanwhile: Callable[[], object], arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip"]
    else:
        found = shutil.which("pip") or shutil.which("pip3")
        if found is None:
            raise StartError(_NO_PIP)
        command = [found]
    try:
        with subprocess.Popen(
            [*command, "--disable-pip-version-check", *arguments],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as pip:
            try:
                meanwhile()
                answer, complaint = pip.communicate(timeout=_SECONDS)
            except BaseException:
                pip.kill()
                raise
        if pip.returncode:
            raise subprocess.CalledProcessError(pip.returncode, pip.args, answer, complaint)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"cannot ask pip for its index ({error}); give --origin URL") from None
    return answer
