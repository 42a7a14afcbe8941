"""HTTP for the sandbox exchange: an application's answers over loopback, without delays."""

from __future__ import annotations

import socket
import socketserver
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

MAX_BODY_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer: status, body, its type and headers beyond the usual ones."""

    body: bytes
    status: int = 200
    content_type: str = "application/json;charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)


class Application(Protocol):
    """What the server asks for its answers; called from many threads at once."""

    def get(self, target: str) -> Answer | None:
        """Return the answer to a GET of path and query; None means to reset the connection."""
        ...

    def post(self, target: str, *, body: bytes) -> Answer:
        """Return the answer to a POST."""
        ...

    def common_headers(self) -> dict[str, str]:
        """Return the headers of every answer."""
        ...


class LoopbackServer(ThreadingHTTPServer):
    """A threading HTTP/1.1 server for one application, quiet, with connections that can be cut."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        self.application = application
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which hangs where name service is down."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Remember the connection, so that it can be cut."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Forget the connection and end it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over a client that hung up; anything else is a bug and must be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def cut_connections(self) -> None:
        """End kept-alive connections, which would go on being served after the server closed."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one write without Nagle's wait: else each answer costs about 40 ms.
    disable_nagle_algorithm = True
    server: LoopbackServer

    def do_GET(self) -> None:
        if (found := self.server.application.get(self.path)) is None:
            self._reset()
        else:
            self._send(found)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        self._send(self.server.application.post(self.path, body=body))

    def send_error(self, code: int, *_message: object, **_details: object) -> None:
        """Answer what never reached a call: a bad request line, another method, a huge body."""
        self.close_connection = True
        self._send(Answer(status=code, body=b""))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""

    def _send(self, found: Answer) -> None:
        headers = {
            "Content-Type": found.content_type,
            "Content-Length": str(len(found.body)),
            "Connection": "close" if self.close_connection else "keep-alive",
            **self.server.application.common_headers(),
            **found.headers,
        }
        lines = [f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + found.body)

    def _reset(self) -> None:
        # Lingering for 0 s makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()
