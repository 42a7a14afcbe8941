from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.baselines import (
    DirectionBaselines,
    VolatilityBaselines,
    fit_direction_baselines,
    fit_volatility_baselines,
)
from btc_lifecycle_tests import reference_scores

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("log_return_5m", "log_return_15m", "signal", "noise")
VOLATILITIES = ("realized_volatility_15m", "realized_volatility_60m", "realized_volatility_240m")


def examples(n: int = 600, *, seed: int = 0) -> pl.DataFrame:
    """Return rows that follow their signal, and whose volatility follows its past."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 4)) * [1e-3, 2e-3, 5.0, 1.0] + [0.0, 0.0, 100.0, 0.0]
    odds = 0.3 * (values[:, 2] - 100.0) - 400.0 * values[:, 0]
    past = np.exp(rng.normal(-7.0, 0.5, size=(n, 3)))
    log_volatility = -1.0 + np.log(past) @ [0.2, 0.4, 0.25] + rng.normal(0.0, 0.1, n)
    return pl.DataFrame(
        {
            "open_time": [START + timedelta(minutes=i) for i in range(n)],
            "direction": np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-odds)), 1, -1),
            **dict(zip(NAMES, values.T, strict=True)),
            **dict(zip(VOLATILITIES, past.T, strict=True)),
            "forward_log_volatility": log_volatility,
        }
    )


def fit(train: pl.DataFrame, **changes) -> DirectionBaselines:
    return fit_direction_baselines(train, **{"feature_names": NAMES, "horizon_min": 15, **changes})


def with_moves(moves: list[float], direction: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"direction": direction, "log_return_15m": moves})


TRAIN, TEST = examples(), examples(200, seed=1)


def test_shares_of_rises_are_those_that_a_pencil_counts():
    train = with_moves([0.1, 0.1, 0.1, 0.1, -0.1, -0.1, 0.0], [1, -1, -1, -1, 1, -1, 1])
    baselines = fit(train, feature_names=["log_return_15m"])
    predicted = baselines.predict(with_moves([0.7, -0.2, 0.0, -0.0], [1, 1, 1, 1]))
    assert predicted["prior"].tolist() == [3 / 7] * 4
    assert predicted["contrarian"].tolist() == [0.25, 0.5, 1.0, 1.0]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([-0.1, 0.0, 0.1]),
            st.sampled_from([1, -1]),
            st.sampled_from([0.0, 0.5, 1.0]),
        ),
        max_size=20,
    ).map(lambda rows: [*rows, (0.1, 1, 1.0), (0.1, -1, 0.5)])
)
@settings(max_examples=20, deadline=None)
def test_shares_of_rises_equal_those_counted_row_by_row(rows):
    moves, direction, weights = (list(values) for values in zip(*rows, strict=True))
    expected = reference_scores.contrarian(moves, direction, weights)
    baselines = fit(
        with_moves(moves, direction), feature_names=["log_return_15m"], weights=np.array(weights)
    )
    found = (baselines.up_after_rise, baselines.up_after_fall, baselines.up_after_none)
    assert found == pytest.approx((expected[1], expected[-1], expected[0]))
    ups = sum(w for w, d in zip(weights, direction, strict=True) if d == 1)
    assert baselines.prior_up == pytest.approx(ups / sum(weights))


@pytest.mark.parametrize(
    ("horizon_min", "last_move"), [(1, "5m"), (9, "5m"), (10, "15m"), (11, "15m"), (60, "15m")]
)
def test_the_last_move_is_as_long_as_the_horizon_or_nearest_to_it(horizon_min, last_move):
    assert fit(TRAIN, horizon_min=horizon_min).last_move == f"log_return_{last_move}"


def test_a_last_move_is_a_log_return_and_nothing_named_like_one():
    names = ("scaled_log_return_5m", "log_return_5min", "noise")
    with pytest.raises(DataError, match="no log return among 3 features, so there is no last move"):
        fit(TRAIN, feature_names=names)


@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 1.0, TRAIN.height)])
@pytest.mark.parametrize("wildest", [0.0, -1e6])
def test_the_logistic_regression_is_scikit_learn_s_own_on_scaled_and_clipped_features(
    weights, wildest
):
    is_first = pl.int_range(pl.len()) == 0
    noise = pl.when(is_first).then(wildest).otherwise(pl.col("noise"))
    train = TRAIN.with_columns(noise=noise)
    values, is_up = train.select(NAMES).to_numpy(), (train["direction"] == 1).to_numpy()
    pipeline = make_pipeline(
        StandardScaler(),
        FunctionTransformer(lambda scaled: scaled.clip(-10.0, 10.0)),
        LogisticRegression(tol=1e-8),
    )
    pipeline.fit(values, is_up, logisticregression__sample_weight=weights)
    expected = pipeline.predict_proba(TEST.select(NAMES).to_numpy())[:, 1]
    found = fit(train, weights=weights).predict(TEST)["logistic"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_logistic_regression_finds_what_the_others_cannot():
    predicted, is_up = fit(TRAIN).predict(TEST), (TEST["direction"] == 1).to_numpy()
    brier = {name: ((p - is_up) ** 2).mean() for name, p in predicted.items()}
    assert brier["logistic"] < 0.9 * min(brier["prior"], brier["contrarian"])


def test_one_wild_value_counts_as_ten_deviations():
    baselines = fit(TRAIN)
    i = NAMES.index("signal")
    at_the_edge = baselines.means[i] + 10.0 * baselines.deviations[i]
    wild, edge = (
        baselines.predict(TEST.with_columns(signal=pl.lit(value)))["logistic"]
        for value in (1e9, at_the_edge)
    )
    assert wild == pytest.approx(edge, abs=1e-12)


def test_odds_beyond_what_a_double_s_exponential_holds_are_a_certainty():
    sure = replace(fit(TRAIN), coefficients=(0.0, 0.0, 1e6, 0.0))
    predicted = sure.predict(TEST)["logistic"]
    assert set(predicted.round(9)) == {0.0, 1.0}


@pytest.mark.parametrize("constant", [0.1, 1e9])
def test_a_constant_feature_is_not_read(constant):
    train = TRAIN.with_columns(noise=pl.lit(constant))
    baselines = fit(train)
    assert baselines.deviations[NAMES.index("noise")] == 0.0
    assert np.array_equal(
        baselines.predict(TEST)["logistic"],
        baselines.predict(TEST.with_columns(noise=-5.0))["logistic"],
    )
    loud = replace(baselines, coefficients=(*baselines.coefficients[:-1], 7.0))
    assert np.array_equal(loud.predict(TEST)["logistic"], baselines.predict(TEST)["logistic"])
    without = fit(TRAIN, feature_names=NAMES[:-1]).predict(TEST)["logistic"]
    assert baselines.predict(TEST)["logistic"] == pytest.approx(without, abs=1e-6)


def test_two_features_that_say_the_same_are_fitted():
    train = TRAIN.with_columns(noise=2.0 * pl.col("signal") + 1.0)
    coefficients = fit(train).coefficients
    assert coefficients[2] == pytest.approx(coefficients[3], rel=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_one_direction_only_is_refused(direction):
    with pytest.raises(DataError, match="all 600 rows went the same way"):
        fit(TRAIN.with_columns(direction=direction))


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="all 0 rows went the same way"):
        fit(TRAIN.clear())
    with pytest.raises(DataError, match="no rows to fit a baseline to"):
        fit_volatility_baselines(TRAIN.clear())


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_values_that_are_missing_or_infinite_are_refused(value):
    is_broken = pl.int_range(pl.len()) == 3

    def spoilt(column: str) -> pl.DataFrame:
        broken = pl.when(is_broken).then(pl.lit(value, pl.Float64)).otherwise(pl.col(column))
        return TRAIN.with_columns(broken.alias(column))

    with pytest.raises(DataError, match="noise of row 3 is missing or infinite"):
        fit(spoilt("noise"))
    with pytest.raises(DataError, match="signal of row 3 is missing or infinite"):
        fit(TRAIN).predict(spoilt("signal"))
    with pytest.raises(DataError, match="forward_log_volatility of row 3 is missing or infinite"):
        fit_volatility_baselines(spoilt("forward_log_volatility"))
    with pytest.raises(DataError, match="realized_volatility_240m of row 3 is missing or infinite"):
        fit_volatility_baselines(spoilt("realized_volatility_240m"))


def test_a_column_that_is_not_there_is_refused_by_name():
    with pytest.raises(DataError, match="realized_volatility_60m: no such column among"):
        fit_volatility_baselines(TRAIN.drop("realized_volatility_60m"))


def test_har_is_least_squares_on_three_log_volatilities():
    regression = LinearRegression().fit(
        np.log(TRAIN.select(VOLATILITIES).to_numpy()), TRAIN["forward_log_volatility"].to_numpy()
    )
    expected = regression.predict(np.log(TEST.select(VOLATILITIES).to_numpy()))
    baselines = fit_volatility_baselines(TRAIN)
    assert baselines.predict(TEST)["har"] == pytest.approx(expected, abs=1e-9)
    assert baselines.coefficients == pytest.approx((0.2, 0.4, 0.25), abs=0.03)


def test_the_last_value_is_the_log_of_the_last_hour_s_volatility():
    found = fit_volatility_baselines(TRAIN).predict(TEST)["last_value"]
    assert found == pytest.approx([math.log(v) for v in TEST["realized_volatility_60m"]])


def test_an_hour_without_a_move_counts_as_a_hundredth_of_a_basis_point():
    still = TEST.with_columns(pl.lit(0.0).alias(name) for name in VOLATILITIES)
    baselines = fit_volatility_baselines(TRAIN)
    predicted = baselines.predict(still)
    assert predicted["last_value"] == pytest.approx(math.log(1e-6))
    at_least = baselines.intercept + math.log(1e-6) * sum(baselines.coefficients)
    assert predicted["har"] == pytest.approx(at_least)


def test_volatilities_that_never_change_are_fitted_by_their_mean():
    train = TRAIN.with_columns(pl.lit(1e-3).alias(name) for name in VOLATILITIES)
    found = fit_volatility_baselines(train).predict(train.head(1))["har"]
    assert found == pytest.approx(train["forward_log_volatility"].mean())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_baselines_read_back_from_json_predict_the_same_bits(seed):
    train = examples(60, seed=seed)
    for fitted in (fit(train), fit_volatility_baselines(train)):
        again = type(fitted).from_json(json.loads(json.dumps(fitted.to_json())))
        assert again == fitted
        expected, found = fitted.predict(TEST), again.predict(TEST)
        assert list(found) == list(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("of", [DirectionBaselines, VolatilityBaselines])
def test_json_with_other_parts_is_refused(of):
    with pytest.raises(DataError, match=r"baselines are damaged: .*intercept"):
        of.from_json({})
    whole = fit_volatility_baselines(TRAIN).to_json()
    with pytest.raises(DataError, match=r"baselines are damaged: .*colour"):
        of.from_json({**whole, "colour": "blue"})


def test_a_row_s_prediction_does_not_depend_on_its_neighbours_or_the_outcome():
    """Twenty features: eight and more are summed in another order where a row lies in pieces."""
    noises = {f"noise_{i}": np.random.default_rng(i).normal(size=600) for i in range(16)}
    train = TRAIN.with_columns(**{name: pl.Series(values) for name, values in noises.items()})
    blind = train.drop("direction", "forward_log_volatility")
    fitted_ones = (fit(train, feature_names=(*NAMES, *noises)), fit_volatility_baselines(train))
    for fitted in fitted_ones:
        together = fitted.predict(train)
        for i in range(100):
            alone = fitted.predict(blind[i])
            assert all(alone[name].tolist() == [together[name][i]] for name in together)
