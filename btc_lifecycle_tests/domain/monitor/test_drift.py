"""Drift of the newest window: which rows it rests on, and when it is a breach."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.features import available_features, compute_features
from btc_lifecycle.domain.monitor.drift import ALL_SYMBOLS, drift_metrics, log_loss_metric
from btc_lifecycle.domain.monitor.reference import (
    DriftPolicy,
    FeatureReference,
    Reference,
    make_reference,
)
from btc_lifecycle.domain.tables import CANDLES, DRIFT_METRICS, OUTCOMES, UTC_TIME
from btc_lifecycle_tests import reference_monitor

START = datetime(2024, 1, 1, tzinfo=UTC)
END = START + timedelta(hours=2)
POLICY = DriftPolicy(window_hours=2, min_window_rows=4, min_psi=0.1)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def minutes_from(start, n):
    return [start + timedelta(minutes=i) for i in range(n)]


def make_frame(values, *, symbol=BTC, start=START, **other_features):
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(values),
            "open_time": minutes_from(start, len(values)),
            "x": values,
            **other_features,
        },
        schema_overrides={"open_time": UTC_TIME, "symbol": pl.String, "x": pl.Float64},
    )


def half_and_half(name, *, threshold):
    return FeatureReference(
        name=name,
        edges=(0.0,),
        shares=(0.5, 0.5),
        threshold=threshold,
        n_rows=100,
        n_missing=0,
        n_windows=9,
    )


REFERENCE = Reference(features=(half_and_half("x", threshold=0.2),), unmonitored=())


def metrics_of(frame, *, reference=REFERENCE, symbol=BTC, policy=POLICY):
    return drift_metrics(
        frame,
        reference,
        symbol=symbol,
        window_start=START,
        window_end=END,
        model_version="7",
        policy=policy,
    )


def test_three_quarters_above_the_median_are_a_psi_of_a_quarter_ln_3():
    metrics = metrics_of(make_frame([-1.0, 1.0, 2.0, 3.0]))

    assert metrics.schema == DRIFT_METRICS.schema
    assert metrics.row(0, named=True) == {
        "symbol": BTC,
        "window_start": START,
        "window_end": END,
        "model_version": "7",
        "metric": "psi",
        "feature": "x",
        "n_rows": 4,
        "value": pytest.approx(0.25 * math.log(3)),
        "threshold": 0.2,
        "is_breach": True,
    }


def test_a_value_on_an_edge_belongs_to_the_bin_below():
    metrics = metrics_of(make_frame([0.0, 0.0, 1.0, 1.0]))

    assert metrics["value"].item() == 0.0


def test_only_values_above_their_own_limit_are_a_breach():
    psi = 0.25 * math.log(3)
    names = {"below": psi * 1.01, "x": 0.2, "above": psi * 0.99}
    reference = Reference(
        features=tuple(half_and_half(name, threshold=limit) for name, limit in names.items()),
        unmonitored=(),
    )
    values = [-1.0, 1.0, 2.0, 3.0]

    metrics = metrics_of(make_frame(values, below=values, above=values), reference=reference)

    assert metrics["feature"].to_list() == ["below", "x", "above"]
    assert metrics["is_breach"].to_list() == [False, True, True]


def test_a_value_at_its_limit_is_no_breach():
    values = make_frame([-1.0, 1.0, 2.0, 3.0])
    psi = metrics_of(values)["value"].item()
    at_limit = Reference(features=(half_and_half("x", threshold=psi),), unmonitored=())

    assert metrics_of(values, reference=at_limit)["is_breach"].to_list() == [False]


def test_missing_values_are_left_out():
    values = [None, math.nan, math.inf, -math.inf, -1.0, 1.0, 2.0, 3.0]

    metrics = metrics_of(make_frame(values))

    assert metrics["n_rows"].item() == 4
    assert metrics["value"].item() == pytest.approx(0.25 * math.log(3))


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [None] * 90, []])
def test_too_few_values_are_no_value_and_no_breach(values):
    metrics = metrics_of(make_frame(values))

    assert metrics.select("value", "threshold", "is_breach").row(0) == (None, 0.2, False)
    assert metrics["n_rows"].item() == len([value for value in values if value is not None])


def test_the_window_takes_its_start_and_leaves_its_end():
    metrics = metrics_of(make_frame([1.0] * 122, start=START - timedelta(minutes=1)))

    assert metrics["n_rows"].item() == 120


@pytest.mark.parametrize(("symbol", "n_rows"), [(BTC, 4), (ETH, 6), (ALL_SYMBOLS, 10)])
def test_a_symbol_s_drift_rests_on_its_own_rows(symbol, n_rows):
    frame = pl.concat([make_frame([1.0] * 4), make_frame([1.0] * 6, symbol=ETH)])

    metrics = metrics_of(frame, symbol=symbol)

    assert metrics.select("symbol", "n_rows").row(0) == (symbol, n_rows)


def test_a_monitored_feature_without_column_is_refused():
    with pytest.raises(DataError, match="feature x has no column"):
        metrics_of(make_frame([1.0]).drop("x"))


def test_nothing_monitored_gives_an_empty_table():
    metrics = metrics_of(make_frame([1.0]), reference=Reference(features=(), unmonitored=("x",)))

    assert metrics.schema == DRIFT_METRICS.schema
    assert metrics.is_empty()


_values = st.none() | st.sampled_from([0.0, 1.0, math.nan]) | st.floats(-5, 5)


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=80, unique=True),
    st.lists(_values, max_size=130),
)
def test_drift_is_that_of_the_slow_reference(training, recent):
    policy = DriftPolicy(window_hours=2, min_window_rows=5, min_psi=0.1)
    reference = make_reference(make_frame(training), feature_names=["x"], policy=policy)

    metrics = metrics_of(make_frame(recent), reference=reference, policy=policy)

    edges = reference_monitor.decile_edges(training)
    inside = reference_monitor.present(recent[:120])
    assert metrics["n_rows"].item() == len(inside)
    if len(inside) < 5:
        assert metrics["value"].item() is None
        return
    expected = reference_monitor.psi(
        reference_monitor.shares(training, edges=edges),
        reference_monitor.shares(inside, edges=edges),
        min_share=1e-4,
    )
    assert metrics["value"].item() == pytest.approx(expected, abs=1e-12)
    assert metrics["is_breach"].item() == (metrics["value"].item() > metrics["threshold"].item())


def test_the_span_s_own_weather_raises_no_alarm_and_a_new_climate_does():
    rng = np.random.default_rng(5)
    policy = DriftPolicy(window_hours=2, min_window_rows=100, min_psi=0.1)
    daily = np.repeat(rng.normal(0.0, 1.0, 30), 120)
    training = make_frame(daily + rng.normal(0.0, 1.0, daily.size))
    reference = make_reference(training, feature_names=["x"], policy=policy)

    calm = make_frame(np.quantile(daily, 0.9) + rng.normal(0.0, 1.0, 120))
    changed = make_frame(6.0 + rng.normal(0.0, 1.0, 120))

    fixed_limit = 0.25
    assert metrics_of(calm, reference=reference, policy=policy)["value"].item() > fixed_limit
    assert not metrics_of(calm, reference=reference, policy=policy)["is_breach"].item()
    assert metrics_of(changed, reference=reference, policy=policy)["is_breach"].item()


MONTHS = Path(__file__).parents[4] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"


@pytest.mark.real_data
@pytest.mark.skipif(not MONTHS.is_dir(), reason=f"no real candles under {MONTHS}")
def test_limits_from_the_span_raise_fewer_alarms_on_real_months_than_a_fixed_one():
    candles = pl.read_parquet([MONTHS / f"2023-{month:02}.parquet" for month in (5, 6, 7)])
    features = compute_features(
        candles.with_columns(pl.col("open_time").dt.cast_time_unit("us"), symbol=pl.lit(BTC))
        .select(pl.col(name).cast(dtype) for name, dtype in CANDLES.schema.items())
        .sort("open_time")
    )
    policy = DriftPolicy(window_hours=72, min_window_rows=1440, min_psi=0.2)
    may_and_june = features.filter(pl.col("open_time").dt.month() < 7)
    reference = make_reference(
        may_and_june, feature_names=available_features(features), policy=policy
    )
    days = [datetime(2023, 7, day, tzinfo=UTC) for day in range(4, 32)]
    july = pl.concat(
        drift_metrics(
            features,
            reference,
            symbol=BTC,
            window_start=day - timedelta(hours=72),
            window_end=day,
            model_version="7",
            policy=policy,
        )
        for day in days
    )

    assert july["value"].null_count() == 0
    n_beyond_fixed = july.filter(pl.col("value") > policy.min_psi).height
    # 129 alarms and not 236: most are of the level of volatility, which fell that summer.
    assert july["is_breach"].sum() < 0.6 * n_beyond_fixed


def make_outcomes(log_losses, *, symbol=BTC, start=START, version="7", prefix="p"):
    n = len(log_losses)
    return pl.DataFrame(
        {
            "prediction_id": [f"{prefix}{i}:0" for i in range(n)],
            "symbol": [symbol] * n,
            "open_time": minutes_from(start, n),
            "model_version": [version] * n,
            "probability_up": [0.5] * n,
            "direction": [1] * n,
            "forward_log_return": [0.001] * n,
            "matures_at": minutes_from(start + timedelta(minutes=16), n),
            "log_loss": log_losses,
        },
        schema=OUTCOMES.schema,
    )


def score_of(outcomes, *, min_outcomes=3, max_increase=0.125):
    return log_loss_metric(
        outcomes,
        window_start=START,
        window_end=END,
        model_version="7",
        reference_log_loss=0.5,
        max_increase=max_increase,
        min_outcomes=min_outcomes,
    )


def test_a_mean_of_three_quarters_against_a_half_is_beyond_an_eighth():
    score = score_of(make_outcomes([0.5, 0.75, 1.0]))

    assert score.schema == DRIFT_METRICS.schema
    assert score.row(0, named=True) == {
        "symbol": ALL_SYMBOLS,
        "window_start": START,
        "window_end": END,
        "model_version": "7",
        "metric": "log_loss",
        "feature": "",
        "n_rows": 3,
        "value": 0.75,
        "threshold": 0.625,
        "is_breach": True,
    }


def test_a_mean_at_the_limit_is_no_breach():
    score = score_of(make_outcomes([0.5, 0.75, 1.0]), max_increase=0.25)

    assert score.select("value", "threshold", "is_breach").row(0) == (0.75, 0.75, False)


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_outcomes_are_no_value_and_no_breach(n):
    score = score_of(make_outcomes([9.0] * n))

    assert score.select("n_rows", "value", "is_breach").row(0) == (n, None, False)


def test_only_the_version_s_outcomes_in_the_window_count_each_candle_once():
    outcomes = pl.concat(
        [
            make_outcomes([1.0, 1.0], prefix="a"),
            make_outcomes([9.0, 9.0], prefix="b"),
            make_outcomes([4.0], symbol=ETH, prefix="c"),
            make_outcomes([9.0, 9.0], version="6", prefix="d"),
            make_outcomes([9.0], start=START - timedelta(minutes=1), prefix="e"),
            make_outcomes([9.0], start=END, prefix="f"),
        ]
    )

    score = score_of(outcomes)

    assert score.select("n_rows", "value").row(0) == (3, 2.0)


@given(st.lists(st.floats(0, 34), max_size=12), st.integers(1, 6), st.floats(0, 1))
def test_a_live_score_is_the_plain_mean_and_breaches_above_reference_and_increase(
    log_losses, min_outcomes, max_increase
):
    score = score_of(
        make_outcomes(log_losses), min_outcomes=min_outcomes, max_increase=max_increase
    ).row(0, named=True)

    if len(log_losses) < min_outcomes:
        assert score["value"] is None
        assert not score["is_breach"]
        return
    assert score["value"] == pytest.approx(sum(log_losses) / len(log_losses))
    assert score["is_breach"] == (score["value"] > 0.5 + max_increase)
