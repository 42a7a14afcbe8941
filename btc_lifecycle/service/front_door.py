"""What every request passes first: who may come in, and what is noted of each.

One ASGI middleware around all others: it gives the request an id, refuses what may not be answered,
sets the headers of every answer, and leaves a line in the access log and a mark in the metrics.
"""

import ipaddress
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from time import perf_counter, time_ns

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btc_lifecycle.adapters.lines import Lines
from btc_lifecycle.service.errors import OWN_FAULT, ApiError, error_response
from btc_lifecycle.service.metrics import Metrics
from btc_lifecycle.service.rate_limit import RateLimit
from btc_lifecycle.settings import ServeSettings

OPEN_PATHS = frozenset({"/", "/live", "/health", "/docs", "/openapi.json"})
"""Probes, and pages without data: answered without a key, and however busy the service is."""

OPEN_FOLDERS = ("/v2/", "/docs/files/")
_OTHER = "other"
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LOCAL_HOST = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.ASCII)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

_CLIENT_LEFT = 499
"""What some servers note where a client left before it had its answer."""

Headers = dict[bytes, bytes]


class _ClientLeftError(Exception):
    """The client closed the connection in the middle of an answer."""


class FrontDoor:
    """ASGI middleware around the whole service.

    Args:
        app: What is behind the door.
        direct: Applications for one method and path each, which skip whatever else is behind it.
        paths: The service's own paths, by which metrics are told apart.
        metrics: Where requests are counted.
        access_log: Where a line of JSON is left for each request, if anywhere.
        api_key: What guarded paths ask for; without one only this machine itself is answered.
        limits: How many requests at once, and of one address.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        direct: Mapping[tuple[str, str], ASGIApp],
        paths: frozenset[str],
        metrics: Metrics,
        access_log: Lines | None,
        api_key: str | None,
        limits: ServeSettings,
    ) -> None:
        self._app, self._direct, self._paths = app, direct, paths
        self._metrics, self._access_log = metrics, access_log
        self._api_key = None if api_key is None else api_key.encode()
        self._max_active, per_minute = limits.max_concurrent_requests, limits.requests_per_minute
        self._limit = None if per_minute is None else RateLimit(per_minute)
        self._n_active = 0
        self._numbers = count()
        self._prefix = secrets.token_hex(4)
        self._second, self._second_told = -1, ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not; what is no HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers: Headers = dict(scope["headers"])
        direct = self._direct.get((scope["method"], path))
        marked = _Marked(send, request_id=self._request_id(headers), is_direct=direct is not None)
        is_guarded = not (path in OPEN_PATHS or path.startswith(OPEN_FOLDERS))
        self._n_active += is_guarded
        try:
            refusal = self._refusal(scope, headers) if is_guarded else None
            answer = (direct or self._app) if refusal is None else error_response(refusal)
            await answer(scope, receive, marked.send)
        except _ClientLeftError:
            marked.status = _CLIENT_LEFT
        except Exception:
            if not marked.status:
                await error_response(OWN_FAULT)(scope, receive, marked.send)
            raise
        finally:
            self._n_active -= is_guarded
            self._note(scope, path, marked, seconds=perf_counter() - start)

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        """Return why a request to a guarded path is not let in, None if it is."""
        if self._n_active > self._max_active:
            return ApiError(
                503,
                "busy",
                f"{self._max_active} requests are being worked on already",
                hint="come again in a second",
                headers={"Retry-After": "1"},
            )
        address = scope["client"][0] if scope.get("client") else ""
        if self._limit is not None and (seconds := self._limit.seconds_to_wait(address)):
            return ApiError(
                429,
                "too_many_requests",
                "this address has made as many requests as it may",
                hint="come again after the seconds that Retry-After says",
                headers={"Retry-After": str(int(seconds) + 1)},
            )
        return (
            self._without_key(address, headers) if self._api_key is None else self._by_key(headers)
        )

    def _by_key(self, headers: Headers) -> ApiError | None:
        given = headers.get(b"x-api-key")
        if given is None:
            scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
            given = credentials.strip() if scheme.lower() == b"bearer" else b""
        if secrets.compare_digest(given, self._api_key or b""):
            return None
        return ApiError(
            401,
            "unauthorized",
            "the API key is missing or wrong",
            hint="send it as X-API-Key: KEY or Authorization: Bearer KEY",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _without_key(self, address: str, headers: Headers) -> ApiError | None:
        # A page of another site may have its name lead here; its requests name that site as host.
        names_this_machine = _LOCAL_HOST.fullmatch(headers.get(b"host", b"localhost"))
        # Whoever was passed on is somewhere else, and the server may take the address from here.
        is_passed_on = b"x-forwarded-for" in headers or b"forwarded" in headers
        if not is_passed_on and (
            not _is_ip(address) or (is_loopback(address) and names_this_machine)
        ):
            return None
        return ApiError(
            401,
            "unauthorized",
            "no API key is set, so only requests of this machine to itself are answered",
            hint="set BTC_API_KEY where the service runs, and send it as X-API-Key",
        )

    def _request_id(self, headers: Headers) -> bytes:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers):x}".encode()

    def _note(self, scope: Scope, path: str, marked: "_Marked", *, seconds: float) -> None:
        status = marked.status or _CLIENT_LEFT
        known = path if path in self._paths else _folder_of(path)
        # Whatever a client makes up is one name more in the metrics for ever.
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        self._metrics.saw_request(method=method, path=known, status=status, seconds=seconds)
        if self._access_log is not None:
            client = scope.get("client")
            line = {
                "time": self._now(),
                "request_id": marked.request_id.decode(),
                "client": client[0] if client else None,
                "method": method,
                "path": path[:200].encode(errors="replace").decode(),
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
            }
            self._access_log.append([orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)])

    def _now(self) -> str:
        """Return the time to the millisecond; of many requests in a second one spells it out."""
        second, milliseconds = divmod(time_ns() // 1_000_000, 1000)
        if second != self._second:
            self._second, told = second, datetime.fromtimestamp(second, UTC)
            self._second_told = told.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_told}.{milliseconds:03d}Z"


class _Marked:
    """Sends an answer on with the headers that every answer has, and keeps its status."""

    __slots__ = ("_is_direct", "_send", "request_id", "status")

    def __init__(self, send: Send, *, request_id: bytes, is_direct: bool) -> None:
        self._send, self._is_direct = send, is_direct
        self.request_id, self.status = request_id, 0

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status, headers = message["status"], message["headers"]
            # A direct application sets none of them itself.
            added = _HEADERS if self._is_direct else _missing(headers)
            message["headers"] = [*headers, (b"x-request-id", self.request_id), *added]
        try:
            await self._send(message)
        except RuntimeError as error:
            # What uvloop says of a connection that closed under a long answer.
            raise _ClientLeftError from error


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer that this one does not set itself."""
    own = {name for name, _ in headers}
    return [header for header in _HEADERS if header[0] not in own]


def _folder_of(path: str) -> str:
    return next((folder for folder in OPEN_FOLDERS if path.startswith(folder)), _OTHER)


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return _is_ip(address) and ipaddress.ip_address(address).is_loopback


@lru_cache(maxsize=4096)
def _is_ip(address: str) -> bool:
    """Return whether there is an address; a local socket has none, a test's client makes one up."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
