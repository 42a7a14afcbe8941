from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import (
    GROUP_SCORES_SCHEMA,
    by_group,
    scores_by_hour,
    scores_by_volatility,
)
from btc_lifecycle_tests import reference_scores
from btc_lifecycle_tests.domain.learn.evaluation.predicted import START, predicted_frame, simulated

coarse = st.integers(0, 10).map(lambda i: i / 10)
grouped_rows = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from([1, -1]), coarse, coarse), min_size=1, max_size=30
)


@given(rows=grouped_rows)
def test_every_hour_scores_as_its_rows_do(rows):
    frame = predicted_frame(
        {
            "open_time": [START + timedelta(hours=hour, minutes=59) for hour, *_ in rows],
            "direction": [direction for _, direction, *_ in rows],
            "model": [model for *_, model, _ in rows],
            "prior": [prior for *_, prior in rows],
        }
    )
    found = scores_by_hour(frame)
    assert found.schema == GROUP_SCORES_SCHEMA
    hours = sorted({hour % 24 for hour, *_ in rows})
    assert found["group"].to_list() == [f"{hour:02d}" for hour in hours]
    for hour, scores in zip(hours, found.drop("group").to_dicts(), strict=True):
        own = [row[1:] for row in rows if row[0] % 24 == hour]
        assert scores == pytest.approx(slow_scores(own), abs=1e-12)


def slow_scores(rows: list[tuple[int, float, float]]) -> dict[str, float | None]:
    losses = [reference_scores.log_loss(model, d) for d, model, _ in rows]
    prior_losses = [reference_scores.log_loss(prior, d) for d, _, prior in rows]
    hits = [(model >= 0.5) == (d == 1) for d, model, _ in rows]
    return {
        "n_rows": len(rows),
        "auc": reference_scores.auc_by_pairs([m for _, m, _ in rows], [d for d, *_ in rows]),
        "log_loss": np.mean(losses),
        "log_loss_gain": np.mean(prior_losses) - np.mean(losses),
        "accuracy": np.mean(hits),
    }


def test_thirds_of_volatility_are_scored_from_low_to_high():
    """Only where the market is calm does this model know anything."""
    frame = simulated(n_days=20)
    is_calm = pl.col("realized_volatility_60m").rank() <= frame.height / 3
    known = 0.5 + 0.1 * pl.col("direction")
    found = scores_by_volatility(
        frame.with_columns(model=pl.when(is_calm).then(known).otherwise(pl.col("model")))
    )
    assert found["group"].to_list() == ["low", "middle", "high"]
    assert found["n_rows"].to_list() == [320, 320, 320]
    assert found["accuracy"][0] == found["auc"][0] == 1.0
    assert found["log_loss"][0] == pytest.approx(-math.log(0.6))
    assert found["auc"][1:].to_list() == pytest.approx([0.5, 0.5], abs=0.1)
    assert found["log_loss_gain"][0] > 0.0


@given(volatility=st.lists(st.integers(1, 6), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_equal_volatilities_share_a_third_in_any_order_of_rows(volatility, seed):
    n = len(volatility)
    frame = (
        simulated(n_days=1, n_folds=1)
        .head(n)
        .with_columns(realized_volatility_60m=pl.Series(volatility, dtype=pl.Float64))
    )
    found = scores_by_volatility(frame)
    shuffled = scores_by_volatility(frame.sample(fraction=1.0, shuffle=True, seed=seed))
    assert_frame_equal(found, shuffled, abs_tol=1e-12)
    thirds = [sum(v < value for v in volatility) * 3 // n for value in volatility]
    names = ("low", "middle", "high")
    expected = {name: thirds.count(i) for i, name in enumerate(names) if i in thirds}
    assert dict(found.select("group", "n_rows").iter_rows()) == expected


def test_rows_without_a_volatility_are_in_no_third():
    is_unknown = pl.int_range(pl.len()) < 8
    volatility = pl.when(~is_unknown).then(pl.col("realized_volatility_60m"))
    frame = simulated(n_days=1, n_folds=1).with_columns(realized_volatility_60m=volatility)
    found = scores_by_volatility(frame)
    assert found["n_rows"].sum() == 40
    assert found["n_rows"].to_list() == [14, 13, 13]


def test_a_group_that_went_one_way_has_no_auc():
    frame = simulated(n_days=1, n_folds=1).with_columns(direction=1)
    found = by_group(frame, group=pl.lit(1), names=("nobody", "everybody"))
    assert found["group"].to_list() == ["everybody"]
    assert found["auc"].to_list() == [None]
    assert found["accuracy"][0] is not None


def test_no_rows_make_no_groups():
    found = scores_by_hour(simulated(n_days=1).clear())
    assert found.is_empty()
    assert found.schema == GROUP_SCORES_SCHEMA


def test_probabilities_out_of_range_are_refused():
    with pytest.raises(DataError, match="probabilities are not between 0 and 1"):
        scores_by_hour(simulated(n_days=1).with_columns(prior=1.5))
