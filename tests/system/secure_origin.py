"""An origin with TLS, whose certificate is another one whenever a test says so."""

from __future__ import annotations

import http.server
import ssl
import threading
from typing import Any


class _Served(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in (("Content-Length", "5"), ("Cache-Control", "no-store"), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"right")

    def log_message(self, format: str, *args: Any) -> None:
        """Nowhere."""


class SecureOrigin:
    """An origin with TLS. :ivar context: of handshakes from now on."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        outer = self

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> Any:
                sock, address = self.socket.accept()
                sock.settimeout(20)
                return outer.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, request: Any, client_address: Any) -> None:
                """It is the handshake that fails."""

        self._server = Server(("127.0.0.1", 0), _Served)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
