from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.labels import average_uniqueness, label_by_barriers, minutes
from btc_lifecycle.domain.tables import LABELS
from btc_lifecycle_tests import reference_labels
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.labels.troubles import (
    PRICES,
    candles_of,
    markets,
    needs_real_candles,
    real_candles,
    troubles,
)

MINUTE = timedelta(minutes=1)
OUTCOME = ["symbol", "open_time", "forward_log_return", "direction", "matures_at"]
# No multiple of a move on a price grid: a price never lies on a barrier but for rounding.
widths = st.sampled_from([0.37, 1.13, 2.71])
policies = st.fixed_dictionaries(
    {
        "horizon_min": st.sampled_from([1, 2, 15, 40]),
        "barrier_width": widths,
        "volatility_window_min": st.sampled_from([2, 5, 30]),
    }
)


def outcome_after(*future: tuple[float, float, float]) -> tuple[float, int, int]:
    """Return log return, direction and minutes until known, with barriers 4 % from a close at 100.

    The two returns before it are 1 % each, so twice their volatility over 4 minutes is 4 %.
    """
    past = [(price, price, price) for price in (100.0, 101.0, 100.0)]
    labels = label_by_barriers(
        candles_of(*past, *future), horizon_min=4, barrier_width=2.0, volatility_window_min=2
    )
    (label,) = labels.filter(open_time=datetime(2024, 1, 1, 0, 2, tzinfo=UTC)).to_dicts()
    lasted = label["matures_at"] - label["open_time"] - MINUTE
    return label["forward_log_return"], label["direction"], lasted // MINUTE


QUIET = (103.0, 97.0, 101.0)
UPPER = pytest.approx(4 * math.log(1.01))
LOWER = pytest.approx(-4 * math.log(1.01))


@pytest.mark.parametrize(
    ("future", "expected"),
    [
        ([(104.1, 100, 100), QUIET, QUIET, QUIET], (UPPER, 1, 1)),
        ([QUIET, (100, 96.0, 100), (110, 90, 90), QUIET], (LOWER, -1, 2)),
        ([QUIET, QUIET, QUIET, (104.1, 97, 99)], (UPPER, 1, 4)),
        ([QUIET, QUIET, (104.1, 96.0, 104), QUIET], (LOWER, -1, 3)),
        ([QUIET] * 4, (pytest.approx(math.log(1.01)), 1, 4)),
        ([*[QUIET] * 3, (103, 97, 98)], (pytest.approx(math.log(0.98)), -1, 4)),
        ([*[QUIET] * 3, (103, 97, 100)], (0.0, 0, 4)),
    ],
    ids=["up", "down before both", "up last", "both at once", "rise", "fall", "no change"],
)
def test_what_comes_first_of_a_barrier_and_the_horizon_is_the_outcome(future, expected):
    assert outcome_after(*future) == expected


@pytest.mark.parametrize("direction", [1, -1])
def test_a_price_at_the_barrier_touches_it_and_one_just_short_of_it_does_not(direction):
    width, _, _ = outcome_after((200.0, 100.0, 100.0), QUIET, QUIET, QUIET)
    at_barrier = 100.0 * np.exp(direction * width)
    just_short = np.nextafter(at_barrier, 100.0)
    for price, expected in ((at_barrier, (direction, 1)), (just_short, (1, 4))):
        candle = (max(price, 100.0), min(price, 100.0), 100.0)
        assert outcome_after(candle, QUIET, QUIET, QUIET)[1:] == expected


@settings(max_examples=40, deadline=None)
@given(candles=markets, policy=policies)
def test_labels_equal_the_slow_reference(candles, policy):
    expected = reference_labels.barrier_labels(candles, **policy)
    labels = label_by_barriers(candles, **policy)
    assert labels.schema == LABELS.schema
    assert_frame_equal(
        labels, pl.DataFrame(expected, schema=LABELS.schema), rel_tol=1e-9, abs_tol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(candles=troubles, policy=policies, cut=st.integers(0, 119), factor=st.floats(0.5, 2.0))
def test_no_label_uses_a_candle_after_it_matures(candles, policy, cut, factor):
    is_later = pl.int_range(pl.len()) > cut
    poisoned = candles.with_columns(
        pl.when(is_later).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in PRICES
    )
    known_until = candles["open_time"].head(cut + 1).max() + MINUTE
    before, after = (
        label_by_barriers(frame, **policy)
        .filter(pl.col("matures_at") <= known_until)
        .select(OUTCOME)
        for frame in (candles, poisoned)
    )
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(candles=troubles, policy=policies, n_known=st.integers(1, 119))
def test_a_label_is_made_once_its_whole_horizon_is_over_and_never_changes(candles, policy, n_known):
    known = candles.head(n_known)
    known_until = known["open_time"].max() + MINUTE
    horizon_end = pl.col("open_time") + (policy["horizon_min"] + 1) * MINUTE
    labels = label_by_barriers(candles, **policy)
    assert_frame_equal(
        label_by_barriers(known, **policy).select(OUTCOME),
        labels.filter(horizon_end <= known_until).select(OUTCOME),
        check_exact=True,
    )


def test_a_touch_before_a_gap_makes_no_label_without_the_whole_horizon():
    wild = make_candles(40).with_columns(high=pl.col("high") * 2.0)
    labels = label_by_barriers(
        wild.filter(pl.int_range(pl.len()) != 20),
        horizon_min=5,
        barrier_width=1.0,
        volatility_window_min=10,
    )
    lasted_min = (labels["matures_at"] - labels["open_time"]).dt.total_minutes() - 1
    assert lasted_min.unique().to_list() == [1]
    assert labels["open_time"].dt.minute().to_list() == [10, 11, 12, 13, 14, 31, 32, 33, 34]


@settings(max_examples=25, deadline=None)
@given(candles=troubles, policy=policies, cut=st.integers(0, 100), factor=st.floats(0.5, 2.0))
def test_barriers_rest_on_no_candle_after_the_close(candles, policy, cut, factor):
    # Every upper barrier and no lower one is touched at once: each outcome is its barrier's width.
    touching = candles.with_columns(high=pl.lit(1e9), low=pl.lit(1e6))
    is_later = pl.int_range(pl.len()) > cut
    changed = touching.with_columns(
        close=pl.when(is_later).then(pl.col("close") * factor).otherwise(pl.col("close"))
    )
    last = candles["open_time"].head(cut + 1).max()
    before, after = (
        label_by_barriers(frame, **policy).filter(pl.col("open_time") <= last).select(OUTCOME)
        for frame in (touching, changed)
    )
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(candles=troubles, policy=policies, power=st.integers(-20, 20))
def test_labels_do_not_depend_on_the_unit_of_price(candles, policy, power):
    # Powers of two, since any other unit rounds a price to the other side of a barrier at times.
    in_other_unit = candles.with_columns(pl.col(name) * 2.0**power for name in PRICES)
    assert_frame_equal(
        label_by_barriers(in_other_unit, **policy), label_by_barriers(candles, **policy)
    )


@settings(max_examples=25, deadline=None)
@given(candles=troubles, policy=policies, shift_s=st.integers(-(10**8), 10**8))
def test_labels_move_along_with_the_candles_times(candles, policy, shift_s):
    shift = timedelta(seconds=shift_s)
    moved = label_by_barriers(candles.with_columns(pl.col("open_time") + shift), **policy)
    assert_frame_equal(
        moved.with_columns(pl.col("open_time", "matures_at") - shift),
        label_by_barriers(candles, **policy),
        check_exact=True,
    )


@settings(max_examples=25, deadline=None)
@given(candles=markets, policy=policies)
def test_each_symbol_is_labelled_as_if_it_were_alone(candles, policy):
    together = label_by_barriers(candles, **policy)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        alone = label_by_barriers(candles.filter(symbol=symbol), **policy)
        assert_frame_equal(together.filter(symbol=symbol), alone, check_exact=True)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 100])
def test_a_long_history_is_labelled_in_blocks_without_a_seam(monkeypatch, block_rows):
    candles = make_candles(300).filter(~pl.int_range(pl.len()).is_in([130, 131]))
    policy = {"horizon_min": 9, "barrier_width": 1.0, "volatility_window_min": 20}
    whole = label_by_barriers(candles, **policy)
    assert whole.height == 101 + 139
    monkeypatch.setattr(minutes, "_BLOCK_ROWS", block_rows)
    assert_frame_equal(label_by_barriers(candles, **policy), whole, check_exact=True)


def test_a_horizon_of_more_minutes_than_a_byte_counts_is_no_different():
    policy = {"barrier_width": 50.0, "volatility_window_min": 5}
    candles = make_candles(400)
    labels = label_by_barriers(candles, horizon_min=300, **policy)
    assert (labels["matures_at"] - labels["open_time"]).unique().to_list() == [301 * MINUTE]
    assert labels.height == 400 - 300 - 5


def test_a_barrier_beyond_all_numbers_is_never_touched():
    labels = label_by_barriers(
        make_candles(40), horizon_min=5, barrier_width=1e9, volatility_window_min=5
    )
    assert (labels["matures_at"] - labels["open_time"]).unique().to_list() == [6 * MINUTE]


def test_a_market_that_stood_still_has_no_barriers():
    still = candles_of(*[(100.0, 100.0, 100.0)] * 6, *[(103.0, 101.0, 102.0)] * 6)
    labels = label_by_barriers(still, horizon_min=2, barrier_width=1.0, volatility_window_min=3)
    assert labels["open_time"].dt.minute().to_list() == [6, 7, 8]


@pytest.mark.parametrize("n", [0, 1, 12])
def test_too_few_candles_give_no_labels_in_the_table_s_form(n):
    labels = label_by_barriers(
        make_candles(n), horizon_min=5, barrier_width=1.0, volatility_window_min=7
    )
    assert labels.schema == LABELS.schema
    assert labels.is_empty()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon_min": 0}, "horizon is 0 minutes; set horizon_min to 1 or more"),
        ({"barrier_width": 0.0}, "barriers of width 0.0 .* set barrier_width above 0"),
        ({"barrier_width": math.inf}, "barriers of width inf"),
        ({"volatility_window_min": 0}, "a volatility of 0 minutes; .* volatility_window_min to 1"),
    ],
)
def test_barriers_that_cannot_be_set_are_refused(changes, message):
    policy = {"horizon_min": 5, "barrier_width": 1.0, "volatility_window_min": 5}
    with pytest.raises(ConfigurationError, match=message):
        label_by_barriers(make_candles(5), **(policy | changes))


@pytest.mark.parametrize("column", ["high", "low", "close"])
@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_a_price_without_a_logarithm_is_refused(column, price):
    bad = make_candles(5).with_columns(
        pl.when(pl.int_range(pl.len()) == 1).then(price).otherwise(pl.col(column)).alias(column)
    )
    with pytest.raises(DataError, match=rf"BTC/USDT: 1 {column}s .* at 2024-01-01 00:01 UTC"):
        label_by_barriers(bad, horizon_min=1, barrier_width=1.0, volatility_window_min=1)


@pytest.mark.real_data
@needs_real_candles
def test_labels_of_a_real_month_are_sane():
    candles = real_candles("2024-03")
    labels = label_by_barriers(candles, horizon_min=15, barrier_width=1.0, volatility_window_min=60)
    # The month has every minute: 60 warm the volatility up, the last 15 closes lack a horizon.
    assert labels.height == candles.height - 60 - 15
    assert (labels["direction"] == 1).mean() == pytest.approx(0.5, abs=0.02)
    lasted_min = (labels["matures_at"] - labels["open_time"]).dt.total_minutes() - 1
    assert (lasted_min.min(), lasted_min.max()) == (1, 15)
    # A random walk leaves +-1 standard deviation by the horizon in 63 % of cases. A market whose
    # volatility comes in bursts does so less often, since the calm after a burst is long.
    assert 0.4 < (lasted_min < 15).mean() < 0.63
    # Labels that end early overlap less than 15 others.
    assert 1 / 15 < average_uniqueness(labels).mean() < 2 / 15
