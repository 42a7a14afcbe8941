from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError, NothingToServeError
from btc_lifecycle.domain.ingest.candles import parse_klines
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration import ingestion
from btc_lifecycle.orchestration.ingestion import (
    IngestionStats,
    ingest_new,
    ingest_range,
    write_stats,
)
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.market import KlineBlock
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle.sandbox.transport import Answer
from btc_lifecycle.settings import IngestSettings

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=3, hours=2, minutes=7, seconds=20)
THIS_MINUTE = NOW.replace(second=0)
SYMBOLS = ("BTCUSDT", "ETHUSDT")


class GappyMarket(SyntheticMarket):
    """A market whose exchange was down for these minutes, counted from its start."""

    missing: range = range(0)

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        whole = super().block(symbol, start_ms=start_ms)
        gap_ms = [self.start_ms + minute * 60_000 for minute in self.missing]
        kept = ~np.isin(whole.open_ms, gap_ms)
        rows = np.array(json.loads(b"[" + whole.rows_text(0, len(whole)) + b"]"), dtype=object)
        columns = [rows[kept, i].astype(float) for i in (1, 2, 3, 4, 5, 7)]
        columns += [rows[kept, 8].astype(int), *(rows[kept, i].astype(float) for i in (9, 10))]
        return KlineBlock(whole.open_ms[kept], columns=columns)


class FailingExchange(SandboxExchange):
    """A sandbox exchange that answers this many requests for klines and then no more."""

    answers_left: int | None = None

    def get(self, target: str) -> Answer | None:
        if self.answers_left is not None and target.startswith("/api/v3/klines"):
            if self.answers_left == 0:
                return None
            self.answers_left -= 1
        return super().get(target)


@pytest.fixture
def market() -> GappyMarket:
    return GappyMarket(seed=7, start=START, symbols=SYMBOLS)


@pytest.fixture
def server(market: GappyMarket) -> Iterator[FailingExchange]:
    with FailingExchange(market, SandboxClock(NOW, 0)) as running:
        yield running


@pytest.fixture
def exchange(server: SandboxExchange) -> Exchange:
    return Exchange("binance", base_url=server.url, pause=lambda seconds: None)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "x.duckdb")


def ingest(
    exchange: Exchange, warehouse: Warehouse, *, symbol: str = "BTC/USDT", **settings: object
) -> IngestionStats:
    return ingest_new(
        exchange, warehouse, CANDLES, symbol=symbol, settings=IngestSettings(**settings)
    )


def market_candles(
    market: SyntheticMarket, *, first: datetime, end: datetime, symbol: str = "BTC/USDT"
) -> pl.DataFrame:
    """Return the minutes that open in ``[first, end)`` straight from the market."""
    name, rows = symbol.replace("/", ""), []
    for start_ms in market.block_starts(name, until_ms=int(end.timestamp() * 1000) - 1):
        block = market.block(name, start_ms=start_ms)
        rows += json.loads(b"[" + block.rows_text(0, len(block)) + b"]")
    candles = parse_klines(rows, symbol=symbol).drop("close_time")
    return candles.filter(pl.col("open_time").is_between(first, end, closed="left"))


class TestFirstIngest:
    @pytest.mark.parametrize("limit", [1, 2500])
    def test_it_reaches_back_exactly_so_many_closed_candles(
        self, exchange: Exchange, warehouse: Warehouse, market: GappyMarket, limit: int
    ):
        stats = ingest(exchange, warehouse, limit=limit)
        first = THIS_MINUTE - limit * MINUTE
        expected = market_candles(market, first=first, end=THIS_MINUTE)
        assert expected.height == limit
        assert_frame_equal(warehouse.read(CANDLES), expected)
        assert stats == IngestionStats(
            symbol="BTC/USDT",
            interval="1m",
            new_rows=limit,
            revised_rows=0,
            total_rows=limit,
            first_open_time=first,
            last_open_time=THIS_MINUTE - MINUTE,
            missing_minutes=0,
            fetched_at=NOW,
            source="synthetic",
        )

    def test_a_start_in_any_zone_is_reached_back_to_instead(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        first = THIS_MINUTE - 90 * MINUTE
        start = first.astimezone(datetime.strptime("-0500", "%z").tzinfo)
        stats = ingest(exchange, warehouse, start=start, limit=3)
        assert (stats.new_rows, stats.first_open_time) == (90, first)

    def test_a_start_between_minutes_takes_the_minutes_that_open_after_it(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        start = THIS_MINUTE - 10 * MINUTE - timedelta(seconds=1)
        assert ingest(exchange, warehouse, start=start).new_rows == 10
        assert warehouse.read(CANDLES)["open_time"][0] == THIS_MINUTE - 10 * MINUTE

    def test_it_reaches_no_further_back_than_the_market(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        stats = ingest(exchange, warehouse, start=START - timedelta(days=30))
        assert stats.first_open_time == START
        assert stats.total_rows == (THIS_MINUTE - START) // MINUTE

    @pytest.mark.parametrize("start", [NOW + MINUTE, NOW - timedelta(seconds=1), THIS_MINUTE])
    def test_a_start_after_the_last_closed_candle_is_nothing_to_store(
        self, exchange: Exchange, warehouse: Warehouse, start: datetime
    ):
        """It was told that there is no database, and to run the ingest that it was."""
        with pytest.raises(NothingToServeError) as nothing:
            ingest(exchange, warehouse, start=start)
        assert nothing.value.message == (
            f"BTC/USDT: the exchange has no closed candle from {start:%Y-%m-%d %H:%M} UTC on"
        )
        assert "`start` or `limit`" in nothing.value.hint


class TestLaterIngests:
    def test_they_store_only_what_closed_since(
        self,
        exchange: Exchange,
        warehouse: Warehouse,
        server: SandboxExchange,
        market: GappyMarket,
    ):
        ingest(exchange, warehouse, limit=100)
        assert ingest(exchange, warehouse, limit=100).new_rows == 0
        server.clock.set(now=NOW + timedelta(seconds=39, milliseconds=999))
        assert ingest(exchange, warehouse, limit=100).new_rows == 0
        server.clock.set(now=NOW + timedelta(seconds=40))
        assert ingest(exchange, warehouse, limit=100).new_rows == 1
        server.clock.set(now=NOW + 1500 * MINUTE)
        stats = ingest(exchange, warehouse, limit=100)
        assert (stats.new_rows, stats.revised_rows, stats.total_rows) == (1499, 0, 1600)
        expected = market_candles(
            market, first=THIS_MINUTE - 100 * MINUTE, end=THIS_MINUTE + 1500 * MINUTE
        )
        assert_frame_equal(warehouse.read(CANDLES), expected)

    def test_symbols_are_ingested_beside_each_other(
        self, exchange: Exchange, warehouse: Warehouse, market: GappyMarket
    ):
        bitcoin = ingest(exchange, warehouse, limit=20)
        ether = ingest(exchange, warehouse, symbol="ETH/USDT", limit=30)
        assert (bitcoin.total_rows, ether.total_rows) == (20, 30)
        assert (bitcoin.symbol, ether.symbol) == ("BTC/USDT", "ETH/USDT")
        expected = [
            market_candles(market, first=THIS_MINUTE - n * MINUTE, end=THIS_MINUTE, symbol=symbol)
            for symbol, n in [("BTC/USDT", 20), ("ETH/USDT", 30)]
        ]
        assert_frame_equal(warehouse.read(CANDLES), pl.concat(expected))

    def test_a_market_of_another_source_is_refused_and_nothing_is_mixed(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        ingest(exchange, warehouse, limit=5)
        before = warehouse.read(CANDLES)
        with warehouse.connect() as connection:
            connection.execute("COMMENT ON TABLE candles IS 'source: binance'")
        with pytest.raises(DataError, match="source 'binance', these are from 'synthetic'"):
            ingest(exchange, warehouse, symbol="ETH/USDT", limit=5)
        assert_frame_equal(warehouse.read(CANDLES), before)

    def test_another_source_is_refused_though_its_clock_stands_before_the_newest_candle(
        self, server: SandboxExchange, exchange: Exchange, warehouse: Warehouse
    ):
        """Nothing was asked for then, and the figures named a source the candles were not from."""
        ingest(exchange, warehouse, limit=5)
        with warehouse.connect() as connection:
            connection.execute("COMMENT ON TABLE candles IS 'source: binance'")
        server.clock.set(now=NOW - timedelta(days=1))
        with pytest.raises(DataError, match="source 'binance', these are from 'synthetic'"):
            ingest(exchange, warehouse)


class TestGaps:
    def test_a_gap_stays_a_gap_and_is_counted(
        self, exchange: Exchange, warehouse: Warehouse, market: GappyMarket
    ):
        last = (THIS_MINUTE - START) // MINUTE
        market.missing = range(last - 50, last - 20)
        stats = ingest(exchange, warehouse, limit=100)
        assert (stats.new_rows, stats.missing_minutes) == (70, 30)
        times = warehouse.open_times(CANDLES, symbol="BTC/USDT")
        gap = [START + minute * MINUTE for minute in market.missing]
        assert not set(gap) & set(times)

    def test_a_gap_longer_than_a_page_is_crossed(
        self, exchange: Exchange, warehouse: Warehouse, market: GappyMarket
    ):
        market.missing = range(100, 2600)
        stats = ingest(exchange, warehouse, start=START)
        assert stats.missing_minutes == 2500
        assert stats.last_open_time == THIS_MINUTE - MINUTE

    def test_a_range_that_is_fetched_again_fills_what_the_exchange_has_since(
        self, exchange: Exchange, warehouse: Warehouse, market: GappyMarket
    ):
        market.missing = range(100, 130)
        ingest(exchange, warehouse, start=START)
        market.missing = range(100, 110)
        stats = ingest_range(
            exchange,
            warehouse,
            CANDLES,
            symbol="BTC/USDT",
            start=START + 90 * MINUTE,
            end=START + 140 * MINUTE,
            now=NOW,
        )
        assert (stats.new_rows, stats.revised_rows, stats.missing_minutes) == (20, 0, 10)

    def test_a_revision_by_the_exchange_is_stored_and_counted(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        ingest(exchange, warehouse, limit=50)
        asked = {"start": THIS_MINUTE - 50 * MINUTE, "end": NOW, "now": NOW, "symbol": "BTC/USDT"}
        truth = warehouse.read(CANDLES)
        doubled = pl.when(pl.int_range(pl.len()) < 3).then(2.0).otherwise(1.0) * pl.col("volume")
        warehouse.upsert(CANDLES, truth.with_columns(doubled.alias("volume")))
        stats = ingest_range(exchange, warehouse, CANDLES, **asked)
        assert (stats.new_rows, stats.revised_rows, stats.total_rows) == (0, 3, 50)
        assert_frame_equal(warehouse.read(CANDLES), truth)

    def test_the_end_of_a_range_is_exclusive_and_its_start_is_not(
        self, exchange: Exchange, warehouse: Warehouse
    ):
        bounds = {"start": START, "end": START + 10 * MINUTE}
        ingest_range(exchange, warehouse, CANDLES, symbol="BTC/USDT", now=NOW, **bounds)
        times = warehouse.open_times(CANDLES, symbol="BTC/USDT")
        assert times.to_list() == [START + i * MINUTE for i in range(10)]


class TestInterruptions:
    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ingestion, "BATCH_ROWS", 1000)

    def test_an_exchange_that_fails_in_a_later_page_leaves_the_batches_before_it(
        self,
        exchange: Exchange,
        warehouse: Warehouse,
        server: FailingExchange,
        market: GappyMarket,
    ):
        server.answers_left = 2
        with pytest.raises(NeighbourUnavailableError, match="did not answer"):
            ingest(exchange, warehouse, start=START)
        assert_frame_equal(
            warehouse.read(CANDLES),
            market_candles(market, first=START, end=START + 2000 * MINUTE),
        )
        server.answers_left = None
        stats = ingest(exchange, warehouse, start=START)
        expected = market_candles(market, first=START, end=THIS_MINUTE)
        assert (stats.new_rows, stats.total_rows) == (expected.height - 2000, expected.height)
        assert_frame_equal(warehouse.read(CANDLES), expected)

    def test_a_killed_ingest_leaves_whole_batches_and_the_next_one_goes_on(
        self,
        exchange: Exchange,
        warehouse: Warehouse,
        server: SandboxExchange,
        market: GappyMarket,
    ):
        code = """
import os, sys
from pathlib import Path
from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration import ingestion
from btc_lifecycle.settings import IngestSettings

class Killed(Exchange):
    def klines(self, symbol, *, start, end):
        if start > NOT_AFTER:
            os.kill(os.getpid(), 9)
        return super().klines(symbol, start=start, end=end)

settings = IngestSettings.model_validate_json(sys.argv[3])
NOT_AFTER = settings.start.replace(hour=20)
ingestion.BATCH_ROWS = 1000
ingestion.ingest_new(
    Killed("binance", base_url=sys.argv[1]), Warehouse(Path(sys.argv[2])), CANDLES,
    symbol="BTC/USDT", settings=settings,
)
"""
        asked = json.dumps({"start": START.isoformat()})
        killed = subprocess.run(
            [sys.executable, "-c", code, server.url, warehouse.path, asked], check=False
        )
        assert killed.returncode == -9
        assert warehouse.count(CANDLES) == 2000
        ingest(exchange, warehouse, start=START)
        expected = market_candles(market, first=START, end=THIS_MINUTE)
        assert_frame_equal(warehouse.read(CANDLES), expected)


class TestStats:
    def figures(self, symbol: str) -> IngestionStats:
        return IngestionStats(
            symbol=symbol,
            interval="1m",
            new_rows=1,
            revised_rows=0,
            total_rows=2,
            first_open_time=START,
            last_open_time=START + MINUTE,
            missing_minutes=0,
            fetched_at=NOW,
            source="synthetic",
        )

    def test_the_file_has_the_first_symbol_at_the_top_and_all_of_them_in_a_list(
        self, tmp_path: Path
    ):
        path = tmp_path / "feature_store" / "ingestion_stats.json"
        write_stats(path, [self.figures("BTC/USDT"), self.figures("ETH/USDT")])
        written = json.loads(path.read_bytes())
        bitcoin = {
            "symbol": "BTC/USDT",
            "interval": "1m",
            "new_rows": 1,
            "revised_rows": 0,
            "total_rows": 2,
            "first_open_time": "2026-01-01T00:00:00+00:00",
            "last_open_time": "2026-01-01T00:01:00+00:00",
            "missing_minutes": 0,
            "fetched_at": "2026-01-04T02:07:20+00:00",
            "source": "synthetic",
        }
        assert written == {**bitcoin, "symbols": [bitcoin, {**bitcoin, "symbol": "ETH/USDT"}]}
        write_stats(path, [self.figures("ETH/USDT")])
        assert json.loads(path.read_bytes())["symbol"] == "ETH/USDT"
