"""Binance's rules for its public spot calls: parameters in, a JSON body or a refusal out.

Source: Binance Spot API documentation, rest-api.md ("General API Information", "Kline/Candlestick
data") and errors.md; messages as recorded from the exchange. Where those are silent this server
chooses: a limit of 0 and a bad timeZone are refused with -1130.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from btc_lifecycle.sandbox.exchange_info import exchange_info
from btc_lifecycle.sandbox.market import MINUTE_MS, KlineBlock, Market
from btc_lifecycle.sandbox.time_unit import as_ms_down, as_ms_up

Parameters = Sequence[tuple[str, str]]

KLINES_PATH, TIME_PATH = "/api/v3/klines", "/api/v3/time"
WEIGHTS = {
    "/api/v3/ping": 1,
    TIME_PATH: 1,
    KLINES_PATH: 2,
    "/api/v3/exchangeInfo": 20,
}
DEFAULT_LIMIT, MAX_LIMIT = 500, 1000

_KLINES_PARAMETERS = ("symbol", "interval", "startTime", "endTime", "timeZone", "limit")
_EXCHANGE_INFO_PARAMETERS = ("symbol", "symbols")
_N_EXCHANGE_INFO_PARAMETERS = 5
_NUMBER_RANGE = "^[0-9]{1,20}$"
_SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
_SYMBOL_PATTERN = re.compile(r"[A-Z0-9_.\-]{1,50}")
_TIME_ZONE_PATTERN = re.compile(r"([+-]?)(\d{1,2})(?::([0-5]\d))?")


class RefusedRequestError(Exception):
    """A request that Binance answers with an error body instead of data."""

    def __init__(self, code: int, msg: str, *, status: int = 400) -> None:
        self.code, self.msg, self.status = code, msg, status
        super().__init__(f"{status} {code} {msg}")

    def to_json(self) -> bytes:
        """Return Binance's error body."""
        return to_json({"code": self.code, "msg": self.msg})


def answer(
    path: str, parameters: Parameters, *, market: Market, now_ms: int, weight_limit_per_min: int
) -> bytes:
    """Return the JSON body for one of the paths of WEIGHTS.

    Raises:
        RefusedRequestError: When Binance would refuse the parameters.
    """
    values = _distinct(parameters)
    if path == KLINES_PATH:
        return _klines(values, market=market, now_ms=now_ms)
    if path == "/api/v3/exchangeInfo":
        symbols = _asked_symbols(values, market=market)
        return to_json(
            exchange_info(symbols, now_ms=now_ms, weight_limit_per_min=weight_limit_per_min)
        )
    _refuse_too_many(values, n_expected=0)
    return to_json({"serverTime": now_ms} if path == TIME_PATH else {})


def rows_text(symbol: str, *, market: Market, start_ms: int, end_ms: int) -> bytes:
    """Return all finished rows from ``start_ms`` to ``end_ms``, inclusive, comma between them."""
    page = _Page(symbol=symbol, start_ms=start_ms, end_ms=end_ms, limit=sys.maxsize)
    return b",".join(_oldest_rows(page, market=market, now_ms=end_ms + MINUTE_MS))


def to_json(value: object) -> bytes:
    """Return a JSON value without spaces, as the exchange writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True)
class _Page:
    symbol: str
    start_ms: int | None
    end_ms: int
    limit: int


def _klines(values: Mapping[str, str], *, market: Market, now_ms: int) -> bytes:
    page = _parse_page(values, symbols=market.symbols, now_ms=now_ms)
    find = _newest_rows if page.start_ms is None else _oldest_rows
    return b"[" + b",".join(find(page, market=market, now_ms=now_ms)) + b"]"


def _newest_rows(page: _Page, *, market: Market, now_ms: int) -> list[bytes]:
    pieces: list[bytes] = []
    n_missing = page.limit
    for start_ms in reversed(market.block_starts(page.symbol, until_ms=page.end_ms)):
        block = market.block(page.symbol, start_ms=start_ms)
        end = int(np.searchsorted(block.open_ms, page.end_ms, side="right"))
        first = max(0, end - n_missing)
        pieces[:0] = _rows(block, first, end, now_ms=now_ms)
        n_missing -= end - first
        if n_missing == 0:
            break
    return pieces


def _oldest_rows(page: _Page, *, market: Market, now_ms: int) -> list[bytes]:
    pieces: list[bytes] = []
    n_missing = page.limit
    from_ms = page.start_ms or 0
    starts = market.block_starts(page.symbol, until_ms=page.end_ms)
    for start_ms in starts[max(0, bisect_right(starts, from_ms) - 1) :]:
        block = market.block(page.symbol, start_ms=start_ms)
        first = int(np.searchsorted(block.open_ms, from_ms, side="left"))
        end = int(np.searchsorted(block.open_ms, page.end_ms, side="right"))
        end = max(first, min(end, first + n_missing))
        pieces += _rows(block, first, end, now_ms=now_ms)
        n_missing -= end - first
        if n_missing == 0:
            break
    return pieces


def _rows(block: KlineBlock, first: int, end: int, *, now_ms: int) -> list[bytes]:
    """Return the text of rows ``first`` to ``end``, those still running as they are at ``now_ms``."""
    n_closed = int(np.searchsorted(block.open_ms, now_ms - MINUTE_MS, side="right"))
    split = min(max(first, n_closed), end)
    closed = [block.rows_text(first, split)] if split > first else []
    running = [block.kline(row).so_far(now_ms=now_ms) for row in range(split, end)]
    return closed + [kline.to_json().encode() for kline in running]


def _parse_page(values: Mapping[str, str], *, symbols: Sequence[str], now_ms: int) -> _Page:
    _refuse_too_many(values, n_expected=len(_KLINES_PARAMETERS))
    symbol = _mandatory(values, "symbol")
    _refuse_bad_symbol_text(symbol)
    interval = _mandatory(values, "interval")
    start, end = _digits(values, "startTime"), _digits(values, "endTime")
    limit = _digits(values, "limit")
    _refuse_bad_time_zone(values)
    _refuse_unread(values, known=_KLINES_PARAMETERS)
    if interval != "1m":
        raise RefusedRequestError(-1120, "Invalid interval.")
    if symbol not in symbols:
        raise RefusedRequestError(-1121, "Invalid symbol.")
    if limit is not None and int(limit) == 0:
        raise RefusedRequestError(-1130, "Data sent for parameter 'limit' is not valid.")
    return _Page(
        symbol=symbol,
        # Past the present there is nothing; the bounds also keep 20-digit numbers inside 64 bits.
        start_ms=None if start is None else min(as_ms_up(start), now_ms + 1),
        end_ms=now_ms if end is None else min(as_ms_down(end), now_ms),
        limit=DEFAULT_LIMIT if limit is None else min(int(limit), MAX_LIMIT),
    )


def _asked_symbols(values: Mapping[str, str], *, market: Market) -> Sequence[str]:
    _refuse_too_many(values, n_expected=_N_EXCHANGE_INFO_PARAMETERS)
    _refuse_unread(values, known=_EXCHANGE_INFO_PARAMETERS)
    if len(values) == len(_EXCHANGE_INFO_PARAMETERS):
        raise RefusedRequestError(-1128, "Combination of optional parameters invalid.")
    if "symbol" in values:
        asked = [values["symbol"]]
    elif "symbols" in values:
        asked = re.findall(r'"([^"]*)"', values["symbols"])
    else:
        return market.symbols
    for symbol in asked:
        _refuse_bad_symbol_text(symbol)
    if not asked or any(symbol not in market.symbols for symbol in asked):
        raise RefusedRequestError(-1121, "Invalid symbol.")
    return asked


def _distinct(parameters: Parameters) -> dict[str, str]:
    values = dict(parameters)
    if len(values) < len(parameters):
        raise RefusedRequestError(-1101, "Duplicate values for a parameter detected.")
    return values


def _refuse_too_many(values: Mapping[str, str], *, n_expected: int) -> None:
    if len(values) > n_expected:
        raise RefusedRequestError(
            -1101, f"Too many parameters; expected '{n_expected}' and received '{len(values)}'."
        )


def _refuse_unread(values: Mapping[str, str], *, known: Sequence[str]) -> None:
    n_read = sum(name in known for name in values)
    if n_read < len(values):
        raise RefusedRequestError(
            -1104,
            f"Not all sent parameters were read; read '{n_read}' parameter(s) but was sent "
            f"'{len(values)}'.",
        )


def _mandatory(values: Mapping[str, str], name: str) -> str:
    if not values.get(name):
        raise RefusedRequestError(
            -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        )
    return values[name]


def _digits(values: Mapping[str, str], name: str) -> str | None:
    text = values.get(name)
    if text is None:
        return None
    if not text:
        raise RefusedRequestError(-1105, f"Parameter '{name}' was empty.")
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise _illegal(name, _NUMBER_RANGE)
    return text


def _refuse_bad_symbol_text(symbol: str) -> None:
    if not _SYMBOL_PATTERN.fullmatch(symbol):
        raise _illegal("symbol", _SYMBOL_RANGE)


def _refuse_bad_time_zone(values: Mapping[str, str]) -> None:
    """Refuse what is no offset of -12:00 to +14:00; a good one changes nothing about minutes."""
    if (text := values.get("timeZone")) is None:
        return
    parts = _TIME_ZONE_PATTERN.fullmatch(text)
    if parts:
        offset_min = 60 * int(parts[2]) + int(parts[3] or 0)
        if -12 * 60 <= (-offset_min if parts[1] == "-" else offset_min) <= 14 * 60:
            return
    raise RefusedRequestError(-1130, "Data sent for parameter 'timeZone' is not valid.")


def _illegal(name: str, legal_range: str) -> RefusedRequestError:
    return RefusedRequestError(
        -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal_range}'."
    )
