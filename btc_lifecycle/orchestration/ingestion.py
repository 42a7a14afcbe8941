"""Ingests and backfills of all symbols: what to ask for, in turns, and what came of it.

What lives here: which stretches of time are asked for. What does not: how they are fetched and stored
(fetching.py), and what is due or missing (domain/ingest/gaps.py).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.archive import Archive
from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.adapters.warehouse import BatchCounts, CandleStore, Holdings, refuse_other_source
from btc_lifecycle.domain.errors import DataError, LifecycleError, NothingToServeError
from btc_lifecycle.domain.ingest.candles import INTERVAL
from btc_lifecycle.domain.ingest.gaps import Stretch, ceil_minute, floor_minute, without
from btc_lifecycle.orchestration.archiving import store_archived
from btc_lifecycle.orchestration.fetching import Fetch
from btc_lifecycle.settings import IngestSettings

REREAD = 10
"""Closed candles that every ingest reads again: the exchange revises the newest ones, and its
database lags."""

MOST_GAPS = 20
"""Gaps asked for again in one ingest, so that many of them do not hold up the newest candle."""

Told = Callable[[str, int], None]
"""Told of progress: a symbol and a number of minutes."""


@dataclass(frozen=True, kw_only=True)
class IngestionStats:
    """What one ingest of one symbol did, and what the table holds after it.

    ``fetched_at`` is the exchange's time when the ingest began.
    """

    symbol: str
    interval: str
    new_rows: int
    revised_rows: int
    rejected_rows: int
    total_rows: int
    first_open_time: datetime
    last_open_time: datetime
    missing_minutes: int
    gaps: int
    fetched_at: datetime
    source: str


@dataclass(frozen=True, kw_only=True)
class Ingestion:
    """What an ingest of several symbols did: figures of those that went well, errors of the others.

    ``asked_at`` is this machine's time when it began, as ``fetched_at`` of the figures is the exchange's.
    """

    stats: tuple[IngestionStats, ...]
    failures: Mapping[str, LifecycleError]
    asked_at: datetime

    def require_any(self) -> None:
        """Raise the first error if no symbol went well."""
        if not self.stats:
            raise next(iter(self.failures.values()))


def ingest_new(exchange: Exchange, store: CandleStore, *, settings: IngestSettings) -> Ingestion:
    """Store what closed since the newest candles, and ask for gaps whose time has come.

    The newest ``REREAD`` candles are read again. The first ingest of a symbol reaches back by
    ``limit`` or to ``start``.

    Raises:
        LifecycleError: If every symbol failed; what was stored before stays stored, and the next
            call continues after it.
    """
    now, asked_at = exchange.server_time(), clock.now()

    def work(symbol: str) -> Iterator[BatchCounts]:
        holdings = _own_holdings(store, symbol, source=exchange.source)
        fetch = Fetch(exchange=exchange, store=store, symbol=symbol, now=now)
        yield from fetch.stretch(_newest(holdings, settings=settings, now=now))
        for gap in holdings.due_gaps(now=now)[:MOST_GAPS]:
            yield from replace(fetch, is_retry=True).stretch(gap)

    return _ingested(
        exchange,
        store,
        {symbol: work(symbol) for symbol in settings.symbols},
        now=now,
        asked_at=asked_at,
    )


def backfill(
    exchange: Exchange,
    store: CandleStore,
    *,
    settings: IngestSettings,
    stretch: Stretch,
    archive: Archive | None = None,
    told: Told | None = None,
) -> Ingestion:
    """Store the closed candles of a stretch that were never asked for, of all symbols in turns.

    What is stored already is not asked for again, so a backfill that was killed goes on where it
    was. With an archive its files come first; the exchange then gives what they lack and settles
    where they differ from what is stored.

    Raises:
        LifecycleError: As ``ingest_new``.
    """
    now, asked_at = exchange.server_time(), clock.now()
    closed = Stretch(start=stretch.start, end=min(stretch.end, floor_minute(now)))

    def work(symbol: str) -> Iterator[BatchCounts]:
        _own_holdings(store, symbol, source=exchange.source)
        fetch = Fetch(
            exchange=exchange,
            store=store,
            symbol=symbol,
            now=now,
            told=None if told is None else partial(told, symbol),
        )
        refusal = None
        if archive is not None:
            try:
                yield from store_archived(archive, fetch, stretch=closed)
            except DataError as error:
                # A file that is not what it says: the exchange gives its month, and the file is told.
                refusal = error
        for missing in without(closed, store.holdings(symbol).fetched):
            yield from fetch.stretch(missing)
        if refusal is not None:
            raise refusal

    return _ingested(
        exchange,
        store,
        {symbol: work(symbol) for symbol in settings.symbols},
        now=now,
        asked_at=asked_at,
    )


def n_minutes_to_fetch(store: CandleStore, symbol: str, *, stretch: Stretch) -> int:
    """Return how many minutes of a stretch were never asked for."""
    return sum(part.n_minutes for part in without(stretch, store.holdings(symbol).fetched))


def write_stats(path: Path, ingestion: Ingestion) -> None:
    """Write the figures of an ingest: the first symbol's at the top, every symbol's in ``symbols``."""
    rows = [
        {
            key: value.isoformat() if isinstance(value, datetime) else value
            for key, value in asdict(figures).items()
        }
        for figures in ingestion.stats
    ]
    failures = {symbol: str(error) for symbol, error in ingestion.failures.items()}
    write_atomically(
        path,
        json.dumps(
            {
                **rows[0],
                "asked_at": ingestion.asked_at.isoformat(),
                "symbols": rows,
                "failures": failures,
            },
            indent=2,
        )
        + "\n",
    )


def _newest(holdings: Holdings, *, settings: IngestSettings, now: datetime) -> Stretch:
    this_minute = floor_minute(now)
    if holdings.first_open_time is None or holdings.last_open_time is None:
        first = settings.start or this_minute - settings.limit * INTERVAL
        return Stretch(start=ceil_minute(first), end=this_minute)
    reread = floor_minute(holdings.last_open_time) - (REREAD - 1) * INTERVAL
    return Stretch(start=max(reread, floor_minute(holdings.first_open_time)), end=this_minute)


def _own_holdings(store: CandleStore, symbol: str, *, source: str) -> Holdings:
    """Return what is stored of a symbol; refuse before asking for candles of another source."""
    holdings = store.holdings(symbol)
    refuse_other_source(holdings.source, source=source)
    return holdings


def _ingested(
    exchange: Exchange,
    store: CandleStore,
    works: Mapping[str, Iterator[BatchCounts]],
    *,
    now: datetime,
    asked_at: datetime,
) -> Ingestion:
    """Let each symbol store a batch in turn until all are done; one that fails stops no other."""
    done: dict[str, list[BatchCounts]] = {symbol: [] for symbol in works}
    failures: dict[str, LifecycleError] = {}
    waiting = dict(works)
    while waiting:
        for symbol, work in list(waiting.items()):
            try:
                done[symbol].append(next(work))
            except StopIteration:
                del waiting[symbol]
            except LifecycleError as error:
                failures[symbol] = error
                del waiting[symbol]
    stats = []
    for symbol in set(works) - set(failures):
        try:
            stats.append(_stats(exchange, store, symbol, counts=done[symbol], now=now))
        except LifecycleError as error:
            failures[symbol] = error
    ordered = sorted(stats, key=lambda figures: list(works).index(figures.symbol))
    ingestion = Ingestion(stats=tuple(ordered), failures=failures, asked_at=asked_at)
    ingestion.require_any()
    return ingestion


def _stats(
    exchange: Exchange,
    store: CandleStore,
    symbol: str,
    *,
    counts: Iterable[BatchCounts],
    now: datetime,
) -> IngestionStats:
    holdings, counts = store.holdings(symbol), list(counts)
    if holdings.first_open_time is None or holdings.last_open_time is None:
        raise NothingToServeError(
            f"{symbol}: the exchange has no closed candle in the time asked for",
            hint="mend `start` or `limit` in the ingest configuration",
        )
    return IngestionStats(
        symbol=symbol,
        interval="1m",
        new_rows=sum(batch.n_new for batch in counts),
        revised_rows=sum(batch.n_revised for batch in counts),
        rejected_rows=sum(batch.n_rejected for batch in counts),
        total_rows=holdings.n_rows,
        first_open_time=holdings.first_open_time,
        last_open_time=holdings.last_open_time,
        missing_minutes=holdings.n_missing_min,
        gaps=len(holdings.gaps),
        fetched_at=now,
        source=exchange.source,
    )
