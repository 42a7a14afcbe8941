"""A loopback server whose connections a test writes byte by byte, over TLS if need be."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

Script = Callable[[socket.socket], None]
"""What is done with one connection, which is closed after it."""


class RawServer:
    """Runs a script for each connection, each in a thread of its own."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self._script, self._tls = script, tls
        self.n_connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.n_connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            self._script(connection)
        connection.close()


def read_request(connection: socket.socket) -> bytes:
    """Return the head of the next request; empty when the client has left."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (part := connection.recv(4096)):
            return b""
        head += part
    return head


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a whole HTTP/1.1 answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def answering(*answers: bytes) -> Script:
    """Return a script that answers each request of a connection in turn, then closes it."""

    def script(connection: socket.socket) -> None:
        for each in answers:
            if not read_request(connection):
                return
            connection.sendall(each)

    return script


def dripping(head: bytes) -> Script:
    """Return a script that sends a head and then a byte now and then, for ever."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head)
        while not threading.Event().wait(0.01):
            connection.sendall(b"x")

    return script


def hang(connection: socket.socket) -> None:
    """Read what comes until the client leaves."""
    while connection.recv(4096):
        pass


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context with a new certificate of its own, and that certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return context, pem
