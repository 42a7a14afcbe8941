"""Small charts for metadata, as pictures within Markdown.

Made of text: a drawing library would cost the minute's run a second.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10
from typing import Literal, Self

import dagster as dg

_WIDTH, _HEIGHT, _MARGIN = 480, 90, 4
_STYLE = 'fill="none" stroke="#2a6f97" stroke-width="1.5"'

_ROW_HEIGHT, _LABEL_WIDTH, _PLOT_WIDTH, _TEXT_WIDTH = 26, 190, 250, 220
# The page may be light or dark, and a picture cannot know: these are read on both.
_BLUE, _GREY = "#3d8bbd", "#76808c"
_DASH = "\N{EN DASH}"


def line_chart(values: Iterable[float], *, title: str) -> dg.MarkdownMetadataValue:
    """Return a chart of values in their order, from the lowest at the bottom to the highest.

    Args:
        values: At least one finite number.
        title: Said by the picture where it cannot be shown, and under it.
    """
    values = list(values)
    low, high = min(values), max(values)
    x_step = (_WIDTH - 2 * _MARGIN) / max(1, len(values) - 1)
    y_scale = (_HEIGHT - 2 * _MARGIN) / ((high - low) or 1)
    points = " ".join(
        f"{_MARGIN + number * x_step:.1f},{_HEIGHT - _MARGIN - (value - low) * y_scale:.1f}"
        for number, value in enumerate(values)
    )
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline {_STYLE} points="{points}"/></svg>'
    )
    return _picture(drawing, title=title, below=f"{title}: {low:,.2f} to {high:,.2f}")


def interval_chart(
    labels: Sequence[str],
    values: Sequence[float | None],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    *,
    title: str,
    reference: float | None = None,
) -> dg.MarkdownMetadataValue:
    """Return a chart with a dot and its interval for each label, the first on top.

    Args:
        labels: One for each row.
        values: Where the dots are; a dash stands for one that is None or not finite.
        lows: Where the intervals begin; none is drawn where a bound is None or not finite.
        highs: Where they end.
        title: Said by the picture where it cannot be shown, and under it.
        reference: Where a vertical line is drawn, such as 0 for a gain.
    """
    rows = [
        _Interval(label=label, value=_finite(value), low=_finite(low), high=_finite(high))
        for label, value, low, high in zip(labels, values, lows, highs, strict=True)
    ]
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    scale = _Scale.over(ends if reference is None else [*ends, reference])
    width, height = _LABEL_WIDTH + _PLOT_WIDTH + _TEXT_WIDTH, _ROW_HEIGHT * len(rows)
    line = "" if reference is None else _reference_line(scale.x(reference), height=height)
    drawn = (_draw(row, y=_ROW_HEIGHT * (n + 0.5), scale=scale) for n, row in enumerate(rows))
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f"{line}{''.join(drawn)}</svg>"
    )
    said = "" if reference is None else f"; the dashed line is at {reference:,g}"
    return _picture(drawing, title=title, below=f"{title}{said}")


@dataclass(frozen=True, kw_only=True)
class _Interval:
    """A row of a chart of intervals; None where there is no such number."""

    label: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Where numbers lie across a chart of intervals, and how precisely they are written."""

    low: float
    high: float

    @classmethod
    def over(cls, numbers: Sequence[float]) -> Self:
        return cls(low=min(numbers, default=0.0), high=max(numbers, default=0.0))

    def x(self, number: float) -> float:
        room = _PLOT_WIDTH - 2 * _MARGIN
        if self.high == self.low:
            return _LABEL_WIDTH + _MARGIN + room / 2
        share = (number - self.low) / (self.high - self.low)
        return _LABEL_WIDTH + _MARGIN + share * room

    def write(self, number: float) -> str:
        """Return the number with three digits of what the chart spans."""
        span = self.high - self.low or abs(self.low) or 1.0
        decimals = min(8, max(0, 2 - floor(log10(span))))
        # Rounding first keeps a tiny negative number from reading as minus zero.
        written = f"{round(number, decimals) + 0.0:,.{decimals}f}"
        return written.replace("-", "\N{MINUS SIGN}")


def _draw(row: _Interval, *, y: float, scale: _Scale) -> str:
    written = _DASH if row.value is None else scale.write(row.value)
    parts = []
    if row.low is not None and row.high is not None:
        written += f" ({scale.write(row.low)} to {scale.write(row.high)})"
        parts.append(
            f'<line class="interval" x1="{scale.x(row.low):.1f}" x2="{scale.x(row.high):.1f}" '
            f'y1="{y}" y2="{y}" stroke="{_BLUE}" stroke-width="2.5"/>'
        )
    if row.value is not None:
        parts.append(f'<circle cx="{scale.x(row.value):.1f}" cy="{y}" r="4.5" fill="{_BLUE}"/>')
    parts.append(_text(row.label, x=_LABEL_WIDTH - 10, y=y, anchor="end"))
    parts.append(_text(written, x=_LABEL_WIDTH + _PLOT_WIDTH + 10, y=y, anchor="start"))
    return "".join(parts)


def _reference_line(x: float, *, height: int) -> str:
    return (
        f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" '
        f'stroke="{_GREY}" stroke-width="1.5" stroke-dasharray="4 3"/>'
    )


def _text(text: str, *, x: int, y: float, anchor: Literal["start", "end"]) -> str:
    return (
        f'<text x="{x}" y="{y}" dy="0.35em" text-anchor="{anchor}" fill="{_GREY}" '
        f'font-family="sans-serif" font-size="13">{escape(text)}</text>'
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and isfinite(number) else None


def _picture(drawing: str, *, title: str, below: str) -> dg.MarkdownMetadataValue:
    encoded = base64.b64encode(drawing.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})\n\n{below}")
