"""Good answers made bad: the exchange's statuses, bodies that are no answers, broken deliveries.

Statuses, codes and messages as in Binance's errors.md and rest-api.md ("HTTP Return Codes").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime

from btc_lifecycle.sandbox.bad_rows import ROW_KINDS, spoil_rows
from btc_lifecycle.sandbox.faults import Fault, FaultKind, FaultPath
from btc_lifecycle.sandbox.market import as_ms
from btc_lifecycle.sandbox.protocol import Parameters, to_json
from btc_lifecycle.sandbox.time_unit import in_microseconds
from btc_lifecycle.sandbox.transport import Answer, Delivery

GIANT_BYTES = 6_000_000
ELSEWHERE = "https://elsewhere.invalid/"

_OF_KLINES = ROW_KINDS | {FaultKind.MICROSECONDS, FaultKind.OTHER_TIME}


def kinds_of(path: FaultPath) -> tuple[FaultKind, ...]:
    """Return the faults that an answer of the path can have."""
    foreign = {
        FaultPath.KLINES: {FaultKind.NOT_A_TIME},
        FaultPath.TIME: _OF_KLINES,
        FaultPath.ARCHIVE: _OF_KLINES | {FaultKind.NOT_A_TIME},
    }
    return tuple(kind for kind in FaultKind if kind not in foreign[path])


def spoil(good: Answer, *, fault: Fault, now: datetime) -> Answer | None:
    """Return a good answer made bad, its headers kept beside new ones; None for a reset.

    OTHER_TIME needs the market, see ``another_page``.

    Args:
        good: What a healthy exchange answers.
        fault: What goes wrong.
        now: The exchange's time, aware.
    """
    if fault.kind == FaultKind.RESET:
        return None
    if fault.kind in _STATUSES:
        bad = _STATUSES[fault.kind]
        headers = good.headers | bad.headers | _delay(fault, now=now)
        return replace(bad, headers=headers)
    if fault.kind in _DELIVERIES:
        return replace(good, delivery=_DELIVERIES[fault.kind])
    if fault.kind in ROW_KINDS:
        rows = spoil_rows(json.loads(good.body), kind=fault.kind, now_ms=as_ms(now))
        return replace(good, body=to_json(rows))
    if fault.kind == FaultKind.BAD_GZIP:
        return replace(good, headers=good.headers | {"Content-Encoding": "gzip"})
    return replace(good, body=_BODIES[fault.kind](good.body))


def another_page(
    good: bytes, *, parameters: Parameters, ask: Callable[[Parameters], bytes]
) -> bytes:
    """Return rows of a time that was not asked for.

    These are the newest rows or, when the good page reaches into them, the market's oldest ones. In
    a market with no more rows than a page holds both are the asked for.

    Args:
        good: The page asked for.
        parameters: The call's parameters.
        ask: Returns the body for other parameters.
    """
    timeless = [pair for pair in parameters if pair[0] not in ("startTime", "endTime")]
    newest = ask(timeless)
    rows, newest_rows = json.loads(good), json.loads(newest)
    if rows and rows[-1][0] >= newest_rows[0][0]:
        return ask([*timeless, ("startTime", "0")])
    return newest


def _delay(fault: Fault, *, now: datetime) -> dict[str, str]:
    if fault.kind in (FaultKind.HTTP_418, FaultKind.HTTP_429):
        return {"Retry-After": str(fault.retry_after_seconds)}
    if fault.kind == FaultKind.HTTP_429_DATE:
        until = now + timedelta(seconds=fault.retry_after_seconds)
        return {"Retry-After": format_datetime(until, usegmt=True)}
    return {}


def _html(status: int, text: str) -> Answer:
    page = f"<!DOCTYPE html><html><head><title>{text}</title></head><body>{text}</body></html>"
    return Answer(status=status, body=page.encode(), content_type="text/html")


def _error(status: int, code: int, msg: str) -> Answer:
    return Answer(status=status, body=to_json({"code": code, "msg": msg}))


_STREAMS = "Please use WebSocket Streams for live updates to avoid"
_TOO_MUCH = f"Too much request weight used. {_STREAMS} polling the API."
_BANNED = f"Way too much request weight used; IP banned. {_STREAMS} bans."
_BACKEND = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."

_STATUSES = {
    FaultKind.HTML: _html(200, "Maintenance"),
    FaultKind.OK_1003: _error(200, -1003, _TOO_MUCH),
    FaultKind.HTTP_302: replace(_html(302, "Found"), headers={"Location": ELSEWHERE}),
    FaultKind.HTTP_400_1003: _error(400, -1003, _TOO_MUCH),
    FaultKind.HTTP_403: _html(403, "403 Forbidden"),
    FaultKind.HTTP_418: _error(418, -1003, _BANNED),
    FaultKind.HTTP_429: _error(429, -1003, _TOO_MUCH),
    FaultKind.HTTP_429_BARE: _error(429, -1003, _TOO_MUCH),
    FaultKind.HTTP_429_DATE: _error(429, -1003, _TOO_MUCH),
    FaultKind.HTTP_451: _error(
        451, 0, "Service unavailable from a restricted location according to the terms."
    ),
    FaultKind.HTTP_500: _error(500, -1000, "An unknown error occurred."),
    FaultKind.HTTP_500_1001: _error(
        500, -1001, "Internal error; unable to process your request. Please try again."
    ),
    FaultKind.HTTP_502: _html(502, "502 Bad Gateway"),
    FaultKind.HTTP_503: _error(503, -1008, "Server is currently overloaded with other requests."),
    FaultKind.HTTP_504: _error(504, -1007, _BACKEND),
    FaultKind.HTTP_520: _html(520, "520: Web server is returning an unknown error"),
}

_DELIVERIES = {
    FaultKind.HANG: Delivery.NEVER,
    FaultKind.DRIP: Delivery.DRIPPED_BODY,
    FaultKind.DRIP_HEADERS: Delivery.DRIPPED_HEAD,
    FaultKind.CUT_CONNECTION: Delivery.HALF,
}

_BODIES: dict[FaultKind, Callable[[bytes], bytes]] = {
    FaultKind.EMPTY: lambda _: b"",
    FaultKind.CUT: lambda body: body[: 2 * len(body) // 3],
    FaultKind.NULL: lambda _: b"null",
    FaultKind.OBJECT: lambda _: b"{}",
    FaultKind.NOT_A_TIME: lambda _: b"{}",
    # Spaces are legal there: only its size tells this page from a good one.
    FaultKind.GIANT: lambda body: body[:1] + b" " * GIANT_BYTES + body[1:],
    FaultKind.MICROSECONDS: in_microseconds,
}
