"""From the text of kline rows to candles: pages of the exchange and files of its archive.

A page is checked twice. ``page_edges`` looks at its shape alone and costs next to nothing, so that
whoever fetches pages can tell a bad one at once; ``parse_pages`` reads the rows of many pages together,
which costs a third of reading them one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.candles import broken_rule, is_sound, without_impossible_zeros
from btc_lifecycle.domain.tables import CANDLE_QUARANTINE, CANDLES, UTC_TIME

_KLINE = pl.Schema(
    {
        "open_time": pl.Int64,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
        "close_time": pl.Int64,
        "quote_volume": pl.Float64,
        "trades": pl.Int64,
        "taker_buy_base": pl.Float64,
        "taker_buy_quote": pl.Float64,
        "unused": pl.String,
    }
)
"""The fields of a row of Binance's ``GET /api/v3/klines``, and of the files of its archive."""

_MILLISECONDS = (10**12, 10**13 - 1)
_MICROSECONDS = (10**15, 10**16 - 1)
"""Times of 13 and of 16 digits, September 2001 to November 2286 both."""
_MOST_DIGITS = 16

_MOST_REJECTED = 0.01
"""Share of bad rows beyond which a page as a whole is not trusted."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINES = bytes.maketrans(b"[", b"\n")
_RETRY = "the page is not trusted and nothing of it was stored; run the ingest again"


@dataclass(frozen=True, kw_only=True)
class PageEdges:
    """How many rows a page has, and the earlier and the later of its first and last open times."""

    n_rows: int
    first_open_time: datetime
    last_open_time: datetime


@dataclass(frozen=True, kw_only=True)
class Klines:
    """Rows of the exchange, told apart.

    ``candles`` has the columns of table ``candles`` plus ``close_time``, sorted, each open time
    once. ``rejected`` has symbol, kline (the row's text), open_time where it can be read, and reason.
    """

    candles: pl.DataFrame
    rejected: pl.DataFrame

    def require_mostly_sound(self, *, symbol: str) -> None:
        """Raise DataError when more than one row, and more than 1 % of all, are no candles."""
        n_rows, n_rejected = self.candles.height + self.rejected.height, self.rejected.height
        if n_rejected > max(1, _MOST_REJECTED * n_rows):
            kline, reason = self.rejected.select("kline", "reason").row(0)
            raise DataError(
                f"{symbol}: {n_rejected} of {n_rows} klines are no candles, more than "
                f"{_MOST_REJECTED:.0%}; of the first, {reason}: {kline}",
                hint="nothing of these klines was stored; the next ingest asks for them again",
            )


def page_edges(body: bytes, *, symbol: str) -> PageEdges | None:
    """Return the edges of a page of klines, None for an empty one.

    Args:
        body: Body of ``GET /api/v3/klines``.
        symbol: Market, for the message.

    Raises:
        NeighbourUnavailableError: If the body is not a whole list of rows of 12 fields, as when a
            proxy answers with a web page, or the body was cut.
    """
    text = body.strip()
    if text == b"[]":
        return None
    n_rows = _count_rows(text)
    if n_rows is None:
        raise _not_a_page(text, symbol=symbol)
    first, last = _first_time(text, forwards=True), _first_time(text, forwards=False)
    if first is None or last is None:
        raise _not_a_page(text, symbol=symbol)
    first, last = min(first, last), max(first, last)
    return PageEdges(n_rows=n_rows, first_open_time=first, last_open_time=last)


def parse_pages(bodies: Sequence[bytes], *, symbol: str) -> Klines:
    """Return the rows of pages that ``page_edges`` let pass, of several pages as if they were one.

    Args:
        bodies: Bodies of ``GET /api/v3/klines``, none of them empty; they may overlap.
        symbol: Market in ccxt's form, which the rows do not carry.

    Raises:
        NeighbourUnavailableError: If rows have more or fewer than 12 fields.
    """
    # Each row ends in a comma but the last of a page: the thirteenth field is always missing.
    lines = [body.strip()[2:-2].translate(_LINES, b'"]') for body in bodies]
    return _parse(b",\n".join(lines), symbol=symbol, separator=b",\n")


def parse_csv(body: bytes, *, symbol: str) -> Klines:
    """Return the rows of a file of the archive, with or without a line of names at its top.

    Raises:
        NeighbourUnavailableError: If rows have more or fewer than 12 fields.
    """
    text = body.removeprefix(_BYTE_ORDER_MARK).strip().replace(b"\r", b"")
    if text[:4].lower() == b"open":
        text = text.partition(b"\n")[2]
    return _parse(text, symbol=symbol, separator=b"\n")


def together(parts: Sequence[Klines]) -> Klines:
    """Return rows of several answers as one; a minute that any of them has is not rejected.

    Args:
        parts: At least one; of two candles with one open time, that of the later part is kept.
    """
    candles = pl.concat(part.candles for part in parts).unique("open_time", keep="last")
    rejected = pl.concat(part.rejected for part in parts).unique("kline", maintain_order=True)
    # Rows whose time cannot be read are in no candle's place.
    is_mended = pl.col("open_time").is_in(candles["open_time"].implode())
    return Klines(
        candles=candles.sort("open_time"),
        rejected=rejected.filter(~is_mended.fill_null(value=False)),
    )


def _count_rows(text: bytes) -> int | None:
    """Return how many rows a text has that has the shape of a page, None for any other."""
    if not (text.startswith(b"[[") and text.endswith(b"]]")) or b" " in text:
        return None
    # Counting through NumPy costs a fifth of bytes.count. That no row is short and another long is
    # seen where rows are read.
    characters = np.frombuffer(text, dtype=np.uint8)
    n_opened, n_closed, n_commas = (
        int(np.count_nonzero(characters == ord(mark))) for mark in "[],"
    )
    n_rows = n_opened - 1
    is_page = n_closed == n_opened and n_commas == len(_KLINE) * n_rows - 1
    return n_rows if is_page else None


def _not_a_page(text: bytes, *, symbol: str) -> NeighbourUnavailableError:
    """Say what is wrong; only the exception pays for finding out."""
    shown = repr(text[:60].decode("utf-8", "replace"))
    problem = f"the exchange answered with {shown} where a list of klines was expected"
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    if isinstance(rows, list):
        for number, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(_KLINE):
                problem = (
                    f"kline {number} of {len(rows)} is {str(row)[:60]!r} where {len(_KLINE)} fields "
                    "were expected"
                )
                break
    return NeighbourUnavailableError(f"{symbol}: {problem}", hint=_RETRY)


def _first_time(text: bytes, *, forwards: bool) -> datetime | None:
    """Return the open time of the first row, or from the end of the last, that has one."""
    row = text.find(b"[", 1) if forwards else text.rfind(b"[")
    while row > 0:
        if (time := _time_of(text[row + 1 : text.find(b",", row)])) is not None:
            return time
        row = text.find(b"[", row + 1) if forwards else text.rfind(b"[", 0, row)
    return None


def _time_of(text: bytes) -> datetime | None:
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    for (earliest, latest), per_second in ((_MILLISECONDS, 10**3), (_MICROSECONDS, 10**6)):
        if earliest <= number <= latest:
            seconds, rest = divmod(number, per_second)
            moment = datetime.fromtimestamp(seconds, tz=UTC)
            return moment.replace(microsecond=rest * 10**6 // per_second)
    return None


def _parse(text: bytes, *, symbol: str, separator: bytes) -> Klines:
    klines = _read(text, symbol=symbol) if text else pl.DataFrame(schema=_KLINE)
    rows = klines.with_columns(
        pl.lit(symbol).alias("symbol"), *(_as_time(name) for name in ("open_time", "close_time"))
    ).with_columns(is_sound=is_sound())
    # Nearly always all are, and copying them costs as much as judging them.
    sound = rows if rows["is_sound"].all() else rows.filter("is_sound")
    candles = without_impossible_zeros(sound)
    return Klines(
        candles=_each_once(candles.select(*CANDLES.schema.names(), "close_time")),
        rejected=_rejected(rows, text=text, separator=separator),
    )


def _read(text: bytes, *, symbol: str) -> pl.DataFrame:
    try:
        rows = pl.read_csv(
            text,
            has_header=False,
            schema={**_KLINE, "end": pl.String},
            missing_columns="insert",
            quote_char=None,
            ignore_errors=True,
        )
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        raise _too_long(symbol) from error
    if rows["end"].is_not_null().any():
        raise _too_long(symbol)
    if rows["unused"].null_count():
        raise NeighbourUnavailableError(
            f"{symbol}: {rows['unused'].null_count()} of {rows.height} klines have fewer than "
            f"{len(_KLINE)} fields",
            hint=_RETRY,
        )
    return rows.select(_KLINE.names())


def _too_long(symbol: str) -> NeighbourUnavailableError:
    return NeighbourUnavailableError(
        f"{symbol}: a kline has more than {len(_KLINE)} fields", hint=_RETRY
    )


def _as_time(name: str) -> pl.Expr:
    number = pl.col(name)
    microseconds = (
        pl.when(number.is_between(*_MILLISECONDS))
        .then(number * 1000)
        .when(number.is_between(*_MICROSECONDS))
        .then(number)
    )
    return pl.from_epoch(microseconds, time_unit="us").cast(UTC_TIME).alias(name)


def _each_once(candles: pl.DataFrame) -> pl.DataFrame:
    # Pages come in order: looking costs less than sorting what is sorted.
    open_time = candles["open_time"]
    if (open_time > open_time.shift()).all():
        return candles
    return candles.unique("open_time", keep="last", maintain_order=True).sort("open_time")


def _rejected(rows: pl.DataFrame, *, text: bytes, separator: bytes) -> pl.DataFrame:
    names = [name for name in CANDLE_QUARANTINE.schema.names() if name != "seen_at"]
    if rows["is_sound"].all():
        return pl.DataFrame(schema={name: CANDLE_QUARANTINE.schema[name] for name in names})
    broken = rows.with_row_index().filter(~pl.col("is_sound")).with_columns(reason=broken_rule())
    lines = text.split(separator)
    texts = [lines[row].decode("utf-8", "replace") for row in broken["index"]]
    return broken.with_columns(kline=pl.Series(texts)).select(names)
