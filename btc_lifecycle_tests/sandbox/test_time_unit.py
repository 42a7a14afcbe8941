from __future__ import annotations

import json
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.sandbox.market import MINUTE_MS, as_ms
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle.sandbox.time_unit import (
    as_ms_down,
    as_ms_up,
    asks_for_microseconds,
    in_microseconds,
)
from btc_lifecycle_tests.reference_sandbox import all_rows
from btc_lifecycle_tests.sandbox.conftest import START

ROWS = all_rows(SyntheticMarket(start=START), "BTCUSDT", until_ms=as_ms(START) + 50 * MINUTE_MS)
IN_MICROSECONDS = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in ROWS]


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("MICROSECOND", True),
        ("microsecond", True),
        ("MILLISECOND", False),
        ("", False),
        (None, False),
    ],
)
def test_the_header_asks_for_microseconds_in_large_or_small_letters(unit, wanted):
    headers = Message()
    if unit is not None:
        headers["x-mbx-time-unit"] = unit
    assert asks_for_microseconds(headers) == wanted


def test_rows_get_longer_times_and_keep_all_else():
    text = json.dumps(ROWS, separators=(",", ":")).encode()
    assert json.loads(in_microseconds(text)) == IN_MICROSECONDS
    assert in_microseconds(in_microseconds(text)) == in_microseconds(text)


def test_lines_of_an_archive_file_do_so_too():
    def lines(rows):
        return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()

    assert in_microseconds(lines(ROWS)) == lines(IN_MICROSECONDS)


def test_a_servers_time_at_either_place_of_an_object_gets_longer():
    assert in_microseconds(b'{"serverTime":1767225599999}') == b'{"serverTime":1767225599999000}'
    assert in_microseconds(b'{"a":1767225599999,"b":[]}') == b'{"a":1767225599999000,"b":[]}'


def test_amounts_and_numbers_of_another_length_stay():
    for text in (b'[1,"1767225599999",12,14]', b"[176722559999,17672255999990]", b"", b"[]"):
        assert in_microseconds(text) == text


@given(us=st.integers(10**15, 10**16 - 1))
def test_sixteen_digits_are_microseconds_rounded_to_the_milliseconds_around_them(us):
    down, up = as_ms_down(str(us)), as_ms_up(str(us))
    assert 1000 * down <= us <= 1000 * up
    assert up - down == (us % 1000 > 0)


@given(ms=st.integers(0, 10**15 - 1) | st.integers(10**16, 10**20 - 1))
def test_any_other_number_of_digits_is_milliseconds(ms):
    assert as_ms_down(str(ms)) == as_ms_up(str(ms)) == ms
