"""A small line chart for metadata, as a picture within Markdown.

Made of text: a drawing library would cost the minute's run a second.
"""

import base64
from collections.abc import Iterable

import dagster as dg

_WIDTH, _HEIGHT, _MARGIN = 480, 90, 4
_STYLE = 'fill="none" stroke="#2a6f97" stroke-width="1.5"'


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
    encoded = base64.b64encode(drawing.encode()).decode()
    bounds = f"{low:,.2f} to {high:,.2f}"
    return dg.MetadataValue.md(
        f"![{title}](data:image/svg+xml;base64,{encoded})\n\n{title}: {bounds}"
    )
