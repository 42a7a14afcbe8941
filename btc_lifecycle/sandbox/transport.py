"""HTTP for the sandbox exchange: an application's answers over loopback, delivered well or badly."""

from __future__ import annotations

import socket
import socketserver
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol

MAX_BODY_BYTES = 16_384
HANG_SECONDS = 60.0
DRIP_SECONDS = 0.2

_SECONDS_TO_HANG_UP = 5.0


class Delivery(StrEnum):
    """How an answer goes over the wire; all but ``WHOLE`` end the connection."""

    WHOLE = "whole"
    HALF = "half"
    DRIPPED_HEAD = "dripped_head"
    DRIPPED_BODY = "dripped_body"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer: status, body, its type, headers beyond the usual ones, and the delivery."""

    body: bytes
    status: int = 200
    content_type: str = "application/json;charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request: its target is path and query; a GET's body is not read."""

    method: Literal["GET", "POST"]
    target: str
    headers: Message
    body: bytes = b""


class Application(Protocol):
    """What the server asks for its answers; called from many threads at once."""

    def respond(self, request: Request) -> Answer | None:
        """Return the answer to one request; None means to reset the connection."""
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
        self._connections_changed = threading.Condition()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which hangs where name service is down."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Remember the connection, so that it can be cut."""
        with self._connections_changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """End the connection and forget it."""
        super().shutdown_request(request)
        with self._connections_changed:
            self._connections.discard(request)
            self._connections_changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over a client that hung up; anything else is a bug and must be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def cut_connections(self) -> None:
        """End every connection, kept alive or in the middle of an answer, and wait until all ended."""
        with self._connections_changed:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._connections_changed.wait_for(
                lambda: not self._connections, timeout=_SECONDS_TO_HANG_UP
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one write without Nagle's wait: else each answer costs about 40 ms.
    disable_nagle_algorithm = True
    server: LoopbackServer

    def do_GET(self) -> None:
        self._respond(Request(method="GET", target=self.path, headers=self.headers))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        self._respond(Request(method="POST", target=self.path, headers=self.headers, body=body))

    def send_error(self, code: int, *_message: object, **_details: object) -> None:
        """Answer what never reached a call: a bad request line, another method, a huge body."""
        self.close_connection = True
        self._send(Answer(status=code, body=b""))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""

    def _respond(self, request: Request) -> None:
        found = self.server.application.respond(request)
        if found is None:
            self._reset()
        elif found.delivery == Delivery.WHOLE:
            self._send(found)
        else:
            self._deliver_badly(found)

    def _send(self, found: Answer) -> None:
        self.wfile.write(self._head(found) + found.body)

    def _deliver_badly(self, found: Answer) -> None:
        head = self._head(found)
        self.close_connection = True
        if found.delivery == Delivery.NEVER:
            self._has_hung_up(within_seconds=HANG_SECONDS)
        elif found.delivery == Delivery.HALF:
            self.wfile.write(head + found.body[: len(found.body) // 2])
        elif found.delivery == Delivery.DRIPPED_BODY:
            self.wfile.write(head)
            self._drip(found.body)
        else:
            self._drip(head + found.body)

    def _head(self, found: Answer) -> bytes:
        headers = {
            "Content-Type": found.content_type,
            "Content-Length": str(len(found.body)),
            "Connection": "close" if self.close_connection else "keep-alive",
            **self.server.application.common_headers(),
            **found.headers,
        }
        lines = [f"HTTP/1.1 {found.status} {_PHRASES.get(found.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _drip(self, data: bytes) -> None:
        for byte in data:
            self.wfile.write(bytes((byte,)))
            if self._has_hung_up(within_seconds=DRIP_SECONDS):
                return

    def _has_hung_up(self, *, within_seconds: float) -> bool:
        """Wait until the connection ends from either side; False when it outlasts the wait."""
        self.connection.settimeout(within_seconds)
        try:
            while self.connection.recv(65_536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        finally:
            self.connection.settimeout(None)
        return True

    def _reset(self) -> None:
        # Lingering for 0 s makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()


# Proxies in front of the exchange send statuses that no standard has, such as 520.
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
