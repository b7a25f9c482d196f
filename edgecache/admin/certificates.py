"""When certificates are worth nothing any more: those that the settings name, as their files are now."""

from __future__ import annotations

import os
from typing import Any

from attrs import define, field
from cryptography import x509

from edgecache.words.config import Config


@define(eq=False, repr=False)
class Certificates:
    """Reads a file only if it is another one than at the last look."""

    _known: dict[str, tuple[tuple[int, int], float | None, str]] = field(factory=dict)

    def document(self, config: Config, now: float) -> list[dict[str, Any]]:
        """
        :param now: seconds since the epoch.
        :return: of each file that is configured: what for, when it expires, and what is wrong with it.
        """
        files = {}
        if config.tls is not None:
            files["tls"] = config.tls.certificate
        if config.siblings is not None:
            files["siblings"] = config.siblings.certificate
            files["siblings-ca"] = config.siblings.ca
        if config.upstream.client_certificate is not None:
            files["upstream-client"] = config.upstream.client_certificate
        found = []
        for use, path in files.items():
            expires_at, problem = self._look(path)
            found.append(
                {
                    "use": use,
                    "file": path,
                    "expires_at": expires_at,
                    "expires_in_seconds": None if expires_at is None else expires_at - now,
                    "problem": problem,
                }
            )
        return found

    def _look(self, path: str) -> tuple[float | None, str]:
        """:return: when the first of its certificates to expire does, and what is wrong."""
        try:
            status = os.stat(path)
            seen = status.st_mtime_ns, status.st_ino
            known = self._known.get(path)
            if known is None or known[0] != seen:
                with open(path, "rb") as file:
                    chain = x509.load_pem_x509_certificates(file.read())
                first = min(one.not_valid_after_utc.timestamp() for one in chain)
                known = self._known[path] = seen, first, ""
        except OSError as error:
            return None, error.strerror or str(error)
        except ValueError:
            return None, "it holds no certificate in PEM"
        return known[1], known[2]
