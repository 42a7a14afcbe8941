"""The figures of a stretch of candles: coverage, prices, volumes, returns, seasons. No drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.coverage import Coverage, cover

MAX_MOVES = 5
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
# The market never closes: 365 days of 1440 minutes.
MINUTES_PER_YEAR = 525_600
_MINUTE = timedelta(minutes=1)
_BPS = 1e4


@dataclass(frozen=True, kw_only=True)
class PriceStats:
    """Prices in quote currency: the first open, the last close, the extremes with their times."""

    first: float
    last: float
    low: float
    low_at: datetime
    high: float
    high_at: datetime
    change_ratio: float


@dataclass(frozen=True, kw_only=True)
class VolumeStats:
    """Amounts traded in base currency per minute; totals of optional columns where they exist."""

    total: float
    mean: float
    median: float
    max: float
    max_at: datetime
    quote_total: float | None
    trades_total: int | None


@dataclass(frozen=True, kw_only=True)
class Move:
    """A one-minute log return with the open time of the candle that made it."""

    open_time: datetime
    log_return_bps: float


@dataclass(frozen=True, kw_only=True)
class ReturnStats:
    """Moments of one-minute log returns; None where too few returns, or equal ones, leave no value.

    Standard deviation with n - 1; skewness and excess kurtosis are the moment ratios
    m3 / m2^1.5 and m4 / m2^2 - 3. Quantiles are linear between order statistics.
    """

    n_returns: int
    mean_bps: float | None
    std_bps: float | None
    skew: float | None
    excess_kurtosis: float | None
    quantiles_bps: tuple[tuple[float, float], ...]
    annualized_volatility_ratio: float | None
    largest_up: tuple[Move, ...]
    largest_down: tuple[Move, ...]


@dataclass(frozen=True, kw_only=True)
class Season:
    """One hour of the UTC day (0 to 23) or one day of the week (1 Monday to 7 Sunday)."""

    key: int
    n_candles: int
    median_abs_return_bps: float | None
    mean_volume: float | None


@dataclass(frozen=True, kw_only=True)
class CandleSummary:
    """Everything that the ingestion report says about one market's candles."""

    symbol: str
    coverage: Coverage
    price: PriceStats
    volume: VolumeStats
    returns: ReturnStats
    hours: tuple[Season, ...]
    weekdays: tuple[Season, ...]


def summarize(candles: pl.DataFrame) -> CandleSummary:
    """Return the figures of one market's candles.

    Args:
        candles: one symbol, CANDLES.schema, sorted by open time without duplicates; gaps and
            open times off the minute grid are allowed and counted.

    Raises:
        DataError: no candle, several symbols, open times out of order, or a price that is not a
            positive number.
    """
    _refuse_unfit(candles)
    returns_bps = one_minute_log_returns(candles) * _BPS
    timed = candles.select("open_time", "volume").with_columns(return_bps=returns_bps)
    return CandleSummary(
        symbol=candles["symbol"][0],
        coverage=cover(candles),
        price=_price_stats(candles),
        volume=_volume_stats(candles),
        returns=_return_stats(timed.select("open_time", "return_bps").drop_nulls()),
        hours=_seasons(timed, key=pl.col("open_time").dt.hour(), keys=range(24)),
        weekdays=_seasons(timed, key=pl.col("open_time").dt.weekday(), keys=range(1, 8)),
    )


def one_minute_log_returns(candles: pl.DataFrame) -> pl.Series:
    """Return the log of each close over the close one minute before, row by row.

    Args:
        candles: one symbol, sorted by open time, positive closes.

    Returns:
        As many values as candles; null for the first and wherever the candle before does not lie
        exactly one minute earlier, since a return across a gap is no one-minute return.
    """
    is_next_minute = pl.col("open_time").diff() == _MINUTE
    log_return = pl.when(is_next_minute).then(pl.col("close").log().diff())
    return candles.select(log_return.alias("log_return"))["log_return"]


def _refuse_unfit(candles: pl.DataFrame) -> None:
    if candles.is_empty():
        raise DataError("no candles to summarize", hint="ingest candles first or widen the window")
    symbols = sorted(candles["symbol"].unique())
    if len(symbols) > 1:
        raise DataError(
            f"candles of {len(symbols)} symbols ({', '.join(symbols)}) in one summary",
            hint="summarize one symbol at a time",
        )
    if candles.select((pl.col("open_time").diff() <= timedelta(0)).any()).item():
        raise DataError(
            f"{symbols[0]}: open times are not strictly increasing",
            hint="sort by open_time and drop duplicates before the summary",
        )
    prices = pl.col("open", "high", "low", "close")
    unfit = candles.filter(~pl.all_horizontal(prices.is_finite() & (prices > 0)))
    if not unfit.is_empty():
        raise DataError(
            f"{symbols[0]}: {unfit.height} candles have a price that is not a positive number, "
            f"first at {unfit['open_time'][0]:%Y-%m-%d %H:%M} UTC",
            hint="ingest that day again",
        )


def _price_stats(candles: pl.DataFrame) -> PriceStats:
    prices = candles.select(
        first=pl.col("open").first(),
        last=pl.col("close").last(),
        low=pl.col("low").min(),
        low_at=_first_time(pl.col("low") == pl.col("low").min()),
        high=pl.col("high").max(),
        high_at=_first_time(pl.col("high") == pl.col("high").max()),
        change_ratio=pl.col("close").last() / pl.col("open").first() - 1,
    )
    return PriceStats(**prices.row(0, named=True))


def _first_time(is_hit: pl.Expr) -> pl.Expr:
    """Return the open time of the first candle that fulfils a condition."""
    return pl.col("open_time").filter(is_hit).first()


def _volume_stats(candles: pl.DataFrame) -> VolumeStats:
    totals = candles.select(
        total=pl.col("volume").sum(),
        mean=pl.col("volume").mean(),
        median=pl.col("volume").median(),
        max=pl.col("volume").max(),
        max_at=_first_time(pl.col("volume") == pl.col("volume").max()),
        # A sum over some minutes only would read as the sum over all of them.
        quote_total=pl.when(pl.col("quote_volume").is_not_null().all()).then(
            pl.col("quote_volume").sum()
        ),
        trades_total=pl.when(pl.col("trades").is_not_null().all()).then(pl.col("trades").sum()),
    )
    return VolumeStats(**totals.row(0, named=True))


def _return_stats(returns: pl.DataFrame) -> ReturnStats:
    """Return the moments of one-minute returns in bps (columns open_time, return_bps; no null)."""
    values = returns["return_bps"]
    std_bps = _number(values.std())
    return ReturnStats(
        n_returns=values.len(),
        mean_bps=_number(values.mean()),
        std_bps=std_bps,
        skew=_number(values.skew()),
        excess_kurtosis=_number(values.kurtosis()),
        quantiles_bps=tuple(
            (probability, value)
            for probability in QUANTILES
            if (value := _number(values.quantile(probability, "linear"))) is not None
        ),
        annualized_volatility_ratio=(
            None if std_bps is None else std_bps / _BPS * math.sqrt(MINUTES_PER_YEAR)
        ),
        largest_up=_moves(returns.filter(pl.col("return_bps") > 0), is_up=True),
        largest_down=_moves(returns.filter(pl.col("return_bps") < 0), is_up=False),
    )


def _moves(returns: pl.DataFrame, *, is_up: bool) -> tuple[Move, ...]:
    largest = returns.sort("return_bps", "open_time", descending=[is_up, False]).head(MAX_MOVES)
    return tuple(Move(open_time=time, log_return_bps=bps) for time, bps in largest.iter_rows())


def _seasons(timed: pl.DataFrame, *, key: pl.Expr, keys: range) -> tuple[Season, ...]:
    grouped = timed.group_by(key.cast(pl.Int64).alias("key")).agg(
        n_candles=pl.len().cast(pl.Int64),
        median_abs_return_bps=pl.col("return_bps").abs().median(),
        mean_volume=pl.col("volume").mean(),
    )
    complete = (
        pl.DataFrame({"key": list(keys)}, schema={"key": pl.Int64})
        .join(grouped, on="key", how="left", maintain_order="left")
        .with_columns(pl.col("n_candles").fill_null(0))
    )
    return tuple(Season(**row) for row in complete.iter_rows(named=True))


def _number(value: object) -> float | None:
    """Return the value as a float, None where it is missing or not a number (0 / 0)."""
    return value if isinstance(value, float) and math.isfinite(value) else None
