from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.learn.evaluation import mean_interval, share_better, utc_days
from btc_lifecycle.domain.learn.evaluation.days import ResampledDays

rows_of_days = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-20, 20).map(float)), min_size=2, max_size=30
).filter(lambda rows: len({day for day, _ in rows}) > 1)


def resampled_means(rows, n_draws: np.ndarray) -> list[float]:
    """Return the means of samples put together row by row."""
    days = sorted({day for day, _ in rows})
    means = []
    for draws in n_draws.astype(int):
        drawn = [v for day, value in rows for v in [value] * draws[days.index(day)]]
        means.append(math.fsum(drawn) / len(drawn))
    return means


@given(rows=rows_of_days, seed=st.integers(0, 99), level=st.sampled_from([0.5, 0.95]))
def test_the_interval_equals_that_of_samples_put_together_row_by_row(rows, seed, level):
    day, values = np.array([d for d, _ in rows]), np.array([v for _, v in rows])
    draws = ResampledDays.draw(day, rng=np.random.default_rng(seed), n_resamples=40).n_draws
    means = resampled_means(rows, draws)
    low, high = mean_interval(
        values, day, rng=np.random.default_rng(seed), level=level, n_resamples=40
    )
    expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    assert [low, high] == pytest.approx(expected, abs=1e-12)
    share = share_better(values, day, rng=np.random.default_rng(seed), n_resamples=40)
    assert share == pytest.approx(sum(mean > 0.0 for mean in means) / 40)


def test_each_resample_draws_as_many_days_as_there_are_and_each_day_as_often():
    days = ResampledDays.draw(
        np.repeat([3, 9, 4], 5), rng=np.random.default_rng(1), n_resamples=3_000
    )
    assert days.of_row.tolist() == [0] * 5 + [2] * 5 + [1] * 5
    assert (days.n_draws.sum(axis=1) == 3.0).all()
    assert days.n_draws.mean(axis=0) == pytest.approx([1.0, 1.0, 1.0], abs=0.06)


def test_the_interval_of_equal_days_is_their_mean():
    values, day = np.tile([1.0, 3.0], 10), np.repeat(np.arange(10), 2)
    assert mean_interval(values, day, rng=np.random.default_rng(0)) == (2.0, 2.0)


def test_the_interval_weighs_days_by_their_rows():
    # Two days: one row of 9, three rows of 1. Draws give 9, 1, or (9 + 3) / 4 = 3.
    values, day = np.array([1.0, 9.0, 1.0, 1.0]), np.array([7, 3, 7, 7])
    rng = np.random.default_rng(0)
    assert mean_interval(values, day, rng=rng, level=0.9) == (1.0, 9.0)
    low, high = mean_interval(values, day, rng=rng, level=0.01, n_resamples=2000)
    assert (low, high) == (3.0, 3.0)


def test_the_interval_is_as_wide_as_independent_days_make_it():
    rng = np.random.default_rng(5)
    day = np.repeat(np.arange(400), 50)
    # Rows of a day are all alike, so 20,000 rows are worth 400.
    values = rng.normal(0.0, 1.0, 400)[day]
    low, high = mean_interval(values, day, rng=rng, n_resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.1)
    assert low < values.mean() < high
    narrow_low, narrow_high = mean_interval(values, day, rng=rng, level=0.5)
    assert low < narrow_low < narrow_high < high


def test_about_nineteen_of_twenty_intervals_cover_the_true_mean():
    rng = np.random.default_rng(11)
    day = np.repeat(np.arange(40), 6)
    covered = 0
    for _ in range(300):
        values = 0.3 + rng.normal(0.0, 1.0, 40)[day] + rng.normal(0.0, 1.0, 240)
        low, high = mean_interval(values, day, rng=rng, n_resamples=200)
        covered += low < 0.3 < high
    assert 0.89 <= covered / 300 <= 0.98


@pytest.mark.parametrize("n", [0, 1, 5])
def test_one_day_bounds_nothing_and_says_nothing(n):
    rng = np.random.default_rng(0)
    assert mean_interval(np.ones(n), np.zeros(n), rng=rng) == (-math.inf, math.inf)
    assert math.isnan(share_better(np.ones(n), np.zeros(n), rng=rng))


def test_a_side_that_is_better_every_day_is_better_in_every_resample():
    day = np.array([0, 0, 1, 1, 2])
    rng = np.random.default_rng(0)
    assert share_better(np.array([3.0, -1.0, 1.0, 1.0, 0.5]), day, rng=rng) == 1.0
    assert share_better(np.array([-3.0, 1.0, -1.0, -1.0, -0.5]), day, rng=rng) == 0.0
    assert share_better(np.zeros(5), day, rng=rng) == 0.0


def test_resamples_without_a_value_are_left_out_of_the_bounds():
    days = ResampledDays.draw(np.array([0, 1]), rng=np.random.default_rng(0), n_resamples=3)
    assert days.bounds(np.array([math.nan, 2.0, 2.0])) == (2.0, 2.0)
    assert all(math.isnan(bound) for bound in days.bounds(np.full(3, math.nan)))


def test_rows_of_a_single_day_among_several_bound_nothing():
    days = ResampledDays.draw(np.array([0, 1, 1]), rng=np.random.default_rng(0), n_resamples=3)
    kept = days.where(np.array([False, True, True]))
    assert kept.n_draws is days.n_draws
    assert all(math.isnan(bound) for bound in kept.bounds(np.ones(3)))


def test_days_are_those_of_utc():
    start = datetime(2024, 3, 10, 23, 59, tzinfo=UTC)
    times = pl.Series([start + timedelta(minutes=m) for m in (0, 1, 1440, 1441)])
    first, second, third, fourth = utc_days(times).tolist()
    assert first < second == third < fourth
