"""A loopback archive that serves what a test publishes, and odd answers first where it wants them."""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

ROOT = "/data/spot"


class FakeArchive(ThreadingHTTPServer):
    """An archive of files by path; ``odd`` answers of a path are used up before its file is served."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.odd: dict[str, list[OddAnswer]] = defaultdict(list)
        self.requested: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def publish(self, name: str, body: bytes) -> str:
        """Serve a file of one-minute klines with its checksum; return the checksum."""
        sha256 = hashlib.sha256(body).hexdigest()
        self.files[path_of(name)] = body
        self.files[f"{path_of(name)}.CHECKSUM"] = f"{sha256}  {name}\n".encode()
        return sha256

    def publish_minutes(self, name: str, *opened: datetime) -> str:
        """Serve a file of klines of these open times; return its checksum."""
        csv_name = f"{name.removesuffix('.zip')}.csv"
        return self.publish(name, zipped({csv_name: csv_of(*opened)}))

    def names_requested(self) -> list[str]:
        """The names of all files asked for, in order."""
        return [path.rpartition("/")[2] for path in self.requested]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeArchive

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        odd = self.server.odd[self.path]
        if odd:
            odd.pop(0)(self)
        elif self.path in self.server.files:
            self.answer(200, self.server.files[self.path])
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def answer(self, status: int, body: bytes, *, announced: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


OddAnswer = Callable[[_Handler], None]


def status(number: int, body: bytes = b"") -> OddAnswer:
    return lambda handler: handler.answer(number, body)


def cut(handler: _Handler) -> None:
    """Announce more than is sent, then hang up."""
    handler.answer(200, b"PK\x03\x04 the first half", announced=1000)
    handler.close_connection = True


def reset(handler: _Handler) -> None:
    """Break the connection as a crashed peer does, before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    handler.wfile = io.BytesIO()
    handler.rfile = io.BytesIO()


def path_of(name: str) -> str:
    """Return where the archive keeps a file such as BTCUSDT-1m-2024-01-31.zip."""
    market, _, period = name.removesuffix(".zip").partition("-1m-")
    folder = "monthly" if period.count("-") == 1 else "daily"
    return f"{ROOT}/{folder}/klines/{market}/1m/{name}"


def zipped(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def csv_of(*opened: datetime, in_microseconds: bool = False) -> bytes:
    """Return a line for each minute that opens at one of these times, the price told by the time."""
    unit = timedelta(microseconds=1) if in_microseconds else timedelta(milliseconds=1)
    epoch = datetime.fromtimestamp(0, tz=UTC)
    lines = []
    for time in opened:
        start, end = (time - epoch) // unit, (time - epoch + timedelta(minutes=1)) // unit - 1
        prices = ",".join([f"{100 + time.minute}.50000000"] * 4)
        lines.append(f"{start},{prices},1.5,{end},150.75,10,0.5,50.25,0\n")
    return "".join(lines).encode()
