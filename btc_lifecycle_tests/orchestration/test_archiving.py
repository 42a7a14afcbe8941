from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.archive import Archive, ArchiveFile
from btc_lifecycle.adapters.archive.periods import periods_within
from btc_lifecycle.adapters.exchange import PAGE_ROWS, Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleStore
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.gaps import Stretch, floor_minute
from btc_lifecycle.domain.ingest.klines import parse_pages
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.archiving import _spans
from btc_lifecycle.orchestration.ingestion import IngestionStats, backfill
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.settings import IngestSettings
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse
from btc_lifecycle_tests.orchestration.fake_exchange import (
    BTC,
    MINUTE,
    FakeExchange,
    HoledMarket,
    candles_of,
    kline,
    minutes,
    page_of,
    without_high,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = START + 2 * DAY + timedelta(minutes=30, seconds=20)
KLINES = "/api/v3/klines"
TABLES = CandleTables.named()


def minute(number: int) -> datetime:
    return START + number * MINUTE


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), TABLES)


def bounds(store: CandleStore) -> list[tuple[int, int]]:
    stretches = [gap.stretch for gap in store.holdings(BTC).gaps]
    return [((one.start - START) // MINUTE, (one.end - START) // MINUTE) for one in stretches]


class TestSandboxArchive:
    """The archive and the exchange of one market: two whole days, and half an hour of a third."""

    @pytest.fixture
    def market(self) -> HoledMarket:
        return HoledMarket(seed=7, start=START)

    @pytest.fixture
    def server(self, market: HoledMarket) -> Iterator[SandboxExchange]:
        with SandboxExchange(market, SandboxClock(NOW, 0), weight_limit_per_min=10**6) as running:
            yield running

    @pytest.fixture
    def exchange(self, server: SandboxExchange, tmp_path: Path) -> Exchange:
        pace = Pace(tmp_path / "exchange", limit_per_min=10**6)
        return Exchange("binance", base_urls=(server.url,), pace=pace)

    @pytest.fixture
    def filled(self, exchange: Exchange, store: CandleStore, server: SandboxExchange):
        """Backfills all there is, from the archive first; returns figures and paths asked for."""

        def filled(end: datetime = NOW) -> tuple[IngestionStats, list[str]]:
            n_before = len(server.requests)
            done = backfill(
                exchange,
                store,
                settings=IngestSettings(),
                stretch=Stretch(start=START, end=floor_minute(end)),
                archive=Archive(server.url),
            )
            return done.stats[0], [record.path for record in server.requests][n_before + 1 :]

        return filled

    def files(self, server: SandboxExchange, **changes: object) -> None:
        """Let files be made so from now on."""
        server.post("/sandbox/archive", body=json.dumps(changes).encode())

    def test_whole_days_come_from_their_files_and_the_rest_from_the_exchange(
        self, filled, store: CandleStore, market: HoledMarket
    ):
        stats, paths = filled()
        assert (stats.new_rows, stats.missing_minutes) == (2 * 1440 + 30, 0)
        assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, NOW)[:-1])
        assert [path.rpartition("/")[2] for path in paths] == [
            "BTCUSDT-1m-2026-01-01.zip.CHECKSUM",
            "BTCUSDT-1m-2026-01-01.zip",
            "BTCUSDT-1m-2026-01-02.zip.CHECKSUM",
            "BTCUSDT-1m-2026-01-02.zip",
            "klines",
        ]
        files = store.warehouse.read(TABLES.archive_files)
        assert files["n_rows"].to_list() == [1440, 1440]
        assert files["n_differing"].to_list() == [0, 0]

    def test_a_file_that_did_not_change_is_not_downloaded_again(self, filled, store: CandleStore):
        filled()
        stats, paths = filled()
        assert stats.new_rows == 0
        assert [path.endswith(".CHECKSUM") for path in paths] == [True, True]

    def test_what_a_file_lacks_the_exchange_gives(
        self, filled, server: SandboxExchange, store: CandleStore, market: HoledMarket
    ):
        self.files(server, cut_at=minute(900).isoformat())
        stats, paths = filled()
        assert paths.count(KLINES) >= 2
        assert (stats.missing_minutes, stats.gaps) == (0, 0)
        assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, NOW)[:-1])

    def test_what_neither_has_is_a_gap_found_once(
        self, filled, store: CandleStore, market: HoledMarket
    ):
        market.missing = range(700, 740)
        stats, _ = filled()
        assert (stats.missing_minutes, bounds(store)) == (40, [(700, 740)])
        (gap,) = store.holdings(BTC).gaps
        assert (gap.first_seen_at, gap.tries) == (NOW, 0)

    def test_what_is_stored_stays_where_a_file_differs_unless_the_exchange_says_so_too(
        self, filled, exchange: Exchange, store: CandleStore, server: SandboxExchange
    ):
        whole = Stretch(start=START, end=minute(1440))
        backfill(exchange, store, settings=IngestSettings(), stretch=whole)
        before = store.warehouse.read(CANDLES)
        self.files(server, revised_rows=3)
        stats, paths = filled(minute(1440))
        assert (stats.new_rows, stats.revised_rows) == (0, 0)
        assert paths[2:] == [KLINES]
        assert_frame_equal(store.warehouse.read(CANDLES), before)
        assert store.warehouse.read(TABLES.archive_files)["n_differing"].to_list() == [3]

    def test_a_file_issued_again_is_downloaded_and_settled_by_the_exchange(
        self, filled, store: CandleStore, server: SandboxExchange, market: HoledMarket
    ):
        self.files(server, revised_rows=3)
        filled(minute(1440))
        wrong = store.warehouse.read(CANDLES)
        first = store.checksums(BTC)
        self.files(server)
        server.clock.set(now=NOW + timedelta(hours=1))
        stats, _ = filled(minute(1440))
        assert (stats.new_rows, stats.revised_rows) == (0, 3)
        assert_frame_equal(store.warehouse.read(CANDLES), market.candles(START, minute(1440)))
        kept = store.warehouse.read(TABLES.revisions).drop("revised_at")
        assert_frame_equal(kept, wrong[:3])
        assert store.checksums(BTC).keys() == first.keys()
        assert store.checksums(BTC) != first

    def test_a_file_that_is_not_as_its_checksum_says_is_told_and_the_exchange_gives_its_days(
        self, filled, store: CandleStore, server: SandboxExchange
    ):
        """One wrong file of the archive kept all months after it away."""
        filled(minute(1440))
        self.files(server, bad_checksum=True)
        with pytest.raises(DataError, match="SHA-256"):
            filled()
        held = store.holdings(BTC)
        assert held.n_rows > 1440
        assert held.n_missing_min == 0
        assert len(store.checksums(BTC)) == 1


class PlainArchive:
    """Files of whole days out of a dictionary of prices; the rows at ``bad`` are no candles."""

    def __init__(self, prices: Mapping[datetime, int], *, bad: frozenset[datetime] = frozenset()):
        self.prices, self.bad, self.issue = dict(prices), bad, 0

    def files(
        self, symbol: str, *, start: datetime, end: datetime, known: Mapping[str, str]
    ) -> Iterator[ArchiveFile]:
        for period in periods_within(start, end):
            for day in period.days:
                name, sha256 = f"BTCUSDT-1m-{day.name}.zip", f"{self.issue:064}"
                opened = [time for time in self.prices if day.start <= time < day.end]
                if opened and known.get(name) != sha256:
                    page = page_of([self.row(time) for time in sorted(opened)])
                    klines = parse_pages([page.body], symbol=symbol)
                    yield ArchiveFile(name=name, period=day, sha256=sha256, klines=klines)

    def row(self, time: datetime) -> str:
        row = kline(time, price=self.prices[time])
        return without_high(row) if time in self.bad else row


class TestWhatFilesLack:
    """An archive that lacks more than the sandbox's does."""

    TRUTH = minutes(START, 2 * 1440)

    @pytest.fixture
    def exchange(self) -> FakeExchange:
        return FakeExchange(self.TRUTH, now=NOW)

    def filled(
        self, exchange: FakeExchange, store: CandleStore, archive: PlainArchive
    ) -> IngestionStats:
        whole = Stretch(start=START, end=minute(2 * 1440))
        done = backfill(exchange, store, settings=IngestSettings(), stretch=whole, archive=archive)
        return done.stats[0]

    @pytest.mark.parametrize(
        "lacking",
        [
            range(600),
            range(500, 600),
            range(1300, 1440),
            range(1440),
            range(1440, 2880),
            range(2700, 2880),
        ],
    )
    def test_the_exchange_gives_it_wherever_it_is(
        self, exchange: FakeExchange, store: CandleStore, lacking: range
    ):
        """Minutes that the first file lacked at its beginning were never asked for."""
        absent = set(map(minute, lacking))
        kept = {time: price for time, price in self.TRUTH.items() if time not in absent}
        assert self.filled(exchange, store, PlainArchive(kept)).missing_minutes == 0
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(self.TRUTH))

    def test_bad_rows_go_to_quarantine_and_the_exchange_gives_their_minutes(
        self, exchange: FakeExchange, store: CandleStore
    ):
        archive = PlainArchive(self.TRUTH, bad=frozenset({minute(7), minute(1500)}))
        assert self.filled(exchange, store, archive).rejected_rows == 2
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(self.TRUTH))
        assert store.warehouse.count(TABLES.quarantine) == 2

    def test_a_file_with_more_than_one_bad_row_in_a_hundred_is_refused_for_the_exchange(
        self, exchange: FakeExchange, store: CandleStore
    ):
        archive = PlainArchive(self.TRUTH, bad=frozenset(map(minute, range(1440, 1455))))
        with pytest.raises(DataError, match="15 of 1440 klines are no candles, more than 1%"):
            self.filled(exchange, store, archive)
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(self.TRUTH))
        assert list(store.checksums(BTC)) == ["BTCUSDT-1m-2026-01-01.zip"]

    def test_progress_is_told_once_though_the_exchange_is_asked_as_well(
        self, exchange: FakeExchange, store: CandleStore
    ):
        told: list[int] = []
        for prices in ({**self.TRUTH, minute(7): 555}, self.TRUTH):
            told.clear()
            archive = PlainArchive(prices)
            archive.issue = prices[minute(7)]
            backfill(
                exchange,
                store,
                settings=IngestSettings(),
                stretch=Stretch(start=START, end=minute(2 * 1440)),
                archive=archive,
                told=lambda symbol, n_minutes: told.append(n_minutes),
            )
            assert told == [1440, 1440]

    def test_differences_that_could_not_be_settled_are_settled_by_the_next_backfill(
        self, exchange: FakeExchange, store: CandleStore
    ):
        """The file was remembered as done, and what it differed in was never looked at again."""
        wrong = PlainArchive({**self.TRUTH, minute(7): 555})
        self.filled(exchange, store, wrong)
        mended = PlainArchive(self.TRUTH)
        mended.issue = 1
        exchange.odd = [NeighbourUnavailableError("the exchange is gone", hint="wait")]
        with pytest.raises(NeighbourUnavailableError, match="the exchange is gone"):
            self.filled(exchange, store, mended)
        exchange.now += MINUTE
        self.filled(exchange, store, mended)
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(self.TRUTH))

    def test_what_could_not_be_asked_for_is_asked_for_by_the_next_backfill(
        self, exchange: FakeExchange, store: CandleStore
    ):
        kept = {time: price for time, price in self.TRUTH.items() if time != minute(7)}
        exchange.odd = [NeighbourUnavailableError("the exchange is gone", hint="wait")]
        with pytest.raises(NeighbourUnavailableError, match="the exchange is gone"):
            self.filled(exchange, store, PlainArchive(kept))
        assert self.filled(exchange, store, PlainArchive(kept)).new_rows == 1
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(self.TRUTH))


@given(numbers=st.sets(st.integers(0, 5000), min_size=1), seconds=st.integers(0, 59))
def test_spans_hold_every_time_and_none_is_longer_than_a_page(numbers: set[int], seconds: int):
    times = [minute(number) + timedelta(seconds=seconds) for number in sorted(numbers)]
    spans = list(_spans(times))
    assert all(span.n_minutes <= PAGE_ROWS for span in spans)
    assert [sum(span.start <= time < span.end for span in spans) for time in times] == [1] * len(
        times
    )
    assert {floor_minute(span.start) for span in spans} <= set(map(floor_minute, times))


def test_the_plain_archive_is_like_the_real_one(tmp_path: Path):
    """Both tell the same candles of a day, whole and once."""
    market = HoledMarket(seed=7, start=START)
    with SandboxExchange(market, SandboxClock(NOW, 0)) as server:
        (real,) = Archive(server.url).files(BTC, start=START, end=START + DAY, known={})
    (plain,) = PlainArchive(minutes(START, 1440)).files(BTC, start=START, end=START + DAY, known={})
    assert (real.name, real.period) == (plain.name, plain.period)
    opened = pl.col("open_time")
    assert_frame_equal(real.klines.candles.select(opened), plain.klines.candles.select(opened))
