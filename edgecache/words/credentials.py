"""Credentials as operators write them, and what is kept of a client's."""

from __future__ import annotations

import base64
import hashlib
import re

_SCHEME_AND_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9._-]* [!-~]+")


def credentials(text: str) -> str:
    """
    :param text: ``user:password``, or a scheme and what it needs, such as ``Bearer ...``.
    :return: value of an Authorization field.
    :raises ValueError: it is neither; the message shows nothing of it.

    >>> credentials("me:secret"), credentials("Bearer abc")
    ('Basic bWU6c2VjcmV0', 'Bearer abc')
    """
    if _SCHEME_AND_VALUE.fullmatch(text):
        return text
    if ":" not in text or not text.isprintable():
        raise ValueError('is "user:password", or a scheme and its value such as "Bearer ..."')
    return "Basic " + base64.b64encode(text.encode()).decode("ascii")


def digested(secret: bytes) -> str:
    """
    :return: what is kept of a client's secret.

    >>> digested(b"secret")[:20]
    'sha256:2bb80d537b1da'
    """
    return "sha256:" + hashlib.sha256(secret).hexdigest()
