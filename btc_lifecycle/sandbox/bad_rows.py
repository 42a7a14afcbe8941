"""Pages of klines made bad: rows of Binance's 12 fields in, rows that break a promise out.

No function writes into the rows given; an empty page has nothing to spoil and stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from btc_lifecycle.sandbox.faults import FaultKind
from btc_lifecycle.sandbox.market import MINUTE_MS

Row = list[object]
Rows = Sequence[Row]

(_OPEN_TIME, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _CLOSE_TIME, _QUOTE, _TRADES, _TAKER) = range(10)
_TAKER_QUOTE = 10
_AMOUNTS = (_VOLUME, _QUOTE, _TAKER, _TAKER_QUOTE)

_BAD_SHARE, _MIN_BAD_ROWS = 0.03, 3
_N_HOLES = 3
_N_REVISED, _EARLY_SHARE, _EARLY_CLOSE_RATIO = 3, 0.9, 0.9999
_FUTURE_MS = 5 * MINUTE_MS


def spoil_rows(rows: Rows, *, kind: FaultKind, now_ms: int) -> Rows:
    """Return the page with the fault; ``kind`` is one of ROW_KINDS.

    Args:
        rows: A good page, oldest row first, times in milliseconds.
        kind: What goes wrong.
        now_ms: The exchange's time, which tells closed rows from the running one.
    """
    if not rows:
        return []
    if kind in _OF_ONE_ROW:
        middle = len(rows) // 2
        return [*rows[:middle], _OF_ONE_ROW[kind](list(rows[middle])), *rows[middle + 1 :]]
    if kind == FaultKind.REVISED:
        return _revised(rows, now_ms=now_ms)
    if kind == FaultKind.FUTURE_ROW:
        return [*rows, _future_row(rows[-1], now_ms=now_ms)]
    return _OF_A_PAGE[kind](rows)


def _number(row: Row, field: int) -> float:
    return float(str(row[field]))


def _with(row: Row, field: int, value: object) -> Row:
    return [*row[:field], value, *row[field + 1 :]]


def _high_below_low(row: Row) -> Row:
    return _with(row, _HIGH, f"{0.99 * _number(row, _LOW):.8f}")


def _taker_above_volume(row: Row) -> Row:
    return _with(row, _TAKER, f"{_number(row, _VOLUME) + 1:.8f}")


def _wrong_close_time(row: Row) -> Row:
    return _with(row, _CLOSE_TIME, int(_number(row, _OPEN_TIME)) + 60 * MINUTE_MS - 1)


_OF_ONE_ROW: dict[FaultKind, Callable[[Row], Row]] = {
    FaultKind.SHORT_ROW: lambda row: row[:6],
    FaultKind.EXTRA_FIELD: lambda row: [*row, "0"],
    FaultKind.WRONG_TYPE: lambda row: _with(row, _CLOSE, "abc"),
    FaultKind.NAN: lambda row: _with(row, _CLOSE, "NaN"),
    FaultKind.NULL_FIELD: lambda row: _with(row, _CLOSE, None),
    FaultKind.NESTED: lambda row: _with(row, _CLOSE, [row[_CLOSE]]),
    FaultKind.ZERO_PRICE: lambda row: _with(row, _LOW, "0.00000000"),
    FaultKind.HIGH_BELOW_LOW: _high_below_low,
    FaultKind.NEGATIVE_VOLUME: lambda row: _with(row, _VOLUME, f"{-_number(row, _VOLUME) - 1:.8f}"),
    FaultKind.NEGATIVE_COUNT: lambda row: _with(row, _TRADES, -1),
    FaultKind.TAKER_ABOVE_VOLUME: _taker_above_volume,
    FaultKind.WRONG_CLOSE_TIME: _wrong_close_time,
}


def _many_bad_rows(rows: Rows) -> Rows:
    n_bad = min(len(rows), max(_MIN_BAD_ROWS, round(_BAD_SHARE * len(rows))))
    bad = {i * len(rows) // n_bad for i in range(n_bad)}
    return [_high_below_low(row) if i in bad else row for i, row in enumerate(rows)]


def _without_holes(rows: Rows) -> Rows:
    holes = {i * len(rows) // (_N_HOLES + 1) for i in range(1, _N_HOLES + 1)}
    holes -= {0, len(rows) - 1}
    return [row for i, row in enumerate(rows) if i not in holes]


_OF_A_PAGE: dict[FaultKind, Callable[[Rows], Rows]] = {
    FaultKind.MANY_BAD_ROWS: _many_bad_rows,
    FaultKind.UNORDERED: lambda rows: [*rows[1::2], *rows[::2]],
    FaultKind.REVERSED: lambda rows: rows[::-1],
    FaultKind.DUPLICATE: lambda rows: [row for row in rows for _ in range(2)],
    FaultKind.HALF_PAGE: lambda rows: rows[: (len(rows) + 1) // 2],
    FaultKind.HOLES: _without_holes,
    FaultKind.OK_EMPTY: lambda _: [],
}


def _revised(rows: Rows, *, now_ms: int) -> Rows:
    closed = [i for i, row in enumerate(rows) if _number(row, _CLOSE_TIME) < now_ms]
    return [_early(row) if i in closed[-_N_REVISED:] else row for i, row in enumerate(rows)]


def _early(row: Row) -> Row:
    early = list(row)
    for field in _AMOUNTS:
        early[field] = f"{_EARLY_SHARE * _number(row, field):.8f}"
    # A close under the low would be a broken row, not an early one.
    close = max(_EARLY_CLOSE_RATIO * _number(row, _CLOSE), _number(row, _LOW))
    return _with(early, _CLOSE, f"{close:.8f}")


def _future_row(last: Row, *, now_ms: int) -> Row:
    open_ms = now_ms - now_ms % MINUTE_MS + _FUTURE_MS
    return _with(_with(last, _OPEN_TIME, open_ms), _CLOSE_TIME, open_ms + MINUTE_MS - 1)


ROW_KINDS = frozenset({*_OF_ONE_ROW, *_OF_A_PAGE, FaultKind.REVISED, FaultKind.FUTURE_ROW})
