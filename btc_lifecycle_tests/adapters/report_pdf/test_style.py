from __future__ import annotations

import math
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.report_pdf.style import (
    amount,
    badge_of,
    count,
    duration,
    number,
    percent,
    price,
    source_line,
    symbol_units,
    thin,
    utc,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(1234567.891), "1,234,567.89"),
        (number(-0.5, decimals=1), "\N{MINUS SIGN}0.5"),
        (number(3, is_signed=True, decimals=0), "+3"),
        (number(-0.001, is_signed=True), "0.00"),
        (number(None), "\N{EN DASH}"),
        (number(math.nan), "\N{EN DASH}"),
        (amount(0.00123456), "0.0012346"),
        (amount(408432.865, digits=7), "408,432.9"),
        (amount(0.0), "0"),
        (amount(math.inf), "\N{EN DASH}"),
        (price(61130.98), "61,130.98"),
        (price(0.0712), "0.071200"),
        (percent(0.125), "12.50 %"),
        (percent(None), "\N{EN DASH}"),
        (count(43200), "43,200"),
        (count(None), "\N{EN DASH}"),
        (duration(270), "4 h 30 min"),
        (duration(1440), "1 d"),
        (duration(0), "0 min"),
        (utc(None), "\N{EN DASH}"),
        (utc(datetime(2024, 2, 29, 23, 59, tzinfo=UTC)), "2024-02-29 23:59"),
        (utc(datetime(2017, 12, 4, 6, 0, 20, 799000, tzinfo=UTC)), "2017-12-04 06:00:20"),
    ],
)
def test_values_are_written_with_separators_true_minus_and_dashes(text: str, expected: str):
    assert text == expected


def test_only_made_up_or_replayed_data_bear_a_badge():
    assert badge_of("synthetic") == "SYNTHETIC DATA"
    assert badge_of("replay") == "REPLAYED DATA"
    assert badge_of("binance") == ""
    assert source_line("binance") == "Source: binance"
    assert "synthetic market" in source_line("synthetic")


def test_units_come_from_the_symbol_where_it_names_them():
    assert symbol_units("BTC/USDT") == ("BTC", "USDT")
    assert symbol_units("BTC/USDT:USDT") == ("BTC", "USDT")
    assert symbol_units("BTCUSDT") == ("", "")


@given(n_rows=st.integers(0, 300), max_rows=st.integers(1, 60))
def test_thinned_rows_keep_order_bound_and_the_newest(n_rows: int, max_rows: int):
    frame = pl.DataFrame({"row": list(range(n_rows))}, schema={"row": pl.Int64})
    thinned = thin(frame, max_rows=max_rows)["row"].to_list()
    assert len(thinned) <= max_rows
    assert thinned == sorted(thinned)
    assert thinned[-1:] == frame["row"].to_list()[-1:]
