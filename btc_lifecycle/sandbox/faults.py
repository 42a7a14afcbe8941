"""Faults on demand: what can be asked to go wrong, on which calls, and what waits to happen."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class FaultPath(StrEnum):
    """The calls whose answers can be faulty."""

    KLINES = "klines"
    TIME = "time"
    ARCHIVE = "archive"


class FaultKind(StrEnum):
    """What a faulty answer looks like; "one row" is the one in the middle of the page."""

    # Bodies that are no answer, with status 200.
    HTML = "html"
    EMPTY = "empty"
    CUT = "cut"  # two thirds of the body, with a length that fits
    NULL = "null"
    OBJECT = "object"
    GIANT = "giant"  # more than 5 MB
    BAD_GZIP = "bad_gzip"  # said to be compressed, but is not
    OK_1003 = "ok_1003"  # the error body of too many requests
    NOT_A_TIME = "not_a_time"  # no serverTime; for the time only

    # Statuses.
    HTTP_302 = "http_302"
    HTTP_400_1003 = "http_400_1003"
    HTTP_403 = "http_403"
    HTTP_418 = "http_418"
    HTTP_429 = "http_429"
    HTTP_429_BARE = "http_429_bare"  # without Retry-After
    HTTP_429_DATE = "http_429_date"  # Retry-After is a date by the exchange's own clock
    HTTP_451 = "http_451"
    HTTP_500 = "http_500"
    HTTP_500_1001 = "http_500_1001"
    HTTP_502 = "http_502"
    HTTP_503 = "http_503"
    HTTP_504 = "http_504"
    HTTP_520 = "http_520"

    # Connections.
    RESET = "reset"
    HANG = "hang"  # no answer until the client leaves or a minute passed
    DRIP = "drip"  # the body byte by byte, 0.2 s apart
    DRIP_HEADERS = "drip_headers"  # so already the head
    CUT_CONNECTION = "cut_connection"  # half of the announced body

    # One row of klines.
    SHORT_ROW = "short_row"  # six fields
    EXTRA_FIELD = "extra_field"  # thirteen
    WRONG_TYPE = "wrong_type"  # the close is "abc"
    NAN = "nan"  # the close is "NaN"
    NULL_FIELD = "null_field"
    NESTED = "nested"  # the close is a list
    ZERO_PRICE = "zero_price"  # the low is 0
    HIGH_BELOW_LOW = "high_below_low"
    NEGATIVE_VOLUME = "negative_volume"
    NEGATIVE_COUNT = "negative_count"
    TAKER_ABOVE_VOLUME = "taker_above_volume"
    WRONG_CLOSE_TIME = "wrong_close_time"  # that of an hour

    # Whole pages of klines.
    MANY_BAD_ROWS = "many_bad_rows"  # 3 % of the rows, three at least, have a high below the low
    UNORDERED = "unordered"
    REVERSED = "reversed"
    DUPLICATE = "duplicate"
    HALF_PAGE = "half_page"
    HOLES = "holes"  # up to three inner rows are missing
    OTHER_TIME = "other_time"  # good rows, but not those asked for
    OK_EMPTY = "ok_empty"  # an empty list
    MICROSECONDS = "microseconds"  # times of 16 digits
    REVISED = "revised"  # the last three closed rows as an early snapshot: amounts, close too low
    FUTURE_ROW = "future_row"  # one more row, of a minute that has not come


# Who is refused or banned may be told how long.
TELL_A_DELAY = frozenset({FaultKind.HTTP_418, FaultKind.HTTP_429, FaultKind.HTTP_429_DATE})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One faulty answer to come; ``retry_after_seconds`` matters to TELL_A_DELAY only."""

    kind: FaultKind
    retry_after_seconds: int = 1


class FaultQueue:
    """The faults that wait for the next answers, first in, first out on each path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[FaultPath, deque[Fault]] = {path: deque() for path in FaultPath}

    def add(self, fault: Fault, *, count: int, path: FaultPath = FaultPath.KLINES) -> None:
        """Let ``count`` more answers of the path fail in this way, after those already waiting."""
        with self._lock:
            self._faults[path].extend([fault] * count)

    def pop(self, path: FaultPath) -> Fault | None:
        """Take the path's next fault off the queue; None when all is well."""
        with self._lock:
            return self._faults[path].popleft() if self._faults[path] else None

    def pending(self) -> list[str]:
        """Return the waiting kinds in order, those of klines bare, others as ``path:kind``."""
        with self._lock:
            return [
                fault.kind.value if path == FaultPath.KLINES else f"{path}:{fault.kind}"
                for path, faults in self._faults.items()
                for fault in faults
            ]
