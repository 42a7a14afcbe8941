"""A warehouse in memory: the same tables and transactions without a file, a third of the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from btc_lifecycle.adapters.warehouse import Warehouse

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class MemoryWarehouse(Warehouse):
    """A warehouse that only this process sees, and that is gone with it."""

    def __init__(self) -> None:
        # A place that exists: whoever looks for the file before opening it finds one.
        super().__init__(Path(__file__))
        self._connection = duckdb.connect()

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[DuckDBPyConnection]:
        self._connection.begin()
        try:
            yield self._connection
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()
