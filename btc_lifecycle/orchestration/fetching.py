"""From the exchange to the store: pages of a stretch of time, gathered into batches.

What lives here: the order of calls to exchange and store. What does not: the rules of candles and
gaps, which are in domain/ingest, and those of waiting and trying again, which are the exchange's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from btc_lifecycle.adapters.exchange import PAGE_ROWS, Exchange, RawPage
from btc_lifecycle.adapters.warehouse import BatchCounts, CandleBatch, CandleStore
from btc_lifecycle.domain.errors import LifecycleError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.candles import INTERVAL, closed_before
from btc_lifecycle.domain.ingest.gaps import Stretch, floor_minute
from btc_lifecycle.domain.ingest.klines import Klines, parse_pages, together

BATCH_ROWS = 500_000
BATCH_TIME = timedelta(seconds=10)
"""A batch is stored when it has so many rows or took so long: a killed backfill loses no more, and
at the exchange's speed a commit's tenth of a second stays small beside it."""

_TICK = timedelta(milliseconds=1)
"""The exchange's resolution of time."""


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """Why a page was refused, and where the pages before it end."""

    error: LifecycleError
    reached: datetime | None


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Everything that fetching a symbol's candles needs, whatever the stretch."""

    exchange: Exchange
    store: CandleStore
    symbol: str
    now: datetime
    told: Callable[[int], None] | None = None
    """Called with the number of minutes that were got through, for a progress bar."""
    is_retry: bool = False
    """Whether it asks for a gap again: what is bad there was bad before, and refuses no page."""

    def stretch(self, stretch: Stretch) -> Iterator[BatchCounts]:
        """Fetch and store a stretch's closed candles, batch by batch.

        Raises:
            LifecycleError: If the exchange or the store fails, or a page has too many bad rows; what
                came before stays stored.
        """
        end = min(stretch.end, floor_minute(self.now))
        start = counted = stretch.start
        while start < end:
            pages, reached = self._pages(start, end=end, counted=counted)
            counted = reached
            klines, refusal = self._klines(pages)
            if refusal is not None:
                reached = refusal.reached or start
            yield self._stored(klines, asked=Stretch(start=start, end=reached))
            if refusal is not None:
                raise refusal.error
            # A page may end between two candles of one minute, as 2017-12-04 06:00 has: the last
            # minute of a batch is asked for once more by the next one.
            start = end if reached >= end else max(reached - INTERVAL, start + INTERVAL)

    def _pages(
        self, start: datetime, *, end: datetime, counted: datetime
    ) -> tuple[list[RawPage], datetime]:
        """Return the pages of a batch, at least one unless there is none, and where they end."""
        begun, at, reached = time.monotonic(), start, start
        pages: list[RawPage] = []
        while at < end and not (pages and _is_full(pages, begun=begun)):
            try:
                page = self._page(at, end=end)
            except NeighbourUnavailableError:
                if not pages:
                    raise
                # What came before it is stored first; the next batch asks again, and tells.
                break
            if page is None:
                reached, at = end, end
            else:
                pages.append(page)
                reached = _end_of(page)
                is_last = reached >= end and page.edges.n_rows < PAGE_ROWS
                at = end if is_last else page.edges.last_open_time + _TICK
            self.tell((reached - counted) // INTERVAL)
            counted = reached
        return pages, end if at >= end else reached

    def tell(self, n_minutes: int) -> None:
        """Tell whoever wants to know that so many minutes were got through."""
        if self.told is not None:
            self.told(n_minutes)

    def _page(self, start: datetime, *, end: datetime) -> RawPage | None:
        page = self.exchange.klines(self.symbol, start=start, end=end - _TICK)
        if page is None:
            # An exchange whose database lags answers so too: nothing is only believed twice.
            page = self.exchange.klines(self.symbol, start=start, end=end - _TICK)
        return page

    def _stored(self, klines: Klines, *, asked: Stretch) -> BatchCounts:
        candles = closed_before(klines.candles, now=self.now)
        # An expression: a series refuses bounds in another zone, such as that of a configured start.
        is_asked = pl.col("open_time").is_between(asked.start, asked.end, closed="left")
        if not candles.select(is_asked.all()).item():
            candles = candles.filter(is_asked)
        return self.store.store(
            CandleBatch(
                symbol=self.symbol,
                candles=candles,
                rejected=klines.rejected,
                asked=asked,
                now=self.now,
                source=self.exchange.source,
            )
        )

    def _klines(self, pages: list[RawPage]) -> tuple[Klines, _Refusal | None]:
        """Return the rows of pages, up to the first that is refused for its bad rows."""
        klines = parse_pages([page.body for page in pages], symbol=self.symbol)
        if klines.rejected.is_empty():
            return klines, None
        judged = [parse_pages([], symbol=self.symbol)]
        reached = None
        for page in pages:
            try:
                judged.append(self._judged(page))
            except LifecycleError as error:
                return together(judged), _Refusal(error=error, reached=reached)
            reached = _end_of(page)
        return together(judged), None

    def _judged(self, page: RawPage) -> Klines:
        """Return a page's rows; one with bad rows is asked for once more and judged by both."""
        klines = parse_pages([page.body], symbol=self.symbol)
        if klines.rejected.is_empty():
            return klines
        edges = page.edges
        again = self.exchange.klines(
            self.symbol, start=edges.first_open_time, end=edges.last_open_time
        )
        if again is not None:
            klines = together([klines, parse_pages([again.body], symbol=self.symbol)])
        if not self.is_retry:
            klines.require_mostly_sound(symbol=self.symbol)
        return klines


def _end_of(page: RawPage) -> datetime:
    return floor_minute(page.edges.last_open_time) + INTERVAL


def _is_full(pages: list[RawPage], *, begun: float) -> bool:
    n_rows = sum(page.edges.n_rows for page in pages)
    return n_rows >= BATCH_ROWS or time.monotonic() - begun > BATCH_TIME.total_seconds()
