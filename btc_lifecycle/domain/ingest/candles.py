"""From raw kline rows to closed candles, and what is missing between them.

A candle is kept exactly as the exchange gave it: nothing is filled, rounded or moved to the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.tables import CANDLES, UTC_TIME

INTERVAL = timedelta(minutes=1)

_PRICES = ("open", "high", "low", "close")
_CARRIED = ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
"""What only Binance's klines carry."""

_KLINE = pl.Schema(
    {
        "open_time": pl.Int64,
        **dict.fromkeys((*_PRICES, "volume"), pl.Float64),
        "close_time": pl.Int64,
        "quote_volume": pl.Float64,
        "trades": pl.Int64,
        "taker_buy_base": pl.Float64,
        "taker_buy_quote": pl.Float64,
        "unused": pl.String,
    }
)
"""The fields of one row of Binance's ``GET /api/v3/klines``."""

_MILLISECONDS = (10**12, 10**13 - 1)
"""Times of 13 digits, September 2001 to November 2286; archives also come in microseconds, of 16."""

_RETRY = "the page is not trusted and nothing of it was stored; run the ingest again"


def parse_klines(page: object, *, symbol: str) -> pl.DataFrame:
    """Return a page of raw klines as candles with their ``close_time``, sorted, without repeats.

    Args:
        page: Body of ``GET /api/v3/klines``: a list of rows of 12 fields, numbers as text or number.
        symbol: Market in ccxt's form, which the rows do not carry.

    Returns:
        Columns of table ``candles`` plus ``close_time`` (UTC, the last instant of the minute).

    Raises:
        NeighbourUnavailableError: If the page is not a list of rows of 12 numbers, as when a proxy
            answers with a web page or the body was cut.
        DataError: If a row breaks the rules of a candle: times that are not milliseconds or end
            before they begin, high below low, a price that is not positive, a negative or infinite
            amount.
    """
    rows = _require_rows(page, symbol=symbol)
    texts = pl.DataFrame(rows, schema=dict.fromkeys(_KLINE, pl.String), orient="row")
    klines = texts.cast(_KLINE, strict=False)
    _require_numbers(klines, texts=texts, symbol=symbol)
    _require_milliseconds(klines, symbol=symbol)
    candles = (
        klines.unique("open_time", keep="last")
        .sort("open_time")
        .with_columns(
            pl.lit(symbol).alias("symbol"),
            pl.from_epoch(pl.col("open_time", "close_time"), time_unit="ms").cast(UTC_TIME),
        )
    )
    require_sound(candles)
    return _without_impossible_zeros(candles).select(*CANDLES.schema.names(), "close_time")


def closed_before(candles: pl.DataFrame, *, now: datetime) -> pl.DataFrame:
    """Return the candles that the exchange's clock says are over, without ``close_time``.

    The exchange returns the minute still in progress as its last row; its close and volume move
    until the minute ends.
    """
    return candles.filter(pl.col("close_time") < now).select(CANDLES.schema.names())


def require_sound(candles: pl.DataFrame) -> None:
    """Raise DataError when a candle breaks the rules of prices and amounts, naming the first one."""
    is_sound = pl.all_horizontal(
        *(pl.col(name).is_finite() & (pl.col(name) > 0) for name in _PRICES),
        pl.col("volume").is_finite() & (pl.col("volume") >= 0),
        *(
            (pl.col(name).is_finite() & (pl.col(name) >= 0)).fill_null(value=True)
            for name in _CARRIED
        ),
        pl.col("high") >= pl.max_horizontal("open", "close", "low"),
        pl.col("low") <= pl.min_horizontal("open", "close"),
    )
    broken = candles.filter(~is_sound.fill_null(value=False))
    if not broken.is_empty():
        first = broken.row(0, named=True)
        figures = ", ".join(f"{name} {first[name]}" for name in (*_PRICES, "volume", *_CARRIED))
        raise DataError(
            f"{first['symbol']}: {broken.height} of {candles.height} candles break the rules of "
            f"prices and amounts, first at {first['open_time']:%Y-%m-%d %H:%M:%S} UTC: {figures}",
            hint="nothing of the page was stored; compare with the exchange before ingesting again",
        )


def _require_rows(page: object, *, symbol: str) -> list[list[str | None]]:
    if not isinstance(page, Sequence) or isinstance(page, str | bytes):
        raise NeighbourUnavailableError(
            f"{symbol}: the exchange answered with {_shown(page)} where a list of klines was expected",
            hint=_RETRY,
        )
    for number, row in enumerate(page):
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(_KLINE):
            raise NeighbourUnavailableError(
                f"{symbol}: kline {number} of {len(page)} is {_shown(row)} where "
                f"{len(_KLINE)} fields were expected",
                hint=_RETRY,
            )
    return [[None if field is None else str(field) for field in row] for row in page]


def _require_numbers(klines: pl.DataFrame, *, texts: pl.DataFrame, symbol: str) -> None:
    for field in klines.drop("unused").iter_columns():
        if field.null_count():
            number = field.to_list().index(None)
            raise NeighbourUnavailableError(
                f"{symbol}: {field.name} of kline {number} of {klines.height} is "
                f"{_shown(texts[field.name][number])} where a number was expected",
                hint=_RETRY,
            )


def _require_milliseconds(klines: pl.DataFrame, *, symbol: str) -> None:
    earliest, latest = _MILLISECONDS
    is_span = (
        (pl.col("open_time") >= earliest)
        & (pl.col("open_time") < pl.col("close_time"))
        & (pl.col("close_time") <= latest)
    )
    broken = klines.filter(~is_span)
    if not broken.is_empty():
        open_time, close_time = broken.select("open_time", "close_time").row(0)
        raise DataError(
            f"{symbol}: {broken.height} of {klines.height} klines do not last from an open time to "
            f"a later close time in milliseconds of 13 digits, first {open_time} to {close_time}",
            hint="nothing of the page was stored; check that the base URL is that of an exchange",
        )


def _without_impossible_zeros(candles: pl.DataFrame) -> pl.DataFrame:
    # Something was traded, yet no trade is counted: the source does not carry these fields. Kept as
    # zeros they would say that every trade of the minute was a sale.
    is_unknown = (pl.col("volume") > 0) & (pl.col("trades") == 0)
    return candles.with_columns(
        pl.when(~is_unknown).then(pl.col(name)).alias(name) for name in _CARRIED
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
