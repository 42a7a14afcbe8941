from __future__ import annotations

import math
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.ingest.revisions import compare
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)
VALUES = [name for name in CANDLES.schema if name not in CANDLES.key]


def changed(candles: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    """Return candles with other values in one row."""
    is_row = pl.int_range(pl.len()) == row
    return candles.with_columns(
        pl.when(is_row).then(pl.lit(value, dtype=CANDLES.schema[name])).otherwise(name).alias(name)
        for name, value in values.items()
    )


class TestComparing:
    def test_incoming_candles_are_new_revised_or_known(self):
        candles = make_candles(6)
        stored, incoming = candles[:4], changed(candles[1:], 1, close=1.5, trades=7)
        found = compare(incoming, stored=stored)
        assert_frame_equal(found.new, incoming[3:])
        assert_frame_equal(found.revised, incoming[1:2])
        assert_frame_equal(found.replaced, stored[2:3])

    def test_what_is_stored_already_is_in_none_of_them(self):
        stored = make_candles(5)
        found = compare(stored[1:3], stored=stored)
        assert (found.new.height, found.revised.height, found.replaced.height) == (0, 0, 0)

    def test_into_an_empty_store_everything_is_new(self):
        incoming = make_candles(3)
        found = compare(incoming, stored=incoming.clear())
        assert_frame_equal(found.new, incoming)
        assert found.revised.is_empty()
        assert found.replaced.is_empty()

    def test_nothing_comes_of_nothing(self):
        found = compare(make_candles(0), stored=make_candles(3))
        assert found.new.is_empty()
        assert found.revised.is_empty()

    @pytest.mark.parametrize("name", VALUES)
    def test_a_change_of_any_value_is_a_revision(self, name: str):
        stored = make_candles(3)
        incoming = stored.with_columns(pl.col(name) + 1)
        found = compare(incoming, stored=stored)
        assert_frame_equal(found.revised, incoming)
        assert_frame_equal(found.replaced, stored)

    @pytest.mark.parametrize("name", ["quote_volume", "trades", "taker_buy_base"])
    def test_a_value_that_comes_or_goes_is_a_revision_and_one_that_stays_missing_is_none(
        self, name: str
    ):
        whole = make_candles(2)
        holed = changed(whole, 1, **{name: None})
        assert_frame_equal(compare(whole, stored=holed).replaced, holed[1:])
        assert_frame_equal(compare(holed, stored=whole).revised, holed[1:])
        assert compare(holed, stored=holed).revised.is_empty()

    def test_the_last_bit_of_a_number_counts(self):
        stored = make_candles(1)
        up = changed(stored, 0, close=math.nextafter(stored["close"][0], math.inf))
        assert compare(up, stored=stored).revised.height == 1

    def test_candles_of_another_symbol_or_another_millisecond_are_others(self):
        stored = make_candles(2, symbol="BTC/USDT")
        other = make_candles(2, symbol="ETH/USDT")
        shifted = stored.with_columns(pl.col("open_time") + timedelta(milliseconds=1))
        for incoming in (other, shifted):
            found = compare(incoming, stored=stored)
            assert_frame_equal(found.new, incoming)
            assert found.revised.is_empty()

    def test_all_parts_have_the_tables_columns(self):
        found = compare(make_candles(3, seed=1), stored=make_candles(2))
        assert found.new.schema == CANDLES.schema
        assert found.revised.schema == CANDLES.schema
        assert found.replaced.schema == CANDLES.schema

    @given(
        stored=st.dictionaries(st.integers(0, 12), st.sampled_from([1.0, 2.0, None])),
        incoming=st.dictionaries(st.integers(0, 12), st.sampled_from([1.0, 2.0, None])),
    )
    def test_it_is_what_comparing_two_dictionaries_says(self, stored, incoming):
        new = [minute for minute in incoming if minute not in stored]
        revised = [
            minute
            for minute, value in incoming.items()
            if minute in stored and stored[minute] != value
        ]
        found = compare(candles_of(incoming), stored=candles_of(stored))
        assert_frame_equal(found.new, candles_of({minute: incoming[minute] for minute in new}))
        assert_frame_equal(
            found.revised, candles_of({minute: incoming[minute] for minute in revised})
        )
        assert_frame_equal(
            found.replaced, candles_of({minute: stored[minute] for minute in revised})
        )

    @given(
        stored=st.dictionaries(st.integers(0, 12), st.floats(1, 3)),
        incoming=st.dictionaries(st.integers(0, 12), st.floats(1, 3)),
    )
    def test_once_stored_nothing_of_it_is_new_or_revised(self, stored, incoming):
        merged = candles_of({**stored, **incoming})
        found = compare(candles_of(incoming), stored=merged)
        assert found.new.is_empty()
        assert found.revised.is_empty()


def candles_of(quote_volumes: dict[int, float | None]) -> pl.DataFrame:
    """Return a candle for each minute, all alike but for one value, in the order given."""
    pattern = make_candles(1).row(0, named=True)
    return pl.DataFrame(
        [
            {**pattern, "open_time": START + minute * MINUTE, "quote_volume": value}
            for minute, value in quote_volumes.items()
        ],
        schema=CANDLES.schema,
    )
