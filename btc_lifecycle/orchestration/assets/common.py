"""What the assets of all phases share: the warehouse's pool, folders of reports, per-symbol maps."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.settings import Settings

WAREHOUSE_POOL = "warehouse"
"""Steps that open the DuckDB file share it: one process writes, and locks out all others."""


def report_folder(settings: Settings, kind: str, *, made_at: datetime) -> Path:
    """Return a new folder for a report of this kind, named by its time.

    Runs of the same second get following seconds: whoever makes a folder has it for itself.
    """
    while True:
        folder = settings.report_dir / kind / f"{made_at:%Y%m%dT%H%M%SZ}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            made_at += timedelta(seconds=1)
        else:
            return folder


def by_symbol(frame: pl.DataFrame, compute: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Return the rows that ``compute`` makes of each symbol's rows, one symbol after the other.

    Raises:
        NothingToServeError: If there are no rows; not even their columns could be said.
    """
    if frame.is_empty():
        raise NothingToServeError("there are no candles yet", hint="run ./task ingest")
    return pl.concat(
        compute(of_symbol) for of_symbol in frame.partition_by("symbol", maintain_order=True)
    )
