from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.learn.features.windows import Windows, with_lagged

values_strategy = st.lists(st.floats(-1e6, 1e6), max_size=40).map(np.array)
minutes_strategy = st.integers(1, 45)


def by_visiting(values, *, minutes, fold):
    """Return a fold of each window by visiting its values; NaN before the first whole window."""
    return [
        fold(values[end - minutes : end]) if end >= minutes else math.nan
        for end in range(1, values.size + 1)
    ]


def test_a_value_is_combined_with_the_one_so_many_minutes_before():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    assert with_lagged(np.subtract, values, values, minutes=2)[2:].tolist() == [3.0, 6.0]
    assert np.isnan(with_lagged(np.subtract, values, values, minutes=2)[:2]).all()
    assert np.isnan(with_lagged(np.subtract, values, values, minutes=5)).all()


def test_windows_of_three_are_those_of_a_pencil():
    windows = Windows(np.array([1.0, 2.0, 6.0, 3.0]))
    assert windows.sum(3)[2:].tolist() == [9.0, 11.0]
    assert windows.mean(3)[2:].tolist() == [3.0, 11.0 / 3.0]
    assert windows.highest(3)[2:].tolist() == [6.0, 6.0]
    assert windows.lowest(3)[2:].tolist() == [1.0, 2.0]
    mean, squares = windows.moments(3)
    assert mean[2:] == pytest.approx([3.0, 11.0 / 3.0])
    assert squares[2:] == pytest.approx([4.0 + 1.0 + 9.0, 78.0 / 9.0])


@given(values=values_strategy, minutes=minutes_strategy)
def test_every_window_equals_the_one_that_visits_its_values(values, minutes):
    windows = Windows(values)
    mean, squares = windows.moments(minutes)
    for computed, fold in (
        (windows.sum(minutes), math.fsum),
        (windows.highest(minutes), max),
        (windows.lowest(minutes), min),
        (mean, np.mean),
        (squares, lambda window: np.var(window) * minutes),
    ):
        expected = by_visiting(values, minutes=minutes, fold=fold)
        assert computed == pytest.approx(expected, rel=1e-9, abs=1e-6, nan_ok=True)


@given(minutes=minutes_strategy, level=st.floats(-1e6, 1e6))
def test_what_has_left_a_window_leaves_nothing_behind(minutes, level):
    """A running sum left rounding remains of a burst, and ratios of zeros were made of them."""
    windows = Windows(np.array([1e16, -3e15, math.nan, *[level] * minutes]))
    assert windows.moments(minutes).squares[-1] == 0.0
    assert windows.highest(minutes)[-1] == windows.lowest(minutes)[-1] == level
    quiet = Windows(np.array([1e16, -3e15, math.nan, *[0.0] * minutes]))
    assert quiet.sum(minutes)[-1] == 0.0


def test_a_window_with_an_unknown_value_is_unknown():
    windows = Windows(np.array([1.0, math.nan, 3.0, 4.0, 5.0]))
    for computed in (windows.sum(2), windows.highest(2), windows.lowest(2), *windows.moments(2)):
        assert np.isnan(computed).tolist() == [True, True, True, False, False]


def test_windows_do_not_write_into_their_values():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    windows = Windows(values)
    for fold in (windows.sum, windows.highest, windows.moments):
        fold(3)
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
