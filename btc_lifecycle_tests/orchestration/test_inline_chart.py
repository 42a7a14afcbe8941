from __future__ import annotations

import base64
import math
import re
from xml.etree import ElementTree

import pytest

from btc_lifecycle.orchestration.inline_chart import interval_chart, line_chart


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


def drawing_of(markdown: str) -> ElementTree.Element:
    """Return the picture, read as a browser would: broken markup is an error."""
    encoded = re.search(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert encoded is not None
    return ElementTree.fromstring(base64.b64decode(encoded[1]))  # noqa: S314 - our own


def parts_of(drawing: ElementTree.Element, kind: str, *, css_class: str | None = None):
    found = drawing.findall(f"{{http://www.w3.org/2000/svg}}{kind}")
    return [part for part in found if css_class is None or part.get("class") == css_class]


def a_chart(**changed) -> str:
    arguments = {
        "labels": ["prior", "logistic"],
        "values": [0.002, -0.001],
        "lows": [0.001, -0.002],
        "highs": [0.003, 0.0],
        "title": "log-loss gain, nats",
    }
    arguments |= changed
    sequences = [arguments.pop(name) for name in ("labels", "values", "lows", "highs")]
    return interval_chart(*sequences, **arguments).value


def test_each_label_has_its_dot_within_its_interval_on_one_scale():
    drawing = drawing_of(a_chart())
    dots = [float(dot.get("cx")) for dot in parts_of(drawing, "circle")]
    ends = [
        (float(line.get("x1")), float(line.get("x2")))
        for line in parts_of(drawing, "line", css_class="interval")
    ]
    # From the lowest end, -0.002, to the highest, 0.003, everything is five steps of 0.001.
    step = (ends[0][1] - ends[1][0]) / 5
    assert step > 20
    assert dots == pytest.approx([ends[1][0] + 4 * step, ends[1][0] + step], abs=0.11)
    assert ends[0][0] == pytest.approx(ends[1][0] + 3 * step, abs=0.11)
    assert ends[1][1] == pytest.approx(ends[1][0] + 2 * step, abs=0.11)
    heights = [float(dot.get("cy")) for dot in parts_of(drawing, "circle")]
    assert heights[0] < heights[1]


def test_numbers_stand_as_text_beside_their_labels():
    texts = [part.text for part in parts_of(drawing_of(a_chart()), "text")]
    assert texts == [
        "prior",
        "0.00200 (0.00100 to 0.00300)",
        "logistic",
        "\N{MINUS SIGN}0.00100 (\N{MINUS SIGN}0.00200 to 0.00000)",
    ]


def test_the_reference_is_a_line_from_top_to_bottom_and_within_the_picture():
    said = a_chart(reference=0.01)
    drawing = drawing_of(said)
    (line,) = parts_of(drawing, "line", css_class="reference")
    dots = [float(dot.get("cx")) for dot in parts_of(drawing, "circle")]
    assert line.get("x1") == line.get("x2")
    assert max(dots) < float(line.get("x1")) < float(drawing.get("width"))
    assert (line.get("y1"), line.get("y2")) == ("0", drawing.get("height"))
    assert said.endswith("log-loss gain, nats; the dashed line is at 0.01")
    assert parts_of(drawing_of(a_chart()), "line", css_class="reference") == []


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_bound_leaves_the_dot_and_a_missing_value_a_dash(missing: float | None):
    drawing = drawing_of(a_chart(values=[0.5, missing], lows=[missing, None], highs=[0.6, missing]))
    assert len(parts_of(drawing, "circle")) == 1
    assert parts_of(drawing, "line", css_class="interval") == []
    texts = [part.text for part in parts_of(drawing, "text")]
    assert texts == ["prior", "0.500", "logistic", "\N{EN DASH}"]


def test_nothing_known_or_one_number_for_all_has_a_chart():
    nothing = drawing_of(a_chart(values=[None, None], lows=[None, None], highs=[None, None]))
    assert parts_of(nothing, "circle") == []
    same = drawing_of(a_chart(values=[7.0, 7.0], lows=[7.0, 7.0], highs=[7.0, 7.0]))
    assert len({dot.get("cx") for dot in parts_of(same, "circle")}) == 1


def test_a_label_may_hold_what_markup_is_made_of():
    drawing = drawing_of(a_chart(labels=["a < b & c", "2"]))
    assert parts_of(drawing, "text")[0].text == "a < b & c"


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="zip"):
        a_chart(lows=[0.0])


@pytest.mark.parametrize("background", ["#ffffff", "#12161d"])
def test_text_and_marks_stand_out_on_a_light_and_a_dark_page(background: str):
    """A picture within Markdown cannot know the page's theme."""
    drawing = drawing_of(a_chart(reference=0.0))
    colors = {part.get(name) for part in drawing for name in ("fill", "stroke")} - {None}
    assert colors
    assert all(contrast(color, background) > 3.5 for color in colors)


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
