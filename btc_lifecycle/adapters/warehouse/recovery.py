"""A damaged database: set aside, never deleted, and built again from its snapshots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.adapters.warehouse.failures import log_path, manifest_path
from btc_lifecycle.adapters.warehouse.holdings import open_times, range_rows, read_holdings
from btc_lifecycle.adapters.warehouse.manifest import read_manifest
from btc_lifecycle.adapters.warehouse.rows import (
    claim_source,
    count_rows,
    create_tables,
    insert_missing,
    insert_rows,
    is_table,
    quoted,
    read_rows,
)
from btc_lifecycle.adapters.warehouse.snapshots import (
    INDEX,
    folder_of,
    read_index,
    read_part,
    table_of,
)
from btc_lifecycle.adapters.warehouse.warehouse import Warehouse
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.gaps import missing_within, without
from btc_lifecycle.domain.tables import CandleTables, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_DAMAGED = ".damaged-"


@dataclass(frozen=True, kw_only=True)
class RestoreCounts:
    """What came back from snapshots; ``unusable`` has a sentence for each file that did not."""

    n_rows: int
    n_files: int
    unusable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RebuildRecord:
    """What a rebuild did to the store.

    Attributes:
        problem: What was wrong with the database; None where it was sound or not there.
        set_aside: Where it lies now; None where it stayed.
        restored: What came back from snapshots.
        held_from: The oldest candle that its manifest records; None where there is no manifest.
    """

    problem: str | None
    set_aside: Path | None
    restored: RestoreCounts
    held_from: datetime | None


def rebuild(
    warehouse: Warehouse,
    tables: CandleTables,
    *,
    folder: Path,
    now: datetime,
    is_forced: bool = False,
) -> RebuildRecord:
    """Set a damaged database aside and insert what snapshots hold and the database lacks.

    A killed rebuild is finished by the next one: a sound database stays and is added to.

    Args:
        warehouse: The store.
        tables: Its candles and the tables beside them.
        folder: Where the snapshots lie.
        now: The present, for the name of what is set aside.
        is_forced: Set the database aside even if it is sound.

    Raises:
        DataError: If the database is sound and holds candles of another source than the snapshots.
        NeighbourUnavailableError: If the database is locked, or its place cannot be written.
    """
    problem, held_from = _problem_of(warehouse), _held_from(warehouse.path, tables.candles)
    is_moved = warehouse.path.exists() and (is_forced or problem is not None)
    return RebuildRecord(
        problem=problem,
        set_aside=set_aside(warehouse.path, now=now) if is_moved else None,
        restored=restore_snapshots(warehouse, tables, folder=folder),
        held_from=held_from,
    )


def _held_from(database: Path, candles: Table) -> datetime | None:
    """Return the oldest candle that the database held, or one that was set aside before it."""
    aside = database.parent.glob(f"{database.name}{_DAMAGED}*[0-9Z]")
    manifests = [read_manifest(place) for place in (database, *aside)]
    held = [
        of_symbol
        for manifest in manifests
        if manifest is not None
        for of_symbol in manifest.tables.get(candles.name, {}).values()
    ]
    return min((of_symbol.first_open_time for of_symbol in held), default=None)


def restore_snapshots(warehouse: Warehouse, tables: CandleTables, *, folder: Path) -> RestoreCounts:
    """Insert the rows of all snapshots that the database lacks; a stored row is never replaced.

    Raises:
        DataError: If the database holds candles of another source, or is damaged.
        NeighbourUnavailableError: If the database is locked or cannot be written.
    """
    folder = folder_of(tables, folder=folder)
    index = read_index(folder)
    if index.source is not None:
        warehouse.require_source(index.source)
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.parquet")}
    unknown = [f"{folder / name}: not in {INDEX}" for name in sorted(found - set(index.files))]
    n_rows, damaged = 0, []
    for _, names in groupby(sorted(index.files), key=lambda name: name.partition("/")[0]):
        with warehouse.connect() as connection:
            for name in names:
                table = table_of(name, tables)
                try:
                    rows = read_part(folder / name, index.files[name], table=table)
                except DataError as error:
                    damaged.append(error.message)
                else:
                    n_rows += _insert_missing(connection, table, rows, tables=tables)
            if index.source is not None and is_table(connection, tables.candles):
                claim_source(connection, tables.candles, source=index.source)
    if index.files:
        _forget_lost_ranges(warehouse, tables)
    return RestoreCounts(
        n_rows=n_rows,
        n_files=len(index.files) - len(damaged),
        unusable=(*unknown, *damaged),
    )


def set_aside(database: Path, *, now: datetime) -> Path:
    """Rename a database with its log of writes and its manifest; return its new name.

    Raises:
        NeighbourUnavailableError: If another process has it open, or it could not be renamed.
    """
    stamp = f"{database.name}{_DAMAGED}{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    names = (stamp if n == 1 else f"{stamp}-{n}" for n in count(1))
    try:
        aside = next(path for name in names if not (path := database.with_name(name)).exists())
        with _unused(database):
            # The log first: DuckDB deletes one that lies beside a new database.
            for place_of in (log_path, Path, manifest_path):
                if place_of(database).exists():
                    place_of(database).rename(place_of(aside))
    except OSError as error:
        raise NeighbourUnavailableError(
            f"{database} could not be set aside: {error.strerror}",
            hint="check the permissions of its folder, then run this again",
        ) from error
    return aside


@contextmanager
def _unused(database: Path) -> Iterator[None]:
    """Hold the lock by which DuckDB keeps other processes out; whoever wrote meanwhile would lose it."""
    if sys.platform == "win32":  # which refuses to rename an open file by itself
        yield
        return
    import fcntl  # noqa: PLC0415  # not on Windows

    with database.open("rb+") as held:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NeighbourUnavailableError(
                f"{database} is open in another process",
                hint="close it or stop the schedules, then run this again",
            ) from error
        yield


def _problem_of(warehouse: Warehouse) -> str | None:
    if not warehouse.path.exists():
        return None
    try:
        warehouse.verify()
    except DataError as error:
        return error.message
    return None


def _insert_missing(
    connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame, *, tables: CandleTables
) -> int:
    create_tables(connection, [table])
    n_before = count_rows(connection, quoted(table))
    # What was a gap when the snapshot was made may have been filled since.
    if table is not tables.gaps or n_before == 0:
        insert_missing(connection, table, rows)
    return count_rows(connection, quoted(table)) - n_before


def _forget_lost_ranges(warehouse: Warehouse, tables: CandleTables) -> None:
    """Leave as asked for only what has a candle or a gap, or nobody would ask for the rest again."""
    with warehouse.connect() as connection:
        for symbol in read_rows(connection, tables.ranges)["symbol"].unique():
            held = read_holdings(connection, tables, symbol=symbol)
            lost = [
                rest
                for stretch in held.fetched
                for missing in missing_within(
                    open_times(connection, tables.candles, symbol=symbol, within=stretch),
                    stretch=stretch,
                )
                for rest in without(missing, [gap.stretch for gap in held.gaps])
            ]
            kept = [part for stretch in held.fetched for part in without(stretch, lost)]
            connection.execute(f"DELETE FROM {quoted(tables.ranges)} WHERE symbol = ?", [symbol])
            insert_rows(connection, tables.ranges, range_rows(symbol, kept))
