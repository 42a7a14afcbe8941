"""The sandbox exchange: a loopback HTTP server that speaks Binance's public spot REST calls.

Under ``/api/v3`` it answers as Binance does, request weights included, over a synthetic or replayed
market on its own clock; the header ``X-Sandbox-Market`` of every answer says which. Under ``/data``
it holds the exchange's archive of past klines, see archive.py; under ``/sandbox`` it takes orders of
its own, see control.py.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import format_datetime
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from btc_lifecycle.domain.errors import ConfigurationError, LifecycleError
from btc_lifecycle.sandbox.archive import ARCHIVE_PREFIX, SandboxArchive
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.control import ACTIONS, Control
from btc_lifecycle.sandbox.faults import FaultKind, FaultPath, FaultQueue
from btc_lifecycle.sandbox.market import Market
from btc_lifecycle.sandbox.protocol import (
    KLINES_PATH,
    TIME_PATH,
    WEIGHTS,
    Parameters,
    RefusedRequestError,
    answer,
    to_json,
)
from btc_lifecycle.sandbox.revisions import RevisedMarket
from btc_lifecycle.sandbox.spoiling import another_page, spoil
from btc_lifecycle.sandbox.time_unit import asks_for_microseconds, in_microseconds
from btc_lifecycle.sandbox.transport import Answer, Delivery, LoopbackServer, Request
from btc_lifecycle.sandbox.weights import Admission, WeightMeter

DEFAULT_WEIGHT_LIMIT_PER_MIN = 6000
REQUESTS_KEPT = 100_000
_SHUTDOWN_POLL_SECONDS = 0.02
_ACTIONS = {f"/sandbox/{action}": action for action in ACTIONS}
_FAULT_PATHS = {KLINES_PATH: FaultPath.KLINES, TIME_PATH: FaultPath.TIME}


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request: when it came, in seconds since the epoch, its path, and the answer's status.

    The path has no query; the status is 0 when the connection was reset or left without an answer.
    """

    wall: float
    path: str
    status: int


class SandboxExchange:
    """A test exchange on this machine; as a context manager it serves in a background thread.

    Args:
        market: Where the klines come from.
        clock: The server's time; set it to move the market.
        host: An IPv4 loopback address or localhost.
        port: 0 takes any free one.
        weight_limit_per_min: Request weight per minute of real time before 429.
        wall: Seconds since the epoch, for the request weights and records.

    Attributes:
        market: The given one, without the corrections that were ordered.
        history: The same with them, as it is told.
        requests: The last 100,000 requests in the order of their answers.

    Raises:
        ConfigurationError: When the host is not loopback or the port cannot be had.
    """

    def __init__(
        self,
        market: Market,
        clock: SandboxClock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        weight_limit_per_min: int = DEFAULT_WEIGHT_LIMIT_PER_MIN,
        wall: Callable[[], float] = time.time,
    ) -> None:
        _refuse_foreign_host(host)
        self.market, self.history, self.clock = market, RevisedMarket(market), clock
        self.requests: deque[RequestRecord] = deque(maxlen=REQUESTS_KEPT)
        self._wall = wall
        self._weights = WeightMeter(limit_per_min=weight_limit_per_min, wall=wall)
        self._faults = FaultQueue()
        self._archive = SandboxArchive(self.history)
        self._control = Control(
            market=market,
            history=self.history,
            clock=clock,
            faults=self._faults,
            archive=self._archive,
        )
        self._requests_served = 0
        self._count_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        try:
            self._server = LoopbackServer((host, port), self)
        except OSError as error:
            raise ConfigurationError(
                f"the sandbox exchange cannot listen on {host}:{port} ({error.strerror})",
                hint="choose another port, or 0 for any free one",
            ) from error

    @property
    def url(self) -> str:
        """Scheme, host and port; clients append ``/api/v3/...``."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, daemon=True, name="sandbox")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted or closed from another one."""
        self._server.serve_forever(poll_interval=_SHUTDOWN_POLL_SECONDS)

    def close(self) -> None:
        """Stop serving, give the port back and end every connection, unfinished answers included."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.cut_connections()

    def common_headers(self) -> dict[str, str]:
        """Return the headers of every answer: the server's time, and that the market is no real one."""
        return {
            "Date": format_datetime(self.clock.now(), usegmt=True),
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "X-Sandbox-Market": self.market.label,
        }

    def respond(self, request: Request) -> Answer | None:
        """Answer one request and record it; None means to reset the connection."""
        came_at, path = self._wall(), urlsplit(request.target).path
        with self._count_lock:
            self._requests_served += 1
        found: Answer | None
        if request.method == "POST":
            found = self.post(request.target, body=request.body)
        else:
            found = self.get(request.target)
        if found is not None and path in WEIGHTS and asks_for_microseconds(request.headers):
            found = replace(found, body=in_microseconds(found.body))
        status = 0 if found is None or found.delivery == Delivery.NEVER else found.status
        self.requests.append(RequestRecord(wall=came_at, path=path, status=status))
        return found

    def get(self, target: str) -> Answer | None:
        """Return the answer to a GET of path and query; None means to reset the connection."""
        parts = urlsplit(target)
        if parts.path == "/sandbox/state":
            return Answer(body=to_json(self._state()))
        if parts.path.startswith(ARCHIVE_PREFIX):
            return self._archive_answer(parts.path)
        if parts.path not in WEIGHTS:
            return Answer(status=404, body=b"", headers=self._weight_headers())
        admission = self._weights.admit(WEIGHTS[parts.path])
        if admission.status != 200:
            return _refusal(admission, limit_per_min=self._weights.limit_per_min)
        headers = _weight_headers(admission.used_weight)
        return self._market_answer(parts.path, query=parts.query, headers=headers)

    def post(self, target: str, *, body: bytes) -> Answer:
        """Return the answer to a POST."""
        if (action := _ACTIONS.get(urlsplit(target).path)) is None:
            return Answer(status=404, body=b"", headers=self._weight_headers())
        try:
            self._control.apply(action, body=body)
        except ConfigurationError as error:
            return Answer(status=400, body=to_json({"error": str(error)}))
        return Answer(body=to_json(self._state()))

    def _archive_answer(self, path: str) -> Answer | None:
        try:
            found = self._archive.get(path, now_ms=self.clock.now_ms())
        except LifecycleError as error:
            return Answer(status=500, body=str(error).encode(), content_type="text/plain")
        fault = self._faults.pop(FaultPath.ARCHIVE) if found.status == 200 else None
        return spoil(found, fault=fault, now=self.clock.now()) if fault else found

    def _market_answer(self, path: str, *, query: str, headers: dict[str, str]) -> Answer | None:
        parameters = parse_qsl(query, keep_blank_values=True)
        try:
            good = Answer(body=self._ask(path, parameters), headers=headers)
        except RefusedRequestError as refusal:
            return Answer(status=refusal.status, body=refusal.to_json(), headers=headers)
        except LifecycleError as error:
            return Answer(
                status=500, body=to_json({"code": -1000, "msg": str(error)}), headers=headers
            )
        fault = self._faults.pop(_FAULT_PATHS[path]) if path in _FAULT_PATHS else None
        if fault is None:
            return good
        if fault.kind == FaultKind.OTHER_TIME:
            page = another_page(good.body, parameters=parameters, ask=partial(self._ask, path))
            return replace(good, body=page)
        return spoil(good, fault=fault, now=self.clock.now())

    def _ask(self, path: str, parameters: Parameters) -> bytes:
        return answer(
            path,
            parameters,
            market=self.history,
            now_ms=self.clock.now_ms(),
            weight_limit_per_min=self._weights.limit_per_min,
        )

    def _state(self) -> dict[str, object]:
        served = {"requests_served": self._requests_served}
        return self._control.state() | served | {"used_weight_1m": self._weights.used_weight}

    def _weight_headers(self) -> dict[str, str]:
        return _weight_headers(self._weights.used_weight)


def _refusal(admission: Admission, *, limit_per_min: int) -> Answer:
    if admission.status == 418:
        msg = (
            f"Way too much request weight used; IP banned until {admission.banned_until_ms}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
    else:
        msg = (
            f"Too much request weight used; current limit is {limit_per_min} request weight per "
            "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        )
    return Answer(
        status=admission.status,
        body=to_json({"code": -1003, "msg": msg}),
        headers={
            **_weight_headers(admission.used_weight),
            "Retry-After": str(admission.retry_after_seconds),
        },
    )


def _weight_headers(used_weight: int) -> dict[str, str]:
    return {"X-MBX-USED-WEIGHT": str(used_weight), "X-MBX-USED-WEIGHT-1M": str(used_weight)}


def _refuse_foreign_host(host: str) -> None:
    with suppress(ValueError):
        if ipaddress.IPv4Address(host).is_loopback:
            return
    if host != "localhost":
        raise ConfigurationError(
            f"the sandbox exchange does not listen on {host!r}: it is a test exchange",
            hint="use a loopback address such as 127.0.0.1",
        )
