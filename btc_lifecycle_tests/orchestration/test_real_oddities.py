"""Months of Binance with outages and times off the grid, ingested to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.archive import Archive
from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleStore
from btc_lifecycle.domain.ingest.candles import CARRIED
from btc_lifecycle.domain.ingest.coverage import cover
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.ingestion import IngestionStats, backfill
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.settings import IngestSettings
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse
from btc_lifecycle_tests.reference_ingest import count_missing_minutes

DATA = Path(__file__).parents[3] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"
BTC = "BTC/USDT"
NOW = datetime(2024, 1, 1, 0, 0, 20, tzinfo=UTC)

GAPS = {
    "2017-12": [("2017-12-18 10:01", 13), ("2017-12-18 12:30", 64)],
    "2021-04": [("2021-04-20 02:00", 150), ("2021-04-25 04:01", 284)],
    "2021-08": [("2021-08-13 02:00", 270)],
    "2023-03": [("2023-03-24 12:40", 80)],
}
"""First missing minute and length in minutes of each outage of the recorded months."""

OFF_GRID = {"2017-12": 20_401}
ZERO_VOLUME = {"2017-12": 100, "2023-03": 72}

pytestmark = pytest.mark.real_data


@pytest.fixture
def server() -> Iterator[SandboxExchange]:
    if not all((DATA / f"{month}.parquet").exists() for month in GAPS):
        pytest.skip(f"no real candles at {DATA}")
    clock = SandboxClock(NOW, 0)
    with SandboxExchange(ReplayMarket(DATA), clock, weight_limit_per_min=10**6) as running:
        yield running


@pytest.fixture
def exchange(server: SandboxExchange, tmp_path: Path) -> Exchange:
    pace = Pace(tmp_path / "exchange", limit_per_min=10**6)
    return Exchange("binance", base_urls=(server.url,), pace=pace)


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), CandleTables.named())


def month_of(name: str) -> Stretch:
    start = datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC)
    return Stretch(start=start, end=(start + timedelta(days=31)).replace(day=1))


def filled(
    exchange: Exchange, store: CandleStore, stretch: Stretch, *, archive: Archive | None = None
) -> IngestionStats:
    done = backfill(exchange, store, settings=IngestSettings(), stretch=stretch, archive=archive)
    return done.stats[0]


def recorded(name: str) -> pl.DataFrame:
    """Return a recorded month as it should be stored.

    The recording has no trades and takers; the sandbox tells zeros, which are believed where nothing
    was traded.
    """
    month = pl.read_parquet(DATA / f"{name}.parquet").with_columns(symbol=pl.lit(BTC))
    zeros = [pl.when(pl.col("volume") == 0).then(0).alias(column) for column in CARRIED]
    return month.with_columns(zeros).select(CANDLES.schema.names()).cast(dict(CANDLES.schema))


def gaps(store: CandleStore) -> list[tuple[str, int]]:
    held = store.holdings(BTC)
    return [(f"{gap.stretch.start:%Y-%m-%d %H:%M}", gap.stretch.n_minutes) for gap in held.gaps]


def require_exact(store: CandleStore, stats: IngestionStats, name: str) -> None:
    """Hold table, gaps and figures to the recorded month."""
    stored = store.warehouse.read(CANDLES)
    assert_frame_equal(stored, recorded(name), check_exact=True)
    assert gaps(store) == GAPS[name]
    n_missing_min = sum(length for _, length in GAPS[name])
    assert stats.missing_minutes == n_missing_min == count_missing_minutes(stored["open_time"])
    assert (stats.rejected_rows, stats.total_rows) == (0, stored.height)
    assert store.holdings(BTC).fetched == (month_of(name),)
    covered = cover(stored)
    assert covered.n_off_grid == OFF_GRID.get(name, 0)
    assert covered.n_zero_volume == ZERO_VOLUME.get(name, 0)


@pytest.mark.parametrize("name", sorted(GAPS))
def test_a_month_comes_from_the_exchange_as_it_was(
    exchange: Exchange, store: CandleStore, name: str
):
    require_exact(store, filled(exchange, store, month_of(name)), name)


def test_a_month_comes_from_the_archive_as_it_was(
    exchange: Exchange, store: CandleStore, server: SandboxExchange
):
    stats = filled(exchange, store, month_of("2023-03"), archive=Archive(server.url))
    require_exact(store, stats, "2023-03")
    # The time, and the outage, which the exchange is asked for before it counts as one.
    asked = [record.path for record in server.requests if record.path.startswith("/api/")]
    assert asked == ["/api/v3/time", "/api/v3/klines", "/api/v3/klines"]


def test_both_candles_of_the_minute_in_which_the_grid_shifted_are_stored(
    exchange: Exchange, store: CandleStore
):
    """On 2017-12-04 one opened at 06:00:00 and one at 06:00:20.799; a page ended between them."""
    shift = datetime(2017, 12, 4, 6, tzinfo=UTC)
    end = shift + timedelta(minutes=1)
    filled(exchange, store, Stretch(start=end - timedelta(minutes=1000), end=end))
    opened = store.warehouse.open_times(CANDLES, symbol=BTC)
    assert opened[-2:].to_list() == [shift, shift + timedelta(seconds=20, milliseconds=799)]
