from __future__ import annotations

import base64
import re

import pytest

from btc_lifecycle.orchestration.inline_chart import line_chart


def points_of(markdown: str) -> list[tuple[float, float]]:
    """Return the corners of the line within the picture."""
    encoded = re.search(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert encoded is not None
    points = re.search(r'points="([^"]+)"', base64.b64decode(encoded[1]).decode())
    assert points is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points[1].split())]


def test_the_line_goes_from_left_to_right_and_the_highest_value_is_on_top():
    (x0, y0), (x1, y1), (x2, y2) = points_of(line_chart([1.0, 3.0, 2.0], title="x").value)
    assert x0 < x1 < x2
    assert y1 < y2 < y0
    assert (x2 - x1, y0 - y2) == pytest.approx((x1 - x0, y2 - y1))


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0]])
def test_a_single_value_and_values_without_a_range_have_a_chart(values: list[float]):
    assert len(points_of(line_chart(values, title="x").value)) == len(values)


def test_the_title_and_the_range_stand_beside_the_picture():
    said = line_chart([41_000.5, 42_000.0], title="BTC/USDT, closes").value
    assert said.startswith("![BTC/USDT, closes](data:")
    assert said.endswith("BTC/USDT, closes: 41,000.50 to 42,000.00")
