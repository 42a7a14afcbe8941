from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleStore, Warehouse
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.ingestion import (
    MOST_GAPS,
    IngestionStats,
    backfill,
    ingest_new,
    n_minutes_to_fetch,
)
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.market import as_ms
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.settings import IngestSettings
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse
from btc_lifecycle_tests.orchestration.fake_exchange import (
    BTC,
    ETH,
    MINUTE,
    FakeExchange,
    HoledMarket,
    candles_of,
    kline,
    minutes,
    without_high,
)
from btc_lifecycle_tests.reference_ingest import count_missing_minutes

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=3, hours=2, minutes=7, seconds=20)
THIS_MINUTE = NOW.replace(second=0)
KLINES, TIME = "/api/v3/klines", "/api/v3/time"
TABLES = CandleTables.named()


@pytest.fixture
def market() -> HoledMarket:
    return HoledMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))


@pytest.fixture
def server(market: HoledMarket) -> Iterator[SandboxExchange]:
    with SandboxExchange(market, SandboxClock(NOW, 0), weight_limit_per_min=10**6) as running:
        yield running


@pytest.fixture
def exchange(server: SandboxExchange, tmp_path: Path) -> Exchange:
    pace = Pace(tmp_path / "exchange", limit_per_min=10**6)
    return Exchange("binance", base_urls=(server.url,), pace=pace)


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), TABLES)


def ingest(exchange: Exchange, store: CandleStore, **changes: object) -> IngestionStats:
    """Ingest one symbol; hold the figures to the table."""
    (stats,) = ingest_new(exchange, store, settings=IngestSettings(**changes)).stats
    opened = store.warehouse.open_times(CANDLES, symbol=stats.symbol)
    assert stats.missing_minutes == count_missing_minutes(opened)
    assert stats.total_rows == opened.len()
    return stats


def filled(exchange: Exchange, store: CandleStore, first: int, end: int) -> IngestionStats:
    """Backfill minutes ``[first, end)`` of the market."""
    stretch = Stretch(start=minute(first), end=minute(end))
    return backfill(exchange, store, settings=IngestSettings(), stretch=stretch).stats[0]


def minute(number: int) -> datetime:
    return START + number * MINUTE


def requests_since(server: SandboxExchange, n_before: int) -> list[str]:
    return [record.path for record in server.requests][n_before:]


class TestFirstIngest:
    @pytest.mark.parametrize("limit", [1, 2500])
    def test_it_reaches_back_exactly_so_many_closed_candles(
        self, exchange: Exchange, store: CandleStore, market: HoledMarket, limit: int
    ):
        stats = ingest(exchange, store, limit=limit)
        first = THIS_MINUTE - limit * MINUTE
        expected = market.candles(first, THIS_MINUTE)
        assert expected.height == limit
        assert_frame_equal(store.warehouse.read(CANDLES), expected)
        assert stats == IngestionStats(
            symbol=BTC,
            interval="1m",
            new_rows=limit,
            revised_rows=0,
            rejected_rows=0,
            total_rows=limit,
            first_open_time=first,
            last_open_time=THIS_MINUTE - MINUTE,
            missing_minutes=0,
            gaps=0,
            fetched_at=NOW,
            source="synthetic",
        )

    def test_a_start_in_any_zone_is_reached_back_to_instead(
        self, exchange: Exchange, store: CandleStore
    ):
        start = (THIS_MINUTE - 90 * MINUTE).astimezone(timezone(timedelta(hours=-5)))
        stats = ingest(exchange, store, start=start, limit=3)
        assert (stats.new_rows, stats.first_open_time) == (90, start)
        assert store.holdings(BTC).fetched == (
            Stretch(start=start.astimezone(UTC), end=THIS_MINUTE),
        )

    def test_a_start_between_minutes_takes_the_minutes_that_open_after_it(
        self, exchange: Exchange, store: CandleStore
    ):
        start = THIS_MINUTE - 10 * MINUTE - timedelta(seconds=1)
        assert ingest(exchange, store, start=start).new_rows == 10
        assert store.holdings(BTC).first_open_time == THIS_MINUTE - 10 * MINUTE

    def test_it_reaches_no_further_back_than_the_market(
        self, exchange: Exchange, store: CandleStore
    ):
        stats = ingest(exchange, store, start=START - timedelta(days=30))
        assert (stats.first_open_time, stats.missing_minutes) == (START, 0)
        assert stats.total_rows == (THIS_MINUTE - START) // MINUTE

    @pytest.mark.parametrize("start", [NOW + MINUTE, NOW - timedelta(seconds=1), THIS_MINUTE])
    def test_a_start_after_the_last_closed_candle_is_nothing_to_store(
        self, exchange: Exchange, tmp_path: Path, start: datetime
    ):
        store = CandleStore(Warehouse(tmp_path / "x.duckdb"), TABLES)
        with pytest.raises(NothingToServeError) as nothing:
            ingest(exchange, store, start=start)
        assert "BTC/USDT: the exchange has no closed candle" in nothing.value.message
        assert "`start` or `limit`" in nothing.value.hint
        assert not store.warehouse.path.exists()


class TestLaterIngests:
    def test_they_store_only_what_closed_since(
        self,
        exchange: Exchange,
        store: CandleStore,
        server: SandboxExchange,
        market: HoledMarket,
    ):
        ingest(exchange, store, limit=100)
        assert ingest(exchange, store, limit=100).new_rows == 0
        server.clock.set(now=NOW + timedelta(seconds=39, milliseconds=999))
        assert ingest(exchange, store, limit=100).new_rows == 0
        server.clock.set(now=NOW + timedelta(seconds=40))
        assert ingest(exchange, store, limit=100).new_rows == 1
        server.clock.set(now=NOW + 1500 * MINUTE)
        stats = ingest(exchange, store, limit=100)
        assert (stats.new_rows, stats.revised_rows, stats.total_rows) == (1499, 0, 1600)
        expected = market.candles(THIS_MINUTE - 100 * MINUTE, THIS_MINUTE + 1500 * MINUTE)
        assert_frame_equal(store.warehouse.read(CANDLES), expected)

    def test_a_tick_is_one_request_for_the_time_and_one_for_candles(
        self, exchange: Exchange, store: CandleStore, server: SandboxExchange
    ):
        ingest(exchange, store, limit=100)
        for late in (0, 1, 900):
            n_before = len(server.requests)
            server.clock.set(now=server.clock.now() + late * MINUTE)
            assert ingest(exchange, store).new_rows == late
            assert requests_since(server, n_before) == [TIME, KLINES]

    def test_the_newest_ten_are_read_again_and_what_they_were_is_kept(
        self, exchange: Exchange, store: CandleStore, server: SandboxExchange
    ):
        ingest(exchange, store, limit=100)
        before = store.warehouse.read(CANDLES)
        server.clock.set(now=NOW + MINUTE)
        for n_back in (10, 11):
            open_ms = as_ms(THIS_MINUTE - n_back * MINUTE)
            server.history.revise("BTCUSDT", open_ms=open_ms, volume_factor=2.0)
        stats = ingest(exchange, store)
        assert (stats.new_rows, stats.revised_rows, stats.total_rows) == (1, 1, 101)
        after = store.warehouse.read(CANDLES)
        assert_frame_equal(after[:90], before[:90])
        assert after["volume"][90] == pytest.approx(2 * before["volume"][90], abs=1e-7)
        kept = store.warehouse.read(TABLES.revisions)
        assert_frame_equal(kept.drop("revised_at"), before[90:91])
        assert kept["revised_at"].to_list() == [NOW + MINUTE]

    def test_a_clock_that_was_set_back_asks_for_nothing(
        self, exchange: Exchange, store: CandleStore, server: SandboxExchange
    ):
        ingest(exchange, store, limit=100)
        n_before = len(server.requests)
        server.clock.set(now=NOW - timedelta(days=1))
        assert ingest(exchange, store).total_rows == 100
        assert requests_since(server, n_before) == [TIME]

    @pytest.mark.parametrize("clock", [NOW + MINUTE, NOW - timedelta(days=1)])
    def test_another_source_is_refused_before_it_is_asked_for_candles(
        self, exchange: Exchange, store: CandleStore, server: SandboxExchange, clock: datetime
    ):
        ingest(exchange, store, limit=5)
        with store.warehouse.connect() as connection:
            connection.execute("COMMENT ON TABLE candles IS 'source: binance'")
        before, n_before = store.warehouse.read(CANDLES), len(server.requests)
        server.clock.set(now=clock)
        for work in (lambda: ingest(exchange, store), lambda: filled(exchange, store, 0, 9)):
            with pytest.raises(DataError, match="source 'binance', these are from 'synthetic'"):
                work()
        assert requests_since(server, n_before) == [TIME, TIME]
        assert_frame_equal(store.warehouse.read(CANDLES), before)


class TestGaps:
    def test_one_is_asked_for_after_an_hour_a_day_and_a_week_and_then_no_more(
        self,
        exchange: Exchange,
        store: CandleStore,
        server: SandboxExchange,
        market: HoledMarket,
    ):
        market.missing = range(100, 130)
        filled(exchange, store, 0, 300)
        (gap,) = store.holdings(BTC).gaps
        assert gap.stretch == Stretch(start=minute(100), end=minute(130))
        assert gap.first_seen_at == NOW
        now = NOW
        for tries, wait in enumerate(
            (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)), start=1
        ):
            server.clock.set(now=now + wait - timedelta(seconds=1))
            ingest(exchange, store)
            assert store.holdings(BTC).gaps[0].tries == tries - 1
            n_before, now = len(server.requests), now + wait
            server.clock.set(now=now)
            ingest(exchange, store)
            # The newest, and the gap: nothing is believed only twice.
            assert requests_since(server, n_before) == [TIME, KLINES, KLINES, KLINES]
        (gap,) = store.holdings(BTC).gaps
        assert (gap.tries, gap.next_try_at, gap.first_seen_at) == (3, None, NOW)

    def test_one_heals_when_the_exchange_has_its_candles_later(
        self,
        exchange: Exchange,
        store: CandleStore,
        server: SandboxExchange,
        market: HoledMarket,
    ):
        last = (THIS_MINUTE - START) // MINUTE
        market.missing = range(last - 50, last - 20)
        stats = ingest(exchange, store, limit=100)
        assert (stats.new_rows, stats.missing_minutes, stats.gaps) == (70, 30, 1)
        market.missing = range(last - 50, last - 40)
        assert ingest(exchange, store).missing_minutes == 30
        server.clock.set(now=NOW + timedelta(hours=1))
        stats = ingest(exchange, store)
        assert (stats.new_rows, stats.missing_minutes, stats.gaps) == (80, 10, 1)
        market.missing = ()
        server.clock.set(now=NOW + timedelta(hours=25))
        assert ingest(exchange, store).missing_minutes == 0

    def test_one_longer_than_a_page_is_crossed(
        self, exchange: Exchange, store: CandleStore, market: HoledMarket
    ):
        market.missing = range(100, 2600)
        stats = ingest(exchange, store, start=START)
        assert (stats.missing_minutes, stats.gaps) == (2500, 1)
        assert stats.last_open_time == THIS_MINUTE - MINUTE

    def test_many_that_are_due_do_not_hold_up_the_newest_candle(self, store: CandleStore):
        prices = {time: price for time, price in minutes(START, 200).items() if time.minute % 2}
        exchange = FakeExchange(prices, now=minute(200))
        ingest(exchange, store, start=START)
        exchange.now += timedelta(hours=1)
        exchange.asked = []
        ingest(exchange, store)
        # The newest, after which there is nothing, then each gap; nothing is believed only twice.
        assert len(exchange.asked) == 1 + 2 + 2 * MOST_GAPS
        assert [gap.tries for gap in store.holdings(BTC).gaps[:30]] == [1] * 20 + [0] * 10

    def test_one_whose_rows_stay_bad_is_tried_like_any_other(self, store: CandleStore):
        """All of its page is bad: refused, it stayed due and failed every ingest from then on."""
        exchange = FakeExchange(minutes(START, 400), now=minute(300))
        bad = tuple(
            kline(minute(number), price=exchange.prices[BTC][minute(number)])
            for number in (101, 102)
        )
        exchange.cut = lambda rows: [without_high(row) if row in bad else row for row in rows]
        assert ingest(exchange, store, limit=250).rejected_rows == 2
        exchange.now += timedelta(hours=1)
        ingest(exchange, store)
        assert [gap.tries for gap in store.holdings(BTC).gaps] == [1]

    def test_those_of_an_earlier_versions_table_are_found_and_asked_for(self, store: CandleStore):
        truth = minutes(START, 120)
        stored = {time: truth[time] for time in truth if not minute(50) <= time < minute(60)}
        store.warehouse.upsert(CANDLES, candles_of(stored), source="synthetic")
        truth |= minutes(minute(120), 100)
        stats = ingest(FakeExchange(truth, now=minute(220)), store)
        assert (stats.new_rows, stats.missing_minutes) == (110, 0)
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(truth))


class TestBackfill:
    def test_it_asks_only_for_what_was_never_asked_for(
        self,
        exchange: Exchange,
        store: CandleStore,
        server: SandboxExchange,
        market: HoledMarket,
    ):
        market.missing = range(150, 160)
        filled(exchange, store, 100, 200)
        stats = filled(exchange, store, 250, 300)
        assert (stats.missing_minutes, stats.gaps) == (10 + 50, 1)
        n_before, whole = len(server.requests), Stretch(start=minute(0), end=minute(400))
        assert n_minutes_to_fetch(store, BTC, stretch=whole) == 100 + 50 + 100
        stats = filled(exchange, store, 0, 400)
        assert (stats.new_rows, stats.missing_minutes) == (250, 10)
        assert requests_since(server, n_before) == [TIME, KLINES, KLINES, KLINES]
        assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, minute(400)))
        n_before = len(server.requests)
        assert filled(exchange, store, 0, 400).new_rows == 0
        assert requests_since(server, n_before) == [TIME]

    def test_it_ends_with_what_has_closed(self, exchange: Exchange, store: CandleStore):
        last = (THIS_MINUTE - START) // MINUTE
        stats = filled(exchange, store, last - 30, last + 10_000)
        assert (stats.new_rows, stats.last_open_time) == (30, THIS_MINUTE - MINUTE)
        with pytest.raises(NothingToServeError, match="no closed candle in the time asked for"):
            backfill(
                exchange,
                store,
                settings=IngestSettings(symbols=(ETH,)),
                stretch=Stretch(start=THIS_MINUTE + MINUTE, end=THIS_MINUTE + 9 * MINUTE),
            )

    def test_progress_is_told_by_symbol(self, store: CandleStore, exchange: Exchange):
        told: list[tuple[str, int]] = []
        backfill(
            exchange,
            store,
            settings=IngestSettings(symbols=(BTC, ETH)),
            stretch=Stretch(start=START, end=minute(1500)),
            told=lambda symbol, n_minutes: told.append((symbol, n_minutes)),
        )
        assert told == [(BTC, 1000), (BTC, 500), (ETH, 1000), (ETH, 500)]

    def test_one_that_was_killed_leaves_whole_batches_and_goes_on_after_them(
        self, exchange: Exchange, server: SandboxExchange, tmp_path: Path, market: HoledMarket
    ):
        store = CandleStore(Warehouse(tmp_path / "x.duckdb"), TABLES)
        code = f"""
import os
from datetime import datetime
from pathlib import Path
from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleStore, Warehouse
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CandleTables
from btc_lifecycle.orchestration import fetching
from btc_lifecycle.orchestration.ingestion import backfill
from btc_lifecycle.settings import IngestSettings

class Killed(Exchange):
    def klines(self, symbol, *, start, end):
        if start > datetime.fromisoformat("{minute(1500).isoformat()}"):
            os.kill(os.getpid(), 9)
        return super().klines(symbol, start=start, end=end)

fetching.BATCH_ROWS = 1000
exchange = Killed("binance", base_urls=("{server.url}",), pace=Pace(Path({str(tmp_path)!r})))
start, end = map(datetime.fromisoformat, ("{START.isoformat()}", "{minute(4000).isoformat()}"))
store = CandleStore(Warehouse(Path({str(store.warehouse.path)!r})), CandleTables.named())
backfill(exchange, store, settings=IngestSettings(), stretch=Stretch(start=start, end=end))
"""
        killed = subprocess.run([sys.executable, "-c", code], check=False)
        assert killed.returncode == -9
        n_stored = store.warehouse.count(CANDLES)
        assert 1000 < n_stored <= 2000
        assert store.holdings(BTC).fetched == (Stretch(start=START, end=minute(n_stored)),)
        n_before = len(server.requests)
        assert filled(exchange, store, 0, 4000).new_rows == 4000 - n_stored
        assert requests_since(server, n_before)[:3] == [TIME, KLINES, KLINES]
        assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, minute(4000)))
