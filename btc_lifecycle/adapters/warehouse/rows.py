"""Rows of an open database: tables from domain/tables.py, upsert by key, reading by window.

Names of tables and columns come from domain/tables.py and are quoted; values are parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.tables import UTC_TIME, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SOURCE = "source: "
"""Start of the comment by which a table names the market that it came from."""

_INCOMING = "_incoming"
"""What a frame is called while it is written; no table's name begins with an underscore."""


@dataclass(frozen=True, kw_only=True)
class UpsertCounts:
    """What an upsert did: rows with a new key, rows whose values changed, rows in the table after."""

    n_new: int
    n_revised: int
    n_total: int


def upsert_rows(
    connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame, *, source: str | None = None
) -> UpsertCounts:
    """Upsert within an open transaction; see ``Warehouse.upsert``."""
    create_tables(connection, [table])
    if source is not None:
        claim_source(connection, table, source=source)
    stored = quoted(table)
    key = ", ".join(table.key)
    values = [name for name in table.schema.names() if name not in table.key]
    connection.register(_INCOMING, stored_form(table, rows).to_arrow())
    # An anti join would read the whole of the stored keys.
    n_new = rows.height - count_rows(connection, f"{_INCOMING} JOIN {stored} USING ({key})")
    n_revised = count_rows(
        connection,
        f"{_INCOMING} AS i JOIN {stored} AS t USING ({key}) WHERE "
        f"({', '.join(f'i.{name}' for name in values)}) IS DISTINCT FROM "
        f"({', '.join(f't.{name}' for name in values)})",
    )
    write_rows(connection, table, rows)
    return UpsertCounts(n_new=n_new, n_revised=n_revised, n_total=count_rows(connection, stored))


def insert_rows(connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> None:
    """Insert rows into a table that exists, within an open transaction.

    Their keys are not stored yet, and each is there once: that costs a quarter of inserting to look
    at again, and the table's primary key refuses what breaks it.
    """
    _insert(connection, table, stored_form(table, rows, is_unique=True), on_conflict="")


def insert_missing(connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> None:
    """Insert rows into a table that exists; those whose key is stored leave what is stored."""
    _insert(connection, table, stored_form(table, rows), on_conflict="ON CONFLICT DO NOTHING")


def write_rows(connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> None:
    """Insert rows into a table that exists; those whose key is stored replace what is stored."""
    values = [name for name in table.schema.names() if name not in table.key]
    replaced = ", ".join(f"{name} = excluded.{name}" for name in values)
    _insert(
        connection,
        table,
        stored_form(table, rows),
        on_conflict=f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {replaced}",
    )


def _insert(
    connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame, *, on_conflict: str
) -> None:
    if not rows.is_empty():
        names = ", ".join(table.schema.names())
        connection.register(_INCOMING, rows.to_arrow())
        connection.execute(
            f"INSERT INTO {quoted(table)} ({names}) SELECT {names} FROM {_INCOMING} {on_conflict}"
        ).fetchall()


def read_rows(
    connection: DuckDBPyConnection,
    table: Table,
    *,
    symbol: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    window_days: int | None = None,
) -> pl.DataFrame:
    """Return rows of an open database by key order; a missing table has no rows.

    Args:
        connection: Open connection.
        table: The table to read.
        symbol: Only this market.
        start: Only from this time on, by the table's time column.
        end: Only before this time.
        window_days: Only the days before the table's newest time.

    Raises:
        ConfigurationError: If ``start`` or ``end`` has no zone.
    """
    if not is_table(connection, table):
        return table.schema.to_frame()
    time = table.time_column
    conditions = {
        "symbol = ?": symbol,
        f"{time} >= ?": start and _naive_utc(start),
        f"{time} < ?": end and _naive_utc(end),
        f"{time} > (SELECT max({time}) FROM {quoted(table)}) - to_days(?)": window_days,
    }
    asked = {condition: value for condition, value in conditions.items() if value is not None}
    rows: pl.DataFrame = connection.sql(
        f"SELECT {', '.join(table.schema.names())} FROM {quoted(table)} "
        f"WHERE {' AND '.join(asked) or 'TRUE'} ORDER BY {', '.join(table.key)}",
        params=list(asked.values()),
    ).pl()
    return rows.with_columns(
        pl.col(name).dt.replace_time_zone("UTC") for name in _time_columns(table)
    )


def database_source(connection: DuckDBPyConnection) -> str | None:
    """Return the market that the database's candles came from, None while it has none."""
    comments = connection.execute(
        "SELECT comment FROM duckdb_tables() WHERE schema_name = 'main' AND starts_with(comment, ?)",
        [SOURCE],
    ).fetchall()
    return str(comments[0][0]).removeprefix(SOURCE) if comments else None


def refuse_other_source(held: str | None, *, source: str) -> None:
    """Raise DataError where a database holds candles of another source than the one at hand."""
    if held not in {None, source}:
        raise DataError(
            f"the database holds candles of source {held!r}, these are from {source!r}",
            hint="one database holds one source; set BTC_DATA_DIR or FEATURE_DB_PATH to another place",
        )


def claim_source(connection: DuckDBPyConnection, table: Table, *, source: str) -> None:
    """Let a source have the database; raise DataError where another one has it."""
    refuse_other_source(database_source(connection), source=source)
    comment = f"{SOURCE}{source}"
    claimed = connection.execute(
        "SELECT 1 FROM duckdb_tables() "
        "WHERE schema_name = 'main' AND table_name = ? AND comment = ?",
        [table.name, comment],
    )
    # Saying it again would have DuckDB write much of the table anew when it is closed.
    if not claimed.fetchall():
        # COMMENT takes no parameters; the source is a header of the exchange, so quotes are doubled.
        literal = comment.replace("'", "''")
        connection.execute(f"COMMENT ON TABLE {quoted(table)} IS '{literal}'")


def create_tables(connection: DuckDBPyConnection, tables: Iterable[Table]) -> None:
    """Create the tables that are missing; raise DataError where one has other columns."""
    for table in tables:
        if not is_table(connection, table):
            _create(connection, table)
        elif (stored := _columns(connection, table)) != table.schema.names():
            raise DataError(
                f"table {table.name} has the columns {', '.join(stored)}, "
                f"this version writes {', '.join(table.schema.names())}",
                hint="drop the table if it can be made again from candles, or use another FEATURE_DB_PATH",
            )


def _create(connection: DuckDBPyConnection, table: Table) -> None:
    columns = [
        f"{column.name} {column.type}" + ("" if column.is_nullable else " NOT NULL")
        for column in table.columns
    ]
    connection.execute(
        f"CREATE TABLE {quoted(table)} ({', '.join(columns)}, PRIMARY KEY ({', '.join(table.key)}))"
    )


def is_table(connection: DuckDBPyConnection, table: Table) -> bool:
    """Return whether the open database holds the table."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'main' AND table_name = ?", [table.name]
    )
    return bool(found.fetchall())


def _columns(connection: DuckDBPyConnection, table: Table) -> list[str]:
    # The first look into duckdb_columns() of each connection would cost a tick 13 ms.
    looked = connection.execute(f"SELECT * FROM {quoted(table)} LIMIT 0")
    return [str(name) for name, *_ in looked.description or ()]


def count_rows(connection: DuckDBPyConnection, relation: str) -> int:
    """Return how many rows a table or another relation of SQL has."""
    ((count,),) = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
    return int(count)


def stored_form(table: Table, rows: pl.DataFrame, *, is_unique: bool = False) -> pl.DataFrame:
    """Return rows as the table stores them; raise DataError where it does not allow them.

    Rows that are known to be unique by their key are not looked through for that.
    """
    names = table.schema.names()
    if set(rows.columns) != set(names):
        raise _refused(
            table,
            f"columns lack {sorted(set(names) - set(rows.columns))} "
            f"and have {sorted(set(rows.columns) - set(names))} too many",
        )
    required = [column.name for column in table.columns if not column.is_nullable]
    nulls = {name: n for name in required if (n := rows[name].null_count())}
    if nulls:
        raise _refused(table, f"missing values where none may be: {nulls}")
    n_repeats = 0 if is_unique else rows.height - rows.n_unique(table.key)
    if n_repeats:
        raise _refused(table, f"{n_repeats} rows repeat the key {', '.join(table.key)}")
    try:
        typed = rows.select(pl.col(name).cast(type_) for name, type_ in table.schema.items())
    except pl.exceptions.InvalidOperationError as error:
        raise _refused(table, str(error).partition("\n")[0]) from error
    # An aware time would be shifted by the zone of the process on its way into a plain TIMESTAMP.
    return typed.with_columns(
        pl.col(name).dt.replace_time_zone(None) for name in _time_columns(table)
    )


def _refused(table: Table, problem: str) -> DataError:
    return DataError(
        f"rows for table {table.name} were refused: {problem}",
        hint="nothing was stored; docs/tables.md lists the columns",
    )


def _time_columns(table: Table) -> list[str]:
    return [name for name, type_ in table.schema.items() if type_ == UTC_TIME]


def quoted(table: Table) -> str:
    """Return the table's name for SQL: the configured one of candles may be one of SQL's words."""
    return f'"{table.name}"'


def _naive_utc(time_: datetime) -> datetime:
    if time_.tzinfo is None:
        raise ConfigurationError(
            f"the time {time_.isoformat()} has no zone", hint="add one, such as tzinfo=UTC"
        )
    return time_.astimezone(UTC).replace(tzinfo=None)
