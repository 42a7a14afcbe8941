from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import (
    DIRECTION_RIVALS,
    SCORES_SCHEMA,
    VOLATILITY_RIVALS,
    TradingRule,
    score_direction,
    score_volatility,
    utc_days,
)
from btc_lifecycle.domain.learn.evaluation.days import ResampledDays
from btc_lifecycle_tests import reference_scores
from btc_lifecycle_tests.domain.learn.evaluation.predicted import START, predicted_frame, simulated
from btc_lifecycle_tests.reference_scores import Row

RULE = TradingRule(min_edge=0.1, taker_cost_bp=5.0)
N_RESAMPLES = 15

coarse = st.integers(0, 10).map(lambda i: i / 10)
moves = st.sampled_from([-2e-3, -1e-3, 1e-3, 2e-3])


@st.composite
def predicted_frames(draw) -> pl.DataFrame:
    """Return a few rows of a few days and two folds, in no order, with both directions."""
    n = draw(st.integers(2, 14))
    several = {
        "hour": st.integers(0, 70),
        "fold": st.sampled_from([1, 2]),
        "forward_log_return": moves,
        "delayed_log_return": st.one_of(moves, st.none(), st.just(0.0)),
        "forward_log_volatility": coarse,
        **dict.fromkeys({*DIRECTION_RIVALS, *VOLATILITY_RIVALS}, coarse),
    }
    columns = {
        name: draw(st.lists(values, min_size=n, max_size=n)) for name, values in several.items()
    }
    columns["open_time"] = [START + timedelta(hours=hour) for hour in columns.pop("hour")]
    directions = st.lists(st.sampled_from([1, -1]), min_size=n - 2, max_size=n - 2)
    columns["direction"] = [1, -1, *draw(directions)]
    return predicted_frame(columns)


def cells(predicted: pl.DataFrame, *, seed: int):
    """Yield each fold's name, rows and draws, drawn as the scores do."""
    rng = np.random.default_rng(seed)
    for fold in [None, *sorted(set(predicted["fold"]))]:
        rows = predicted if fold is None else predicted.filter(fold=fold)
        days = ResampledDays.draw(utc_days(rows["open_time"]), rng=rng, n_resamples=N_RESAMPLES)
        yield fold, rows.with_columns(day=pl.Series(days.of_row)), days.n_draws


def as_records(frame: pl.DataFrame) -> dict[tuple, dict[str, float | None]]:
    return {
        (row["fold"], row["rival"], row["delay_min"], row["score"]): {
            name: row[name] for name in ("value", "low", "high", "n_rows")
        }
        for row in frame.iter_rows(named=True)
    }


def one(scores: pl.DataFrame, score: str, *, rival: str = "model", delay_min: int = 0, fold=None):
    is_fold = pl.col("fold").is_null() if fold is None else pl.col("fold") == fold
    found = scores.filter(is_fold, score=score, rival=rival, delay_min=delay_min)
    return found.select("value", "low", "high").row(0)


@settings(max_examples=15, deadline=None)
@given(predicted=predicted_frames(), seed=st.integers(0, 9))
def test_all_scores_of_directions_equal_the_slow_references(predicted, seed):
    expected = {}
    oracles = reference_scores.direction_scores(min_edge=0.1, taker_cost_bp=5.0)
    counted = {
        "confident_accuracy": lambda row: row.is_confident,
        "gross_bp": lambda row: reference_scores.side(row, min_edge=0.1),
        "net_bp": lambda row: reference_scores.side(row, min_edge=0.1),
    }
    for fold, frame, draws in cells(predicted, seed=seed):
        for delay_min, rival in ((d, r) for d in (0, 1) for r in DIRECTION_RIVALS):
            rows = scored_rows(frame, rival=rival, delay_min=delay_min)
            for score, oracle in oracles.items():
                if (score, rival) == ("log_loss_gain", "model"):
                    continue
                low, high = reference_scores.bounds(
                    oracle, rows, draws, counted.get(score, lambda _: True)
                )
                found = {"value": oracle(rows), "low": low, "high": high, "n_rows": len(rows)}
                expected[fold, rival, delay_min, score] = found
    scores = score_direction(
        predicted, rule=RULE, rng=np.random.default_rng(seed), n_resamples=N_RESAMPLES
    )
    assert scores.schema == SCORES_SCHEMA
    found = as_records(scores)
    assert list(found) == list(expected)
    for key, figures in expected.items():
        assert found[key] == pytest.approx(figures, abs=1e-9), key


def scored_rows(frame: pl.DataFrame, *, rival: str, delay_min: int) -> list[Row]:
    rows = []
    for row in frame.iter_rows(named=True):
        outcome = row["delayed_log_return" if delay_min else "forward_log_return"]
        if delay_min and not outcome:
            continue
        direction = int(math.copysign(1, outcome)) if delay_min else row["direction"]
        rows.append(
            Row(
                day=row["day"],
                predicted=row[rival],
                outcome=outcome,
                direction=direction,
                rival_predicted=row["model"],
            )
        )
    return reference_scores.with_confidence(rows)


@settings(max_examples=20, deadline=None)
@given(predicted=predicted_frames(), seed=st.integers(0, 9))
def test_all_scores_of_volatilities_equal_the_slow_references(predicted, seed):
    expected = {}
    for fold, frame, draws in cells(predicted, seed=seed):
        for rival in VOLATILITY_RIVALS:
            names = ("day", rival, "forward_log_volatility", "model")
            rows = [
                Row(day=day, predicted=value, outcome=outcome, rival_predicted=model)
                for day, value, outcome, model in zip(*(frame[n] for n in names), strict=True)
            ]
            for score, oracle in reference_scores.volatility_scores().items():
                if (score, rival) == ("mse_gain", "model"):
                    continue
                low, high = reference_scores.bounds(oracle, rows, draws)
                found = {"value": oracle(rows), "low": low, "high": high, "n_rows": len(rows)}
                expected[fold, rival, 0, score] = found
    scores = score_volatility(predicted, rng=np.random.default_rng(seed), n_resamples=N_RESAMPLES)
    assert scores.schema == SCORES_SCHEMA
    found = as_records(scores)
    assert list(found) == list(expected)
    for key, figures in expected.items():
        assert found[key] == pytest.approx(figures, abs=1e-9), key


def made_by_hand() -> pl.DataFrame:
    return predicted_frame(
        {
            "open_time": [START + timedelta(hours=12 * i) for i in range(4)],
            "fold": [1, 1, 1, 1],
            "direction": [1, 1, -1, -1],
            "forward_log_return": [0.0020, 0.0010, -0.0030, -0.0005],
            "delayed_log_return": [-0.0010, None, 0.0, -0.0004],
            "model": [0.9, 0.4, 0.6, 0.1],
            "prior": [0.5] * 4,
            "contrarian": [0.5] * 4,
            "logistic": [0.5] * 4,
        }
    )


def test_four_rows_score_as_a_pencil_says():
    scores = score_direction(made_by_hand(), rule=RULE, rng=np.random.default_rng(0))
    # Bought at 0.9 and 0.6, sold at 0.4 and 0.1: 20, -30, -10 and 5 basis points.
    expected = {
        "auc": 0.75,
        "log_loss": -(2 * math.log(0.9) + 2 * math.log(0.4)) / 4,
        "brier": (0.01 + 0.36 + 0.36 + 0.01) / 4,
        "accuracy": 0.5,
        "confident_accuracy": 1.0,
        "expected_calibration_error": (0.1 + 0.6 + 0.6 + 0.1) / 4,
        "rank_ic": 0.6 - 0.2,
        "gross_bp": (20 - 10 - 30 + 5) / 4,
        "net_bp": (20 - 10 - 30 + 5) / 4 - 10,
        "trade_share": 1.0,
    }
    for score, value in expected.items():
        assert one(scores, score)[0] == pytest.approx(value), score
    gain = math.log(2) + (2 * math.log(0.9) + 2 * math.log(0.4)) / 4
    assert one(scores, "log_loss_gain", rival="prior")[0] == pytest.approx(gain)


def test_a_minute_late_the_outcome_is_that_of_the_next_minute():
    scores = score_direction(made_by_hand(), rule=RULE, rng=np.random.default_rng(0))
    delayed = scores.filter(pl.col("fold").is_null(), delay_min=1)
    # The second row has no later outcome, the third no later change.
    assert set(delayed["n_rows"]) == {2}
    assert one(scores, "accuracy", delay_min=1)[0] == 0.5
    assert one(scores, "gross_bp", delay_min=1)[0] == pytest.approx((-10 + 4) / 2)
    assert one(scores, "auc", delay_min=1)[0] is None
    assert one(scores, "accuracy", delay_min=1)[1:] == (0.0, 1.0)


def test_without_later_outcomes_the_delayed_scores_are_not_there_but_seen():
    frame = made_by_hand().with_columns(delayed_log_return=pl.lit(None, pl.Float64))
    delayed = score_direction(frame, rule=RULE, rng=np.random.default_rng(0)).filter(delay_min=1)
    assert set(delayed["n_rows"]) == {0}
    assert delayed["value"].null_count() == delayed["low"].null_count() == delayed.height > 0


def test_an_even_chance_counts_as_a_predicted_rise_and_is_no_trade():
    rule = TradingRule(min_edge=0.0, taker_cost_bp=5.0)
    scores = score_direction(made_by_hand(), rule=rule, rng=np.random.default_rng(0))
    assert one(scores, "accuracy", rival="prior")[0] == 0.5
    assert one(scores, "trade_share", rival="prior") == (0.0, 0.0, 0.0)
    assert one(scores, "net_bp", rival="prior") == (None, None, None)


def test_a_constant_ranks_nothing_and_gains_nothing_on_itself():
    frame = simulated().with_columns(model=pl.col("prior"))
    scores = score_direction(frame, rule=RULE, rng=np.random.default_rng(0))
    assert one(scores, "auc", rival="prior") == (0.5, 0.5, 0.5)
    assert one(scores, "rank_ic", rival="prior") == (None, None, None)
    assert one(scores, "log_loss_gain", rival="prior") == (0.0, 0.0, 0.0)


def test_a_planted_edge_is_found_in_every_fold():
    scores = score_direction(simulated(skill=0.3), rule=RULE, rng=np.random.default_rng(0))
    for fold in (None, 1, 2, 3):
        assert one(scores, "auc", fold=fold)[1] > 0.6
        assert one(scores, "rank_ic", fold=fold)[1] > 0.1
        assert one(scores, "gross_bp", fold=fold)[1] > 0.0
        assert one(scores, "log_loss_gain", rival="prior", fold=fold)[1] > 0.0


def test_permuted_directions_leave_an_auc_whose_bounds_hold_one_half():
    n_held = 0
    for seed in range(20):
        frame = simulated(skill=0.3, n_days=20, per_day=12, n_folds=1, seed=seed)
        shuffled = frame["direction"].shuffle(seed=seed)
        scores = score_direction(
            frame.with_columns(direction=shuffled),
            rule=RULE,
            rng=np.random.default_rng(seed),
            n_resamples=100,
        )
        _, low, high = one(scores, "auc")
        n_held += low <= 0.5 <= high
    assert n_held >= 16


def test_one_seed_gives_one_frame_whatever_the_order_of_rows():
    frame = simulated(n_days=6)
    first, again, shuffled = (
        score_direction(rows, rule=RULE, rng=np.random.default_rng(8), n_resamples=50)
        for rows in (frame, frame, frame.sample(fraction=1.0, shuffle=True, seed=1))
    )
    assert_frame_equal(first, again, check_exact=True)
    assert_frame_equal(first, shuffled, abs_tol=1e-12)


def test_a_single_day_has_values_without_bounds():
    frame = simulated(n_days=2, n_folds=2)
    scores = score_direction(frame, rule=RULE, rng=np.random.default_rng(0))
    value, low, high = one(scores, "auc", fold=1)
    assert (value is not None, low, high) == (True, None, None)
    assert None not in one(scores, "auc")


def spoil(column: str, value: object) -> pl.DataFrame:
    is_spoilt = pl.int_range(pl.len()) == 1
    spoilt = pl.when(is_spoilt).then(pl.lit(value)).otherwise(pl.col(column))
    return simulated(n_days=1, n_folds=1).with_columns(spoilt.alias(column))


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (spoil("logistic", 1.01), "1 of 48 probabilities are not between 0 and 1"),
        (spoil("prior", None), "1 of 48 probabilities are not between 0 and 1"),
        (spoil("direction", 0), "a direction is neither 1 nor -1"),
        (spoil("direction", None), "a direction is neither 1 nor -1"),
        (spoil("fold", None), "1 of 48 predicted rows belong to no fold"),
        (spoil("forward_log_return", None), "1 of 48 values of forward_log_return are missing"),
        (spoil("forward_log_return", math.nan), "1 of 48 values of forward_log_return are missing"),
        (spoil("delayed_log_return", math.inf), "1 of 48 values of delayed_log_return are missing"),
        (simulated(2).with_columns(direction=1), "all 96 rows went the same way"),
        (simulated(2).clear(), "all 0 rows went the same way"),
    ],
)
def test_what_no_score_of_directions_is_defined_for_is_refused(predicted, message):
    with pytest.raises(DataError, match=message):
        score_direction(predicted, rule=RULE, rng=np.random.default_rng(0))


def volatility_frame(har: float | None = -7.0) -> pl.DataFrame:
    values = {"forward_log_volatility": [-7.0, -8.0], "model": [-7.0, -8.0], "har": [-7.0, har]}
    times = {"open_time": [START, START], "fold": [1, 1]}
    return predicted_frame({**times, **values, "last_value": [-7.5, -7.5]})


def test_two_volatilities_score_as_a_pencil_says():
    scores = score_volatility(volatility_frame(), rng=np.random.default_rng(0))
    assert one(scores, "r_squared")[0] == one(scores, "spearman")[0] == 1.0
    assert one(scores, "mse", rival="har")[0] == one(scores, "mse_gain", rival="har")[0] == 0.5
    assert one(scores, "r_squared", rival="har")[0] == -1.0
    assert one(scores, "r_squared", rival="last_value")[0] == 0.0


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (volatility_frame(har=None), "1 of 2 predictions or outcomes are missing or infinite"),
        (volatility_frame().clear(), "0 of 0 predicted rows belong to no fold"),
    ],
)
def test_what_no_score_of_volatilities_is_defined_for_is_refused(predicted, message):
    with pytest.raises(DataError, match=message):
        score_volatility(predicted, rng=np.random.default_rng(0))
