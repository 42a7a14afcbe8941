"""Features of years of candles and of the last day, beside the same ones by pandas' rolling."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import log, pi, sqrt
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import typer
from measuring import Figure, Timed, made_up_candles, show

from btc_lifecycle.domain.learn.features import FEATURE_NAMES, compute_features
from btc_lifecycle.domain.tables.features import CATALOGUE

START = datetime(2017, 8, 17, 4, 0, tzinfo=UTC)
HOLE_EVERY, HOLE_MIN = 250_000, 60
DAY_ROWS = 1_441
"""A day of minutes and one more, as what is served reads them."""

ROWS_COMPARED = 100_000
OURS, PANDAS = "ours: compute_features", "pandas: rolling, diff and log"
AIM_S, AIM_GB, AIM_TAIL_MS = 4.0, 2.0, 5.0

Way = Callable[[Path, Timed], None]


def main(
    candles: Annotated[int, typer.Option(help="how many", min=2000)] = 4_700_000,
    runs: Annotated[int, typer.Option(help="how often each is measured, in turns")] = 5,
    pandas_runs: Annotated[int, typer.Option(help="the same of pandas, which takes longer")] = 3,
) -> None:
    """Measure features of a whole history and of its last day, ours and pandas' in turns."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "candles.parquet"
        # No process that is measured, nor the one that starts them, ever held another's candles.
        apart(write_candles, path, candles)
        show(f"Features of {candles:,} candles", histories(path, runs, pandas_runs=pandas_runs))
        day = pl.read_parquet(path).tail(DAY_ROWS)
        show(f"Features of the last {day.height:,} candles", tails(day, runs=20 * runs))
        show("Ours and pandas'", [difference(pl.read_parquet(path).tail(ROWS_COMPARED))])


def write_candles(path: Path, n: int) -> None:
    """Write made-up candles, an hour missing in each 250,000."""
    row = pl.int_range(pl.len())
    candles = made_up_candles(start=START, n=n)
    candles.filter(row % HOLE_EVERY >= min(HOLE_MIN, n // 10)).write_parquet(path)


def apart(work: Callable[..., Any], *arguments: object) -> Any:
    """Return what the work returns in a fresh process, whose memory is its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def histories(path: Path, runs: int, *, pandas_runs: int) -> list[Figure]:
    """Measure the whole history, each run in a process of its own."""
    ways: dict[str, tuple[Way, int]] = {OURS: (ours, runs), PANDAS: (pandas_way, pandas_runs)}
    timed = {name: Timed() for name in ways}
    peaks_gb: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(runs):
        for name, (way, n_runs) in ways.items():
            if number < n_runs:
                wall_s, cpu_s, peak_gb = apart(measured, way, path)
                timed[name].wall_s.append(wall_s)
                timed[name].cpu_s.append(cpu_s)
                peaks_gb[name].append(peak_gb)
    return [
        Figure.of_time(OURS, timed[OURS], aim=AIM_S),
        Figure.of_time(PANDAS, timed[PANDAS]),
        Figure(name=f"{OURS}: peak", unit="GB", values=peaks_gb[OURS], aim=AIM_GB),
        Figure(name=f"{PANDAS}: peak", unit="GB", values=peaks_gb[PANDAS]),
    ]


def measured(way: Way, path: Path) -> tuple[float, float, float]:
    """Return seconds by the clock, seconds of the processor, and this process's peak in GB."""
    timed = Timed()
    way(path, timed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return timed.wall_s[0], timed.cpu_s[0], peak * bytes_per_unit / 1e9


def ours(path: Path, timed: Timed) -> None:
    """Compute ours of the candles in a file; reading it is not timed."""
    candles = pl.read_parquet(path)
    timed.run(partial(compute_features, candles))


def pandas_way(path: Path, timed: Timed) -> None:
    """Compute pandas' of the candles in a file; reading it is not timed."""
    candles = pd.read_parquet(path)
    timed.run(partial(rolling_features, candles))


def tails(day: pl.DataFrame, *, runs: int) -> list[Figure]:
    """Measure the last day, in this process, after a first run that is not counted."""
    as_pandas = day.to_pandas()
    mine, theirs = Timed(), Timed()
    for number in range(runs + 1):
        (mine if number else Timed()).run(partial(compute_features, day))
        (theirs if number else Timed()).run(partial(rolling_features, as_pandas))
    return [
        Figure.of_time(OURS, mine, unit="ms", aim=AIM_TAIL_MS),
        Figure.of_time(PANDAS, theirs, unit="ms"),
    ]


def difference(candles: pl.DataFrame) -> Figure:
    """Return how far the two lie apart at most, where both have a value."""
    mine = compute_features(candles).select(FEATURE_NAMES).to_pandas()
    theirs = rolling_features(candles.to_pandas())[list(FEATURE_NAMES)]
    if mine.isna().to_numpy().sum() != theirs.isna().to_numpy().sum():
        raise RuntimeError("ours and pandas' are not missing in the same rows")
    apart_by = ((mine - theirs).abs() / mine.std()).max()
    return Figure(
        name=f"largest difference, {apart_by.idxmax()}",
        unit="of its deviation",
        values=[float(apart_by.max())],
    )


def rolling_features(candles: pd.DataFrame) -> pd.DataFrame:
    """Return the features as one would write them with pandas, missing where a window has a gap."""
    features = pd.DataFrame(
        {
            **of_returns(candles),
            **of_ranges(candles),
            **of_amounts(candles),
            **of_the_clock(candles["open_time"]),
        }
    )
    is_break = candles["open_time"].diff() != pd.Timedelta(minutes=1)
    consecutive_min = candles.groupby(is_break.cumsum()).cumcount()
    for entry in CATALOGUE:
        features[entry.name] = features[entry.name].where(consecutive_min >= entry.window_min)
    return features.replace([np.inf, -np.inf], np.nan)


def of_returns(candles: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what is made of closes."""
    close = candles["close"]
    returns = {m: np.log(close / close.shift(m)) for m in (1, 5, 15, 60, 240)}
    squares, change = returns[1] ** 2, close.diff()
    volatility = {m: squares.rolling(m).mean() ** 0.5 for m in (15, 60, 240)}
    rise, fall = change.clip(lower=0).rolling(14).sum(), (-change).clip(lower=0).rolling(14).sum()
    return {
        **{f"log_return_{m}m": values for m, values in returns.items()},
        **{f"scaled_return_{m}m": returns[m] / (volatility[240] * sqrt(m)) for m in (5, 15)},
        **{f"realized_volatility_{m}m": values for m, values in volatility.items()},
        "volatility_ratio_15m_60m": np.log(volatility[15] / volatility[60]),
        "volatility_ratio_60m_240m": np.log(volatility[60] / volatility[240]),
        "rsi_14m": rise / (rise + fall),
    }


def of_ranges(candles: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what is made of candles' ranges."""
    open_, high, low, close = (candles[name] for name in ("open", "high", "low", "close"))
    span, log_span = high - low, np.log(high / low)
    squares = np.log(close / close.shift(1)) ** 2
    variances = {
        "parkinson": log_span**2 / (4 * log(2)),
        "garman_klass": log_span**2 / 2 - (2 * log(2) - 1) * np.log(close / open_) ** 2,
        "rogers_satchell": np.log(high / open_) * np.log(high / close)
        + np.log(low / open_) * np.log(low / close),
    }
    lows = {m: low.rolling(m).min() for m in (60, 240)}
    return {
        **{
            f"{name}_ratio_60m": (v.rolling(60).mean() / squares.rolling(60).mean()) ** 0.5
            for name, v in variances.items()
        },
        **{
            f"range_position_{m}m": (close - lows[m]) / (high.rolling(m).max() - lows[m])
            for m in (60, 240)
        },
        "high_low_range_1m": log_span,
        "body_ratio_1m": (close - open_) / span,
        "close_location_1m": (2 * close - high - low) / span,
    }


def of_amounts(candles: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what is made of volume, of its value, of trades and of takers."""
    close, volume, buys = candles["close"], candles["volume"], candles["taker_buy_base"]
    value = volume * (candles["high"] + candles["low"] + close) / 3
    moves = np.log(close / close.shift(1)).abs()
    sums = {m: volume.rolling(m).sum() for m in (1, 5, 15, 60, 240)}
    values = {m: value.rolling(m).sum() for m in (60, 240)}
    illiquidity = {m: moves.rolling(m).sum() / values[m] for m in (60, 240)}
    net = 2 * buys - volume
    return {
        "volume_ratio_15m_240m": np.log(sums[15] / 15 / (sums[240] / 240)),
        "illiquidity_ratio_60m_240m": np.log(illiquidity[60] / illiquidity[240]),
        **{f"vwap_deviation_{m}m": np.log(close * sums[m] / values[m]) for m in (60, 240)},
        **{f"taker_imbalance_{m}m": net.rolling(m).sum() / sums[m] for m in (1, 5, 15, 60)},
        "volume_zscore_60m": root_zscore(volume),
        "trades_zscore_60m": root_zscore(candles["trades"]),
    }


def root_zscore(amounts: pd.Series) -> pd.Series:
    """Return the score of the root within the hour."""
    roots = np.sqrt(amounts)
    return (roots - roots.rolling(60).mean()) / roots.rolling(60).std(ddof=0)


def of_the_clock(open_time: pd.Series) -> dict[str, pd.Series]:
    """Return where the close lies in the day and in the week."""
    closes_at = open_time + pd.Timedelta(minutes=1)
    minute = closes_at.dt.hour * 60 + closes_at.dt.minute
    day, week = (
        2 * pi * minute / 1440,
        2 * pi * (closes_at.dt.dayofweek * 1440 + minute) / 10_080,
    )
    return {
        "minute_of_day_sin": np.sin(day),
        "minute_of_day_cos": np.cos(day),
        "day_of_week_sin": np.sin(week),
        "day_of_week_cos": np.cos(week),
    }


if __name__ == "__main__":
    typer.run(main)
