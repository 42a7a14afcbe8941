"""One HTTP GET with bounds that hold: a total deadline, a cap on the body, verified certificates.

Time-outs as HTTP libraries know them bound each single read, so a peer that sends a byte now and
then holds its client for ever. Here every read of the socket gets what is left of one deadline.
Nothing is redirected, sent through a proxy of the environment, or tried twice.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from http.client import HTTPException, IncompleteRead
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError as Urllib3Error

HttpErrorKind = Literal["timeout", "refused", "reset", "dns", "tls", "too_large", "cut", "protocol"]

TOTAL = timedelta(seconds=20)
MAX_BYTES = 4_000_000
_HEADERS = {"User-Agent": "btc-lifecycle", "Accept-Encoding": "gzip"}
_Place = tuple[str, str, int]


class HttpError(Exception):
    """A GET that brought no answer; the message names the address."""

    def __init__(self, kind: HttpErrorKind, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(f"{kind}: {message}")


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """An answer of any status: headers by lower-case name, the body decoded if it was compressed."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """GETs over connections that are kept alive; may be shared by threads."""

    def __init__(self, *, total: timedelta = TOTAL, max_bytes: int = MAX_BYTES) -> None:
        """Prepare a client; nothing is opened yet.

        Args:
            total: The longest that one GET may take, name look-up and all.
            max_bytes: The longest body, after decoding, that is read.
        """
        self.total, self._max_bytes = total, max_bytes
        self._idle: dict[_Place, _Link] = {}
        weakref.finalize(self, _close_all, self._idle)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return the answer, whatever its status; redirects are not followed.

        Raises:
            HttpError: If no whole answer came within the total time and the size.
        """
        total_s = self.total.total_seconds()
        deadline = time.monotonic() + total_s
        with _one_kind_of_error(url, total_s=total_s):
            place, target = _parsed(url)
            sent = {**_HEADERS, **(headers or {})}
            kept = self._idle.pop(place, None)
            answer = kept and self._asked_again(kept, target, headers=sent, deadline=deadline)
            return answer or self._asked(
                _opened(place, deadline=deadline), target, headers=sent, deadline=deadline
            )

    def _asked_again(
        self, kept: _Link, target: str, *, headers: Mapping[str, str], deadline: float
    ) -> HttpAnswer | None:
        """Ask over a kept connection; None if the peer had closed it before it saw the request."""
        if not kept.connection.is_connected:
            kept.connection.close()
            return None
        kept.socket.has_received = False
        try:
            return self._asked(kept, target, headers=headers, deadline=deadline)
        except (ConnectionError, ssl.SSLEOFError):
            if kept.socket.has_received:
                raise
            return None

    def _asked(
        self, link: _Link, target: str, *, headers: Mapping[str, str], deadline: float
    ) -> HttpAnswer:
        connection, link.socket.deadline = link.connection, deadline
        try:
            connection.timeout = _left(deadline)
            connection.request("GET", target, headers=headers, preload_content=False)
            answer = self._read(connection)
        except BaseException:
            connection.close()
            raise
        if connection.is_closed or self._idle.setdefault(link.place, link) is not link:
            connection.close()
        return answer

    def _read(self, connection: HTTPConnection) -> HttpAnswer:
        response = connection.getresponse()
        try:
            body = b""
            if (response.length_remaining or 0) <= self._max_bytes:
                body = response.read(self._max_bytes + 1, decode_content=True)
            if response.length_remaining or len(body) > self._max_bytes:
                raise HttpError("too_large", f"the body is longer than {self._max_bytes} bytes")
            return HttpAnswer(
                status=response.status,
                reason=response.reason or "",
                headers={name.lower(): value for name, value in response.headers.items()},
                body=body,
            )
        finally:
            response.close()


class _Socket(socket.socket):
    """A socket whose every read ends at the deadline, on ``time.monotonic``, of the whole answer."""

    deadline = math.inf
    has_received = False

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # as the base class
        self.settimeout(_left(self.deadline))
        n_bytes = super().recv_into(*args, **kwargs)
        self.has_received |= n_bytes > 0
        return n_bytes


class _TlsSocket(_Socket, ssl.SSLSocket):
    pass


@dataclass(frozen=True, kw_only=True)
class _Link:
    place: _Place
    connection: HTTPConnection
    socket: _Socket


def _opened(place: _Place, *, deadline: float) -> _Link:
    scheme, host, port = place
    socket_ = _connected(host, port=port, deadline=deadline)
    connection = HTTPConnection(host, port)
    if scheme == "https":
        socket_.settimeout(_left(deadline))
        # The context makes sockets of that class.
        socket_ = cast("_TlsSocket", _tls().wrap_socket(socket_, server_hostname=host))
        connection = HTTPSConnection(host, port)
    connection.sock = socket_
    return _Link(place=place, connection=connection, socket=socket_)


def _connected(host: str, *, port: int, deadline: float) -> _Socket:
    """Connect to the first address that takes us, none getting more than its share of the time."""
    addresses = _addresses(host, port=port, deadline=deadline)
    for n_left in range(len(addresses), 0, -1):
        family, kind, protocol, _, address = addresses[-n_left]
        socket_ = _Socket(family, kind, protocol)
        try:
            socket_.settimeout(_left(deadline) / n_left)
            socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            socket_.connect(address)
        except BaseException as error:
            socket_.close()
            if n_left == 1 or not isinstance(error, OSError):
                raise
        else:
            return socket_
    raise socket.gaierror(f"{host} has no address")


def _addresses(host: str, *, port: int, deadline: float) -> list[Any]:
    # The system's look-up takes no time-out, so it is left behind in its thread if it takes longer.
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    threading.Thread(target=look_up, daemon=True, name="name look-up").start()
    return found.result(timeout=_left(deadline))


@cache
def _tls() -> ssl.SSLContext:
    import certifi  # noqa: PLC0415  # only an exchange that is no sandbox needs it

    context = ssl.create_default_context()
    # Some Python builds come without the system's list of authorities.
    context.load_verify_locations(certifi.where())
    context.sslsocket_class = _TlsSocket
    return context


def _parsed(url: str) -> tuple[_Place, str]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise HttpError("protocol", "the address is none of http:// or https://")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = parts._replace(scheme="", netloc="", fragment="", path=parts.path or "/").geturl()
    return (parts.scheme, parts.hostname, port), target


def _left(deadline: float) -> float:
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


def _close_all(links: dict[_Place, _Link]) -> None:
    for link in links.values():
        link.connection.close()


_KINDS: tuple[tuple[type[Exception], HttpErrorKind], ...] = (
    (TimeoutError, "timeout"),
    (ssl.SSLEOFError, "reset"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (UnicodeError, "dns"),
    (IncompleteRead, "cut"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "reset"),
    (OSError, "refused"),
)


def _kind(cause: BaseException) -> HttpErrorKind:
    for type_, kind in _KINDS:
        if isinstance(cause, type_):
            return kind
    return "protocol"


@contextmanager
def _one_kind_of_error(url: str, *, total_s: float) -> Iterator[None]:
    try:
        yield
    except HttpError as error:
        raise HttpError(error.kind, f"{url}: {error.message}") from None
    except (OSError, HTTPException, Urllib3Error, ValueError) as error:
        cause: BaseException = error
        while isinstance(cause, Urllib3Error) and cause.__cause__ is not None:
            cause = cause.__cause__
        kind = _kind(cause)
        text = f"no whole answer within {total_s:g} s" if kind == "timeout" else str(cause)
        raise HttpError(kind, f"{url}: {text or type(cause).__name__}") from error
