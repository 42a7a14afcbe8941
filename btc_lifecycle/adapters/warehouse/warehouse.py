"""The DuckDB file: connections with bounded waiting, tables from domain/tables.py, upsert by key.

DuckDB lets one process write, and a writer locks out every other process, readers included. So a
connection lives for one operation, and whoever finds the file locked waits a bounded time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.adapters.warehouse.rows import (
    UpsertCounts,
    database_source,
    is_table,
    quoted,
    read_rows,
    refuse_other_source,
    upsert_rows,
)
from btc_lifecycle.domain.errors import (
    NeighbourUnavailableError,
    NothingToServeError,
)
from btc_lifecycle.domain.tables import UTC_TIME, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

LOCK_WAIT = timedelta(seconds=60)
_TELL_AFTER = timedelta(seconds=3)
_RETRY_S = (0.02, 0.1)
"""Shortest and longest pause between two tries at a locked file; the jitter lets waiters take turns."""


class Warehouse:
    """The tables of one DuckDB file."""

    def __init__(self, path: Path, *, lock_wait: timedelta = LOCK_WAIT) -> None:
        self.path = path
        self._lock_wait = lock_wait

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[DuckDBPyConnection]:
        """Open the file for one operation; a writing connection is one transaction.

        Raises:
            NothingToServeError: If the file is to be read and does not exist.
            NeighbourUnavailableError: If another process held the file for all of the bounded wait,
                or the file could not be opened, read or written.
        """
        import duckdb  # noqa: PLC0415  # a tenth of a second that the service need not pay

        if read_only and not self.path.exists():
            raise NothingToServeError(
                f"there is no database at {self.path}", hint="run ./task ingest to make it"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._opened(read_only=read_only)
        try:
            if read_only:
                yield connection
                return
            connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        except duckdb.IOException as error:
            raise self._unusable(error, problem="could not be read or written") from error
        finally:
            connection.close()

    def upsert(
        self, table: Table, rows: pl.DataFrame, *, source: str | None = None
    ) -> UpsertCounts:
        """Insert rows with a new key, replace those whose key is there, in one transaction.

        Args:
            table: The table to write, created on first use.
            rows: Frame with the table's columns, in any order.
            source: Market that the rows came from; the first source claims the table for good.

        Raises:
            DataError: If columns differ from the table's, a key repeats or a value is missing where
                the table does not allow it, or the table holds another source's rows.
        """
        with self.connect() as connection:
            return upsert_rows(connection, table, rows, source=source)

    def read(
        self,
        table: Table,
        *,
        symbol: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        window_days: int | None = None,
    ) -> pl.DataFrame:
        """Return rows by key order; see ``read_rows``."""
        with self.connect(read_only=True) as connection:
            return read_rows(
                connection, table, symbol=symbol, start=start, end=end, window_days=window_days
            )

    def last_open_time(self, table: Table, *, symbol: str) -> datetime | None:
        """Return the newest open time of a symbol, or None when it has no row yet."""
        if not self.path.exists():
            return None
        with self.connect(read_only=True) as connection:
            if not is_table(connection, table):
                return None
            ((newest,),) = connection.execute(
                f"SELECT max(open_time) FROM {quoted(table)} WHERE symbol = ?", [symbol]
            ).fetchall()
        return newest.replace(tzinfo=UTC) if newest else None

    def count(self, table: Table, *, symbol: str | None = None) -> int:
        """Return how many rows a table has, of one symbol or of all; none if it is not there."""
        with self.connect(read_only=True) as connection:
            if not is_table(connection, table):
                return 0
            ((count,),) = connection.execute(
                f"SELECT count(*) FROM {quoted(table)} WHERE symbol IS NOT DISTINCT FROM coalesce(?, symbol)",
                [symbol],
            ).fetchall()
        return int(count)

    def open_times(self, table: Table, *, symbol: str) -> pl.Series:
        """Return the open times of a symbol's rows, in order."""
        none_yet = pl.Series("open_time", [], dtype=UTC_TIME)
        if not self.path.exists():
            return none_yet
        with self.connect(read_only=True) as connection:
            if not is_table(connection, table):
                return none_yet
            times: pl.DataFrame = connection.sql(
                f"SELECT open_time FROM {quoted(table)} WHERE symbol = ? ORDER BY open_time",
                params=[symbol],
            ).pl()
        return times["open_time"].dt.replace_time_zone("UTC")

    def source(self) -> str | None:
        """Return the market that the candles came from, None while there are none."""
        if not self.path.exists():
            return None
        with self.connect(read_only=True) as connection:
            return database_source(connection)

    def require_source(self, source: str) -> None:
        """Raise DataError where the database holds candles of another source."""
        refuse_other_source(self.source(), source=source)

    def _opened(self, *, read_only: bool) -> DuckDBPyConnection:
        import duckdb  # noqa: PLC0415  # as above

        started, is_told = time.monotonic(), False
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=read_only)
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                is_locked = "Could not set lock" in str(error) or "configuration" in str(error)
                if not is_locked:
                    raise self._unusable(error, problem="could not be opened") from error
                waited = timedelta(seconds=time.monotonic() - started)
                if waited > _TELL_AFTER and not is_told:
                    is_told = True
                    _log.warning("waiting for another process to release %s", self.path)
                if waited > self._lock_wait:
                    raise NeighbourUnavailableError(
                        f"{self.path} stayed locked for {self._lock_wait.total_seconds():g} s: {error}",
                        hint="close the program that holds it (its PID is named), then run this again",
                    ) from error
                time.sleep(random.uniform(*_RETRY_S))  # noqa: S311  # jitter, no secret

    def _unusable(self, error: Exception, *, problem: str) -> NeighbourUnavailableError:
        return NeighbourUnavailableError(
            f"{self.path} {problem}: {error}",
            hint="check the path, its permissions, free disk space and that it is a whole DuckDB file",
        )
