"""What the benchmarks share: a loopback exchange in a process of its own, stopwatches, the table."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.market import as_ms
from btc_lifecycle.sandbox.server import RequestRecord, SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket

SYMBOL = "BTC/USDT"
MINUTE = timedelta(minutes=1)
NO_LIMIT = 10**9
"""Request weight per minute that nobody reaches."""

_WIDTH = 132


class LoopbackExchange:
    """A sandbox exchange that serves from another process, its days made before it is asked."""

    def __init__(self, url: str, pipe: Connection) -> None:
        self.url, self._pipe = url, pipe

    def requests(self) -> list[RequestRecord]:
        """Return the requests that it answered so far."""
        self._pipe.send(None)
        found: list[RequestRecord] = self._pipe.recv()
        return found

    def set_time(self, now: datetime) -> None:
        """Let its stopped clock show this time."""
        self._pipe.send(now)
        self._pipe.recv()


@contextmanager
def loopback_exchange(*, start: datetime, now: datetime) -> Iterator[LoopbackExchange]:
    """Serve a synthetic market's minutes from ``start``; its clock stands at ``now``."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(there, start, now), daemon=True)
    process.start()
    try:
        yield LoopbackExchange(here.recv(), here)
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, start: datetime, now: datetime) -> None:
    market = SyntheticMarket(start=start)
    for start_ms in market.block_starts(market.symbols[0], until_ms=as_ms(now)):
        market.block(market.symbols[0], start_ms=start_ms)
    clock = SandboxClock(now, speed=0)
    with SandboxExchange(market, clock, weight_limit_per_min=NO_LIMIT) as exchange:
        pipe.send(exchange.url)
        while True:
            order = pipe.recv()
            if order is not None:
                clock.set(now=order)
            pipe.send(list(exchange.requests))


def made_up_candles(*, start: datetime, n: int) -> pl.DataFrame:
    """Return ``n`` consecutive candles of a random walk, each as plausible as the next."""
    import numpy as np  # noqa: PLC0415  # only one of the scripts makes candles

    rng = np.random.default_rng(7)
    close = np.round(30_000 * np.exp(np.cumsum(rng.normal(0, 2e-4, n))), 2)
    open_ = np.roll(close, 1)
    open_[0] = close[0]
    volume = np.round(rng.lognormal(2, 1, n), 5)
    return pl.DataFrame(
        {
            "symbol": pl.repeat(SYMBOL, n, eager=True),
            "open_time": pl.datetime_range(
                start, start + (n - 1) * MINUTE, "1m", time_zone="UTC", time_unit="us", eager=True
            ),
            "open": open_,
            "high": np.maximum(open_, close) + 5,
            "low": np.minimum(open_, close) - 5,
            "close": close,
            "volume": volume,
            "quote_volume": np.round(volume * close, 5),
            "trades": rng.integers(1, 3000, n),
            "taker_buy_base": np.round(volume / 2, 5),
            "taker_buy_quote": np.round(volume / 2 * close, 5),
        }
    )


def read_months(folder: Path, *, first: str = "", last: str = "9999") -> pl.DataFrame:
    """Return the months' candles of Parquet files, with the columns of the table of candles."""
    paths = [path for path in sorted(folder.glob("*.parquet")) if first <= path.stem <= last]
    if not paths:
        raise FileNotFoundError(f"no month from {first} to {last} in {folder}")
    months = pl.concat((pl.read_parquet(path) for path in paths), how="vertical_relaxed")
    known = months.with_columns(symbol=pl.lit(SYMBOL))
    return known.select(
        (pl.col(name) if name in known.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in CANDLES.schema.items()
    ).sort("open_time")


@dataclass(kw_only=True)
class Timed:
    """Seconds of each run: by the clock, and of the processor, all threads of this process."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], Any]) -> Any:
        """Do the work once more, and return what it returns."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)
        return result


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the table: what was measured in each run, and how little or much it should be.

    A figure without an aim stands beside those with one. ``cpu`` is the processor time of a figure
    that is a time, in the same unit.
    """

    name: str
    values: Sequence[float]
    unit: str
    cpu: Sequence[float] = ()
    aim: float | None = None
    better: Literal["less", "more"] = "less"

    @classmethod
    def of_time(
        cls, name: str, timed: Timed, *, unit: str = "s", aim: float | None = None
    ) -> Figure:
        """Return the wall and processor time of each run, in s or ms."""
        factor = {"s": 1, "ms": 1000}[unit]
        return cls(
            name=name,
            values=[factor * seconds for seconds in timed.wall_s],
            unit=unit,
            cpu=[factor * seconds for seconds in timed.cpu_s],
            aim=aim,
        )

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        """The run that other programs on the machine disturbed least."""
        return min(self.values) if self.better == "less" else max(self.values)

    @property
    def verdict(self) -> str:
        """The aim, and whether the median reaches it."""
        if self.aim is None:
            return ""
        is_met = self.median <= self.aim if self.better == "less" else self.median >= self.aim
        sign = "at most" if self.better == "less" else "at least"
        return f"{sign} {_number(self.aim)}: {'met' if is_met else 'MISSED'}"


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print figures as a table, with the date and the load of the machine."""
    load = os.getloadavg()
    table = RichTable(
        title=f"{title}\n{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, "
        f"load {load[0]:.1f} (1 min) {load[1]:.1f} (5 min)",
    )
    table.add_column("figure", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for name in ("median", "best", "CPU", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("aim", no_wrap=True)
    for figure in figures:
        table.add_row(
            figure.name,
            figure.unit,
            _number(figure.median),
            _number(figure.best),
            _number(statistics.median(figure.cpu)) if figure.cpu else "",
            str(len(figure.values)),
            figure.verdict,
        )
    Console(width=_WIDTH).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
