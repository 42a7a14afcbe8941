from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_lifecycle.sandbox.market import DAY_MS, MINUTE_MS, as_ms
from btc_lifecycle.sandbox.protocol import RefusedRequestError, answer, rows_text
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle_tests.reference_sandbox import all_rows, page

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = as_ms(START)
NOW_MS = as_ms(START + timedelta(days=3, hours=1))
MARKET = SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))
ROWS = all_rows(MARKET, "BTCUSDT", until_ms=NOW_MS)


def asked(path, *parameters, now_ms=NOW_MS):
    found = answer(path, parameters, market=MARKET, now_ms=now_ms, weight_limit_per_min=6000)
    return json.loads(found)


def klines(*, now_ms=NOW_MS, **more):
    parameters = {"symbol": "BTCUSDT", "interval": "1m"} | more
    given_ones = ((name, str(value)) for name, value in parameters.items() if value is not None)
    return asked("/api/v3/klines", *given_ones, now_ms=now_ms)


def refusal(path, *parameters):
    with pytest.raises(RefusedRequestError) as caught:
        asked(path, *parameters)
    assert json.loads(caught.value.to_json()) == {
        "code": caught.value.code,
        "msg": caught.value.msg,
    }
    return caught.value.status, caught.value.code, caught.value.msg


def klines_refusal(**changes):
    parameters = {"symbol": "BTCUSDT", "interval": "1m"} | changes
    given_ones = ((name, value) for name, value in parameters.items() if value is not None)
    return refusal("/api/v3/klines", *given_ones)


def test_without_times_the_newest_500_come_in_order():
    open_ms = [row[0] for row in klines()]
    assert open_ms == list(range(NOW_MS - 499 * MINUTE_MS, NOW_MS + 1, MINUTE_MS))


def test_with_a_start_the_oldest_from_there_come():
    assert [row[0] for row in klines(startTime=START_MS + 1, limit=2)] == [
        START_MS + MINUTE_MS,
        START_MS + 2 * MINUTE_MS,
    ]


def test_start_and_end_are_both_inclusive_by_open_time():
    start, end = START_MS + 5 * MINUTE_MS, START_MS + 7 * MINUTE_MS
    assert [row[0] for row in klines(startTime=start, endTime=end)] == [
        start,
        start + MINUTE_MS,
        end,
    ]
    assert [row[0] for row in klines(startTime=start, endTime=start)] == [start]
    assert klines(startTime=start + 1, endTime=start + 2) == []


def test_with_an_end_alone_the_newest_up_to_there_come():
    end = START_MS + 7 * MINUTE_MS
    assert [row[0] for row in klines(endTime=end, limit=2)] == [end - MINUTE_MS, end]


_TIMES = st.none() | st.integers(START_MS - DAY_MS, NOW_MS + DAY_MS)


@settings(max_examples=150, deadline=None)
@given(start_ms=_TIMES, end_ms=_TIMES, limit=st.integers(1, 1500))
def test_any_page_is_the_one_that_the_documentation_describes(start_ms, end_ms, limit):
    now_ms = NOW_MS - 1
    running = klines(limit=1, now_ms=now_ms)
    rows = [*(row for row in ROWS if row[6] < now_ms), *running]
    expected = page(rows, start_ms=start_ms, end_ms=end_ms, limit=limit)
    assert klines(startTime=start_ms, endTime=end_ms, limit=limit, now_ms=now_ms) == expected


def test_a_page_never_reaches_over_a_thousand_rows():
    assert len(klines(limit=99_999)) == 1000


def test_numbers_of_twenty_digits_are_legal_and_far_away():
    assert klines(startTime="9" * 20) == []
    assert klines(endTime="9" * 20, limit=1)[0][0] == NOW_MS
    assert klines(startTime=0, endTime=0) == []


def test_times_of_sixteen_digits_are_microseconds():
    start, end = START_MS + 5 * MINUTE_MS, START_MS + 7 * MINUTE_MS

    def opened(start_us, end_us):
        return [row[0] for row in klines(startTime=start_us, endTime=end_us)]

    assert opened(1000 * start, 1000 * end) == [start, start + MINUTE_MS, end]
    assert opened(1000 * start + 1, 1000 * end - 1) == [start + MINUTE_MS]
    assert opened(1000 * start, end) == [start, start + MINUTE_MS, end]


def test_all_finished_rows_of_a_stretch_are_one_text():
    first, last = START_MS + 1430 * MINUTE_MS, START_MS + 2900 * MINUTE_MS
    text = rows_text("BTCUSDT", market=MARKET, start_ms=first, end_ms=last)
    assert json.loads(b"[" + text + b"]") == ROWS[1430:2901]
    assert rows_text("BTCUSDT", market=MARKET, start_ms=0, end_ms=START_MS - 1) == b""


def test_the_last_row_runs_until_its_minute_is_over():
    opened = START_MS + 100 * MINUTE_MS
    final = ROWS[100]
    seen = [klines(limit=1, now_ms=opened + ms)[0] for ms in (0, 20_000, 40_000, 59_999)]
    volumes = [float(row[5]) for row in seen]
    assert volumes == sorted(set(volumes))
    assert len({row[4] for row in seen}) > 1
    for row in seen:
        assert (row[0], row[1], row[6]) == (final[0], final[1], final[6])
        assert float(final[3]) <= float(row[3]) <= float(row[2]) <= float(final[2])
    over = klines(limit=2, now_ms=opened + MINUTE_MS)
    assert over[0] == final
    assert over[1][0] == opened + MINUTE_MS


def test_the_market_has_nothing_before_its_start():
    assert klines(now_ms=START_MS - 1) == []
    assert len(klines(now_ms=START_MS)) == 1


@pytest.mark.parametrize("name", ["symbol", "interval"])
@pytest.mark.parametrize("value", [None, ""])
def test_symbol_and_interval_are_mandatory(name, value):
    assert klines_refusal(**{name: value}) == (
        400,
        -1102,
        f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
    )


def test_unknown_symbols_and_intervals_are_refused():
    assert klines_refusal(symbol="NOPEUSDT") == (400, -1121, "Invalid symbol.")
    assert klines_refusal(interval="7m") == (400, -1120, "Invalid interval.")
    assert klines_refusal(interval="1h") == (400, -1120, "Invalid interval.")


@pytest.mark.parametrize("name", ["startTime", "endTime", "limit"])
@pytest.mark.parametrize("value", ["-5", "abc", "1.5", "1" * 21, " 1", "٣"])
def test_malformed_numbers_are_refused(name, value):
    assert klines_refusal(**{name: value}) == (
        400,
        -1100,
        f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
    )


def test_empty_numbers_and_a_limit_of_zero_are_refused():
    assert klines_refusal(startTime="")[1:] == (-1105, "Parameter 'startTime' was empty.")
    assert klines_refusal(limit="0")[1] == -1130


def test_symbols_in_small_letters_have_illegal_characters():
    status, code, msg = klines_refusal(symbol="btcusdt")
    assert (status, code) == (400, -1100)
    assert msg.startswith("Illegal characters found in parameter 'symbol'; legal range is")


def test_unknown_doubled_and_too_many_parameters_are_refused():
    assert klines_refusal(start_time="1") == (
        400,
        -1104,
        "Not all sent parameters were read; read '2' parameter(s) but was sent '3'.",
    )
    five_unknown = {f"extra{i}": "1" for i in range(5)}
    assert klines_refusal(**five_unknown) == (
        400,
        -1101,
        "Too many parameters; expected '6' and received '7'.",
    )
    doubled = refusal(
        "/api/v3/klines", ("symbol", "BTCUSDT"), ("symbol", "BTCUSDT"), ("interval", "1m")
    )
    assert doubled == (400, -1101, "Duplicate values for a parameter detected.")


def test_a_time_zone_changes_nothing_about_minutes():
    for zone in ("0", "+05:30", "-12", "14:00", "-8:45"):
        assert klines(timeZone=zone, limit=2) == klines(limit=2)


@pytest.mark.parametrize("zone", ["", "15", "-12:01", "+14:30", "UTC", "1:99"])
def test_time_zones_that_are_none_are_refused(zone):
    assert klines_refusal(timeZone=zone)[1] == -1130


def test_ping_is_empty_and_time_is_the_clocks():
    assert asked("/api/v3/ping") == {}
    assert asked("/api/v3/time") == {"serverTime": NOW_MS}
    assert refusal("/api/v3/time", ("symbol", "BTCUSDT")) == (
        400,
        -1101,
        "Too many parameters; expected '0' and received '1'.",
    )


def names(*parameters):
    return [info["symbol"] for info in asked("/api/v3/exchangeInfo", *parameters)["symbols"]]


def test_exchange_info_lists_the_symbols_asked_for():
    assert names() == ["BTCUSDT", "ETHUSDT"]
    assert names(("symbol", "ETHUSDT")) == ["ETHUSDT"]
    assert names(("symbols", '["ETHUSDT","BTCUSDT"]')) == ["ETHUSDT", "BTCUSDT"]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ((("symbol", "NOPEUSDT"),), -1121),
        ((("symbols", "[]"),), -1121),
        ((("symbols", '["btcusdt"]'),), -1100),
        ((("symbol", "BTCUSDT"), ("symbols", '["BTCUSDT"]')), -1128),
        ((("ticker", "BTCUSDT"),), -1104),
        (tuple((f"extra{i}", "1") for i in range(6)), -1101),
    ],
)
def test_exchange_info_refuses_what_it_cannot_list(parameters, code):
    assert refusal("/api/v3/exchangeInfo", *parameters)[:2] == (400, code)
