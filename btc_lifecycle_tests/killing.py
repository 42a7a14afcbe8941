"""Processes that are killed while they ingest: started cheaply, told of every store they begin and end.

A nursery imports everything once and forks a child for each order, so that a child costs a few
milliseconds. It must not use what it imports: the threads of polars and DuckDB start at their first
use, and a process that has some is not to be forked.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, get_args

from btc_lifecycle.adapters.archive import Archive
from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import BatchCounts, CandleBatch, CandleStore, Warehouse
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CandleTables
from btc_lifecycle.orchestration import fetching
from btc_lifecycle.orchestration.ingestion import backfill, ingest_new
from btc_lifecycle.settings import ROOT, IngestSettings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BTC, ETH = "BTC/USDT", "ETH/USDT"
Work = Literal["ingest", "ingest on", "backfill", "backfill from archive"]
Point = Literal["pid", "before", "commit"]
"""What a kill can follow: a child's start, a store's begin, its commit."""

Line = dict[str, object]

_IMPORTED_LATE = ("ccxt", "duckdb", "pyarrow")
"""What the package imports within functions, and each child would anew."""

_LONGEST_S = 60.0
"""After so long a child that is not to be killed yet hangs."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child does: ingest once, or again and again, or backfill ``[start, end)``; ISO times."""

    work: Work
    url: str
    folder: str
    start: str
    end: str


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When: after the nth time that a child tells of a point, its start being told once.

    ``share`` says how long after, 1 being the time that it usually takes from there until a store has
    ended.
    """

    point: Point
    nth: int
    share: float

    @classmethod
    def at_random(cls, rng: random.Random) -> Self:
        """Return a moment between a child's start and the time just after its third store."""
        if rng.random() < 0.3:
            return cls(point="pid", nth=1, share=rng.uniform(0, 2))
        point = rng.choice(["before", "commit"])
        return cls(point=point, nth=rng.randint(1, 3), share=rng.uniform(0, 1.2))


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a child told of its stores until it ended, and how it ended.

    Attributes:
        told: A line before each store, which names the batch, one before its commit, one after it.
        status: As ``os.waitpid`` gives it, 9 for a child that was killed.
    """

    told: tuple[Line, ...]
    status: int

    @property
    def ended_in_a_store(self) -> bool:
        """Return whether a store was begun and nothing was told of its end."""
        return bool(self.told) and "after" not in self.told[-1]

    @property
    def ended_in_a_commit(self) -> bool:
        """Return whether the end came after all was written and before a store was told to be done."""
        return bool(self.told) and "commit" in self.told[-1]


def database(folder: Path) -> Path:
    """Return where a child keeps its candles."""
    return folder / "bitcoin.duckdb"


class ToldWarehouse(Warehouse):
    """Says when it is about to commit."""

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[DuckDBPyConnection]:
        with super().connect(read_only=read_only) as connection:
            yield connection
            if not read_only:
                _tell(commit=True)


class ToldStore(CandleStore):
    """Says which batch it is about to store, and that it has."""

    def store(self, batch: CandleBatch) -> BatchCounts:
        asked = [time.isoformat() for time in (batch.asked.start, batch.asked.end)]
        _tell(before=[batch.symbol, *asked], stored_wins=batch.stored_wins)
        counts = super().store(batch)
        _tell(after=True)
        return counts


def carry_out(order: Order) -> None:
    """Do what was ordered, in this process; every page is a batch."""
    fetching.BATCH_ROWS = 1
    folder = Path(order.folder)
    pace = Pace(folder / "exchange", limit_per_min=10**6)
    exchange = Exchange("binance", base_urls=(order.url,), pace=pace)
    store = ToldStore(ToldWarehouse(database(folder)), CandleTables.named())
    start, end = map(datetime.fromisoformat, (order.start, order.end))
    settings = IngestSettings(symbols=(BTC, ETH), start=end)
    if order.work.startswith("ingest"):
        ingest_new(exchange, store, settings=settings)
        while order.work == "ingest on":
            ingest_new(exchange, store, settings=settings)
        return
    archive = Archive(order.url) if order.work == "backfill from archive" else None
    stretch = Stretch(start=start, end=end)
    backfill(exchange, store, settings=settings, stretch=stretch, archive=archive)


def serve() -> None:
    """Fork a child for each order that comes in, and say how it ended when that is asked for."""
    for name in _IMPORTED_LATE:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _tell(pid=os.getpid())
            carry_out(Order(**json.loads(line)))
            _tell(done=True)
            return
        # Until it is waited for its number is not given to another process, which a kill would hit.
        sys.stdin.readline()
        _tell(ended=os.waitpid(child, 0)[1])


def _tell(**line: object) -> None:
    # Unbuffered, so that what was told stays told whatever happens next.
    os.write(sys.stdout.fileno(), f"{json.dumps(line)}\n".encode())


class Nursery:
    """A process that forks children, and the means to kill one; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "btc_lifecycle_tests.killing"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._unread = b""
        self._took_s = {point: deque([0.05], maxlen=20) for point in get_args(Point)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=_LONGEST_S)
        self._process.stdout.close()

    def run(self, order: Order, *, kill: Kill | None = None) -> Life:
        """Let a child carry out an order and kill it when it is time, unless it ends before that."""
        self._send(json.dumps(asdict(order)))
        told: list[Line] = []
        told_at: dict[str, float] = {}
        until = time.monotonic() + _LONGEST_S
        while (line := self._line(until=until)) is not None and "done" not in line:
            told.append(line)
            point, now = next(iter(line)), time.monotonic()
            told_at[point] = now
            if point == "after":
                self._learn(told_at)
                told_at.clear()
            elif kill and kill.point == point and kill.nth == sum(point in it for it in told):
                until = now + kill.share * statistics.median(self._took_s[point])
        if line is None:
            os.kill(told[0]["pid"], signal.SIGKILL)
        self._send("")
        while "ended" not in (line := self._line()):
            told += [] if "done" in line else [line]
        return Life(told=tuple(told[1:]), status=line["ended"])

    def _learn(self, told_at: Mapping[str, float]) -> None:
        for point in told_at.keys() & self._took_s.keys():
            self._took_s[point].append(told_at["after"] - told_at[point])

    def _send(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n".encode())

    def _line(self, *, until: float = float("inf")) -> Line | None:
        """Return what a child or the nursery says next, None when the time is over."""
        out = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left_s = min(until - time.monotonic(), _LONGEST_S)
            if left_s <= 0 or not select.select([out], [], [], left_s)[0]:
                return None
            self._unread += os.read(out, 65536)
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)


if __name__ == "__main__":
    serve()
