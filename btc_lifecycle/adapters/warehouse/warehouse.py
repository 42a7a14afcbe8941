"""The DuckDB file: connections with bounded waiting, tables from domain/tables.py, upsert by key.

DuckDB lets one process write, and a writer locks out every other process, readers included. So a
connection lives for one operation, and whoever finds the file locked waits a bounded time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl

from btc_lifecycle.adapters.warehouse.failures import (
    log_path,
    lost,
    manifest_path,
    told_plainly,
    unusable,
)
from btc_lifecycle.adapters.warehouse.manifest import (
    HeldByTable,
    held_candles,
    losses,
    read_manifest,
    scan,
    write_manifest,
)
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


_State = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change of the file, of its log and of its manifest."""

_SEEN: dict[Path, _State] = {}
"""Each file as this process last found it whole; only what changed since is looked at again."""


class Warehouse:
    """The tables of one DuckDB file."""

    def __init__(self, path: Path, *, lock_wait: timedelta = LOCK_WAIT) -> None:
        self.path = path
        self._lock_wait = lock_wait

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[DuckDBPyConnection]:
        """Open the file for one operation; a writing connection is one transaction.

        A file that this process has not seen in its present state is compared with its manifest
        first, and a writing connection leaves a new manifest behind.

        Raises:
            NothingToServeError: If the file is to be read and does not exist.
            NeighbourUnavailableError: If another process held the file for all of the bounded wait,
                or the file could not be opened, read or written.
            DataError: If the file is damaged or lost candles since it was last written.
        """
        with told_plainly(self.path):
            self._prepare_place(read_only=read_only)
            connection = self._opened(read_only=read_only)
            try:
                known = self._require_whole(connection)
                if read_only:
                    yield connection
                    return
                connection.begin()
                yield connection
                connection.commit()
                held = held_candles(connection, known=known)
            finally:
                # Undoes what was not committed.
                connection.close()
        write_manifest(self.path, held=held)
        _SEEN[self.path] = self._state()

    def verify(self) -> dict[str, int]:
        """Read every column of every row; return how many rows each table has.

        Raises:
            NothingToServeError: If there is no file.
            DataError: If a block cannot be read as it was written, or candles are missing.
        """
        with self.connect(read_only=True) as connection:
            return scan(connection)

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

    def _prepare_place(self, *, read_only: bool) -> None:
        try:
            if self.path.exists():
                return
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Whoever deletes a database starts afresh.
                manifest_path(self.path).unlink(missing_ok=True)
                self._begin_file()
                return
        except OSError as error:
            raise unusable(self.path, str(error.strerror)) from error
        raise NothingToServeError(
            f"there is no database at {self.path}", hint="run ./task ingest to make it"
        )

    def _begin_file(self) -> None:
        """Make an empty database whole under another name first.

        Two processes that let DuckDB make the same file at once can leave one that is no database,
        and so can a full disk or a kill.
        """
        import duckdb  # noqa: PLC0415  # a tenth of a second that the service need not pay

        beginning = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        try:
            duckdb.connect(str(beginning)).close()
            # A link never replaces a file that another process made meanwhile, as a rename would.
            # Where there are no links DuckDB makes the file when it opens it.
            with suppress(OSError):
                self.path.hardlink_to(beginning)
        finally:
            beginning.unlink(missing_ok=True)

    def _opened(self, *, read_only: bool) -> DuckDBPyConnection:
        import duckdb  # noqa: PLC0415  # a tenth of a second that the service need not pay

        started, is_told = time.monotonic(), False
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=read_only)
            except duckdb.Error as error:
                if not _is_locked(error):
                    raise
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

    def _require_whole(self, connection: DuckDBPyConnection) -> HeldByTable:
        """Return what the manifest records; raise DataError where the open file has less."""
        recorded = read_manifest(self.path)
        if recorded is None:
            return {}
        state = self._state()
        if _SEEN.get(self.path) != state:
            missing = losses(recorded.tables, held=held_candles(connection, known=recorded.tables))
            if missing:
                raise lost(self.path, missing)
            if self.path.stat().st_size < recorded.size_bytes:
                # DuckDB itself shortens the file, and may be killed before that is recorded.
                scan(connection)
            _SEEN[self.path] = state
        return recorded.tables

    def _state(self) -> _State:
        files = (self.path, log_path(self.path), manifest_path(self.path))
        stats = [file.stat() for file in files if file.exists()]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def _is_locked(error: Exception) -> bool:
    # The second is said to a reader while another thread of this process writes.
    return "Could not set lock" in str(error) or "different configuration" in str(error)
