"""The charts with a row for each feature: importance, contributions; and what such rows share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from btc_lifecycle.adapters.report_pdf.charts import new_figure, style
from btc_lifecycle.adapters.report_pdf.style import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    NOTHING,
    RULE,
    TEAL,
    amount,
    percent,
)

Floats = npt.NDArray[np.float64]

_VALUE_COLORS = LinearSegmentedColormap.from_list("low to high", ["#3f8fc4", "#c9c3b8", AMBER])
# Points of a strip that fall into one of so many bins of the width are spread up and down.
_N_BINS = 110
_POINT_STEP = 0.11
_MOST_SPREAD = 0.4


def importance_figure(importance: pl.DataFrame, *, height_mm: float, unit: str) -> Figure:
    """Return each feature's share of the gain beside its mean contribution.

    Args:
        importance: feature, gain (0 to 1) and mean_abs_contribution, which may be null or NaN;
            the first on top, at least one row.
        height_mm: Of the image.
        unit: Of the contributions.
    """
    figure = new_figure(height_mm=height_mm)
    gain_axes, contribution_axes = figure.subplots(1, 2, sharey=True)
    gains = _floats(importance["gain"])
    _bars(gain_axes, 100 * gains, [percent(value, decimals=1) for value in gains], color=BLUE)
    contributions = _floats(importance["mean_abs_contribution"])
    texts = [amount(value, digits=2) for value in contributions]
    _bars(contribution_axes, contributions, texts, color=TEAL)
    feature_axis(gain_axes, importance["feature"].to_list())
    style(gain_axes, title="Gain", x_label="share of total gain, %")
    style(contribution_axes, title="Contribution", x_label=f"mean |contribution|, {unit}")
    for axes in (gain_axes, contribution_axes):
        vertical_grid(axes)
        axes.margins(x=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(left=0)
    contribution_axes.tick_params(axis="y", labelleft=False)
    return figure


def contributions_figure(
    contributions: pl.DataFrame, *, features: Sequence[str], height_mm: float
) -> Figure:
    """Return a strip of points for each feature: one for each row, coloured by the value's rank.

    Args:
        contributions: feature, value_rank (0 to 1, null or NaN where the value is missing) and
            contribution, finite, in log-odds.
        features: To show, the first on top; each has rows.
        height_mm: Of the image.
    """
    figure = new_figure(height_mm=height_mm)
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    span = np.ptp(contributions["contribution"].to_numpy()) or 1.0
    for position, feature in enumerate(features):
        rows = contributions.filter(feature=feature)
        x = rows["contribution"].to_numpy()
        ranks = _floats(rows["value_rank"])
        colors = _VALUE_COLORS(np.nan_to_num(ranks))
        colors[np.isnan(ranks)] = to_rgba(INK)
        axes.scatter(
            x, position + _spread(x, bin_width=span / _N_BINS), c=colors, s=4, linewidths=0
        )
    feature_axis(axes, features)
    style(axes, x_label="contribution to the log-odds of a rise (right of 0: towards a rise)")
    vertical_grid(axes)
    bar = figure.colorbar(
        ScalarMappable(norm=Normalize(0, 1), cmap=_VALUE_COLORS), ax=axes, aspect=45, pad=0.015
    )
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.ax.tick_params(labelsize=7, colors=MUTED, length=0)
    bar.set_label("value of the feature, by rank", size=7.5, color=MUTED, labelpad=-8)
    bar.outline.set_visible(False)
    return figure


def feature_axis(axes: Axes, names: Sequence[str]) -> None:
    """Give each name a row, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def vertical_grid(axes: Axes) -> None:
    """Turn the grid of the house style for rows that are read sideways."""
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _bars(axes: Axes, values: Floats, texts: Sequence[str], *, color: str) -> None:
    positions = np.arange(values.size)
    lengths = np.nan_to_num(values)
    axes.barh(positions, lengths, color=color, height=0.7)
    for position, length, text in zip(positions, lengths, texts, strict=True):
        axes.annotate(
            text if text != NOTHING else f"{NOTHING} unknown",
            (length, position),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size=6.5,
            color=MUTED,
            in_layout=False,
        )


def _spread(x: Floats, *, bin_width: float) -> Floats:
    """Return how far each point moves up or down, so that equal ones do not hide each other."""
    bins = np.floor(x / bin_width).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    _, first, counts = np.unique(bins[order], return_index=True, return_counts=True)
    place = np.empty(x.size)
    place[order] = np.arange(x.size) - np.repeat(first, counts)
    # 0, 1, -1, 2, -2, ...: the row fills from its middle.
    steps = np.ceil(place / 2) * np.where(place % 2, 1, -1)
    most = float(np.abs(steps).max(initial=0.0))
    return steps * min(_POINT_STEP, _MOST_SPREAD / most if most else _POINT_STEP)


def _floats(values: pl.Series) -> Floats:
    return values.cast(pl.Float64).fill_null(math.nan).to_numpy()
