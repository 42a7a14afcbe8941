"""Where assets' values lie: frames in the warehouse, over dagster-duckdb; candidates in MLflow.

What lives here: how an asset's frame becomes rows. What does not: SQL and locking, which are the
warehouse adapter's. Unpartitioned frames are upserted by the table's key, partitioned ones replace
their partition, both in one transaction; an empty frame changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
from dagster._core.definitions.metadata import RawMetadataValue
from dagster._core.storage.db_io_manager import DbIOManager, DbTypeHandler, TableSlice
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient

from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.adapters.warehouse import (
    Warehouse,
    is_table,
    read_rows,
    upsert_rows,
)
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLES, TABLES, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class WarehouseClient(DuckDbClient):
    """Connections of the warehouse: read-only for inputs, one transaction for outputs."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.OutputContext | dg.InputContext, table_slice: TableSlice
    ) -> Iterator["DuckDBPyConnection"]:
        """Open the database for one input or output."""
        del table_slice
        database = (context.resource_config or {})["database"]
        is_input = isinstance(context, dg.InputContext)
        with Warehouse(Path(str(database))).connect(read_only=is_input) as connection:
            yield connection

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: "DuckDBPyConnection"
    ) -> None:
        """Leave deletion to the handler, which knows whether there are rows to put in place."""


class FrameHandler(DbTypeHandler[pl.DataFrame]):
    """Polars frames as rows of the tables in domain/tables.py."""

    def __init__(self, *, tables: Mapping[str, Table], window_days: int, warmup_days: int) -> None:
        self._tables = tables
        self._window_days, self._warmup_days = window_days, warmup_days

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The frame type that assets return and take."""
        return [pl.DataFrame]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: pl.DataFrame,
        connection: "DuckDBPyConnection",
    ) -> Mapping[str, RawMetadataValue]:
        """Store a frame; its rows replace the partition where there is one.

        Raises:
            DataError: If a row lies outside the partition, or breaks a rule of the table.
        """
        table = self._tables[table_slice.table]
        window = _window(table_slice)
        if window:
            _require_inside(window, obj, table=table)
        if window and not obj.is_empty() and is_table(connection, table):
            stored = table_slice._replace(table=table.name)
            DuckDbClient.delete_table_slice(context, stored, connection)
        counts = upsert_rows(connection, table, obj)
        return {
            "new_rows": counts.n_new,
            "revised_rows": counts.n_revised,
            "dagster/row_count": counts.n_total,
        }

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: "DuckDBPyConnection"
    ) -> pl.DataFrame:
        """Load the newest ``window_days`` of a table, or the partitions asked for."""
        del context
        table = self._tables[table_slice.table]
        if window := _window(table_slice):
            return read_rows(connection, table, start=window.start, end=window.end)
        # The first features of the window need candles from before it; nothing else does.
        warmup_days = self._warmup_days if table_slice.table == CANDLES.name else 0
        return read_rows(connection, table, window_days=self._window_days + warmup_days)


class WarehouseIOManager(DuckDBIOManager):
    """Stores assets as tables of the warehouse."""

    window_days: int
    warmup_days: int = 0
    candles_table: str

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler]:  # type: ignore[type-arg]
        """Unused: the handler needs this resource's fields, see ``create_io_manager``."""
        return []

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:
        """Return the IO manager for one run."""
        del context
        tables = {table.name: table for table in TABLES}
        tables[CANDLES.name] = CANDLES.renamed(self.candles_table)
        handler = FrameHandler(
            tables=tables, window_days=self.window_days, warmup_days=self.warmup_days
        )
        return DbIOManager(
            type_handlers=[handler],
            db_client=WarehouseClient(),
            database=self.database,
            schema="main",
            io_manager_name="WarehouseIOManager",
            default_load_type=pl.DataFrame,
        )


def _window(table_slice: TableSlice) -> dg.TimeWindow | None:
    if not table_slice.partition_dimensions:
        return None
    partitions = table_slice.partition_dimensions[0].partitions
    if not isinstance(partitions, dg.TimeWindow):
        raise ConfigurationError(
            f"table {table_slice.table} cannot be partitioned by {', '.join(partitions)}",
            hint="partition its asset by time",
        )
    return partitions


def _require_inside(window: dg.TimeWindow, rows: pl.DataFrame, *, table: Table) -> None:
    is_inside = pl.col(table.time_column).is_between(window.start, window.end, closed="left")
    n_outside = rows.filter(~is_inside).height
    if n_outside:
        raise DataError(
            f"{n_outside} of {rows.height} rows for table {table.name} lie outside the partition "
            f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC",
            hint="nothing was stored; let the asset return the rows of its partition only",
        )


class CandidateRuns(dg.IOManager):
    """Hands the candidate's MLflow run id from step to step; MLflow itself is the store of it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        """Store nothing: the training logged its candidate already."""

    def load_input(self, context: dg.InputContext) -> str:
        """Return this Dagster run's own candidate if it trained one, else the newest of all.

        Raises:
            NothingToServeError: If nobody has trained a candidate yet.
        """
        own = context.step_context.run_id
        run_id = self._registry.newest_candidate_run(dagster_run_id=own)
        run_id = run_id or self._registry.newest_candidate_run()
        if run_id is None:
            raise NothingToServeError(
                "there is no candidate yet", hint="train one with ./task track"
            )
        return run_id
