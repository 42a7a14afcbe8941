from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import (
    MINUTE_MS,
    BlockCache,
    Kline,
    KlineBlock,
    as_datetime,
    as_ms,
    split_symbol,
)

KLINE = Kline(
    open_ms=6_000_000,
    open=100.0,
    high=106.0,
    low=94.0,
    close=103.0,
    volume=10.0,
    quote_volume=1000.0,
    trades=30,
    taker_buy_base=4.0,
    taker_buy_quote=400.0,
)


def block_of(n_rows):
    values = np.arange(n_rows, dtype=float)
    columns = [values + 1, values + 2, values, values + 1.5, values, values]
    columns += [np.arange(n_rows), values, values]
    return KlineBlock(MINUTE_MS * np.arange(n_rows, dtype=np.int64), columns=columns)


def test_a_row_reads_as_the_exchange_writes_it():
    assert KLINE.to_json() == (
        '[6000000,"100.00000000","106.00000000","94.00000000","103.00000000","10.00000000",'
        '6059999,"1000.00000000",30,"4.00000000","400.00000000","0"]'
    )


def test_a_running_minute_walks_from_the_open_over_both_extremes_to_the_close():
    """A rising minute: open 100, low 94 at 20 s, high 106 at 40 s, close 103 at 60 s."""

    def at(second):
        running = KLINE.so_far(now_ms=KLINE.open_ms + 1000 * second)
        return running.high, running.low, running.close, running.volume, running.trades

    assert at(0) == (100.0, 100.0, 100.0, 0.0, 0)
    assert at(10) == (100.0, 97.0, 97.0, pytest.approx(10 / 6, abs=1e-5), 5)
    assert at(30) == (100.0, 94.0, 100.0, 5.0, 15)
    assert at(50) == (106.0, 94.0, 104.5, pytest.approx(50 / 6, abs=1e-5), 25)
    assert at(60) == (106.0, 94.0, 103.0, 10.0, 30)


@given(
    ms=st.integers(-1000, 70_000),
    prices=st.lists(st.integers(1, 20_000), min_size=4, max_size=4),
    taker_share=st.floats(0, 1),
)
def test_a_running_minute_is_a_consistent_kline_inside_the_finished_one(ms, prices, taker_share):
    low, *middle, high = sorted(price / 100 for price in prices)
    final = Kline(
        open_ms=0,
        open=middle[0],
        high=high,
        low=low,
        close=middle[1],
        volume=3.0,
        quote_volume=3.0 * (low + high) / 2,
        trades=9,
        taker_buy_base=round(3.0 * taker_share, 5),
        taker_buy_quote=round(3.0 * taker_share, 5) * (low + high) / 2,
    )
    running = final.so_far(now_ms=ms)
    assert low <= running.low <= min(running.open, running.close)
    assert max(running.open, running.close) <= running.high <= high
    assert 0 <= running.taker_buy_base <= running.volume <= final.volume
    assert running.low * running.volume <= running.quote_volume + 1e-9
    assert running.quote_volume <= running.high * running.volume + 1e-9


def test_a_minute_without_quote_volumes_runs_without_them():
    absent = Kline(**(vars(KLINE) | {"quote_volume": 0.0, "taker_buy_quote": 0.0}))
    assert absent.so_far(now_ms=KLINE.open_ms + 30_000).quote_volume == 0.0


def test_a_minute_without_trades_runs_flat():
    flat = Kline(**(vars(KLINE) | {"volume": 0.0, "taker_buy_base": 0.0, "trades": 0}))
    running = flat.so_far(now_ms=KLINE.open_ms + 30_000)
    assert (running.volume, running.quote_volume, running.trades) == (0.0, 0.0, 0)


@given(n_rows=st.integers(1, 30), data=st.data())
def test_cut_text_equals_the_rows_written_one_by_one(n_rows, data):
    block = block_of(n_rows)
    first = data.draw(st.integers(0, n_rows - 1))
    end = data.draw(st.integers(first + 1, n_rows))
    written = [json.loads(block.kline(row).to_json()) for row in range(first, end)]
    assert json.loads(b"[" + block.rows_text(first, end) + b"]") == written
    assert len(block) == n_rows


@given(n_rows=st.integers(1, 30), volume=st.integers(0, 10**9), data=st.data())
def test_a_row_written_anew_changes_no_other_row_nor_the_block_it_came_from(n_rows, volume, data):
    block = block_of(n_rows)
    before = block.rows_text(0, n_rows)
    row = data.draw(st.integers(0, n_rows - 1))
    told = replace(block.kline(row), volume=float(volume))
    changed = block.with_kline(row, told)
    rows = json.loads(b"[" + before + b"]")
    rows[row] = json.loads(told.to_json())
    assert json.loads(b"[" + changed.rows_text(0, n_rows) + b"]") == rows
    assert [json.loads(changed.rows_text(i, i + 1)) for i in range(n_rows)] == rows
    assert block.rows_text(0, n_rows) == before


def test_the_cache_keeps_the_blocks_used_last():
    made = []

    def get(key):
        return cache.get(key, make=lambda: made.append(key) or block_of(1))

    cache = BlockCache(capacity=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    cache.clear()
    get("b")
    assert made[-1] == "b"
    assert len(made) == 5


def test_symbols_split_into_base_and_quote():
    assert split_symbol("BTCUSDT") == ("BTC", "USDT")
    assert split_symbol("ETHBTC") == ("ETH", "BTC")


@pytest.mark.parametrize("symbol", ["", "USDT", "btcusdt", "BTC/XYZ", "months"])
def test_names_that_are_no_symbols_are_refused(symbol):
    with pytest.raises(ConfigurationError, match="no symbol that the sandbox exchange can list"):
        split_symbol(symbol)


@given(ms=st.integers(0, 4_000_000_000_000))
def test_times_round_trip_through_milliseconds(ms):
    assert as_ms(as_datetime(ms)) == ms


def test_milliseconds_are_rounded_down():
    assert as_ms(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1999
