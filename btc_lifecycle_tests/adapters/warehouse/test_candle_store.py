from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import (
    BatchCounts,
    CandleBatch,
    CandleStore,
    Holdings,
    Warehouse,
)
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.gaps import Stretch, TrackedGap
from btc_lifecycle.domain.tables import CANDLE_QUARANTINE, CANDLES, CandleTables
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse
from btc_lifecycle_tests.reference_ingest import count_missing_minutes

MINUTE = timedelta(minutes=1)
BTC, ETH = "BTC/USDT", "ETH/USDT"
TRUTH = make_candles(60)
NOW = START + 60 * MINUTE
TABLES = CandleTables.named()
NONE_REJECTED = pl.DataFrame(
    schema={name: type_ for name, type_ in CANDLE_QUARANTINE.schema.items() if name != "seen_at"}
)


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), TABLES)


def minute(number: int) -> datetime:
    return START + number * MINUTE


def stretch(first: int, end: int) -> Stretch:
    return Stretch(start=minute(first), end=minute(end))


def batch(
    first: int, end: int, *, missing: set[int] = frozenset(), **changes: object
) -> CandleBatch:
    """Return the candles of minutes ``[first, end)`` as they came, without those missing."""
    kept = [number for number in range(first, end) if number not in missing]
    made = {
        "symbol": BTC,
        "candles": TRUTH[kept],
        "rejected": NONE_REJECTED,
        "asked": stretch(first, end),
        "now": NOW,
        "source": "binance",
    }
    return CandleBatch(**{**made, **changes})


def rejected(*texts: str, reason: str = "a price is not positive") -> pl.DataFrame:
    rows = [(BTC, text, minute(3), reason) for text in texts]
    return pl.DataFrame(rows, schema=NONE_REJECTED.schema, orient="row")


def with_volume(candles: pl.DataFrame, volume: float) -> pl.DataFrame:
    return candles.with_columns(volume=pl.lit(volume))


def gaps(store: CandleStore, *, symbol: str = BTC) -> list[tuple[int, int]]:
    """Return first and end minute of each gap, and hold the number of missing minutes to the table."""
    held = store.holdings(symbol)
    opened = store.warehouse.open_times(store.tables.candles, symbol=symbol)
    assert held.n_missing_min == count_missing_minutes(opened)
    return [
        ((gap.stretch.start - START) // MINUTE, (gap.stretch.end - START) // MINUTE)
        for gap in held.gaps
    ]


class TestCandles:
    def test_a_batch_is_stored_as_it_came(self, store: CandleStore):
        assert store.store(batch(0, 60)) == BatchCounts(n_new=60, n_revised=0, n_rejected=0)
        assert_frame_equal(store.warehouse.read(CANDLES), TRUTH)
        assert store.holdings(BTC) == Holdings(
            source="binance",
            n_rows=60,
            first_open_time=minute(0),
            last_open_time=minute(59),
            n_missing_min=0,
            gaps=(),
            fetched=(stretch(0, 60),),
        )

    def test_the_same_batch_again_changes_nothing(self, store: CandleStore):
        once = batch(0, 60, missing={7}, rejected=rejected("[1]"))
        store.store(once)
        before = [store.warehouse.read(table) for table in vars(TABLES).values()]
        assert store.store(once) == BatchCounts(n_new=0, n_revised=0, n_rejected=1)
        for table, rows in zip(vars(TABLES).values(), before, strict=True):
            assert_frame_equal(store.warehouse.read(table), rows)

    def test_a_revision_replaces_a_candle_and_the_old_values_are_kept(self, store: CandleStore):
        store.store(batch(0, 10))
        revised = pl.concat([TRUTH[2:5], with_volume(TRUTH[5:7], 1.5), TRUTH[7:12]])
        counts = store.store(batch(2, 12, candles=revised, now=NOW + MINUTE))
        assert counts == BatchCounts(n_new=2, n_revised=2, n_rejected=0)
        assert_frame_equal(store.warehouse.read(CANDLES), pl.concat([TRUTH[:2], revised]))
        old = TRUTH[5:7].with_columns(revised_at=pl.lit(NOW + MINUTE))
        assert_frame_equal(
            store.warehouse.read(TABLES.revisions), old.select(TABLES.revisions.schema.names())
        )

    def test_a_value_that_was_missing_or_goes_missing_is_a_revision(self, store: CandleStore):
        unknown = TRUTH[:1].with_columns(trades=pl.lit(None, dtype=pl.Int64))
        store.store(batch(0, 1, candles=unknown))
        assert store.store(batch(0, 1)).n_revised == 1
        assert store.store(batch(0, 1, candles=unknown, now=NOW + MINUTE)).n_revised == 1
        assert store.warehouse.read(TABLES.revisions)["trades"].to_list() == [
            None,
            TRUTH["trades"][0],
        ]

    def test_a_candle_revised_twice_while_the_clock_stands_keeps_its_first_values(
        self, store: CandleStore
    ):
        """Storing failed with an error of DuckDB: both revisions have the same key."""
        store.store(batch(0, 3))
        for volume in (1.5, 2.5):
            candles = with_volume(TRUTH[1:2], volume)
            assert store.store(batch(1, 2, candles=candles)).n_revised == 1
        assert store.warehouse.read(CANDLES)["volume"][1] == 2.5
        kept = store.warehouse.read(TABLES.revisions)
        assert kept["volume"].to_list() == [TRUTH["volume"][1]]

    def test_two_symbols_stand_beside_each_other(self, store: CandleStore):
        ether = make_candles(20, seed=1, symbol=ETH)
        store.store(batch(0, 60, missing={30}))
        store.store(batch(0, 20, symbol=ETH, candles=ether))
        assert store.holdings(ETH).n_rows == 20
        assert (gaps(store), gaps(store, symbol=ETH)) == ([(30, 31)], [])
        assert_frame_equal(store.warehouse.read(CANDLES, symbol=ETH), ether)

    def test_two_tables_of_candles_in_one_database_tell_each_its_own_story(
        self, store: CandleStore
    ):
        other = CandleStore(store.warehouse, CandleTables.named("minutes"))
        store.store(batch(0, 60, missing={30}))
        other.store(batch(10, 20))
        assert (gaps(store), gaps(other)) == ([(30, 31)], [])
        assert other.holdings(BTC).fetched == (stretch(10, 20),)

    def test_times_asked_for_in_another_zone_are_the_same_times(self, store: CandleStore):
        zone = timezone(timedelta(hours=-5))
        asked = Stretch(start=minute(0).astimezone(zone), end=minute(9).astimezone(zone))
        store.store(batch(0, 9, missing={4}, asked=asked, now=NOW.astimezone(zone)))
        assert store.holdings(BTC).fetched == (stretch(0, 9),)
        assert store.holdings(BTC).gaps[0].first_seen_at == NOW


class TestWholeOrNotAtAll:
    def test_candles_of_another_source_are_refused_and_none_is_mixed_in(self, store: CandleStore):
        store.store(batch(0, 10))
        with pytest.raises(DataError, match="source 'binance', these are from 'replay'"):
            store.store(batch(10, 20, source="replay"))
        assert store.holdings(BTC).n_rows == 10

    def test_a_source_with_a_quote_in_its_name_is_no_danger(self, store: CandleStore):
        store.store(batch(0, 1, source="it's"))
        store.store(batch(1, 2, source="it's"))
        assert store.holdings(BTC).source == "it's"

    def test_a_batch_that_fails_halfway_leaves_nothing(self, store: CandleStore):
        nameless = rejected("[1]").with_columns(reason=pl.lit(None, dtype=pl.String))
        with pytest.raises(DataError, match=r"missing values where none may be: \{'reason': 1\}"):
            store.store(batch(0, 60, rejected=nameless))
        assert store.holdings(BTC) == CandleStore(MemoryWarehouse(), TABLES).holdings(BTC)

    def test_a_table_with_other_columns_is_refused(self, store: CandleStore):
        with store.warehouse.connect() as connection:
            connection.execute("CREATE TABLE candle_gaps (symbol VARCHAR)")
        with pytest.raises(DataError, match="table candle_gaps has the columns symbol, this"):
            store.store(batch(0, 1))

    def test_without_a_file_nothing_is_stored_and_none_is_made(self, tmp_path: Path):
        store = CandleStore(Warehouse(tmp_path / "x.duckdb"), TABLES)
        assert store.holdings(BTC).n_rows == 0
        assert store.checksums(BTC) == {}
        assert not store.warehouse.path.exists()
        store.store(batch(0, 60, missing={7}))
        reopened = CandleStore(Warehouse(tmp_path / "x.duckdb"), TABLES)
        assert gaps(reopened) == [(7, 8)]

    def test_an_empty_answer_on_an_empty_database_says_nothing(self, store: CandleStore):
        counts = store.store(batch(0, 60, missing=set(range(60))))
        assert counts == BatchCounts(n_new=0, n_revised=0, n_rejected=0)
        assert store.holdings(BTC).fetched == ()
        assert gaps(store) == []


class TestRejectedRows:
    def test_they_go_to_quarantine_with_the_reason_and_their_minute_is_a_gap(
        self, store: CandleStore
    ):
        counts = store.store(batch(0, 9, missing={3}, rejected=rejected("[3,0]", "[4,0]")))
        assert counts == BatchCounts(n_new=8, n_revised=0, n_rejected=2)
        assert store.warehouse.read(TABLES.quarantine).to_dicts() == [
            {
                "symbol": BTC,
                "kline": text,
                "open_time": minute(3),
                "reason": "a price is not positive",
                "seen_at": NOW,
            }
            for text in ("[3,0]", "[4,0]")
        ]
        assert gaps(store) == [(3, 4)]

    def test_one_that_comes_again_is_kept_once_with_its_newest_time(self, store: CandleStore):
        store.store(batch(0, 9, missing={3}, rejected=rejected("[3,0]", "[3,0]")))
        store.store(batch(0, 9, missing={3}, rejected=rejected("[3,0]"), now=NOW + MINUTE))
        kept = store.warehouse.read(TABLES.quarantine)
        assert kept["seen_at"].to_list() == [NOW + MINUTE]


class TestGaps:
    def test_a_gap_is_recorded_to_the_minute(self, store: CandleStore):
        store.store(batch(0, 60, missing={10, 11, 30}))
        assert gaps(store) == [(10, 12), (30, 31)]
        assert store.holdings(BTC).gaps[0] == TrackedGap(
            stretch=stretch(10, 12),
            first_seen_at=NOW,
            tries=0,
            next_try_at=NOW + timedelta(hours=1),
        )

    def test_minutes_that_nobody_asked_for_are_missing_but_no_gap(self, store: CandleStore):
        store.store(batch(0, 10))
        store.store(batch(40, 60, missing={50}))
        assert gaps(store) == [(50, 51)]
        assert store.holdings(BTC).n_missing_min == 31
        assert store.holdings(BTC).fetched == (stretch(0, 10), stretch(40, 60))

    def test_what_is_asked_for_beyond_the_newest_candle_is_not_there_yet(self, store: CandleStore):
        store.store(batch(0, 20, missing={17, 18, 19}))
        assert store.holdings(BTC).fetched == (stretch(0, 17),)
        store.store(batch(17, 25, missing={17}))
        assert gaps(store) == [(17, 18)]

    def test_what_is_asked_for_in_vain_before_the_oldest_candle_becomes_a_gap_with_an_older_one(
        self, store: CandleStore
    ):
        store.store(batch(10, 30, missing=set(range(10, 15))))
        assert gaps(store) == []
        store.store(batch(0, 5))
        assert gaps(store) == [(10, 15)]
        assert store.holdings(BTC).n_missing_min == 10

    def test_a_gap_heals_wholly_or_in_part(self, store: CandleStore):
        store.store(batch(0, 60, missing={10, 11, 12, 30}))
        assert store.store(batch(5, 15, missing={10, 12})).n_new == 1
        assert gaps(store) == [(10, 11), (12, 13), (30, 31)]
        store.store(batch(0, 60))
        assert gaps(store) == []

    def test_it_is_tried_after_an_hour_a_day_and_a_week_and_then_no_more(self, store: CandleStore):
        now, hole = NOW, {"first": 10, "end": 12, "missing": {10, 11}}
        store.store(batch(0, 60, missing={10, 11}))
        for tries, wait in enumerate(
            (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)), start=1
        ):
            early = now + wait - timedelta(milliseconds=1)
            assert store.holdings(BTC).due_gaps(now=early) == ()
            store.store(batch(**hole, now=early))
            assert store.holdings(BTC).gaps[0].tries == tries - 1
            now += wait
            assert store.holdings(BTC).due_gaps(now=now) == (stretch(10, 12),)
            store.store(batch(**hole, now=now))
        (gap,) = store.holdings(BTC).gaps
        assert (gap.first_seen_at, gap.tries, gap.next_try_at) == (NOW, 3, None)
        assert store.holdings(BTC).due_gaps(now=now + timedelta(days=3650)) == ()

    def test_a_candle_off_the_grid_stands_for_its_minute(self, store: CandleStore):
        late = TRUTH.with_columns(pl.col("open_time") + timedelta(seconds=20, milliseconds=799))
        store.store(batch(0, 60, candles=late[:60]))
        assert gaps(store) == []
        both = pl.concat([TRUTH[:1], late[:1], TRUTH[2:3]])
        store.store(batch(0, 3, candles=both))
        assert gaps(store) == []
        assert store.holdings(BTC).n_rows == 62

    @settings(max_examples=10)
    @given(
        missing=st.sets(st.integers(0, 59), max_size=40),
        asked=st.lists(
            st.tuples(st.integers(0, 59), st.integers(1, 30), st.booleans()), min_size=1, max_size=5
        ),
    )
    def test_gaps_are_the_minutes_asked_for_between_first_and_last_in_any_order(
        self, missing: set[int], asked: list[tuple[int, int, bool]]
    ):
        store = CandleStore(MemoryWarehouse(), TABLES)
        wanted, present = set[int](), set[int]()
        for first, length, is_file in asked:
            numbers = range(first, min(first + length, 60))
            # A file of the archive has some minutes that the exchange has not, and lacks others.
            lacking = {number for number in range(60) if number % 7 < 2} if is_file else missing
            store.store(batch(numbers[0], numbers[-1] + 1, missing=lacking, stored_wins=is_file))
            present |= set(numbers) - lacking
            if is_file:
                wanted |= set(numbers) - lacking
            elif present:
                # Minutes after the newest candle are not there yet.
                wanted |= {number for number in numbers if number <= max(present)}
            found = {number for one in gaps(store) for number in range(*one)}
            assert found == {number for number in wanted - present if number > min(present)}


class TestEarlierVersion:
    """A database that only has the table of candles."""

    def adopted(self, store: CandleStore, *, missing: set[int]) -> CandleStore:
        kept = [number for number in range(40) if number not in missing]
        store.warehouse.upsert(CANDLES, TRUTH[kept], source="binance")
        return store

    def test_all_of_it_was_asked_for_and_its_gaps_are_found(self, store: CandleStore):
        held = self.adopted(store, missing={0, 5, 6, 20}).holdings(BTC)
        assert held.fetched == (stretch(1, 40),)
        assert (held.n_rows, held.source) == (36, "binance")
        assert gaps(store) == [(5, 7), (20, 21)]
        assert held.due_gaps(now=NOW + timedelta(hours=1)) == (stretch(5, 7), stretch(20, 21))

    def test_the_first_batch_writes_its_story_down(self, store: CandleStore):
        self.adopted(store, missing={5, 6})
        store.store(batch(35, 60, missing={50}))
        assert gaps(store) == [(5, 7), (50, 51)]
        assert store.holdings(BTC).fetched == (stretch(0, 60),)
        assert store.warehouse.count(TABLES.gaps) == 2

    def test_another_symbol_beside_it_begins_afresh(self, store: CandleStore):
        self.adopted(store, missing={5, 6})
        store.store(batch(0, 9, symbol=ETH, candles=make_candles(9, symbol=ETH)))
        assert (gaps(store), gaps(store, symbol=ETH)) == ([(5, 7)], [])


class TestArchiveFiles:
    NAME = "BTCUSDT-1m-2024-01.zip"

    def test_what_is_stored_stays_and_the_differences_are_told(self, store: CandleStore):
        store.store(batch(0, 10))
        differing = pl.concat([TRUTH[:3], with_volume(TRUTH[3:5], 1.5), TRUTH[5:20]])
        counts = store.store(batch(0, 20, candles=differing, stored_wins=True))
        assert counts == BatchCounts(
            n_new=10, n_revised=0, n_rejected=0, differing=(minute(3), minute(4))
        )
        assert_frame_equal(store.warehouse.read(CANDLES), TRUTH[:20])
        assert store.warehouse.count(TABLES.revisions) == 0

    def test_a_file_is_remembered_and_one_issued_again_takes_its_place(self, store: CandleStore):
        assert store.checksums(BTC) == {}
        facts = {"name": self.NAME, "n_rows": 20, "n_differing": 2, "now": NOW}
        for sha256 in ("ab" * 32, "cd" * 32):
            store.remember_file(BTC, sha256=sha256, **facts)
        assert store.checksums(BTC) == {self.NAME: "cd" * 32}
        assert store.checksums(ETH) == {}
        assert store.warehouse.read(TABLES.archive_files).rows() == [
            (BTC, self.NAME, "cd" * 32, 20, 2, NOW)
        ]

    def test_what_a_file_lacks_was_not_asked_for_and_is_missing(self, store: CandleStore):
        """It counted as asked for, and the exchange was never asked for it."""
        store.store(batch(0, 20, missing={0, 1, 7}, stored_wins=True))
        assert gaps(store) == []
        held = store.holdings(BTC)
        assert (held.fetched, held.n_missing_min) == ((stretch(2, 7), stretch(8, 20)), 1)

    def test_what_the_exchange_lacked_before_is_a_gap_once_a_file_has_an_older_candle(
        self, store: CandleStore
    ):
        """It was neither a gap nor missing, as no minute between two candles may be."""
        store.store(batch(0, 30, missing=set(range(10))))
        store.store(batch(0, 30, missing=set(range(5, 10)), stored_wins=True))
        assert gaps(store) == [(5, 10)]

    def test_a_file_heals_gaps(self, store: CandleStore):
        store.store(batch(0, 20, missing={5, 6, 7}))
        store.store(batch(0, 20, missing={6}, stored_wins=True))
        assert gaps(store) == [(6, 7)]
