"""What the assets of all phases share: the warehouse's pool, folders of reports, per-symbol maps."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl

from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.settings import Settings

WAREHOUSE_POOL = "warehouse"
"""Steps that open the DuckDB file share it: one process writes, and locks out all others."""


def report_folder(settings: Settings, kind: str, *, made_at: datetime) -> Path:
    """Return where a report of this kind and time belongs."""
    return settings.report_dir / kind / f"{made_at:%Y%m%dT%H%M%SZ}"


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
