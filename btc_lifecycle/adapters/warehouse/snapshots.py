"""Copies of the tables that nobody can make again: Parquet, candles by symbol and month.

``SYMBOL/YYYY-MM.parquet`` is what the sandbox exchange replays. ``index.json`` names the source of
all files, what each holds, so that only what changed is written again, and its SHA-256: a Parquet
file with a flipped bit may read as other numbers without any error.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.adapters.warehouse.rows import (
    database_source,
    is_table,
    quoted,
    read_rows,
)
from btc_lifecycle.adapters.warehouse.warehouse import Warehouse
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.tables import (
    ALIAS_MOVES,
    CANDLES,
    DRIFT_METRICS,
    OUTCOMES,
    CandleTables,
    Table,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

_HISTORY = (OUTCOMES, DRIFT_METRICS, ALIAS_MOVES)
"""Beside candles. Features and labels are computed again, predictions come from their log again."""

INDEX = "index.json"

_CHECKSUM = "version() || ' ' || count(*) || ' ' || coalesce(bit_xor(hash(t)), 0)"
"""Of rows in any order. DuckDB may hash otherwise in another version, which costs one new snapshot."""


@dataclass(frozen=True, kw_only=True)
class SnapshotCounts:
    """How many files were written, and how many held already what the store holds."""

    n_written: int
    n_unchanged: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The rows of one file: a month of a symbol's candles, or a whole table."""

    table: Table
    checksum: str
    symbol: str | None = None
    month: datetime | None = None

    @property
    def file_name(self) -> str:
        if self.symbol is None or self.month is None:
            return f"tables/{self.table.name}.parquet"
        return f"{self.symbol.replace('/', '')}/{self.month:%Y-%m}.parquet"

    @property
    def end(self) -> datetime | None:
        if self.month is None:
            return None
        years, months = divmod(self.month.month, 12)
        return self.month.replace(year=self.month.year + years, month=months + 1)


class SnapshotFile(BaseModel):
    """What one file holds: a checksum of its rows in the store, and the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checksum: str
    sha256: str


class SnapshotIndex(BaseModel):
    """The files of a folder by name, and the one source of them all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None
    files: dict[str, SnapshotFile] = {}


def write_snapshots(warehouse: Warehouse, tables: CandleTables, *, folder: Path) -> SnapshotCounts:
    """Write what changed since the last snapshot; a killed writer leaves whole files.

    Args:
        warehouse: The store.
        tables: Its candles and the tables beside them.
        folder: Where the snapshots lie; candles under another name than usual have a folder of
            that name within.

    Raises:
        NothingToServeError: If there is no database.
        DataError: If the folder holds candles of another source, or the database is damaged.
        NeighbourUnavailableError: If the database is locked, or a file could not be written.
    """
    folder = folder_of(tables, folder=folder)
    with warehouse.connect(read_only=True) as connection:
        source = database_source(connection)
        parts = list(_parts(connection, tables))
    index = read_index(folder)
    if index.source not in {None, source}:
        raise DataError(
            f"{folder} holds snapshots of source {index.source!r}, the database holds {source!r}",
            hint="move that folder to another place, then run this again",
        )
    n_written = 0
    for part in parts:
        if not _is_current(folder, index, part=part):
            # One connection each: the first snapshot of years must not keep a writer waiting.
            with warehouse.connect(read_only=True) as connection:
                rows = _rows_of(connection, part)
            index = _written(folder, index, part=part, rows=rows, source=source)
            n_written += 1
    return SnapshotCounts(n_written=n_written, n_unchanged=len(parts) - n_written)


def folder_of(tables: CandleTables, *, folder: Path) -> Path:
    """Return where the snapshots of these tables lie within the folder of all snapshots."""
    return folder if tables.candles.name == CANDLES.name else folder / tables.candles.name


def _parts(connection: DuckDBPyConnection, tables: CandleTables) -> Iterator[_Part]:
    """Yield what there is to write; ranges first, so that they never tell of a candle to come."""
    for table in (*_beside(tables), *_HISTORY):
        if is_table(connection, table):
            ((checksum,),) = connection.execute(
                f"SELECT {_CHECKSUM} FROM {quoted(table)} AS t"
            ).fetchall()
            yield _Part(table=table, checksum=checksum)
    if is_table(connection, tables.candles):
        months = connection.execute(
            f"SELECT symbol, date_trunc('month', open_time) AS month, {_CHECKSUM} "
            f"FROM {quoted(tables.candles)} AS t GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        for symbol, month, checksum in months:
            start = datetime(month.year, month.month, 1, tzinfo=UTC)
            yield _Part(table=tables.candles, checksum=checksum, symbol=symbol, month=start)


def _beside(tables: CandleTables) -> tuple[Table, ...]:
    return (tables.ranges, tables.gaps, tables.revisions, tables.quarantine, tables.archive_files)


def table_of(file_name: str, tables: CandleTables) -> Table:
    """Return the table whose rows a file holds."""
    beside = {f"tables/{table.name}.parquet": table for table in (*_beside(tables), *_HISTORY)}
    return beside.get(file_name, tables.candles)


def _rows_of(connection: DuckDBPyConnection, part: _Part) -> pl.DataFrame:
    return read_rows(connection, part.table, symbol=part.symbol, start=part.month, end=part.end)


def _is_current(folder: Path, index: SnapshotIndex, *, part: _Part) -> bool:
    file = index.files.get(part.file_name)
    return (
        file is not None
        and file.checksum == part.checksum
        and _is_whole(folder / part.file_name, file)
    )


def _is_whole(path: Path, file: SnapshotFile) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _written(
    folder: Path, index: SnapshotIndex, *, part: _Part, rows: pl.DataFrame, source: str | None
) -> SnapshotIndex:
    """Write a part and then the index, which is returned.

    Killed in between, the file differs from its checksum and is written again the next time.
    """
    parquet = BytesIO()
    rows.write_parquet(parquet)
    content = parquet.getvalue()
    file = SnapshotFile(checksum=part.checksum, sha256=hashlib.sha256(content).hexdigest())
    index = SnapshotIndex(source=source, files={**index.files, part.file_name: file})
    try:
        write_atomically(folder / part.file_name, content)
        write_atomically(folder / INDEX, index.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise NeighbourUnavailableError(
            f"snapshot {folder / part.file_name} could not be written: {error.strerror}",
            hint="check its permissions and free disk space; the snapshot before it is whole",
        ) from error
    return index


def read_index(folder: Path) -> SnapshotIndex:
    """Return the index of a folder, an empty one where there is none that can be understood."""
    path = folder / INDEX
    try:
        return SnapshotIndex.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return SnapshotIndex()
    except ValidationError:
        _log.warning("%s is no index of snapshots; the next snapshot writes all files again", path)
        return SnapshotIndex()


def read_part(path: Path, file: SnapshotFile, *, table: Table) -> pl.DataFrame:
    """Return the rows of a file; raise DataError where they are not what was written."""
    if not _is_whole(path, file):
        raise _unusable(path, "missing, or other than its checksum says")
    rows = pl.read_parquet(path)
    if rows.schema != table.schema:
        raise _unusable(path, f"its columns are not those of table {table.name}")
    return rows


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: {problem}", hint="what it held is fetched again")
