"""Klines as text, and slow, obvious ways to read them and to find what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from btc_lifecycle.domain.ingest.gaps import Stretch

OPEN_MS = 1_704_067_200_000
OPEN_TIME = datetime(2024, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIELDS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "unused",
)
PRICES = FIELDS[1:5]
CARRIED = FIELDS[7:11]

Row = list[object]
Values = Mapping[str, object]
Rule = Callable[[Mapping], bool]


def kline(minute: float = 0, **fields: object) -> Row:
    """A row as Binance gives it, so many minutes after OPEN_TIME, with fields replaced."""
    open_ms = OPEN_MS + round(minute * 60_000)
    row: dict[str, object] = {
        "open_time": open_ms,
        "open": "42283.58000000",
        "high": "42298.62000000",
        "low": "42261.02000000",
        "close": "42298.61000000",
        "volume": "35.92724000",
        "close_time": open_ms + 60_000 - 1,
        "quote_volume": "1519032.42831870",
        "trades": 1327,
        "taker_buy_base": "23.18766000",
        "taker_buy_quote": "980394.01497270",
        "unused": "0",
    }
    return list({**row, **fields}.values())


def in_microseconds(row: Row) -> Row:
    """The same row with its times in microseconds."""
    return [value * 1000 if i in {0, 6} else value for i, value in enumerate(row)]


def page(*rows: object) -> bytes:
    """A body of ``GET /api/v3/klines``."""
    return json.dumps(rows, separators=(",", ":")).encode()


def csv(*rows: Row) -> bytes:
    """The same rows as a file of the archive, without a line of names."""
    return b"".join(",".join(row).encode() + b"\n" for row in page_rows([page(*rows)]))


def page_rows(bodies: Iterable[bytes]) -> list[list[str]]:
    """Every row of pages as the texts between its commas."""
    words = {None: "null", True: "true", False: "false"}
    return [
        [field if isinstance(field, str) else words[field] for field in row]
        for body in bodies
        for row in json.loads(body, parse_int=str, parse_float=str)
    ]


def slow_klines(rows: Sequence[Sequence[str]], *, symbol: str) -> tuple[list[Values], list[tuple]]:
    """Candles by their open times, the last of each, and rejected rows in order."""
    candles: dict[datetime, Values] = {}
    rejected = []
    for fields in rows:
        row = _values(fields)
        reason = slow_broken_rule(row)
        if reason is not None:
            rejected.append((symbol, ",".join(fields), row["open_time"], reason))
            continue
        if row["volume"] > 0 and row["trades"] == 0:
            row = {**row, **dict.fromkeys(CARRIED)}
        close_time = row.pop("close_time")
        candles[row["open_time"]] = {"symbol": symbol, **row, "close_time": close_time}
    return [candles[open_time] for open_time in sorted(candles)], rejected


def slow_broken_rule(row: Values) -> str | None:
    """The first rule that a row breaks."""
    return _first_broken(row, {**TIME_RULES, **PRICE_RULES, **CARRIED_RULES})


def slow_broken_stored_rule(row: Values) -> str | None:
    """The first rule that a stored candle breaks, which may lack what its source does not carry."""
    carried = CARRIED_RULES if row["trades"] is not None else {}
    return _first_broken(row, {**PRICE_RULES, **carried})


def _values(fields: Sequence[str]) -> dict:
    texts = dict(zip(FIELDS[:-1], fields[:-1], strict=True))
    values: dict[str, object] = {name: _number(text) for name, text in texts.items()}
    values["trades"] = _whole(texts["trades"])
    for name in ("open_time", "close_time"):
        values[name] = slow_time(texts[name])
    return values


def slow_time(text: str) -> datetime | None:
    """The time that 13 digits mean in milliseconds and 16 in microseconds."""
    number = _whole(text)
    if number is None or number < 0 or len(str(number)) not in (13, 16):
        return None
    if len(str(number)) == 13:
        return EPOCH + timedelta(milliseconds=number)
    return EPOCH + timedelta(microseconds=number)


def _number(text: str) -> float | None:
    """The number of a text; Python alone reads underscores between digits."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    """The whole number of a text, where 64 bits hold it."""
    number = None if _number(text) is None or not text.lstrip("+-").isdigit() else int(text)
    return number if number is None or abs(number) < 2**63 else None


def _first_broken(row: Values, rules: Mapping[str, Rule]) -> str | None:
    return next((words for words, holds in rules.items() if not holds(row)), None)


def _are_numbers(row: Mapping, names: Iterable[str]) -> bool:
    return all(row[name] is not None and math.isfinite(row[name]) for name in names)


TIME_RULES: dict[str, Rule] = {
    "a time is not in milliseconds or microseconds": lambda row: (
        row["open_time"] is not None and row["close_time"] is not None
    ),
    "it does not close within a minute": lambda row: (
        timedelta(0) < row["close_time"] - row["open_time"] <= MINUTE
    ),
}
PRICE_RULES: dict[str, Rule] = {
    "a price is not a number": lambda row: _are_numbers(row, PRICES),
    "a price is not positive": lambda row: all(row[name] > 0 for name in PRICES),
    "the high is not the highest price": lambda row: (
        row["high"] == max(row[name] for name in PRICES)
    ),
    "the low is not the lowest price": lambda row: row["low"] == min(row[name] for name in PRICES),
    "the volume is not a number": lambda row: _are_numbers(row, ["volume"]),
    "the volume is negative": lambda row: row["volume"] >= 0,
}
CARRIED_RULES: dict[str, Rule] = {
    "an amount is not a number": lambda row: _are_numbers(row, CARRIED),
    "an amount is negative": lambda row: all(row[name] >= 0 for name in CARRIED),
    "takers bought more than was traded": lambda row: (
        row["taker_buy_base"] <= row["volume"] * (1 + 1e-9)
        and row["taker_buy_quote"] <= row["quote_volume"] * (1 + 1e-9)
    ),
}
"""Rules in the order in which they are told; each may count on those before it."""


def minutes_of(stretches: Iterable[Stretch]) -> set[datetime]:
    """Every minute of stretches, one by one."""
    return {
        stretch.start + i * MINUTE
        for stretch in stretches
        for i in range((stretch.end - stretch.start) // MINUTE)
    }


def as_stretches(minutes: Iterable[datetime]) -> tuple[Stretch, ...]:
    """Runs of minutes, oldest first."""
    runs: list[Stretch] = []
    for minute in sorted(minutes):
        if runs and runs[-1].end == minute:
            runs[-1] = Stretch(start=runs[-1].start, end=minute + MINUTE)
        else:
            runs.append(Stretch(start=minute, end=minute + MINUTE))
    return tuple(runs)


def slow_missing(open_times: Iterable[datetime], *, stretch: Stretch) -> set[datetime]:
    """The minutes of a stretch in which no candle opened."""
    opened = {time.replace(second=0, microsecond=0) for time in open_times}
    return minutes_of([stretch]) - opened


def count_missing_minutes(open_times: pl.Series) -> int:
    """Return how many minutes between the first and last open time have no candle."""
    minutes = set(open_times.dt.truncate("1m"))
    return (max(minutes) - min(minutes)) // MINUTE + 1 - len(minutes) if minutes else 0
