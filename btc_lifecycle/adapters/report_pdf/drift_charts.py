"""The charts of a model that serves: drift of its features, its history, live scores."""

from __future__ import annotations

import math
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from btc_lifecycle.adapters.report_pdf.charts import (
    legend,
    legend_below,
    new_figure,
    number_axis,
    style,
    time_axis,
)
from btc_lifecycle.adapters.report_pdf.feature_charts import feature_axis, vertical_grid
from btc_lifecycle.adapters.report_pdf.style import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    RED,
    SKY,
    TEAL,
)

COIN_FLIP_LOG_LOSS = math.log(2)


def drift_figure(drift: pl.DataFrame, *, height_mm: float) -> Figure:
    """Return each feature's PSI as a bar beside its threshold; breaches are red.

    Args:
        drift: label, value (null where rows were too few), threshold, is_breach; top first.
        height_mm: of the image.
    """
    figure = new_figure(height_mm=height_mm)
    axes = figure.subplots()
    positions = np.arange(drift.height)
    values = drift["value"].fill_null(0.0).fill_nan(0.0).to_numpy()
    breaches = drift["is_breach"].to_numpy()
    for is_breach, color, label in ((False, SKY, "within its limit"), (True, RED, "breach")):
        rows = breaches == is_breach
        if rows.any():
            axes.barh(positions[rows], values[rows], color=color, height=0.68, label=label)
    thresholds = drift["threshold"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    axes.vlines(
        thresholds, positions - 0.42, positions + 0.42, color=INK, linewidth=1.4, label="limit"
    )
    for position in positions[drift["value"].is_null().to_numpy()]:
        axes.annotate(
            "too few rows",
            (0, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=6.5,
            color=MUTED,
        )
    feature_axis(axes, drift["label"].to_list())
    style(axes, x_label="population stability index (PSI)")
    vertical_grid(axes)
    axes.set_xlim(left=0)
    legend_below(figure, axes)
    return figure


def drift_history_figure(windows: pl.DataFrame) -> Figure:
    """Return the highest PSI in units of its limit and the breaches, by window end.

    Args:
        windows: window_end, max_ratio (null where nothing was computed), n_breaches; sorted.
    """
    figure = new_figure(height_mm=62)
    ratio_axes, breach_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    time = _times(windows)
    _line(ratio_axes, time, windows["max_ratio"], color=BLUE, label="highest PSI over its limit")
    ratio_axes.axhline(1, color=RED, linewidth=0.9, linestyle="--", label="limit")
    style(ratio_axes, y_label="PSI / limit")
    ratio_axes.set_ylim(bottom=0)
    ratio_axes.margins(y=0.15)
    number_axis(ratio_axes, n_ticks=5)
    legend(ratio_axes, n_columns=2)
    breach_axes.vlines(time, 0, windows["n_breaches"], color=RED, linewidth=2)
    style(breach_axes, y_label="features drifted")
    breach_axes.set_ylim(0, float(windows["n_breaches"].to_numpy().max()) + 1)
    breach_axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _frame_times(breach_axes, time)
    figure.align_ylabels()
    return figure


def live_score_figure(scores: pl.DataFrame) -> Figure:
    """Return the live log-loss by window end with its limit and a coin flip's.

    Args:
        scores: symbol, window_end, value, threshold (which may be null); sorted by window end.
    """
    figure = new_figure(height_mm=58)
    axes = figure.subplots()
    markets = scores.partition_by("symbol", maintain_order=True)
    for color, market in zip(cycle((BLUE, TEAL, AMBER, MUTED)), markets, strict=False):
        times = _times(market)
        name = "live log-loss" if len(markets) == 1 else f"live log-loss, {market['symbol'][0]}"
        _line(axes, times, market["value"], color=color, label=name)
        limits = market["threshold"].fill_null(float("nan"))
        is_first = market is markets[0]
        marker = "_" if market.height == 1 else ""
        axes.plot(
            times,
            limits,
            color=RED,
            linewidth=0.9,
            linestyle="--",
            marker=marker,
            label="limit" if is_first else "",
        )
    axes.axhline(
        COIN_FLIP_LOG_LOSS, color=MUTED, linewidth=0.9, linestyle=":", label="coin flip, ln 2"
    )
    style(axes, y_label="log-loss, nats per outcome")
    axes.margins(y=0.25)
    number_axis(axes)
    legend_below(figure, axes)
    _frame_times(axes, _times(scores))
    return figure


def _times(frame: pl.DataFrame) -> npt.NDArray[Any]:
    return frame["window_end"].dt.replace_time_zone(None).to_numpy()


def _line(axes: Axes, time: npt.NDArray[Any], values: pl.Series, *, color: str, label: str) -> None:
    marker = "o" if values.len() <= 60 else ""
    axes.plot(
        time,
        values.fill_null(float("nan")),
        color=color,
        linewidth=1.1,
        marker=marker,
        markersize=3,
        label=label,
    )


def _frame_times(axes: Axes, time: npt.NDArray[Any]) -> None:
    """Give a single window an hour on either side, several a small margin."""
    room = max((time[-1] - time[0]) / 40, np.timedelta64(1, "h"))
    axes.set_xlim(time[0] - room, time[-1] + room)
    time_axis(axes)
