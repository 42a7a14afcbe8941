"""Every kind of fault that the sandbox exchange knows, over a replay of real candles.

Whatever the exchange does, what is stored afterwards is what it would have said without the fault, and
nobody asks before a pause that it asked for has passed. Waiting moves a clock that exchange and
client share, so that minutes of back-off cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.http import HttpClient
from btc_lifecycle.adapters.warehouse import CandleStore, Warehouse
from btc_lifecycle.domain.errors import LifecycleError
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.ingestion import ingest_new
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import TELL_A_DELAY, FaultKind, FaultPath
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.spoiling import kinds_of
from btc_lifecycle.settings import IngestSettings

REAL = Path(__file__).parents[3] / "shared" / "data" / "binance_spot_1m"
NOW = datetime(2024, 2, 20, 12, 0, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST, LATER = 1200, 1300
"""Candles stored before the fault, and candles that closed until it: two pages and a bit."""
RETRY_AFTER_S = 45
FIRST_OPEN = NOW.replace(second=0) - FIRST * MINUTE
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.exists(), reason="the real candles are not here"),
]


@dataclass
class Wall:
    """The time of exchange and client; only waiting moves it."""

    now: float = NOW.timestamp()

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds + 1e-3


class World:
    """A sandbox exchange, and an ingest of it into a store of its own."""

    def __init__(self, market: ReplayMarket, folder: Path) -> None:
        self.wall = Wall()
        self.server = SandboxExchange(market, SandboxClock(NOW, 0), wall=self.wall.clock)
        self.exchange = Exchange(
            "binance",
            base_urls=[self.server.url],
            pace=Pace(folder / "exchange", clock=self.wall.clock, pause=self.wall.pause),
            patience=timedelta(seconds=20),
            http=HttpClient(total=timedelta(seconds=0.4)),
            pause=self.wall.pause,
        )
        self.store = CandleStore(Warehouse(folder / "x.duckdb"), CandleTables.named())

    def advance(self, minutes: int) -> None:
        """Let time pass for everybody."""
        self.server.clock.set(now=self.server.clock.now() + minutes * MINUTE)
        self.wall.now += minutes * 60

    def ingest(self) -> None:
        ingest_new(self.exchange, self.store, settings=IngestSettings(limit=FIRST))

    def fault(self, kind: FaultKind, *, path: FaultPath, count: int) -> None:
        body = {"kind": kind, "count": count, "path": path, "retry_after": RETRY_AFTER_S}
        if kind not in TELL_A_DELAY:
            del body["retry_after"]
        answer = self.server.post("/sandbox/fault", body=json.dumps(body).encode())
        assert answer.status == 200, answer.body

    def pending(self) -> int:
        """Return how many faults are still to come."""
        return len(json.loads(self.server.get("/sandbox/state").body)["pending_faults"])

    def stored(self) -> pl.DataFrame:
        return self.store.warehouse.read(CANDLES)

    def truth(self) -> pl.DataFrame:
        """Return what was closed by now, from the recording itself."""
        is_closed = pl.col("open_time").is_between(
            FIRST_OPEN, self.server.clock.now().replace(second=0), closed="left"
        )
        recorded = pl.read_parquet(REAL / "BTCUSDT" / "2024-02.parquet").filter(is_closed)
        return recorded.with_columns(
            pl.lit("BTC/USDT").alias("symbol"),
            pl.col("open_time").cast(CANDLES.schema["open_time"]),
        ).select(pl.col(name).cast(type_) for name, type_ in CANDLES.schema.items())


@pytest.fixture(scope="module")
def market() -> ReplayMarket:
    return ReplayMarket(REAL)


@pytest.fixture
def world(market: ReplayMarket, tmp_path: Path) -> Iterator[World]:
    world = World(market, tmp_path)
    with world.server:
        world.ingest()
        yield world


def assert_no_request_before_its_time(world: World) -> None:
    records = list(world.server.requests)
    for refused, following in pairwise(records):
        if refused.status in {418, 429}:
            assert following.wall >= refused.wall + RETRY_AFTER_S


CASES = [(path, kind) for path in (FaultPath.KLINES, FaultPath.TIME) for kind in kinds_of(path)]


@pytest.mark.parametrize(("path", "kind"), CASES)
def test_after_a_fault_the_table_is_what_the_exchange_would_have_said(
    world: World, path: FaultPath, kind: FaultKind
):
    stays_exact_and_heals(world, path, kind, count=1)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "kind"), CASES)
def test_after_a_fault_that_stays_for_a_while_it_is_so_too(
    world: World, path: FaultPath, kind: FaultKind
):
    stays_exact_and_heals(world, path, kind, count=9)


def stays_exact_and_heals(world: World, path: FaultPath, kind: FaultKind, *, count: int) -> None:
    # The exchange revises its newest candles only, of which ten are read again.
    world.advance(5 if kind is FaultKind.REVISED else LATER)
    world.fault(kind, path=path, count=count)
    while True:
        with suppress(LifecycleError):
            world.ingest()
        stored = world.stored()
        if kind is not FaultKind.REVISED:
            assert_frame_equal(stored, world.truth().join(stored, on=CANDLES.key, how="semi"))
        if not world.pending():
            break
        world.advance(1)
    # A minute heals what failed, an hour what was missing.
    for minutes in (1, 61):
        world.advance(minutes)
        world.ingest()
    assert_frame_equal(world.stored(), world.truth())
    holdings = world.store.holdings("BTC/USDT")
    assert (holdings.n_missing_min, holdings.gaps) == (0, ())
    assert_no_request_before_its_time(world)


def test_there_are_more_than_thirty_kinds():
    assert len(kinds_of(FaultPath.KLINES)) >= 30
