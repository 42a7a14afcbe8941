"""The training span's bins and limits, and the population stability index."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.monitor.reference import (
    MIN_SHARE,
    DriftPolicy,
    FeatureReference,
    Reference,
    make_reference,
    population_stability_index,
)
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle_tests import reference_monitor

START = datetime(2024, 1, 1, tzinfo=UTC)
POLICY = DriftPolicy(window_hours=1, min_window_rows=20, min_psi=0.01)


def make_frame(values, *, symbol="BTC/USDT", start=START, **other_features):
    """One minute per value of the feature ``x``, beside other features of the same length."""
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(values),
            "open_time": [start + timedelta(minutes=i) for i in range(len(values))],
            "x": values,
            **other_features,
        },
        schema_overrides={"open_time": UTC_TIME, "symbol": pl.String, "x": pl.Float64},
    )


def reference_of(values, *, policy=POLICY, **other_features):
    frame = make_frame(values, **other_features)
    return make_reference(frame, feature_names=["x", *other_features], policy=policy)


def test_two_halves_that_became_a_quarter_and_three_quarters_move_by_a_quarter_ln_3():
    psi = population_stability_index(np.array([0.5, 0.5]), np.array([0.25, 0.75]))

    # (1/4 - 1/2) ln(1/2) + (3/4 - 1/2) ln(3/2) = 1/4 ln 3
    assert float(psi) == pytest.approx(0.25 * math.log(3))


def test_an_emptied_bin_counts_as_the_least_share():
    psi = population_stability_index(np.array([0.5, 0.5]), np.array([0.0, 1.0]))

    expected = (0.5 - 1e-4) * math.log(0.5 / 1e-4) + 0.5 * math.log(2)
    assert MIN_SHARE == 1e-4
    assert float(psi) == pytest.approx(expected)


_shares = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)


@given(_shares, _shares)
def test_the_index_is_that_of_the_slow_reference_symmetric_and_zero_only_for_equals(first, second):
    p, q = np.array(first) / sum(first), np.array(second) / sum(second)

    psi = float(population_stability_index(p, q))

    assert psi == pytest.approx(reference_monitor.psi(p, q, min_share=1e-4), rel=1e-9, abs=1e-12)
    assert psi == pytest.approx(float(population_stability_index(q, p)), abs=1e-12)
    assert (psi > 0) == (not np.array_equal(p, q))
    assert float(population_stability_index(p, p)) == 0.0


def test_many_windows_are_measured_at_once():
    windows = np.array([[0.5, 0.5], [0.25, 0.75]])

    psi = population_stability_index(np.array([0.5, 0.5]), windows)

    assert psi.tolist() == [0.0, pytest.approx(0.25 * math.log(3))]


def test_a_hundred_different_values_fall_into_ten_equal_bins():
    feature = reference_of([float(i) for i in range(1, 101)]).features[0]

    assert feature.name == "x"
    assert feature.edges == (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
    assert feature.shares == pytest.approx([0.1] * 10)
    assert (feature.n_rows, feature.n_missing) == (100, 0)


def test_deciles_that_coincide_are_one_edge():
    feature = reference_of([0.0] * 70 + [float(i) for i in range(1, 31)]).features[0]

    assert feature.edges == (0.0, 10.0, 20.0)
    assert feature.shares == pytest.approx([0.7, 0.1, 0.1, 0.1])


def test_missing_values_are_left_out_and_counted():
    values = [None, math.nan, math.inf, -math.inf, *(float(i) for i in range(1, 21))]

    feature = reference_of(values).features[0]

    assert feature.edges == (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0)
    assert (feature.n_rows, feature.n_missing) == (20, 4)


def test_constant_absent_and_calendar_features_are_not_monitored_but_named():
    values = [float(i) for i in range(30)]

    reference = reference_of(
        values,
        constant=[3.0] * 29 + [math.nan],
        absent=pl.Series([None] * 30, dtype=pl.Null),
        minute_of_day_sin=values,
        day_of_week_cos=values,
        z=values,
    )

    assert [feature.name for feature in reference.features] == ["x", "z"]
    assert reference.unmonitored == ("constant", "absent", "minute_of_day_sin", "day_of_week_cos")


def two_valued(shares_of_one, *, rows_per_window=60):
    """Windows of an hour in which x is 1 with the given share of rows and else 0."""
    values = []
    for share in shares_of_one:
        n_ones = round(share * rows_per_window)
        values += [0.0] * (rows_per_window - n_ones) + [1.0] * n_ones
    return values


def test_the_limit_is_the_99th_percentile_of_the_span_s_own_windows():
    feature = reference_of(two_valued([0.2, 0.6, 0.6, 0.6])).features[0]

    # A share s of ones lies (s - 1/2) ln(s / (1 - s)) from the span's half and half.
    calm, wild = 0.1 * math.log(1.5), 0.3 * math.log(4)
    assert feature.threshold == pytest.approx(calm + 0.97 * (wild - calm))
    assert feature.n_windows == 4


def test_a_calm_span_s_limit_is_the_policy_s_least():
    feature = reference_of(two_valued([0.5, 0.5, 0.5]), policy=replace(POLICY, min_psi=0.2))

    assert feature.features[0].threshold == 0.2


def test_with_two_windows_the_limit_is_twice_the_larger():
    feature = reference_of(two_valued([0.4, 0.6])).features[0]

    psi = 0.1 * math.log(0.6 / 0.4)
    assert feature.threshold == pytest.approx(2 * psi)
    assert feature.n_windows == 2


def test_without_a_whole_window_the_limit_is_the_policy_s_least():
    feature = reference_of(two_valued([0.4, 0.6], rows_per_window=29)).features[0]

    assert (feature.threshold, feature.n_windows) == (POLICY.min_psi, 0)


def test_the_span_s_incomplete_last_window_does_not_count():
    feature = reference_of(two_valued([0.5, 0.5, 0.5]) + [1.0] * 59).features[0]

    assert feature.n_windows == 3


def test_windows_with_too_few_values_do_not_count():
    values = two_valued([0.5, 0.5, 0.5, 0.5])
    values[60:101] = [None] * 41
    values[120:160] = [None] * 40

    feature = reference_of(values).features[0]

    assert feature.n_windows == 3


def test_each_symbol_has_its_own_windows_within_one_span():
    frame = pl.concat(
        [
            make_frame(two_valued([0.4, 0.4]), symbol="BTC/USDT"),
            make_frame(two_valued([0.6, 0.6]), symbol="ETH/USDT"),
        ]
    )

    feature = make_reference(frame, feature_names=["x"], policy=POLICY).features[0]

    assert feature.n_windows == 4
    assert feature.threshold == pytest.approx(0.1 * math.log(0.6 / 0.4))


_values = st.none() | st.sampled_from([0.0, 1.0, math.nan]) | st.floats(-5, 5)


@given(
    btc=st.lists(_values, min_size=1, max_size=150),
    eth=st.lists(_values, max_size=150),
    eth_starts_after_min=st.integers(0, 90),
    min_window_rows=st.integers(1, 30),
)
def test_bins_and_limit_are_those_of_the_slow_reference(
    btc, eth, eth_starts_after_min, min_window_rows
):
    policy = replace(POLICY, min_window_rows=min_window_rows)
    eth_start = START + timedelta(minutes=eth_starts_after_min)
    frame = pl.concat([make_frame(btc), make_frame(eth, symbol="ETH/USDT", start=eth_start)])
    present = reference_monitor.present([*btc, *eth])

    reference = make_reference(frame, feature_names=["x"], policy=policy)

    if len(set(present)) < 2:
        assert reference == Reference(features=(), unmonitored=("x",))
        return
    (feature,) = reference.features
    edges = reference_monitor.decile_edges(present)
    psis = reference_monitor.window_psis(
        frame.rows(), window_hours=1, min_window_rows=min_window_rows, min_share=MIN_SHARE
    )
    assert list(feature.edges) == edges
    assert feature.shares == pytest.approx(reference_monitor.shares(present, edges=edges))
    assert feature.n_windows == len(psis)
    expected = reference_monitor.threshold(psis, min_psi=policy.min_psi)
    assert feature.threshold == pytest.approx(expected)


@given(st.lists(st.integers(-1000, 1000), min_size=40, max_size=130), st.sampled_from([0.5, 4.0]))
def test_limits_do_not_depend_on_the_feature_s_unit(values, factor):
    reference = reference_of([float(value) for value in values])
    scaled = reference_of([value * factor for value in values])

    assert [f.threshold for f in scaled.features] == [f.threshold for f in reference.features]
    assert [f.shares for f in scaled.features] == [f.shares for f in reference.features]


def test_a_span_s_own_rows_lie_nowhere_from_it():
    values = [float(i % 17) for i in range(100)]

    assert reference_of(values).features[0].psi(np.array(values)) == 0.0


def test_a_span_without_rows_is_refused():
    with pytest.raises(DataError, match="no training rows"):
        reference_of([])


def test_a_feature_without_column_is_refused():
    with pytest.raises(DataError, match="feature y has no column"):
        make_reference(make_frame([1.0, 2.0]), feature_names=["y"], policy=POLICY)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=60))
def test_a_reference_survives_json_unchanged(values):
    reference = reference_of(values, minute_of_day_sin=values)
    document = reference.to_json()

    assert Reference.from_json(json.loads(json.dumps(document, allow_nan=False))) == reference
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == 1


@pytest.mark.parametrize("unknown", [{"format": 2}, {"format": "1"}, {"format": None}])
def test_another_format_is_refused(unknown):
    document = reference_of([1.0, 2.0]).to_json() | unknown

    with pytest.raises(DataError, match=r"drift reference has format .*, this code reads 1"):
        Reference.from_json(document)


FEATURE = FeatureReference(
    name="x",
    edges=(0.0, 1.0),
    shares=(0.5, 0.25, 0.25),
    threshold=0.2,
    n_rows=4,
    n_missing=0,
    n_windows=0,
)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"edges": [1.0, 0.0]}, "rising edges"),
        ({"edges": [0.0, 0.0]}, "rising edges"),
        ({"edges": [0.0, math.nan]}, "rising edges"),
        ({"edges": [], "shares": [1.0]}, "rising edges"),
        ({"shares": [0.5, 0.5]}, "one share more than edges"),
        ({"shares": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"shares": [1.5, -0.25, -0.25]}, "at least 0"),
        ({"shares": [math.nan, 0.5, 0.5]}, "at least 0"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": math.inf}, "threshold must be above 0"),
        ({"threshold": None}, "TypeError"),
        ({"edges": "ab"}, "ValueError"),
    ],
)
def test_a_damaged_feature_is_refused(changes, what):
    document = Reference(features=(FEATURE,), unmonitored=()).to_json()
    document["features"][0] |= changes

    with pytest.raises(DataError, match=f"drift reference is damaged: .*{what}"):
        Reference.from_json(document)


def test_a_reference_without_a_part_is_refused():
    with pytest.raises(DataError, match="damaged: KeyError"):
        Reference.from_json({"format": 1, "features": []})


@pytest.mark.parametrize(
    "changes",
    [
        {"window_hours": 0},
        {"min_window_rows": 0},
        {"min_psi": 0.0},
        {"min_psi": math.inf},
        {"min_psi": math.nan},
    ],
)
def test_a_policy_out_of_range_is_refused_where_settings_are_read(changes):
    document = {"window_hours": 72, "min_window_rows": 1440, "min_psi": 0.2} | changes

    with pytest.raises(ValidationError, match="must be"):
        TypeAdapter(DriftPolicy).validate_python(document)
