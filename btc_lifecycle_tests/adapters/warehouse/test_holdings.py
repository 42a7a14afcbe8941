from __future__ import annotations

from datetime import timedelta

import pytest

from btc_lifecycle.adapters.warehouse.holdings import (
    NOTHING,
    gap_rows,
    open_times,
    range_rows,
    read_holdings,
    stretch_of,
)
from btc_lifecycle.adapters.warehouse.rows import create_tables, insert_rows
from btc_lifecycle.domain.ingest.gaps import Stretch, TrackedGap
from btc_lifecycle.domain.tables import CANDLES, UTC_TIME, CandleTables
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BTC = "BTC/USDT"
TABLES = CandleTables.named()
TRUTH = make_candles(20)


def stretch(first: int, end: int) -> Stretch:
    return Stretch(start=START + first * MINUTE, end=START + end * MINUTE)


def gap(first: int, end: int, *, tries: int = 0, due_in: timedelta | None = HOUR) -> TrackedGap:
    next_try_at = None if due_in is None else START + due_in
    return TrackedGap(
        stretch=stretch(first, end), first_seen_at=START, tries=tries, next_try_at=next_try_at
    )


@pytest.fixture
def connection():
    with MemoryWarehouse().connect() as connection:
        yield connection


@pytest.fixture
def stored(connection):
    """Twenty minutes, the third and the tenth to twelfth missing, two of the last never asked for."""
    create_tables(connection, vars(TABLES).values())
    insert_rows(connection, CANDLES, TRUTH[[0, 1, *range(3, 9), *range(12, 16), 18, 19]])
    fetched = (stretch(-5, 16), stretch(18, 20))
    insert_rows(connection, TABLES.ranges, range_rows(BTC, fetched))
    gaps = (gap(2, 3, tries=3, due_in=None), gap(9, 12, tries=1, due_in=2 * HOUR))
    insert_rows(connection, TABLES.gaps, gap_rows(BTC, gaps))
    return connection


def test_a_database_without_candles_holds_nothing(connection):
    assert read_holdings(connection, TABLES, symbol=BTC) == NOTHING


def test_what_is_held_is_told_with_its_story(stored):
    held = read_holdings(stored, TABLES, symbol=BTC)
    assert (held.n_rows, held.first_open_time) == (14, START)
    assert held.last_open_time == START + 19 * MINUTE
    assert held.gaps == (gap(2, 3, tries=3, due_in=None), gap(9, 12, tries=1, due_in=2 * HOUR))
    assert held.fetched == (stretch(-5, 16), stretch(18, 20))


def test_missing_minutes_are_gaps_and_those_never_asked_for_between_first_and_last(stored):
    assert read_holdings(stored, TABLES, symbol=BTC).n_missing_min == 1 + 3 + 2


def test_a_symbol_without_candles_has_what_was_asked_for_and_no_more(stored):
    insert_rows(stored, TABLES.ranges, range_rows("ETH/USDT", [stretch(0, 5)]))
    held = read_holdings(stored, TABLES, symbol="ETH/USDT")
    assert (held.n_rows, held.first_open_time, held.n_missing_min) == (0, None, 0)
    assert held.fetched == (stretch(0, 5),)


def test_a_gap_is_due_from_its_time_on_until_its_last_try(stored):
    held = read_holdings(stored, TABLES, symbol=BTC)
    assert held.due_gaps(now=START + 2 * HOUR - timedelta(microseconds=1)) == ()
    assert held.due_gaps(now=START + 2 * HOUR) == (stretch(9, 12),)
    assert held.due_gaps(now=START + 10**5 * HOUR) == (stretch(9, 12),)


def test_held_minutes_reach_from_the_first_to_the_last_also_off_the_grid():
    late = START + 24 * MINUTE + timedelta(seconds=20, milliseconds=799)
    assert stretch_of(START, late) == stretch(0, 25)
    assert stretch_of(START + 3 * MINUTE, START + 3 * MINUTE) == stretch(3, 4)


def test_open_times_within_a_stretch_leave_out_its_end(stored):
    times = open_times(stored, CANDLES, symbol=BTC, within=stretch(1, 4))
    assert times.dtype == UTC_TIME
    assert times.to_list() == [START + MINUTE, START + 3 * MINUTE]
    assert open_times(stored, CANDLES, symbol=BTC, within=stretch(9, 12)).is_empty()


@pytest.mark.parametrize("rows", [range_rows(BTC, []), gap_rows(BTC, [])])
def test_no_stretches_are_no_rows(rows):
    assert rows.is_empty()
