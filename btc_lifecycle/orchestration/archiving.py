"""Months of the past from the public archive, settled with the exchange.

Files are faster than pages, and are issued again when they were wrong: what is stored already stays
stored, and where file and store differ the exchange is asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import polars as pl

from btc_lifecycle.adapters.archive import Archive, ArchiveFile
from btc_lifecycle.adapters.exchange import PAGE_ROWS
from btc_lifecycle.adapters.warehouse import BatchCounts, CandleBatch
from btc_lifecycle.domain.ingest.candles import INTERVAL, closed_before
from btc_lifecycle.domain.ingest.gaps import Stretch, floor_minute
from btc_lifecycle.orchestration.fetching import Fetch


def store_archived(archive: Archive, fetch: Fetch, *, stretch: Stretch) -> Iterator[BatchCounts]:
    """Store the archive's files of a stretch; ask the exchange where they differ from what is stored.

    A file is remembered once that is settled; until then it is fetched again. What files lack does
    not count as asked for, so the exchange is asked for it afterwards.

    Raises:
        LifecycleError: If the archive, the exchange or the store fails; files stored before stay
            stored.
    """
    store, symbol = fetch.store, fetch.symbol
    known = store.checksums(symbol)
    for file in archive.files(symbol, start=stretch.start, end=stretch.end, known=known):
        file.klines.require_mostly_sound(symbol=symbol)
        period = Stretch(start=file.period.start, end=file.period.end)
        candles = closed_before(file.klines.candles, now=fetch.now)
        counts = store.store(_batch(file, candles=candles, asked=period, fetch=fetch))
        yield counts
        fetch.tell(period.n_minutes)
        for span in _spans(counts.differing):
            yield from replace(fetch, told=None).stretch(span)
        store.remember_file(
            symbol,
            name=file.name,
            sha256=file.sha256,
            n_rows=candles.height,
            n_differing=len(counts.differing),
            now=fetch.now,
        )


def _batch(
    file: ArchiveFile, *, candles: pl.DataFrame, asked: Stretch, fetch: Fetch
) -> CandleBatch:
    return CandleBatch(
        symbol=fetch.symbol,
        candles=candles,
        rejected=file.klines.rejected,
        asked=asked,
        now=fetch.now,
        source=fetch.exchange.source,
        stored_wins=True,
    )


def _spans(times: Sequence[datetime]) -> Iterator[Stretch]:
    """Yield stretches of at most a page that hold all of the times, which are in order."""
    left = list(times)
    while left:
        start = floor_minute(left[0])
        end = start + PAGE_ROWS * INTERVAL
        within = [time for time in left if time < end]
        yield Stretch(start=start, end=floor_minute(within[-1]) + INTERVAL)
        left = left[len(within) :]
