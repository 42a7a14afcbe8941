from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.ingest.candles import (
    broken_rule,
    broken_stored_rule,
    closed_before,
    is_sound,
    without_impossible_zeros,
)
from btc_lifecycle.domain.tables import CANDLES, UTC_TIME
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.reference_ingest import (
    CARRIED,
    slow_broken_rule,
    slow_broken_stored_rule,
)

REAL = Path(__file__).parents[4] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"
MINUTE = timedelta(minutes=1)
MS, US = timedelta(milliseconds=1), timedelta(microseconds=1)
NAN = math.nan

SOUND = {
    "symbol": "BTC/USDT",
    "open_time": START,
    "open": 100.0,
    "high": 103.0,
    "low": 99.0,
    "close": 101.0,
    "volume": 8.0,
    "quote_volume": 800.0,
    "trades": 20,
    "taker_buy_base": 5.0,
    "taker_buy_quote": 500.0,
    "close_time": START + MINUTE - MS,
}


def rows(*changes: dict[str, object]) -> pl.DataFrame:
    """Return a sound row for each change, with the change made to it."""
    return pl.DataFrame(
        [{**SOUND, **change} for change in changes],
        schema={**CANDLES.schema, "close_time": UTC_TIME},
    )


def reasons(frame: pl.DataFrame) -> list[str | None]:
    return frame.select(reason=broken_rule())["reason"].to_list()


def soundness(frame: pl.DataFrame) -> list[bool]:
    return frame.select(sound=is_sound())["sound"].to_list()


BROKEN = [
    ({"open_time": None}, "a time is not in milliseconds or microseconds"),
    ({"close_time": None}, "a time is not in milliseconds or microseconds"),
    ({"close_time": START + MINUTE + US}, "it does not close within a minute"),
    ({"close_time": START}, "it does not close within a minute"),
    ({"close_time": START + 60 * MINUTE - MS}, "it does not close within a minute"),
    ({"open_time": START + MINUTE}, "it does not close within a minute"),
    *(
        ({name: value}, "a price is not a number")
        for name in ("open", "high", "low", "close")
        for value in (None, NAN, math.inf, -math.inf)
    ),
    *(
        ({name: value}, "a price is not positive")
        for name in ("open", "high", "low", "close")
        for value in (0.0, -1.0)
    ),
    ({"high": 100.999}, "the high is not the highest price"),
    ({"open": 103.001}, "the high is not the highest price"),
    ({"close": 103.001}, "the high is not the highest price"),
    ({"low": 103.001}, "the high is not the highest price"),
    ({"low": 100.001}, "the low is not the lowest price"),
    ({"open": 98.999}, "the low is not the lowest price"),
    ({"close": 98.999}, "the low is not the lowest price"),
    *(({"volume": value}, "the volume is not a number") for value in (None, NAN, math.inf)),
    ({"volume": -0.1}, "the volume is negative"),
    *(
        ({name: value}, "an amount is not a number")
        for name in ("quote_volume", "taker_buy_base", "taker_buy_quote")
        for value in (None, NAN, math.inf)
    ),
    ({"trades": None}, "an amount is not a number"),
    *(({name: -1}, "an amount is negative") for name in CARRIED),
    ({"taker_buy_base": 8.001}, "takers bought more than was traded"),
    ({"taker_buy_quote": 800.001}, "takers bought more than was traded"),
    ({"volume": 0.0}, "takers bought more than was traded"),
]


class TestRules:
    @pytest.mark.parametrize(("change", "reason"), BROKEN, ids=str)
    def test_a_row_against_a_rule_is_told_with_the_rule_in_words(self, change, reason):
        frame = rows({}, change, {})
        assert soundness(frame) == [True, False, True]
        assert reasons(frame) == [None, reason, None]

    @pytest.mark.parametrize(
        "change",
        [
            {"close_time": START + MINUTE - US},
            # The last candle before the outage of 2017-12-04, which off-grid ones follow.
            {"close_time": START + 20_798 * MS},
            # Zeros of a minute without a trade.
            {
                **dict.fromkeys(("open", "high", "low", "close"), 101.0),
                **dict.fromkeys(("volume", *CARRIED), 0),
            },
            {"taker_buy_base": 8.0, "taker_buy_quote": 800.0},
            # A sum of decimals may come out a hair above the whole.
            {"taker_buy_base": 8.0 * (1 + 5e-10), "taker_buy_quote": 800.0 * (1 + 5e-10)},
            {"volume": -0.0, "taker_buy_base": 0.0},
        ],
        ids=str,
    )
    def test_odd_rows_that_are_candles_are_sound(self, change):
        assert soundness(rows(change)) == [True]
        assert reasons(rows(change)) == [None]

    @pytest.mark.parametrize(
        ("length", "is_kept"),
        [
            (timedelta(0), False),
            (US, True),
            (MINUTE - MS, True),
            (MINUTE, True),
            (MINUTE + US, False),
            (-US, False),
        ],
    )
    @pytest.mark.parametrize(
        "off_grid", [timedelta(0), timedelta(milliseconds=20_799), US, MINUTE - US]
    )
    def test_a_candle_may_close_anywhere_within_a_minute(self, length, is_kept, off_grid):
        """Those of December 2017 and February 2018 do not last a whole minute, and are real."""
        opened = START + off_grid
        frame = rows({"open_time": opened, "close_time": opened + length})
        assert soundness(frame) == [is_kept]

    def test_of_many_broken_rules_the_first_is_told(self):
        """In the order of the columns: times, prices, volume, what only Binance carries."""
        order = list(dict.fromkeys(reason for _, reason in BROKEN))
        changes = {reason: change for change, reason in reversed(BROKEN)}
        changes["the high is not the highest price"] = {"high": 100.999}
        for first, later in pairwise(order):
            both = {**changes[later], **changes[first]}
            assert reasons(rows(both)) == [first]

    @given(
        changes=st.dictionaries(
            st.sampled_from([name for name in SOUND if isinstance(SOUND[name], float)]),
            st.sampled_from([None, NAN, math.inf, -1.0, 0.0, 99.0, 100.0, 103.0, 800.0, 1e300]),
        ),
        trades=st.sampled_from([None, -1, 0, 20]),
        open_time=st.sampled_from([None, START, START + US, START + 20_799 * MS]),
        length=st.sampled_from([-MS, timedelta(0), MS, MINUTE - MS, MINUTE - US, MINUTE, None]),
    )
    def test_they_are_what_judging_a_row_by_hand_says(self, changes, trades, open_time, length):
        close_time = None if length is None or open_time is None else open_time + length
        times = {"open_time": open_time, "close_time": close_time}
        row = {**SOUND, **changes, "trades": trades, **times}
        frame = rows(row)
        assert reasons(frame) == [slow_broken_rule(row)]
        assert soundness(frame) == [slow_broken_rule(row) is None]
        stored = frame.drop("close_time").select(reason=broken_stored_rule())["reason"]
        assert stored.to_list() == [slow_broken_stored_rule(row)]


class TestStoredCandles:
    @pytest.mark.parametrize("with_taker", [True, False])
    def test_plausible_candles_break_no_rule_with_and_without_what_binance_carries(
        self, with_taker: bool
    ):
        candles = make_candles(100, with_taker=with_taker)
        assert candles.select(reason=broken_stored_rule())["reason"].null_count() == 100

    @pytest.mark.parametrize(("change", "reason"), BROKEN, ids=str)
    def test_the_rules_of_prices_and_amounts_hold_for_them_too(self, change, reason):
        # Without a count of trades a source carries none of the four; times are not judged again.
        expected = None if set(change) & {"open_time", "close_time", "trades"} else reason
        if change == {"trades": -1}:
            expected = reason
        stored = rows(change).drop("close_time")
        assert stored.select(reason=broken_stored_rule())["reason"].to_list() == [expected]

    @pytest.mark.real_data
    @pytest.mark.parametrize("month", ["2017-12", "2021-04", "2021-08", "2023-03"])
    def test_the_real_series_breaks_none_with_its_oddities(self, month: str):
        path = REAL / f"{month}.parquet"
        if not path.exists():
            pytest.skip(f"no real candles at {path}")
        candles = pl.read_parquet(path)
        assert candles.filter(broken_stored_rule().is_not_null()).is_empty()


class TestWhatASourceDoesNotCarry:
    def test_it_is_missing_and_not_zero(self):
        """Zeros where something was traded would say that every trade of the minute was a sale."""
        absent = dict.fromkeys(CARRIED, 0)
        quiet = {**absent, "volume": 0.0}
        known = without_impossible_zeros(rows(absent, {}, quiet)).select(CARRIED)
        assert known.rows() == [(None,) * 4, (800.0, 20, 5.0, 500.0), (0.0, 0, 0.0, 0.0)]

    def test_the_rest_of_the_candle_stays_and_so_does_what_is_missing_already(self):
        frame = rows({"trades": 0}, dict.fromkeys(CARRIED))
        kept = without_impossible_zeros(frame)
        assert_frame_equal(kept.drop(CARRIED), frame.drop(CARRIED))
        assert kept.select(CARRIED).rows() == [(None,) * 4] * 2
        assert kept.schema == frame.schema


class TestClosing:
    @pytest.mark.parametrize("tick", [MS, US], ids=["milliseconds", "microseconds"])
    def test_a_candle_is_closed_once_the_exchange_is_past_its_last_tick(self, tick):
        frame = rows({"close_time": START + MINUTE - tick})
        assert closed_before(frame, now=START + MINUTE).height == 1
        assert closed_before(frame, now=START + MINUTE - tick).height == 0

    def test_one_that_says_it_closes_early_is_open_until_its_minute_is_over(self):
        """Off the grid a close time may be anything; values move until the minute ends."""
        opened = START + timedelta(seconds=20)
        frame = rows({"open_time": opened, "close_time": opened + timedelta(seconds=5)})
        assert closed_before(frame, now=opened + MINUTE - MS).is_empty()
        assert closed_before(frame, now=opened + MINUTE - MS + US).height == 1

    def test_closed_candles_have_the_tables_columns(self):
        assert closed_before(rows({}), now=START + MINUTE).schema == CANDLES.schema
        assert closed_before(rows({}), now=START).schema == CANDLES.schema

    @given(
        seconds=st.lists(st.integers(0, 600), max_size=20, unique=True),
        now=st.integers(0, 700_000).map(lambda ms: START + ms * MS),
    )
    def test_they_are_the_rows_that_ended_before_now_in_the_same_order(self, seconds, now):
        opened = [START + timedelta(seconds=second) for second in seconds]
        frame = rows(*({"open_time": time, "close_time": time + MINUTE - MS} for time in opened))
        closed = closed_before(frame, now=now)["open_time"].to_list()
        assert closed == [time for time in opened if time + MINUTE - MS < now]
