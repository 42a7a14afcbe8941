from __future__ import annotations

import math

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import TypeAdapter, ValidationError

from btc_lifecycle.domain.learn.labels import (
    LabelPolicy,
    compute_labels,
    label_by_barriers,
    label_by_horizon,
)
from btc_lifecycle.domain.tables import CANDLES, LABELS
from btc_lifecycle_tests.builders import make_candles


@pytest.mark.parametrize("weighting", ["equal", "uniqueness"])
def test_the_policy_names_the_method(weighting):
    candles = make_candles(200)
    horizon = LabelPolicy(horizon_min=7, weighting=weighting)
    assert_frame_equal(
        compute_labels(candles, policy=horizon), label_by_horizon(candles, horizon_min=7)
    )
    barriers = LabelPolicy(
        method="triple_barrier",
        horizon_min=7,
        barrier_width=0.5,
        volatility_window_min=20,
        weighting=weighting,
    )
    assert_frame_equal(
        compute_labels(candles, policy=barriers),
        label_by_barriers(candles, horizon_min=7, barrier_width=0.5, volatility_window_min=20),
    )


@pytest.mark.parametrize("method", ["horizon", "triple_barrier"])
def test_labels_follow_the_table_whatever_the_method(method):
    policy = LabelPolicy(method=method, horizon_min=15)
    labels = compute_labels(make_candles(200), policy=policy)
    assert labels.schema == LABELS.schema
    assert labels["method"].unique().to_list() == [method]
    assert labels["horizon_min"].unique().to_list() == [15]
    assert labels["forward_log_volatility"].count() > 0
    nothing = compute_labels(pl.DataFrame(schema=CANDLES.schema), policy=policy)
    assert_frame_equal(nothing, pl.DataFrame(schema=LABELS.schema))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon_min": 0}, "horizon_min must be 1 to 240"),
        ({"horizon_min": 241}, "horizon_min must be 1 to 240"),
        ({"barrier_width": 0.0}, "barrier_width must be above 0 and finite"),
        ({"barrier_width": math.nan}, "barrier_width must be above 0 and finite"),
        ({"barrier_width": math.inf}, "barrier_width must be above 0 and finite"),
        ({"volatility_window_min": 1}, "volatility_window_min must be 2 to 1440"),
        ({"volatility_window_min": 1441}, "volatility_window_min must be 2 to 1440"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes, message):
    LabelPolicy(horizon_min=240, barrier_width=1e-9, volatility_window_min=2)
    LabelPolicy(horizon_min=1, volatility_window_min=1440)
    with pytest.raises(ValueError, match=message):
        LabelPolicy(**({"horizon_min": 15} | changes))


@pytest.mark.parametrize("key", ["method", "weighting"])
def test_settings_refuse_a_choice_that_is_not_offered(key):
    adapter = TypeAdapter(LabelPolicy)
    assert adapter.validate_python({"horizon_min": 15}) == LabelPolicy(horizon_min=15)
    with pytest.raises(ValidationError, match=key):
        adapter.validate_python({"horizon_min": 15, key: "other"})
