"""The charts of candles: price with volume, returns, seasons, missing minutes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from btc_lifecycle.adapters.report_pdf.charts import (
    legend,
    legend_below,
    new_figure,
    number_axis,
    style,
    time_axis,
)
from btc_lifecycle.adapters.report_pdf.style import AMBER, BLUE, MUTED, RED, SKY, symbol_units
from btc_lifecycle.domain.ingest.summary import CandleSummary, one_minute_log_returns

_MAX_POINTS = 400
_N_BINS = 80
_BUCKETS_MIN = (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440, 2880, 10_080, 43_200)


def bucket_minutes(n_minutes: int) -> int:
    """Return the shortest usual bucket that cuts so many minutes into a few hundred points."""
    fits = (bucket for bucket in _BUCKETS_MIN if n_minutes <= bucket * _MAX_POINTS)
    return next(fits, _BUCKETS_MIN[-1])


def price_figure(candles: pl.DataFrame, *, summary: CandleSummary) -> Figure:
    """Return close with its low-high range above the volume, by time bucket; gaps shaded."""
    bucket_min = bucket_minutes(summary.coverage.n_expected_min)
    buckets = _buckets(candles, bucket_min=bucket_min)
    figure = new_figure(height_mm=100)
    price_axes, volume_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    base, quote = symbol_units(summary.symbol)
    time = buckets["open_time"].to_numpy()
    price_axes.fill_between(
        time,
        buckets["low"],
        buckets["high"],
        color=SKY,
        alpha=0.75,
        linewidth=0,
        label="low to high",
    )
    marker = "o" if buckets.height <= 40 else ""
    price_axes.plot(
        time,
        buckets["close"],
        color=BLUE,
        linewidth=1,
        marker=marker,
        markersize=2.5,
        label="close",
    )
    for gap in summary.coverage.gaps:
        start = np.datetime64(gap.start.replace(tzinfo=None))
        price_axes.axvspan(
            start,
            start + np.timedelta64(gap.n_minutes, "m"),
            color=RED,
            alpha=0.25,
            linewidth=0.6,
        )
    style(price_axes, y_label=f"price, {quote}" if quote else "price")
    _price_limits(price_axes, low=summary.price.low, high=summary.price.high)
    legend(price_axes, n_columns=2)
    width = np.timedelta64(int(bucket_min * 60 * 0.9), "s")
    volume_axes.bar(time, buckets["volume"], width=width, align="edge", color=MUTED)
    volume_axes.set_ylim(0, float(buckets["volume"].to_numpy().max()) * 1.08 or 1)
    style(volume_axes, y_label=f"volume, {base}" if base else "volume")
    number_axis(volume_axes, n_ticks=3)
    time_axis(volume_axes)
    volume_axes.margins(x=0.01)
    figure.align_ylabels()
    return figure


def returns_figure(candles: pl.DataFrame, *, summary: CandleSummary) -> Figure:
    """Return the density of one-minute returns, linear in the middle and in logs to the tails.

    Call it only where the returns have a standard deviation above zero.
    """
    stats = summary.returns
    mean_bps, std_bps = stats.mean_bps or 0.0, stats.std_bps or 1.0
    returns_bps = one_minute_log_returns(candles).drop_nulls().to_numpy() * 1e4
    figure = new_figure(height_mm=88)
    middle_axes, tail_axes = figure.subplots(1, 2)
    middle = returns_bps[np.abs(returns_bps - mean_bps) <= 4 * std_bps]
    _density(middle_axes, middle, n_all=returns_bps.size, mean_bps=mean_bps, std_bps=std_bps)
    style(
        middle_axes,
        title="Density, within 4 standard deviations",
        x_label="one-minute log return, bps",
        y_label="density per bps",
    )
    number_axis(middle_axes)
    peak = _density(
        tail_axes, returns_bps, n_all=returns_bps.size, mean_bps=mean_bps, std_bps=std_bps
    )
    style(
        tail_axes, title="Density, all returns, logarithmic", x_label="one-minute log return, bps"
    )
    tail_axes.set_yscale("log")
    # Half of what a single return in the widest bin draws: the normal curve falls out below.
    floor = 0.5 / (returns_bps.size * np.ptp(returns_bps) / _N_BINS)
    tail_axes.set_ylim(floor, 4 * peak)
    tail_axes.tick_params(which="minor", length=0)
    legend_below(figure, middle_axes)
    return figure


def seasons_figure(summary: CandleSummary) -> Figure:
    """Return median absolute return and mean volume by UTC hour and by weekday."""
    figure = new_figure(height_mm=104)
    grid = figure.subplots(2, 2, width_ratios=(24, 10), sharey="row")
    base, _ = symbol_units(summary.symbol)
    seasons = (
        (summary.hours, [f"{season.key:02d}" for season in summary.hours]),
        (summary.weekdays, ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
    )
    for column, (bins, names) in enumerate(seasons):
        volatility_axes, volume_axes = grid[0, column], grid[1, column]
        _bars(volatility_axes, [season.median_abs_return_bps for season in bins], names, color=BLUE)
        _bars(volume_axes, [season.mean_volume for season in bins], names, color=MUTED)
        style(volatility_axes, title=("By UTC hour", "By weekday (UTC)")[column])
        style(volume_axes, x_label=("hour, UTC", "")[column])
    grid[0, 0].set_ylabel("median |return|, bps")
    grid[1, 0].set_ylabel(f"mean volume, {base} per min" if base else "mean volume per min")
    for row in grid:
        # Bars that are all zero give the axis no scale of its own.
        top = max(axes.dataLim.ymax for axes in row)
        row[0].set_ylim(0, top * 1.08 if top > 0 else 1)
        number_axis(row[0], n_ticks=5)
    figure.align_ylabels()
    return figure


def missing_figure(summary: CandleSummary) -> Figure:
    """Return the missing minutes of each UTC day, on a logarithmic scale."""
    days = [day for day in summary.coverage.days if day.n_missing_min]
    figure = new_figure(height_mm=52)
    axes = figure.subplots()
    noon = [np.datetime64(day.day, "h") + np.timedelta64(12, "h") for day in days]
    n_days = len(summary.coverage.days)
    # Lines, not bars: over years a bar of one day would be thinner than a pixel.
    points_per_day = 430 / n_days
    axes.vlines(
        noon,
        0.5,
        [day.n_missing_min for day in days],
        color=RED,
        linewidth=min(12, max(1.2, 0.7 * points_per_day)),
    )
    axes.set_yscale("log")
    axes.set_ylim(0.5, 3000)
    axes.set_yticks([1, 10, 100, 1440], ["1", "10", "100", "1,440"])
    first, last = (
        date2num(summary.coverage.days[position].day)  # type: ignore[no-untyped-call]
        for position in (0, -1)
    )
    axes.set_xlim(first, last + 1)
    style(axes, y_label="missing minutes per day")
    axes.tick_params(which="minor", length=0)
    time_axis(axes)
    return figure


def _buckets(candles: pl.DataFrame, *, bucket_min: int) -> pl.DataFrame:
    """Return candles of a longer interval, with empty rows where the market has none at all."""
    every = f"{bucket_min}m"
    grouped = candles.group_by_dynamic("open_time", every=every).agg(
        pl.col("close").last(), pl.col("low").min(), pl.col("high").max(), pl.col("volume").sum()
    )
    return grouped.upsample("open_time", every=every).with_columns(
        pl.col("open_time").dt.replace_time_zone(None),
        pl.col("close", "low", "high").fill_null(float("nan")),
        pl.col("volume").fill_null(0),
    )


def _price_limits(axes: Axes, *, low: float, high: float) -> None:
    padding = 0.06 * (high - low) or 0.01 * high
    axes.set_ylim(low - padding, high + padding)
    number_axis(axes)


def _density(
    axes: Axes, returns_bps: npt.NDArray[np.float64], *, n_all: int, mean_bps: float, std_bps: float
) -> float:
    """Draw observed and normal density and return the highest value of either."""
    counts, edges = np.histogram(returns_bps, bins=_N_BINS)
    density = counts / n_all / np.diff(edges)
    axes.stairs(density, edges, fill=True, color=SKY, label="observed")
    grid = np.linspace(edges[0], edges[-1], 400)
    normal = np.exp(-0.5 * ((grid - mean_bps) / std_bps) ** 2) / (std_bps * math.sqrt(2 * math.pi))
    axes.plot(grid, normal, color=AMBER, linewidth=1.1, label="normal, same mean and deviation")
    return float(max(density.max(), normal.max()))


def _bars(axes: Axes, values: Sequence[float | None], names: Sequence[str], *, color: str) -> None:
    positions = np.arange(len(names))
    axes.bar(positions, [value or 0.0 for value in values], width=0.78, color=color)
    every = 3 if len(names) > 12 else 1
    axes.set_xticks(positions[::every], names[::every])
