"""Faults on demand: how an answer to klines can go wrong, one kind at a time."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from btc_lifecycle.sandbox.protocol import to_json
from btc_lifecycle.sandbox.transport import Answer


class FaultKind(StrEnum):
    """What a faulty answer looks like."""

    HTML = "html"
    EMPTY = "empty"
    CUT = "cut"
    NULL = "null"
    OBJECT = "object"
    SHORT_ROW = "short_row"
    WRONG_TYPE = "wrong_type"
    HTTP_429 = "http_429"
    HTTP_418 = "http_418"
    HTTP_403 = "http_403"
    HTTP_451 = "http_451"
    HTTP_500 = "http_500"
    HTTP_503 = "http_503"
    RESET = "reset"
    UNORDERED = "unordered"
    DUPLICATE = "duplicate"


class FaultQueue:
    """The faults that wait for the next answers, first in, first out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: deque[FaultKind] = deque()

    def add(self, kind: FaultKind, *, count: int) -> None:
        """Let ``count`` more answers fail in this way, after those already waiting."""
        with self._lock:
            self._kinds.extend([kind] * count)

    def pop(self) -> FaultKind | None:
        """Take the next fault off the queue; None when all is well."""
        with self._lock:
            return self._kinds.popleft() if self._kinds else None

    def pending(self) -> list[str]:
        """Return the waiting kinds in order."""
        with self._lock:
            return [kind.value for kind in self._kinds]


def spoil(body: bytes, *, kind: FaultKind) -> Answer:
    """Return the good klines body made bad; RESET has no answer and is the server's business."""
    if kind in _STATUS_ANSWERS:
        return _STATUS_ANSWERS[kind]
    if kind == FaultKind.HTML:
        return Answer(body=_HTML, content_type="text/html")
    return Answer(body=_BODY_FAULTS[kind](body))


def _short_row(body: bytes) -> bytes:
    rows = json.loads(body)
    middle = len(rows) // 2
    return to_json(
        rows[:middle] + [row[:6] for row in rows[middle : middle + 1]] + rows[middle + 1 :]
    )


def _wrong_type(body: bytes) -> bytes:
    rows = json.loads(body)
    for row in rows[len(rows) // 2 :][:1]:
        row[4] = "abc"
    return to_json(rows)


def _unordered(body: bytes) -> bytes:
    rows = json.loads(body)
    return to_json(rows[1::2] + rows[::2])


def _duplicate(body: bytes) -> bytes:
    return to_json([row for row in json.loads(body) for _ in range(2)])


_BODY_FAULTS: dict[FaultKind, Callable[[bytes], bytes]] = {
    FaultKind.EMPTY: lambda _: b"",
    FaultKind.CUT: lambda body: body[: 2 * len(body) // 3],
    FaultKind.NULL: lambda _: b"null",
    FaultKind.OBJECT: lambda _: b"{}",
    FaultKind.SHORT_ROW: _short_row,
    FaultKind.WRONG_TYPE: _wrong_type,
    FaultKind.UNORDERED: _unordered,
    FaultKind.DUPLICATE: _duplicate,
}

_HTML = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body></body></html>"

_TOO_MUCH = "Please use WebSocket Streams for live updates to avoid"
_STATUS_ANSWERS = {
    FaultKind.HTTP_429: Answer(
        status=429,
        body=to_json(
            {"code": -1003, "msg": f"Too much request weight used. {_TOO_MUCH} polling the API."}
        ),
        headers={"Retry-After": "1"},
    ),
    FaultKind.HTTP_418: Answer(
        status=418,
        body=to_json(
            {
                "code": -1003,
                "msg": f"Way too much request weight used; IP banned. {_TOO_MUCH} bans.",
            }
        ),
        headers={"Retry-After": "1"},
    ),
    FaultKind.HTTP_403: Answer(
        status=403, body=b"<html><body>403 Forbidden</body></html>", content_type="text/html"
    ),
    FaultKind.HTTP_451: Answer(
        status=451,
        body=to_json(
            {
                "code": 0,
                "msg": "Service unavailable from a restricted location according to the terms.",
            }
        ),
    ),
    FaultKind.HTTP_500: Answer(
        status=500, body=to_json({"code": -1000, "msg": "An unknown error occurred."})
    ),
    FaultKind.HTTP_503: Answer(
        status=503,
        body=to_json({"code": -1008, "msg": "Server is currently overloaded with other requests."}),
    ),
}
