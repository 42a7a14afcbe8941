from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.sandbox.bad_rows import ROW_KINDS, spoil_rows
from btc_lifecycle.sandbox.faults import FaultKind
from btc_lifecycle.sandbox.market import MINUTE_MS, as_ms
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle_tests.reference_sandbox import all_rows, broken_rules
from btc_lifecycle_tests.sandbox.conftest import START

START_MS = as_ms(START)
ROWS = all_rows(SyntheticMarket(start=START), "BTCUSDT", until_ms=START_MS + 1000 * MINUTE_MS)
NOW_MS = START_MS + 9 * MINUTE_MS + 20_000
PAGE = ROWS[:10]

ONE_ROW = {
    FaultKind.SHORT_ROW: PAGE[5][:6],
    FaultKind.EXTRA_FIELD: [*PAGE[5], "0"],
    FaultKind.WRONG_TYPE: [*PAGE[5][:4], "abc", *PAGE[5][5:]],
    FaultKind.NAN: [*PAGE[5][:4], "NaN", *PAGE[5][5:]],
    FaultKind.NULL_FIELD: [*PAGE[5][:4], None, *PAGE[5][5:]],
    FaultKind.NESTED: [*PAGE[5][:4], [PAGE[5][4]], *PAGE[5][5:]],
    FaultKind.ZERO_PRICE: [*PAGE[5][:3], "0.00000000", *PAGE[5][4:]],
    FaultKind.NEGATIVE_COUNT: [*PAGE[5][:8], -1, *PAGE[5][9:]],
    FaultKind.WRONG_CLOSE_TIME: [*PAGE[5][:6], PAGE[5][0] + 3_599_999, *PAGE[5][7:]],
}
BREAKS_A_RULE = {
    FaultKind.ZERO_PRICE: "low is not the lowest",
    FaultKind.HIGH_BELOW_LOW: "high is not the highest",
    FaultKind.NEGATIVE_VOLUME: "no volume",
    FaultKind.NEGATIVE_COUNT: "no trades",
    FaultKind.TAKER_ABOVE_VOLUME: "takers bought more than was traded",
    FaultKind.WRONG_CLOSE_TIME: "close time",
}


def spoilt(kind, rows=PAGE):
    return spoil_rows(rows, kind=kind, now_ms=NOW_MS)


@pytest.mark.parametrize(("kind", "row"), ONE_ROW.items())
def test_the_row_in_the_middle_is_bad_and_its_neighbours_are_whole(kind, row):
    assert spoilt(kind) == [*PAGE[:5], row, *PAGE[6:]]


@pytest.mark.parametrize(("kind", "rule"), BREAKS_A_RULE.items())
def test_one_row_breaks_a_rule_that_all_others_keep(kind, rule):
    broken = [broken_rules(row) for row in spoilt(kind)]
    assert rule in broken[5]
    assert [*broken[:5], *broken[6:]] == [[]] * 9


@pytest.mark.parametrize(("n_rows", "n_bad"), [(2, 2), (10, 3), (100, 3), (500, 15), (1000, 30)])
def test_three_percent_of_the_rows_or_three_are_bad(n_rows, n_bad):
    broken = [broken_rules(row) for row in spoilt(FaultKind.MANY_BAD_ROWS, ROWS[:n_rows])]
    assert sum("high is not the highest" in rules for rules in broken) == n_bad


def test_rows_out_of_order_are_the_same_rows():
    assert spoilt(FaultKind.UNORDERED) != PAGE
    assert sorted(spoilt(FaultKind.UNORDERED)) == PAGE
    assert spoilt(FaultKind.REVERSED) == PAGE[::-1]


def test_doubled_rows_come_twice_each():
    assert spoilt(FaultKind.DUPLICATE) == [row for row in PAGE for _ in range(2)]


def test_half_a_page_is_its_older_half_and_never_empty():
    assert spoilt(FaultKind.HALF_PAGE) == PAGE[:5]
    assert spoilt(FaultKind.HALF_PAGE, PAGE[:1]) == PAGE[:1]


@pytest.mark.parametrize(
    ("n_rows", "kept"),
    [(1, [0]), (2, [0, 1]), (3, [0, 2]), (5, [0, 4]), (10, [0, 1, 3, 4, 6, 8, 9])],
)
def test_holes_are_inside_the_page(n_rows, kept):
    assert spoilt(FaultKind.HOLES, PAGE[:n_rows]) == [PAGE[i] for i in kept]


def test_an_empty_list_stands_for_rows_that_exist():
    assert spoilt(FaultKind.OK_EMPTY) == []


def test_an_early_snapshot_differs_in_the_last_three_closed_rows_and_breaks_no_rule():
    early = spoilt(FaultKind.REVISED)
    assert [early[i] == PAGE[i] for i in range(10)] == [True] * 6 + [False] * 3 + [True]
    for true, told in zip(PAGE[6:9], early[6:9], strict=True):
        assert float(told[5]) == pytest.approx(0.9 * float(true[5]))
        assert float(told[4]) <= float(true[4])
        assert [told[i] for i in (0, 1, 2, 3, 6, 8)] == [true[i] for i in (0, 1, 2, 3, 6, 8)]
        assert set(broken_rules(told)) <= {"price is off the tick", "quote volume does not fit"}


def test_a_row_from_the_future_opens_after_the_servers_time():
    *rows, future = spoilt(FaultKind.FUTURE_ROW)
    assert rows == PAGE
    assert future[0] == START_MS + 14 * MINUTE_MS
    assert "close time" not in broken_rules(future)


@given(kind=st.sampled_from(sorted(ROW_KINDS)), n_rows=st.integers(0, 30))
def test_the_page_given_is_left_alone_and_an_empty_one_stays_empty(kind, n_rows):
    rows = deepcopy(ROWS[:n_rows])
    found = spoilt(kind, rows)
    assert rows == ROWS[:n_rows]
    if n_rows == 0:
        assert found == []
