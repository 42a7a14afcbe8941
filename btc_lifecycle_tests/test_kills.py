"""Kill -9 at random moments of ingests and backfills.

Whenever it comes, no row that was told to be stored is lost, no batch is there in part, the files
beside the database can be read, and the next run in another process completes.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange.pace_state import PaceState
from btc_lifecycle.adapters.warehouse import CandleStore, Holdings, Warehouse
from btc_lifecycle.adapters.warehouse.manifest import read_manifest
from btc_lifecycle.domain.ingest.gaps import Stretch, floor_minute, merged, missing_within
from btc_lifecycle.domain.ingest.klines import parse_pages
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.market import Market, as_ms
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle_tests.killing import (
    BTC,
    ETH,
    Kill,
    Life,
    Line,
    Nursery,
    Order,
    Work,
    database,
)
from btc_lifecycle_tests.orchestration.fake_exchange import MINUTE, HoledMarket
from btc_lifecycle_tests.reference_ingest import count_missing_minutes

TABLES = CandleTables.named()
START = datetime(2026, 1, 1, tzinfo=UTC)
BACKFILLED_TO = START + timedelta(days=3)
"""Backfills end here, and the first ingest begins."""

NOW = START + timedelta(days=4, seconds=20)
SPEED = 5000.0
"""Of the exchange's clock: an ingest finds some new candles, or some pages of them."""

HOLES = (*range(990, 1010), 4000, *range(5000, 5003))
"""Minutes after the start that the exchange has no candle of; the first cross a page's end."""

N_KILLS, SEEDS = 25, range(8)
KILLS_IN_A_WORLD = 13
FILES = re.compile(
    r"bitcoin\.duckdb(\.wal|\.manifest\.json)?|exchange/http_127\.0\.0\.1_[0-9]+\.json(\.lock)?"
)
UNFINISHED = re.compile(r"(exchange/)?\.[a-z0-9._]+\.[0-9a-f]{32}(\.wal)?")
"""What a kill leaves of a file that was not yet given its name; nothing ever reads it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the database should hold: candles, and what they were before they were revised."""

    candles: pl.DataFrame
    revisions: pl.DataFrame

    @property
    def n_rows(self) -> int:
        return self.candles.height

    def equals(self, other: Held) -> bool:
        return self.candles.equals(other.candles) and self.revisions.equals(other.revisions)


NOTHING = Held(candles=CANDLES.schema.to_frame(), revisions=CANDLES.schema.to_frame())


class World:
    """An exchange that never sleeps, and a database whose writers are killed."""

    def __init__(self, market: Market, nursery: Nursery, folder: Path) -> None:
        self.server = SandboxExchange(market, SandboxClock(NOW, SPEED), weight_limit_per_min=10**6)
        self.nursery, self.folder = nursery, folder
        self.held, self.n_told_rows = NOTHING, 0
        self.revised: datetime | None = None

    def run(self, work: Work, *, kill: Kill | None = None) -> Life:
        """Let a child work until it is killed or done, and look at what it left."""
        life = self.nursery.run(
            Order(
                work=work,
                url=self.server.url,
                folder=str(self.folder),
                start=START.isoformat(),
                end=BACKFILLED_TO.isoformat(),
            ),
            kill=kill,
        )
        begun: Line = {}
        for line in life.told:
            if "before" in line:
                begun = line
            if "after" in line:
                self.held = self.after(begun)
                self.n_told_rows = self.held.n_rows
        found = self.found()
        if life.ended_in_a_commit and not found.equals(self.held):
            # Killed between the commit and the word of it; if not, what is found is torn.
            self.held = self.after(begun)
        assert_frame_equal(found.candles, self.held.candles)
        assert_frame_equal(found.revisions, self.held.revisions)
        return life

    def after(self, begun: Line) -> Held:
        """Return what the database should hold after a batch."""
        symbol, *asked = begun["before"]
        start, end = map(datetime.fromisoformat, asked)
        batch = truth(self.server.history, symbol, start=start, end=end)
        known, key = self.held.candles, list(CANDLES.key)
        before = known.join(batch, on=key, how="semi")
        if begun["stored_wins"]:
            new = batch.join(known, on=key, how="anti")
            return replace(self.held, candles=pl.concat([known, new]).sort(key))
        replaced = before.join(batch, on=batch.columns, how="anti")
        candles = pl.concat([known.join(before, on=key, how="anti"), batch]).sort(key)
        return Held(candles=candles, revisions=pl.concat([self.held.revisions, replaced]).sort(key))

    def found(self) -> Held:
        """Return what the database holds, once all of it was found to fit together."""
        self.require_whole_files()
        path = database(self.folder)
        if not path.exists():
            return NOTHING
        warehouse = Warehouse(path)
        n_rows = warehouse.verify()
        candles, revisions, quarantine = (
            warehouse.read(table) if n_rows.get(table.name) else table.schema.to_frame()
            for table in (TABLES.candles, TABLES.revisions, TABLES.quarantine)
        )
        assert quarantine.is_empty()
        for symbol in (BTC, ETH):
            opened = candles.filter(symbol=symbol)["open_time"]
            require_one_story(CandleStore(warehouse, TABLES).holdings(symbol), opened)
        manifest = read_manifest(path)
        by_symbol = manifest.tables.get(CANDLES.name, {}) if manifest else {}
        n_recorded = sum(recorded.n_rows for recorded in by_symbol.values())
        assert self.n_told_rows <= n_recorded <= candles.height
        return Held(candles=candles, revisions=revisions.drop("revised_at"))

    def require_whole_files(self) -> None:
        """Every file has a name that is known, and can be read as what it is."""
        names = [
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file()
        ]
        assert [
            name for name in names if not (FILES.fullmatch(name) or UNFINISHED.fullmatch(name))
        ] == []
        for path in (self.folder / "exchange").glob("http*.json"):
            # A file that was made and not yet written to is as if nothing was known.
            if text := path.read_bytes():
                assert json.loads(text).keys() == vars(PaceState()).keys()

    def revise_newest(self) -> None:
        """Let the exchange tell the newest candle otherwise, which the next ingest reads again."""
        newest = self.held.candles.filter(symbol=BTC)["open_time"].max()
        if newest is not None and newest >= BACKFILLED_TO and newest != self.revised:
            self.server.history.revise("BTCUSDT", open_ms=as_ms(newest), volume_factor=2.0)
            self.revised = newest

    def complete(self) -> None:
        """Let the next runs end by themselves: the tables are the exchange's."""
        self.server.clock.set(speed=0)
        for work in ("backfill", "ingest"):
            assert self.run(work).status == 0
        now = floor_minute(self.server.clock.now())
        whole = [truth(self.server.history, it, start=START, end=now) for it in (BTC, ETH)]
        assert_frame_equal(self.held.candles, pl.concat(whole))
        for symbol in (BTC, ETH):
            holdings = CandleStore(Warehouse(database(self.folder)), TABLES).holdings(symbol)
            assert holdings.fetched == (Stretch(start=START, end=now),)
            assert holdings.n_missing_min == len(HOLES)


def truth(market: Market, symbol: str, *, start: datetime, end: datetime) -> pl.DataFrame:
    """Return the candles that open in ``[start, end)`` straight from the market."""
    name = symbol.replace("/", "")
    days = [
        market.block(name, start_ms=start_ms)
        for start_ms in market.block_starts(name, until_ms=as_ms(end) - 1)
        if start_ms > as_ms(start - timedelta(days=1))
    ]
    texts = [b"[" + day.rows_text(0, len(day)) + b"]" for day in days]
    candles = parse_pages(texts, symbol=symbol).candles.drop("close_time")
    return candles.filter(pl.col("open_time").is_between(start, end, closed="left"))


def require_one_story(holdings: Holdings, opened: pl.Series) -> None:
    """Gaps, fetched ranges and counts say of the candles what the candles say."""
    assert holdings.n_rows == opened.len()
    if opened.is_empty():
        return
    assert (holdings.first_open_time, holdings.last_open_time) == (opened.min(), opened.max())
    assert holdings.n_missing_min == count_missing_minutes(opened)
    held = Stretch(start=opened[0], end=opened[-1] + MINUTE)
    missing = [
        gap
        for fetched in holdings.fetched
        for gap in missing_within(opened, stretch=fetched)
        if gap.overlaps(held)
    ]
    assert merged(gap.stretch for gap in holdings.gaps) == merged(missing)
    n_within = sum(
        opened.is_between(fetched.start, fetched.end, closed="left").sum()
        for fetched in holdings.fetched
    )
    assert n_within == opened.len()


@pytest.fixture(scope="module")
def market() -> HoledMarket:
    market = HoledMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))
    market.missing = HOLES
    return market


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running


@pytest.mark.timeout(1200)  # on a machine that is busy with other work it takes minutes
@pytest.mark.parametrize(
    "seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:])]
)
def test_a_kill_loses_nothing_tears_nothing_and_stops_no_later_run(
    market: HoledMarket, nursery: Nursery, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  # moments, no secret
    lives = killed_lives(market, nursery, rng=rng, n_kills=N_KILLS)
    assert len(lives) == N_KILLS
    # Two of three come in a store; the rest before the first one and between two.
    assert sum(life.ended_in_a_store for life in lives) > N_KILLS // 5


def killed_lives(
    market: HoledMarket, nursery: Nursery, *, rng: random.Random, n_kills: int
) -> list[Life]:
    """Return the lives that a kill ended; a child that was done before it is not counted."""
    killed: list[Life] = []
    while len(killed) < n_kills:
        most = min(n_kills, len(killed) + KILLS_IN_A_WORLD)
        with tempfile.TemporaryDirectory() as folder:
            world = World(market, nursery, Path(folder))
            with world.server:
                while len(killed) < most:
                    work = rng.choice([it for it in get_args(Work) if it != "ingest"])
                    life = world.run(work, kill=Kill.at_random(rng))
                    assert life.status in {0, 9}
                    killed += [life] if life.status else []
                    world.revise_newest()
                world.complete()
    return killed
