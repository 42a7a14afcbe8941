"""The charts of a model's scores: over the folds, calibration, by hour and by regime."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from btc_lifecycle.adapters.report_pdf.charts import (
    legend_below,
    new_figure,
    number_axis,
    style,
)
from btc_lifecycle.adapters.report_pdf.head_report import Score
from btc_lifecycle.adapters.report_pdf.style import AMBER, BLUE, INK, MUTED, NOTHING, RULE, TEAL

Floats = npt.NDArray[np.float64]

_COLORS = (BLUE, AMBER, MUTED, TEAL)
# Two-sided 95 % quantile of the standard normal distribution.
_Z_95 = 1.96
_MAX_TICKS = 12
_MIN_BIN_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class FoldPanel:
    """One score over the folds: for each rival the folds' scores, then that of all folds.

    Attributes:
        title: Of the score.
        y_label: Its unit.
        series: By the rival's name.
        scale: What values are multiplied by.
        reference: Where a line is drawn: what knowing nothing scores.
    """

    title: str
    y_label: str
    series: dict[str, Sequence[Score]]
    scale: float = 1.0
    reference: float | None = None


def folds_figure(panels: Sequence[FoldPanel], *, folds: Sequence[int]) -> Figure:
    """Return a panel for each score: folds in their order, all of them pooled at the right."""
    figure = new_figure(height_mm=64)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        _draw_folds(axes, panel, folds=folds)
    most = max(panels, key=lambda panel: len(panel.series))
    if len(most.series) > 1:
        legend_below(figure, grid[panels.index(most)])
    return figure


def calibration_figure(calibration: pl.DataFrame) -> Figure:
    """Return observed against predicted shares with 95 % intervals, and the rows per bin.

    Args:
        calibration: mean_probability, up_share and n_rows, bins with rows only, at least one.
    """
    figure = new_figure(height_mm=70)
    curve_axes, rows_axes = figure.subplots(1, 2, width_ratios=(3, 2))
    mean, share, n_rows = (
        calibration[name].to_numpy() for name in ("mean_probability", "up_share", "n_rows")
    )
    _draw_calibration(curve_axes, mean, share, n_rows)
    bins = np.arange(n_rows.size)
    rows_axes.bar(bins, n_rows, color=MUTED, width=0.78)
    every = math.ceil(n_rows.size / 8)
    rows_axes.set_xticks(bins[::every], [f"{value:.2f}" for value in mean[::every]])
    rows_axes.set_xlim(-0.6, max(4, n_rows.size) - 0.4)
    style(rows_axes, title="Rows per bin", x_label="mean predicted probability of the bin")
    number_axis(rows_axes)
    legend_below(figure, curve_axes)
    return figure


def groups_figure(by_hour: pl.DataFrame, by_regime: pl.DataFrame) -> Figure:
    """Return gain over the prior, AUC and rows by hour and by regime.

    Args:
        by_hour: group (a label), n_rows, auc and log_loss_gain (both may be null), in nats.
        by_regime: The same; one of the two has rows.
    """
    figure = new_figure(height_mm=96)
    titled = (("By hour, UTC", by_hour), ("By volatility", by_regime))
    columns = [(title, frame) for title, frame in titled if frame.height]
    grid = figure.subplots(
        3,
        len(columns),
        squeeze=False,
        height_ratios=(3, 3, 2),
        width_ratios=[max(10, frame.height) for _, frame in columns],
    )
    for column, (title, frame) in enumerate(columns):
        _draw_groups(grid[:, column], frame, title=title)
    # Scores share their scale; rows of a third of all and of one hour do not compare.
    for row in grid[:2]:
        for axes in row[1:]:
            axes.sharey(row[0])
        row[0].autoscale(axis="y")
    for axes in grid.flat:
        number_axis(axes, n_ticks=4)
    labels = ("gain over the prior,\nmillinats", "AUC", "rows")
    for axes, label in zip(grid[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    figure.align_ylabels()
    return figure


def _draw_groups(grid: Iterable[Axes], frame: pl.DataFrame, *, title: str) -> None:
    gain_axes, auc_axes, rows_axes = grid
    _draw_gains(gain_axes, frame["log_loss_gain"])
    _draw_aucs(auc_axes, frame["auc"])
    rows_axes.bar(np.arange(frame.height), frame["n_rows"], color=MUTED, width=0.78)
    rows_axes.set_ylim(bottom=0)
    for axes, heading in ((gain_axes, title), (auc_axes, ""), (rows_axes, "")):
        style(axes, title=heading)
        _group_axis(axes, frame["group"].to_list())


def _draw_calibration(axes: Axes, mean: Floats, share: Floats, n_rows: Floats) -> None:
    low, high = _wilson(share, n_rows)
    # A bin of a few rows, whose interval is nearly all there is, would shrink the rest.
    is_large = n_rows >= _MIN_BIN_SHARE * n_rows.sum()
    ends = np.concatenate([values[is_large] for values in (mean, share, low, high)])
    padding = max(0.02, 0.06 * float(np.ptp(ends)))
    limits = (float(ends.min()) - padding, float(ends.max()) + padding)
    axes.plot(limits, limits, color=MUTED, linewidth=0.9, linestyle="--", label="calibrated")
    axes.errorbar(
        mean,
        share,
        yerr=np.abs(np.stack([share - low, high - share])),
        color=BLUE,
        linestyle="",
        marker="o",
        markersize=3.5,
        elinewidth=0.9,
        capsize=2,
        label="observed, 95 % interval",
    )
    axes.set(xlim=limits, ylim=limits)
    x_label = "mean predicted probability of a rise"
    style(axes, title="Calibration", x_label=x_label, y_label="share of rises")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    number_axis(axes)


def _draw_folds(axes: Axes, panel: FoldPanel, *, folds: Sequence[int]) -> None:
    # All folds pooled stand apart at the right.
    positions = np.array([*range(len(folds)), len(folds) + 0.5])
    if panel.reference is not None:
        axes.axhline(panel.reference, color=INK, linewidth=0.8)
    n_series = len(panel.series)
    for place, (rival, scores) in enumerate(panel.series.items()):
        shift = 0.22 * (place - (n_series - 1) / 2)
        _draw_series(
            axes,
            scores,
            x=positions + shift,
            scale=panel.scale,
            color=_COLORS[place % len(_COLORS)],
            label=rival,
        )
    axes.axvline(len(folds) - 0.25, color=RULE, linewidth=0.8)
    style(axes, title=panel.title, x_label="fold, oldest first", y_label=panel.y_label)
    every = math.ceil(len(folds) / _MAX_TICKS) if folds else 1
    shown = [*positions[:-1][::every], positions[-1]]
    axes.set_xticks(shown, [*map(str, folds[::every]), "all"])
    axes.set_xlim(-0.6, positions[-1] + 0.6)
    axes.margins(y=0.15)
    axes.autoscale_view(scalex=False)
    number_axis(axes, n_ticks=5)


def _draw_series(
    axes: Axes, scores: Sequence[Score], *, x: Floats, scale: float, color: str, label: str
) -> None:
    for position, score in zip(x, scores, strict=True):
        if score.value is None:
            _dash(axes, position)
        if score.low is not None and score.high is not None:
            axes.vlines(position, score.low * scale, score.high * scale, color=color, linewidth=1.4)
    values = [math.nan if score.value is None else score.value * scale for score in scores]
    axes.plot(x, values, linestyle="", marker="o", markersize=4.2, color=color, label=label)


def _draw_gains(axes: Axes, gain: pl.Series) -> None:
    gains = 1e3 * gain.cast(pl.Float64).fill_null(math.nan).to_numpy()
    colors = [BLUE if value > 0 else AMBER for value in gains]
    axes.bar(np.arange(gains.size), np.nan_to_num(gains), color=colors, width=0.78)
    axes.axhline(0, color=INK, linewidth=0.8)
    for position in np.flatnonzero(np.isnan(gains)):
        _dash(axes, float(position))


def _draw_aucs(axes: Axes, auc: pl.Series) -> None:
    aucs = auc.cast(pl.Float64).fill_null(math.nan).to_numpy()
    positions = np.arange(aucs.size)
    axes.axhline(0.5, color=INK, linewidth=0.8)
    axes.vlines(positions, 0.5, aucs, color=MUTED, linewidth=0.9)
    axes.plot(positions, aucs, linestyle="", marker="o", markersize=3.8, color=BLUE)
    axes.margins(y=0.15)
    for position in np.flatnonzero(np.isnan(aucs)):
        _dash(axes, float(position))


def _dash(axes: Axes, position: float) -> None:
    """Say at the foot of the axes that there is no value here."""
    axes.annotate(
        NOTHING,
        (position, 0.02),
        xycoords=axes.get_xaxis_transform(),
        ha="center",
        size=8,
        color=MUTED,
    )


def _group_axis(axes: Axes, names: Sequence[str]) -> None:
    every = 3 if len(names) > _MAX_TICKS else 1
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlim(-0.7, len(names) - 0.3)


def _wilson(share: Floats, n_rows: Floats) -> tuple[Floats, Floats]:
    """Return the bounds of a share.

    Source: Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22. The normal approximation gives a bin of one
    row an interval without width.
    """
    weight = _Z_95**2 / n_rows
    center = (share + weight / 2) / (1 + weight)
    half = _Z_95 * np.sqrt(share * (1 - share) / n_rows + weight / (4 * n_rows)) / (1 + weight)
    return center - half, center + half
