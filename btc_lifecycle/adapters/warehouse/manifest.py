"""What a database held when it was last written: a small file beside it, to notice a loss by.

A file that was cut short still opens and counts the rows that it had, and one whose log of writes
was lost has fewer rows and no complaint. The manifest is written after each commit, so a database
may be ahead of it (a process was killed in between) but never behind.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.adapters.warehouse.failures import manifest_path
from btc_lifecycle.adapters.warehouse.rows import SOURCE
from btc_lifecycle.domain.errors import NeighbourUnavailableError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)


class HeldCandles(BaseModel):
    """What a table of candles holds of one symbol."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    first_open_time: AwareDatetime
    last_open_time: AwareDatetime


HeldByTable = Mapping[str, Mapping[str, HeldCandles]]
"""By table of candles and symbol."""


class Manifest(BaseModel):
    """What a database held after it was written: its size and its candles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    tables: HeldByTable


def read_manifest(database: Path) -> Manifest | None:
    """Return the manifest of a database, None where there is none or none that can be understood.

    Raises:
        NeighbourUnavailableError: If it is there and could not be read.
    """
    path = manifest_path(database)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        _log.warning("%s is no manifest; the next write replaces it", path)
        return None
    except OSError as error:
        raise NeighbourUnavailableError(
            f"{path} could not be read: {error.strerror}", hint="move away what lies there"
        ) from error


def write_manifest(database: Path, *, held: HeldByTable) -> None:
    """Record what a closed database holds.

    Raises:
        NeighbourUnavailableError: If it could not be written; the database itself is whole.
    """
    path = manifest_path(database)
    manifest = Manifest(size_bytes=database.stat().st_size, tables=held)
    try:
        write_atomically(path, manifest.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise NeighbourUnavailableError(
            f"{path} could not be written: {error.strerror}; the rows are stored",
            hint="check its permissions and free disk space, then run this again",
        ) from error


def held_candles(connection: DuckDBPyConnection, *, known: HeldByTable) -> HeldByTable:
    """Return what an open database holds, by the cheapest look that is exact.

    Args:
        connection: Open connection.
        known: What was held before; its symbols are looked up without a scan.
    """
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE schema_name = 'main' AND starts_with(comment, ?)",
        [SOURCE],
    ).fetchall()
    return {
        name: _held_in(connection, f'"{name}"', symbols=tuple(known.get(name, ())))
        for (name,) in tables
    }


def losses(recorded: HeldByTable, *, held: HeldByTable) -> list[str]:
    """Return a sentence for each table and symbol that lost candles since they were recorded."""
    return [
        f"table {table} should hold {_sentence(before)} of {symbol}, and holds {_sentence(now)}"
        for table, by_symbol in recorded.items()
        for symbol, before in by_symbol.items()
        if _is_less(now := held.get(table, {}).get(symbol), before)
    ]


def scan(connection: DuckDBPyConnection) -> dict[str, int]:
    """Read every column of every row, which proves each block; return the rows of each table."""
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY table_name"
    ).fetchall()
    return {name: _scanned_rows(connection, f'"{name}"') for (name,) in tables}


def _scanned_rows(connection: DuckDBPyConnection, table: str) -> int:
    # A count alone is answered from the table's statistics, without a look at its rows.
    ((n_rows, _),) = connection.execute(
        f"SELECT count(*), bit_xor(hash(t)) FROM {table} AS t"
    ).fetchall()
    return int(n_rows)


def _held_in(
    connection: DuckDBPyConnection, table: str, *, symbols: Sequence[str]
) -> dict[str, HeldCandles]:
    figures = f"count(*), min(open_time), max(open_time) FROM {table}"
    # A filter by symbol is answered from statistics; grouping by it reads a column of all rows.
    found = [
        (symbol, *connection.execute(f"SELECT {figures} WHERE symbol = ?", [symbol]).fetchall()[0])
        for symbol in symbols
    ]
    ((n_rows,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    if sum(n_of_symbol for _, n_of_symbol, _, _ in found) != n_rows:
        found = connection.execute(f"SELECT symbol, {figures} GROUP BY symbol").fetchall()
    return {
        symbol: HeldCandles(n_rows=n, first_open_time=_utc(first), last_open_time=_utc(last))
        for symbol, n, first, last in found
        if n
    }


def _is_less(now: HeldCandles | None, before: HeldCandles) -> bool:
    return (
        now is None
        or now.n_rows < before.n_rows
        or now.first_open_time > before.first_open_time
        or now.last_open_time < before.last_open_time
    )


def _sentence(held: HeldCandles | None) -> str:
    if held is None:
        return "none"
    return (
        f"{held.n_rows} candles from {held.first_open_time:%Y-%m-%d %H:%M} "
        f"to {held.last_open_time:%Y-%m-%d %H:%M} UTC"
    )


def _utc(naive: datetime) -> datetime:
    return naive.replace(tzinfo=UTC)
