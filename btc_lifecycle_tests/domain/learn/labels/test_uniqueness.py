from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.labels import average_uniqueness, label_by_horizon
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle_tests import reference_labels
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)


def examples_of(
    spans: list[tuple[str, int, int]], *, offset: timedelta = timedelta()
) -> pl.DataFrame:
    """Return examples from symbol, minute of the own candle, and minutes that the label lasts."""
    rows = [
        (symbol, START + offset + at * MINUTE, START + offset + (at + 1 + lasts) * MINUTE)
        for symbol, at, lasts in spans
    ]
    schema = {"symbol": pl.String(), "open_time": UTC_TIME, "matures_at": UTC_TIME}
    return pl.DataFrame(rows, schema=schema, orient="row")


spans_of_two_symbols = st.lists(
    st.tuples(st.sampled_from(["BTC/USDT", "ETH/USDT"]), st.integers(-50, 50), st.integers(1, 30)),
    min_size=1,
    max_size=60,
)


def test_a_label_has_its_share_of_each_minute_that_it_covers():
    # The first two share minute 2; the third begins where the second ends; ETH is on its own.
    examples = examples_of([("BTC", 0, 2), ("BTC", 1, 2), ("BTC", 3, 1), ("ETH", 0, 9)])
    assert average_uniqueness(examples).tolist() == [0.75, 0.75, 1.0, 1.0]


@given(
    spans=spans_of_two_symbols,
    offset=st.sampled_from([timedelta(), timedelta(seconds=20, milliseconds=799)]),
)
def test_uniqueness_equals_the_slow_reference(spans, offset):
    examples = examples_of(spans, offset=offset)
    expected = reference_labels.uniqueness(examples)
    assert average_uniqueness(examples) == pytest.approx(expected, rel=1e-9)


@given(spans=spans_of_two_symbols, rng=st.randoms(use_true_random=False))
def test_uniqueness_follows_its_row_in_any_order(spans, rng):
    order = list(range(len(spans)))
    rng.shuffle(order)
    shuffled = average_uniqueness(examples_of([spans[i] for i in order]))
    assert np.array_equal(shuffled, average_uniqueness(examples_of(spans))[order])


@given(spans=spans_of_two_symbols)
def test_all_shares_together_are_the_minutes_that_any_label_covers(spans):
    shares = average_uniqueness(examples_of(spans)) * [lasts for _, _, lasts in spans]
    covered = {(symbol, at + 1 + i) for symbol, at, lasts in spans for i in range(lasts)}
    assert shares.sum() == pytest.approx(len(covered))


def test_a_label_a_minute_leaves_each_a_horizon_s_part():
    labels = label_by_horizon(make_candles(200), horizon_min=15)
    uniqueness = average_uniqueness(labels)
    assert uniqueness[14:-14] == pytest.approx(1 / 15)
    # The first minutes are covered by fewer.
    assert uniqueness[0] == pytest.approx(np.mean([1 / n for n in range(1, 16)]))


def test_no_examples_have_no_uniqueness():
    uniqueness = average_uniqueness(examples_of([]))
    assert uniqueness.dtype == np.float64
    assert uniqueness.shape == (0,)


def test_a_label_that_covers_no_minute_is_refused():
    examples = examples_of([("BTC", 0, 2), ("BTC", 3, 0), ("BTC", 9, 0)])
    with pytest.raises(DataError, match=r"BTC: 2 labels mature .* first at 2024-01-01 00:03 UTC"):
        average_uniqueness(examples)
