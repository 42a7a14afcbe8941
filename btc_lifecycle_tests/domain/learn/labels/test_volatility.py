from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.labels import (
    VOLATILITY_HORIZON_MIN,
    forward_log_volatility,
    minutes,
)
from btc_lifecycle.domain.learn.labels.minutes import MinuteRuns
from btc_lifecycle.domain.learn.labels.volatility import trailing_volatility
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests import reference_labels
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.labels.troubles import (
    PRICES,
    candles_closing_at,
    markets,
    troubles,
)

SCHEMA = {
    name: dtype for name, dtype in CANDLES.schema.items() if name in {"symbol", "open_time"}
} | {"forward_log_volatility": pl.Float64()}


def volatilities(candles: pl.DataFrame) -> list[float | None]:
    return forward_log_volatility(candles)["forward_log_volatility"].to_list()


def test_an_hour_of_equal_moves_has_the_log_of_their_size():
    closes = [100.0 if minute % 2 else 101.0 for minute in range(62)]
    known = math.log(math.log(1.01))
    assert volatilities(candles_closing_at(*closes)) == [pytest.approx(known)] * 2 + [None] * 60


@settings(max_examples=25, deadline=None)
@given(candles=markets)
def test_forward_volatility_equals_the_slow_reference(candles):
    expected = [
        (*key, value) for key, value in reference_labels.forward_log_volatilities(candles).items()
    ]
    assert_frame_equal(
        forward_log_volatility(candles),
        pl.DataFrame(expected, schema=SCHEMA, orient="row"),
        rel_tol=1e-9,
        abs_tol=1e-12,
    )


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 150), factor=st.floats(1.5, 2.0))
def test_only_the_hour_after_a_close_matters(cut, factor):
    candles = make_candles(150)
    row = pl.int_range(pl.len())
    changed = candles.with_columns(
        pl.when(row == cut).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in PRICES
    )
    before, after = volatilities(candles), volatilities(changed)
    differs = [at for at in range(150) if before[at] != after[at]]
    assert differs == [at for at in range(90) if at <= cut <= at + VOLATILITY_HORIZON_MIN]


@settings(max_examples=25, deadline=None)
@given(candles=troubles, window_min=st.integers(1, 80))
def test_trailing_volatility_looks_back_over_whole_windows_only(candles, window_min):
    runs = MinuteRuns.of(candles)
    close = candles["close"].to_numpy()
    trailing = trailing_volatility(close, runs=runs, window_min=window_min)
    for row in range(candles.height):
        if runs.n_before[row] < window_min:
            assert math.isnan(trailing[row])
        else:
            returns = np.diff(np.log(close[row - window_min : row + 1]))
            assert trailing[row] == pytest.approx(math.sqrt(np.mean(returns**2)), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(candles=troubles, first=st.integers(0, 20), window_min=st.sampled_from([1, 7, 30]))
def test_a_window_has_the_same_bits_whatever_lies_around_it(candles, first, window_min):
    close = candles["close"].to_numpy()
    whole = trailing_volatility(close, runs=MinuteRuns.of(candles), window_min=window_min)
    part = candles[first : first + 60]
    alone = trailing_volatility(
        part["close"].to_numpy(), runs=MinuteRuns.of(part), window_min=window_min
    )
    known = ~np.isnan(alone)
    assert np.array_equal(alone[known], whole[first : first + 60][known])


@pytest.mark.parametrize("block_rows", [1, 7, 64, 100])
def test_a_long_history_is_computed_in_blocks_without_a_seam(monkeypatch, block_rows):
    candles = make_candles(300).filter(~pl.int_range(pl.len()).is_in([130, 131]))
    whole = forward_log_volatility(candles)
    assert whole["forward_log_volatility"].count() == 70 + 108
    monkeypatch.setattr(minutes, "_BLOCK_ROWS", block_rows)
    assert_frame_equal(forward_log_volatility(candles), whole, check_exact=True)


def test_an_hour_at_one_price_has_no_log_volatility():
    moves = [100.0] * 61 + [101.0] * 2
    assert volatilities(candles_closing_at(*moves))[:4] == [
        None,
        pytest.approx(math.log(math.log(1.01) / math.sqrt(60))),
        pytest.approx(math.log(math.log(1.01) / math.sqrt(60))),
        None,
    ]


def test_no_candles_have_no_volatility():
    nothing = forward_log_volatility(pl.DataFrame(schema=CANDLES.schema))
    assert nothing.schema == SCHEMA
    assert nothing.is_empty()


def test_a_close_without_a_logarithm_is_refused():
    with pytest.raises(DataError, match=r"BTC/USDT: 1 closes .* first at 2024-01-01 00:01 UTC"):
        forward_log_volatility(candles_closing_at(100, 0, 100))
