"""The house style of charts (matplotlib, object-oriented, Agg).

No pyplot: its figures live in a global registry until closed, and are not safe across threads.
No rcParams either, for the same reason; every size and colour is set on the figure itself.
"""

from __future__ import annotations

import math
from datetime import UTC
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from btc_lifecycle.adapters.report_pdf.style import (
    AMBER,
    CONTENT_WIDTH_MM,
    INK,
    MUTED,
    RULE,
    number,
)

DPI = 200
Location = Literal["best", "upper left"]
MM_PER_INCH = 25.4


def new_figure(*, height_mm: float) -> Figure:
    """Return an empty figure as wide as the page's content."""
    return Figure(
        figsize=(CONTENT_WIDTH_MM / MM_PER_INCH, height_mm / MM_PER_INCH),
        dpi=DPI,
        layout="constrained",
        facecolor="white",
    )


def save_figure(figure: Figure, *, path: Path, badge: str) -> None:
    """Write the figure as opaque PNG, with the badge in its upper right corner, if any.

    An image may leave its report; the warning that its data are made up goes with it.
    """
    if badge:
        inches = figure.get_figheight()
        figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - 0.17 / inches))
        top = 1 - 0.03 / inches
        figure.text(0.995, top, badge, color=AMBER, size=7, ha="right", va="top", weight="bold")
    canvas = FigureCanvasAgg(figure)
    # Not savefig: it lays out and draws everything twice.
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    # Transparency would cost the PDF a second image of the same size.
    Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(path, dpi=(DPI, DPI))


def style(axes: Axes, *, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Give axes the house style: thin frame, light horizontal grid, small type."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=RULE, linewidth=0.8)
    axes.tick_params(colors=MUTED, labelsize=7, width=0.6, length=2.5)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", size=8.5, color=INK, weight="bold", pad=6)
    axes.set_xlabel(x_label, size=7.5, color=MUTED)
    axes.set_ylabel(y_label, size=7.5, color=MUTED)


def legend(axes: Axes, *, location: Location = "best", n_columns: int = 1) -> None:
    """Draw a frameless legend in the house style."""
    axes.legend(
        loc=location, ncols=n_columns, fontsize=7, frameon=False, labelcolor=INK, handlelength=1.6
    )


def legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend of some axes below the whole figure, where no data can be."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        fontsize=7,
        frameon=False,
        labelcolor=INK,
    )


def time_axis(axes: Axes) -> None:
    """Label the x axis with UTC dates, as short as the span allows."""
    locator = AutoDateLocator(  # type: ignore[no-untyped-call]
        tz=UTC, minticks=3, maxticks=7
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.xaxis.get_offset_text().set(size=7, color=MUTED)


def number_axis(axes: Axes, *, n_ticks: int = 6) -> None:
    """Label the y axis with thousands separators and as many decimals as its ticks need."""
    axes.yaxis.set_major_locator(MaxNLocator(n_ticks))
    ticks = axes.yaxis.get_major_locator().tick_values(*axes.get_ylim())
    step = float(ticks[1] - ticks[0])
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    # A step of 2.5 needs one decimal more than its magnitude says.
    decimals += not math.isclose(step * 10**decimals, round(step * 10**decimals))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, decimals=decimals)))
