"""The progress bar of a backfill: minutes of history, share of the exchange's limit, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def showing_progress(
    console: Console, *, totals: Mapping[str, int], used_share: Callable[[], float]
) -> Iterator[Callable[[str, int], None]]:
    """Show a bar per symbol while the context lasts; yield what is to be told of progress.

    Args:
        console: Where to show it; one that is no terminal gets the last state only.
        totals: Minutes to get through, by symbol.
        used_share: Returns the share of the exchange's limit that the running minute has used, 0 to 1.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("minutes"),
        TaskProgressColumn(),
        TextColumn("{task.fields[share]:.0%} of the limit"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as progress:
        bars = {
            symbol: progress.add_task(symbol, total=total, share=0.0)
            for symbol, total in totals.items()
        }

        def told(symbol: str, n_minutes: int) -> None:
            progress.update(bars[symbol], advance=n_minutes, share=used_share())

        yield told
