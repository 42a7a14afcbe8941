"""Backfill from a loopback exchange: at full speed, throttled, and beside what others would run."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import ccxt
import duckdb
import pandas as pd
import typer
from measuring import (
    MINUTE,
    NO_LIMIT,
    SYMBOL,
    Figure,
    LoopbackExchange,
    Timed,
    loopback_exchange,
    show,
)

from btc_lifecycle.adapters.exchange import PAGE_ROWS, Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleBatch, CandleStore, Warehouse
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.ingest.klines import parse_pages
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.fetching import BATCH_ROWS
from btc_lifecycle.orchestration.ingestion import backfill
from btc_lifecycle.sandbox.protocol import WEIGHTS
from btc_lifecycle.settings import IngestSettings

START = datetime(2024, 1, 1, tzinfo=UTC)
MOST_CANDLES = 570_000
"""The sandbox exchange keeps 400 days at hand."""

MOST_FREQTRADE_RUNS = 2
LIMIT_PER_MIN, WEIGHT_SHARE, PAGE_WEIGHT = 6000, 0.1, 2


def main(
    candles: Annotated[int, typer.Option(help="how many", max=MOST_CANDLES)] = 500_000,
    runs: Annotated[int, typer.Option(help="how often each is measured, in turns")] = 5,
    throttled_s: Annotated[int, typer.Option(help="seconds of the throttled backfill")] = 90,
    freqtrade: Annotated[
        Path | None, typer.Option(help="freqtrade's executable; README.md says how to get it")
    ] = None,
) -> None:
    """Measure backfills of the loopback exchange."""
    throttled = Stretch(start=START, end=START + throttled_pages(throttled_s) * PAGE_ROWS * MINUTE)
    stretch = Stretch(start=START, end=START + candles * MINUTE)
    end = max(stretch.end, throttled.end)
    with loopback_exchange(start=START, now=end + MINUTE) as exchange, TemporaryDirectory() as path:
        folder = Path(path)
        show(
            f"Backfill of {candles:,} candles, unthrottled",
            unthrottled(exchange, stretch, folder=folder, runs=runs),
        )
        show(
            f"Backfill throttled to {WEIGHT_SHARE:g} of {LIMIT_PER_MIN} request weight a minute",
            throttled_figures(exchange, throttled, folder=folder),
        )
        if freqtrade is None or not freqtrade.exists():
            print(f"freqtrade is left out: there is no executable at {freqtrade}")
            return
        show(
            f"freqtrade download-data of {candles:,} candles",
            freqtrade_figures(exchange, stretch, folder=folder, executable=freqtrade, runs=runs),
        )


def unthrottled(
    exchange: LoopbackExchange, stretch: Stretch, *, folder: Path, runs: int
) -> list[Figure]:
    """Measure ours, its parts and ccxt's in turns; return what each candle costs."""
    whole, script, parts = Timed(), Timed(), Parts()
    one_page = Stretch(start=stretch.start, end=stretch.start + PAGE_ROWS * MINUTE)
    for number, part in enumerate([one_page, *[stretch] * runs]):
        databases = [folder / f"{name}_{number}.duckdb" for name in ("ours", "parts", "script")]
        # The first turn pays for imports and is not counted.
        is_counted = number > 0
        ours = (whole if is_counted else Timed()).run(
            lambda: run_backfill(exchange, part, database=databases[0])  # noqa: B023  # run at once
        )
        require(ours == part.n_minutes, f"we stored {ours} of {part.n_minutes} candles")
        (parts if is_counted else Parts()).run(exchange, part, database=databases[1])
        theirs = (script if is_counted else Timed()).run(
            lambda: run_ccxt_script(exchange, part, database=databases[2])  # noqa: B023
        )
        require(theirs == part.n_minutes, f"ccxt stored {theirs} of {part.n_minutes} candles")
    n = stretch.n_minutes
    return [
        *costs("ours: backfill", whole, n=n, aim_us=3.0),
        *costs("  of that, fetching pages", parts.fetching, n=n),
        *costs("  of that, reading rows", parts.parsing, n=n),
        *costs("  of that, storing", parts.storing, n=n),
        *costs("ccxt fetch_ohlcv into DuckDB, six columns", script, n=n),
    ]


def costs(name: str, timed: Timed, *, n: int, aim_us: float | None = None) -> list[Figure]:
    """Return processor time per candle and candles per second."""
    per_candle = [1e6 * seconds / n for seconds in timed.cpu_s]
    return [
        Figure(name=name, unit="µs CPU per candle", values=per_candle, aim=aim_us),
        Figure(
            name=name,
            unit="candles per second",
            values=[n / seconds for seconds in timed.wall_s],
            better="more",
        ),
    ]


def run_backfill(exchange: LoopbackExchange, stretch: Stretch, *, database: Path) -> int:
    """Backfill an empty database as an ingest does; return the rows that it has then."""
    store = CandleStore(Warehouse(database), CandleTables.named())
    ingestion = backfill(
        unlimited(exchange, folder=database.parent),
        store,
        settings=IngestSettings(),
        stretch=stretch,
    )
    return ingestion.stats[0].total_rows


def unlimited(exchange: LoopbackExchange, *, folder: Path) -> Exchange:
    """Return our client of the exchange, whose pace is kept and asks for no pause."""
    pace = Pace(folder / "pace", limit_per_min=NO_LIMIT)
    return Exchange("binance", base_urls=(exchange.url,), pace=pace)


@dataclass(kw_only=True)
class Parts:
    """The three parts of a backfill, one after the other, to tell where its time goes."""

    fetching: Timed = field(default_factory=Timed)
    parsing: Timed = field(default_factory=Timed)
    storing: Timed = field(default_factory=Timed)

    def run(self, exchange: LoopbackExchange, stretch: Stretch, *, database: Path) -> None:
        """Fetch, read and store a stretch in the batches of a backfill."""
        client = unlimited(exchange, folder=database.parent)
        store = CandleStore(Warehouse(database), CandleTables.named())
        bodies = self.fetching.run(lambda: list(page_bodies(client, stretch)))
        n_pages = BATCH_ROWS // PAGE_ROWS
        batches = [bodies[at : at + n_pages] for at in range(0, len(bodies), n_pages)]
        klines = self.parsing.run(lambda: [parse_pages(part, symbol=SYMBOL) for part in batches])
        stored = [
            CandleBatch(
                symbol=SYMBOL,
                candles=read.candles.drop("close_time"),
                rejected=read.rejected,
                asked=Stretch(
                    start=read.candles["open_time"][0], end=read.candles["open_time"][-1] + MINUTE
                ),
                now=stretch.end,
                source=client.source,
            )
            for read in klines
        ]
        self.storing.run(lambda: [store.store(batch) for batch in stored])


def page_bodies(client: Exchange, stretch: Stretch) -> Iterator[bytes]:
    """Yield the pages of a stretch as they were sent."""
    start = stretch.start
    while start < stretch.end:
        page = client.klines(SYMBOL, start=start, end=stretch.end - timedelta(milliseconds=1))
        if page is None:
            return
        yield page.body
        start = page.edges.last_open_time + MINUTE


def run_ccxt_script(exchange: LoopbackExchange, stretch: Stretch, *, database: Path) -> int:
    """Backfill as the obvious script does: unified candles, a data frame, one upsert for a batch."""
    urls = {"api": {"public": f"{exchange.url}/api/v3"}}
    client = ccxt.binance({"urls": urls, "enableRateLimit": False})
    # Without it the first call loads the markets of the real exchange's futures, too.
    client.options["fetchMarkets"] = {"types": ["spot"]}
    since, end = (int(1000 * time_.timestamp()) for time_ in (stretch.start, stretch.end))
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            "CREATE TABLE candles (symbol VARCHAR, open_time TIMESTAMP, open DOUBLE, high DOUBLE, "
            "low DOUBLE, close DOUBLE, volume DOUBLE, PRIMARY KEY (symbol, open_time))"
        )
        rows: list[list[float]] = []
        while since < end:
            page = client.fetch_ohlcv(SYMBOL, "1m", since=since, limit=PAGE_ROWS)
            rows += [row for row in page if row[0] < end]
            since = int(page[-1][0]) + 60_000
            if len(rows) >= BATCH_ROWS or since >= end:
                upsert_frame(connection, rows)
                rows = []
        ((n_rows,),) = connection.execute("SELECT count(*) FROM candles").fetchall()
    return int(n_rows)


def upsert_frame(connection: duckdb.DuckDBPyConnection, rows: list[list[float]]) -> None:
    """Insert rows of ccxt, or replace what is stored."""
    frame = pd.DataFrame(rows, columns=["open_time", "open", "high", "low", "close", "volume"])
    frame.insert(0, "symbol", SYMBOL)
    frame["open_time"] = pd.to_datetime(frame["open_time"], unit="ms")
    connection.register("incoming", frame)
    connection.execute("INSERT OR REPLACE INTO candles SELECT * FROM incoming")


def freqtrade_figures(
    exchange: LoopbackExchange,
    stretch: Stretch,
    *,
    folder: Path,
    executable: Path,
    runs: int,
) -> list[Figure]:
    """Measure ``freqtrade download-data``: the process, and what it takes beyond one day."""
    day = Stretch(start=stretch.start, end=stretch.start + timedelta(days=1))
    whole, beyond = Timed(), Timed()
    try:
        # The first one compiles its byte code and is not counted.
        download(exchange, day, folder=folder, executable=executable)
        for _ in range(min(runs, MOST_FREQTRADE_RUNS)):
            short = download(exchange, day, folder=folder, executable=executable)
            full = download(exchange, stretch, folder=folder, executable=executable)
            whole.wall_s.append(full.wall_s)
            whole.cpu_s.append(full.cpu_s)
            beyond.cpu_s.append(full.cpu_s - short.cpu_s)
    except subprocess.SubprocessError as error:
        print(f"freqtrade is left out: {error}")
        return []
    n = stretch.n_minutes - day.n_minutes
    per_candle = [1e6 * seconds / n for seconds in beyond.cpu_s]
    return [
        Figure(name="beyond its first day", unit="µs CPU per candle", values=per_candle),
        Figure.of_time("start included", whole),
    ]


@dataclass(frozen=True, kw_only=True)
class Download:
    """What one download took."""

    wall_s: float
    cpu_s: float


def download(
    exchange: LoopbackExchange, stretch: Stretch, *, folder: Path, executable: Path
) -> Download:
    """Let freqtrade download a stretch into an empty folder."""
    with TemporaryDirectory(dir=folder) as place:
        config = Path(place) / "config.json"
        config.write_text(json.dumps(freqtrade_config(exchange.url)), encoding="utf-8")
        times = "-".join(f"{time_.timestamp():.0f}" for time_ in (stretch.start, stretch.end))
        command = [executable, "download-data", "--config", config, "--datadir", place]
        command += ["--userdir", place, "--timeframes", "1m", "--timerange", times]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=place)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        files = list(Path(place).rglob("*-1m.feather"))
        if done.returncode or not files:
            last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-3:])
            raise subprocess.SubprocessError(f"it stopped with {done.returncode}: {last_lines}")
        n_rows = len(pd.read_feather(files[0]))
        # It takes the newest candle for unfinished.
        if n_rows < stretch.n_minutes - 1:
            raise subprocess.SubprocessError(
                f"it stored {n_rows} of {stretch.n_minutes} candles:\n{done.stdout}{done.stderr}"
            )
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Download(wall_s=wall, cpu_s=cpu)


def freqtrade_config(url: str) -> dict[str, object]:
    """Return a configuration that knows the loopback exchange alone."""
    client = {
        "urls": {"api": {"public": f"{url}/api/v3"}},
        "options": {"fetchMarkets": {"types": ["spot"]}},
        "enableRateLimit": False,
    }
    return {
        "dry_run": True,
        "stake_currency": "USDT",
        "exchange": {
            "name": "binance",
            "pair_whitelist": [SYMBOL],
            "ccxt_config": client,
            "only_from_ccxt": True,
        },
    }


def throttled_pages(seconds: int) -> int:
    """Return how many pages the configured share of the limit gives in so many seconds."""
    return int(seconds / 60 * WEIGHT_SHARE * LIMIT_PER_MIN / PAGE_WEIGHT)


def throttled_figures(
    exchange: LoopbackExchange, stretch: Stretch, *, folder: Path
) -> list[Figure]:
    """Backfill at a share of the limit; return how much of it was used, as the exchange saw it."""
    n_before = len(exchange.requests())
    pace = Pace(folder / "throttled", weight_share=WEIGHT_SHARE, limit_per_min=LIMIT_PER_MIN)
    # What was measured before counts for the minute, and a backfill waits for the next one.
    client = Exchange("binance", base_urls=(exchange.url,), pace=pace).patient(timedelta(minutes=5))
    store = CandleStore(Warehouse(folder / "throttled.duckdb"), CandleTables.named())
    timed = Timed()
    # What was measured before counts until its minute ends.
    time.sleep(60 - time.time() % 60)
    timed.run(lambda: backfill(client, store, settings=IngestSettings(), stretch=stretch))
    seen = [(record.wall, WEIGHTS[record.path]) for record in exchange.requests()[n_before:]]
    require(store.warehouse.count(CANDLES) == stretch.n_minutes, "the throttled backfill has holes")
    share, pages_s = WEIGHT_SHARE * LIMIT_PER_MIN, seen[-1][0] - seen[0][0]
    used_per_min = 60 * sum(weight for _, weight in seen[1:]) / pages_s
    busiest = max(
        sum(weight for at, weight in seen if first <= at < first + 60) for first, _ in seen
    )
    return [
        percent("weight used a minute", used_per_min / share, aim=90.0, better="more"),
        percent("weight used in the busiest 60 s", busiest / share, aim=100.0, better="less"),
        Figure(
            name="candles stored",
            unit="per second",
            values=[stretch.n_minutes / timed.wall_s[0]],
            better="more",
        ),
        Figure.of_time("time measured", timed),
    ]


def percent(name: str, ratio: float, *, aim: float, better: Literal["less", "more"]) -> Figure:
    """Return a part of the configured share."""
    return Figure(name=name, unit="% of share", values=[100 * ratio], aim=aim, better=better)


def require(is_true: bool, problem: str) -> None:  # noqa: FBT001  # as assert
    """Stop a measurement that did not do its work."""
    if not is_true:
        raise RuntimeError(problem)


if __name__ == "__main__":
    typer.run(main)
