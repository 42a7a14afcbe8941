"""Ingests of several symbols, of several processes, and one after the other in any order."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange import RawPage
from btc_lifecycle.adapters.warehouse import CandleStore, Warehouse
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    LifecycleError,
    NeighbourUnavailableError,
    NothingToServeError,
)
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration import fetching
from btc_lifecycle.orchestration.ingestion import (
    MOST_GAPS,
    REREAD,
    Ingestion,
    IngestionStats,
    backfill,
    ingest_new,
    write_stats,
)
from btc_lifecycle.sandbox.clock import SandboxClock
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
    minutes,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=2, seconds=20)
ASKED_AT = datetime(2026, 1, 3, 0, 0, 21, tzinfo=UTC)
BOTH = IngestSettings(symbols=(BTC, ETH), limit=30)


def minute(number: int) -> datetime:
    return START + number * MINUTE


class Exchange(FakeExchange):
    """Trades two symbols; ``failures`` are raised instead of a symbol's candles."""

    def __init__(self) -> None:
        super().__init__(minutes(START, 2880), now=NOW)
        self.prices[ETH] = minutes(START - timedelta(days=1), 4320)
        self.failures: dict[str, LifecycleError] = {}
        self.symbols: list[str] = []

    def klines(self, symbol: str, *, start: datetime, end: datetime) -> RawPage | None:
        self.symbols.append(symbol)
        if symbol in self.failures:
            raise self.failures[symbol]
        return super().klines(symbol, start=start, end=end)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), CandleTables.named())


class TestSymbols:
    def test_each_is_stored_as_the_exchange_tells_it(self, exchange: Exchange, store: CandleStore):
        done = ingest_new(exchange, store, settings=BOTH)
        assert [stats.symbol for stats in done.stats] == [BTC, ETH]
        assert [stats.total_rows for stats in done.stats] == [30, 30]
        assert done.failures == {}
        for symbol in BOTH.symbols:
            told = exchange.prices[symbol].items()
            truth = {time: price for time, price in told if minute(2850) <= time < minute(2880)}
            stored = store.warehouse.read(CANDLES, symbol=symbol)
            assert_frame_equal(stored, candles_of(truth, symbol=symbol))

    def test_they_store_a_batch_in_turn(
        self, exchange: Exchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(fetching, "BATCH_ROWS", 1000)
        stretch = Stretch(start=minute(0), end=minute(2500))
        backfill(exchange, store, settings=BOTH, stretch=stretch)
        assert exchange.symbols == [BTC, ETH] * 3

    def test_one_that_fails_stops_no_other_and_is_told(
        self, exchange: Exchange, store: CandleStore
    ):
        gone = NeighbourUnavailableError("BTC/USDT: no answer", hint="wait")
        exchange.failures = {BTC: gone}
        done = ingest_new(exchange, store, settings=BOTH)
        assert [stats.symbol for stats in done.stats] == [ETH]
        assert done.failures == {BTC: gone}
        exchange.failures = {}
        later = ingest_new(exchange, store, settings=BOTH)
        assert [stats.new_rows for stats in later.stats] == [30, 0]

    def test_one_without_candles_is_told_beside_those_that_have_some(
        self, exchange: Exchange, store: CandleStore
    ):
        exchange.prices[BTC] = {}
        done = ingest_new(exchange, store, settings=BOTH)
        assert [stats.symbol for stats in done.stats] == [ETH]
        assert isinstance(done.failures[BTC], NothingToServeError)

    def test_when_all_fail_the_first_error_is_raised(self, exchange: Exchange, store: CandleStore):
        exchange.failures = {
            BTC: NeighbourUnavailableError("BTC/USDT: no answer", hint="wait"),
            ETH: ConfigurationError("ETH/USDT: unknown", hint="mend it"),
        }
        with pytest.raises(NeighbourUnavailableError, match="BTC/USDT: no answer"):
            ingest_new(exchange, store, settings=BOTH)

    def test_an_error_that_nobody_raised_on_purpose_is_not_swallowed(
        self, exchange: Exchange, store: CandleStore
    ):
        exchange.odd = [ZeroDivisionError()]
        with pytest.raises(ZeroDivisionError):
            ingest_new(exchange, store, settings=BOTH)


class TestStats:
    def figures(self, symbol: str) -> IngestionStats:
        return IngestionStats(
            symbol=symbol,
            interval="1m",
            new_rows=1,
            revised_rows=0,
            rejected_rows=3,
            total_rows=2,
            first_open_time=START,
            last_open_time=START + MINUTE,
            missing_minutes=0,
            gaps=0,
            fetched_at=NOW,
            source="synthetic",
        )

    def test_the_file_has_the_first_symbol_at_the_top_and_all_of_them_in_a_list(
        self, tmp_path: Path
    ):
        path = tmp_path / "feature_store" / "ingestion_stats.json"
        figures = (self.figures(BTC), self.figures(ETH))
        write_stats(path, Ingestion(stats=figures, failures={}, asked_at=ASKED_AT))
        bitcoin = {
            "symbol": "BTC/USDT",
            "interval": "1m",
            "new_rows": 1,
            "revised_rows": 0,
            "rejected_rows": 3,
            "total_rows": 2,
            "first_open_time": "2026-01-01T00:00:00+00:00",
            "last_open_time": "2026-01-01T00:01:00+00:00",
            "missing_minutes": 0,
            "gaps": 0,
            "fetched_at": "2026-01-03T00:00:20+00:00",
            "source": "synthetic",
        }
        ether = {**bitcoin, "symbol": "ETH/USDT"}
        written = json.loads(path.read_bytes())
        assert written == {
            **bitcoin,
            "asked_at": ASKED_AT.isoformat(),
            "symbols": [bitcoin, ether],
            "failures": {},
        }

    def test_it_names_the_symbols_that_failed(self, tmp_path: Path):
        path = tmp_path / "ingestion_stats.json"
        gone = NeighbourUnavailableError("BTC/USDT: no answer", hint="wait")
        write_stats(
            path, Ingestion(stats=(self.figures(ETH),), failures={BTC: gone}, asked_at=ASKED_AT)
        )
        written = json.loads(path.read_bytes())
        assert written["symbol"] == "ETH/USDT"
        assert written["failures"] == {"BTC/USDT": "BTC/USDT: no answer; wait"}


class AnyOrder(RuleBasedStateMachine):
    """Ingests, backfills and a moving clock over an exchange whose candles come, go and change.

    The model is three sets of minute numbers: what the exchange tells, what it was asked for, and
    what it told then.
    """

    LIMIT, N = 6, 4000

    @initialize(now=st.integers(100, 300))
    def begin(self, now: int) -> None:
        self.exchange = FakeExchange(minutes(START, self.N), now=minute(now) + 20 * MINUTE / 60)
        self.told = self.exchange.prices[BTC]
        self.store = CandleStore(MemoryWarehouse(), CandleTables.named())
        self.asked: set[int] = set()
        self.seen: dict[int, int] = {}

    @rule(n=st.sampled_from([0, 1, 5, 30, 61, 1441]))
    def time_passes(self, n: int) -> None:
        self.exchange.now += n * MINUTE

    @rule(back=st.integers(0, 300), n=st.integers(1, 40))
    def candles_go(self, back: int, n: int) -> None:
        for number in range(self.now - back, self.now - back + n):
            self.told.pop(minute(number), None)

    @rule(back=st.integers(0, 300), n=st.integers(1, 60))
    def candles_come_or_change(self, back: int, n: int) -> None:
        for number in range(self.now - back, self.now - back + n):
            if minute(number) not in self.told or number % 3 == 0:
                self.told[minute(number)] = 1000 + number % 100

    @rule(most=st.integers(1, 1000))
    def pages_shrink(self, most: int) -> None:
        self.exchange.cut = lambda rows: rows[:most]

    @rule()
    def ingest(self) -> None:
        due = self.store.holdings(BTC).due_gaps(now=self.exchange.now)[:MOST_GAPS]
        first = self.now - self.LIMIT
        if self.seen:
            first = max(min(self.seen), max(self.seen) - REREAD + 1)
        self.expect(range(first, self.now))
        for gap in due:
            self.expect(range((gap.start - START) // MINUTE, (gap.end - START) // MINUTE))
        self.run(lambda: ingest_new(self.exchange, self.store, settings=self.settings))

    @rule(back=st.integers(0, 300), n=st.integers(1, 200))
    def fill(self, back: int, n: int) -> None:
        first, end = self.now - back, self.now - back + n
        new = sorted(set(range(first, min(end, self.now))) - self.asked)
        for _, run in groupby(enumerate(new), key=lambda pair: pair[1] - pair[0]):
            self.expect([number for _, number in run])
        stretch = Stretch(start=minute(first), end=minute(end))
        self.run(
            lambda: backfill(self.exchange, self.store, settings=self.settings, stretch=stretch)
        )

    @invariant()
    def the_table_holds_what_the_exchange_told(self) -> None:
        if hasattr(self, "seen"):
            truth = {minute(number): price for number, price in self.seen.items()}
            assert_frame_equal(self.store.warehouse.read(CANDLES), candles_of(truth))

    @invariant()
    def gaps_are_what_it_was_asked_for_in_vain(self) -> None:
        if not getattr(self, "seen", None):
            return
        held, first, last = self.store.holdings(BTC), min(self.seen), max(self.seen)
        assert self.numbers(held.fetched) == self.asked
        missing = set(range(first, last + 1)) - set(self.seen)
        assert self.numbers(gap.stretch for gap in held.gaps) == missing & self.asked
        assert held.n_missing_min == len(missing)

    @property
    def now(self) -> int:
        return (self.exchange.now - START) // MINUTE

    @property
    def settings(self) -> IngestSettings:
        return IngestSettings(limit=self.LIMIT)

    def numbers(self, stretches) -> set[int]:
        return {
            (stretch.start - START) // MINUTE + number
            for stretch in stretches
            for number in range(stretch.n_minutes)
        }

    def expect(self, numbers) -> None:
        """Take over what the exchange will tell of minutes that follow each other."""
        self.seen |= {
            number: self.told[minute(number)] for number in numbers if minute(number) in self.told
        }
        if self.seen:
            # Minutes after the newest candle are not there yet.
            self.asked |= {number for number in numbers if number <= max(self.seen)}

    def run(self, work) -> None:
        if self.seen:
            work()
        else:
            with pytest.raises(NothingToServeError):
                work()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


def test_two_processes_at_once_lose_and_double_nothing(tmp_path: Path):
    market = HoledMarket(seed=7, start=START, symbols=("BTCUSDT",))
    market.missing = range(700, 740)
    path = tmp_path / "x.duckdb"
    code = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleStore, Warehouse
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CandleTables
from btc_lifecycle.orchestration.ingestion import backfill, ingest_new
from btc_lifecycle.settings import IngestSettings

url, path, start, *firsts = sys.argv[1:]
pace = Pace(Path(path).parent / "exchange", limit_per_min=10**6)
exchange = Exchange("binance", base_urls=(url,), pace=pace)
store = CandleStore(Warehouse(Path(path)), CandleTables.named())
for first in firsts:
    start_at = datetime.fromisoformat(start) + int(first) * timedelta(minutes=1)
    stretch = Stretch(start=start_at, end=start_at + timedelta(minutes=600))
    backfill(exchange, store, settings=IngestSettings(), stretch=stretch)
    ingest_new(exchange, store, settings=IngestSettings(limit=100))
"""
    with SandboxExchange(market, SandboxClock(NOW, 0), weight_limit_per_min=10**6) as server:
        running = [
            subprocess.Popen([sys.executable, "-c", code, server.url, path, START.isoformat(), *at])
            for at in (("0", "900"), ("300", "1500"))
        ]
        assert [process.wait(60) for process in running] == [0, 0]
    store = CandleStore(Warehouse(path), CandleTables.named())
    assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, minute(2880)))
    held = store.holdings(BTC)
    assert held.fetched == (Stretch(start=START, end=minute(2880)),)
    assert [gap.stretch for gap in held.gaps] == [Stretch(start=minute(700), end=minute(740))]
    assert held.n_missing_min == 40
