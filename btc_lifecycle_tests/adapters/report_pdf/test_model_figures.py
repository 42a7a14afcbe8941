"""What the figures of a modeling report show, read from their axes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from btc_lifecycle.adapters.report_pdf.feature_charts import (
    contributions_figure,
    importance_figure,
)
from btc_lifecycle.adapters.report_pdf.head_pages import fold_panel
from btc_lifecycle.adapters.report_pdf.head_report import AUC, LOG_LOSS_GAIN, by_importance
from btc_lifecycle.adapters.report_pdf.score_charts import (
    calibration_figure,
    folds_figure,
    groups_figure,
)
from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    FEATURES,
    calibration,
    direction,
    direction_scores,
    groups,
    importance,
    without_intervals,
)


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def dots(axes) -> list[float]:
    return [float(y) for line in axes.lines if line.get_marker() == "o" for y in line.get_ydata()]


def test_every_fold_and_all_of_them_have_a_dot_within_the_frame_and_an_interval():
    head = direction()
    panel = fold_panel(head, LOG_LOSS_GAIN, title="gain", rivals=("prior",), reference=0.0)
    axes = drawn(folds_figure([panel], folds=[1, 2, 3])).axes[0]
    wanted = direction_scores().filter(rival="prior", delay_min=0, score="log_loss_gain")
    values = [*wanted["value"][1:], wanted["value"][0]]
    assert dots(axes) == pytest.approx([1000 * value for value in values])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "all"]
    bars = np.array([bar.get_segments()[0][:, 1] for bar in axes.collections])
    assert bars[:, 0] == pytest.approx([1000 * (value - 0.00083) for value in values])
    assert bars[:, 1] == pytest.approx([1000 * (value + 0.00083) for value in values])
    low, high = axes.get_ylim()
    assert low < bars.min() < bars.max() < high


def test_a_fold_without_a_value_has_a_dash_and_one_without_bounds_no_interval():
    is_second = (pl.col("fold") == 2) & (pl.col("score") == "auc")
    scores = without_intervals(direction_scores()).with_columns(
        value=pl.when(is_second).then(None).otherwise("value")
    )
    panel = fold_panel(direction(scores=scores), AUC, title="AUC", reference=0.5)
    axes = drawn(folds_figure([panel], folds=[1, 2, 3])).axes[0]
    assert [text.get_text() for text in axes.texts] == ["\N{EN DASH}"]
    assert math.isnan(dots(axes)[1])
    assert len(axes.collections) == 0


def test_hours_and_regimes_share_a_scale_that_holds_all_of_them():
    """The scale of the hours once cut off what a regime scored."""
    by_regime = groups(["low", "middle", "high"]).with_columns(
        auc=pl.Series([0.45, None, 0.62]), log_loss_gain=pl.Series([-0.02, 0.03, None])
    )
    figure = drawn(groups_figure(groups(["00", "01"]), by_regime))
    for name, axes in (("log_loss_gain", figure.axes[0:2]), ("auc", figure.axes[2:4])):
        scale = 1000 if name == "log_loss_gain" else 1
        assert axes[0].get_ylim() == axes[1].get_ylim()
        low, high = axes[0].get_ylim()
        assert low < scale * by_regime[name].min() < scale * by_regime[name].max() < high
        assert [text.get_text() for text in axes[1].texts] == ["\N{EN DASH}"]
    assert [bar.get_height() for bar in figure.axes[5].patches] == by_regime["n_rows"].to_list()


def test_a_bin_of_a_few_rows_does_not_shrink_the_calibration_of_the_rest():
    axes = drawn(calibration_figure(calibration())).axes[0]
    low, high = axes.get_xlim()
    assert (low, high) == pytest.approx((0.42, 0.58), abs=0.02)


def test_a_bin_of_one_row_has_an_interval_of_nearly_everything():
    """The normal approximation gave it none, as if one row were certainty."""
    one = pl.DataFrame({"mean_probability": [0.5], "up_share": [1.0], "n_rows": [1]})
    axes = drawn(calibration_figure(one)).axes[0]
    low, high = axes.collections[0].get_segments()[0][:, 1]
    # Wilson's bounds of 1 in 1: 1 / (1 + z^2) to 1, z = 1.96.
    assert (low, high) == pytest.approx((1 / (1 + 1.96**2), 1.0))


def test_long_names_of_features_lie_within_the_image_one_below_the_other():
    names = [f"a_long_name_of_a_feature_of_some_market_{name}" for name in FEATURES[:20]]
    figure = drawn(importance_figure(by_importance(importance(names)), height_mm=100, unit="x"))
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(box.x0 >= 0 for box in boxes)
    assert all(below.y1 <= above.y0 for above, below in pairwise(boxes))
    assert figure.axes[1].get_window_extent().width > 200
    wanted = by_importance(importance(names))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == wanted["feature"].to_list()
    gains, contributions = ([bar.get_width() for bar in axes.patches] for axes in figure.axes)
    assert gains == pytest.approx([100 * gain for gain in wanted["gain"]])
    assert contributions == pytest.approx(wanted["mean_abs_contribution"].to_list())


def test_a_contribution_that_is_not_known_is_said_to_be():
    features = importance(["a", "b"]).with_columns(mean_abs_contribution=pl.Series([None, 0.5]))
    figure = drawn(importance_figure(by_importance(features), height_mm=40, unit="x"))
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.50", "\N{EN DASH} unknown"]


@settings(max_examples=15)
@example([0.0] * 60)
@given(st.lists(st.sampled_from([0.0, 0.01, 0.2, -0.5]), min_size=1, max_size=60))
def test_rows_with_the_same_contribution_do_not_hide_each_other(values: list[float]):
    frame = pl.DataFrame(
        {"feature": ["a"] * len(values), "value_rank": [0.5] * len(values), "contribution": values}
    )
    figure = contributions_figure(frame, features=["a"], height_mm=40)
    points = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert sorted(points[:, 0].tolist()) == sorted(values)
    assert len({(x, round(y, 9)) for x, y in points.tolist()}) == len(values)
    assert np.abs(points[:, 1]).max() <= 0.4
