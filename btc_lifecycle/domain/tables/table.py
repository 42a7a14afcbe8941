"""What a table is: its columns in order, their types, units and meanings, its key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import polars as pl

ColumnType = Literal["VARCHAR", "TIMESTAMP", "DOUBLE", "BIGINT", "BOOLEAN"]
UTC_TIME = pl.Datetime("us", "UTC")
_POLARS_TYPES: dict[ColumnType, pl.DataType] = {
    "VARCHAR": pl.String(),
    "TIMESTAMP": UTC_TIME,
    "DOUBLE": pl.Float64(),
    "BIGINT": pl.Int64(),
    "BOOLEAN": pl.Boolean(),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: its SQL type, unit and meaning."""

    name: str
    type: ColumnType
    meaning: str
    unit: str = ""
    is_nullable: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its columns in order, its primary key and the column that windows cut on."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str = "open_time"

    @cached_property
    def schema(self) -> pl.Schema:
        """The Polars schema of a frame of this table."""
        return pl.Schema({column.name: _POLARS_TYPES[column.type] for column in self.columns})

    def renamed(self, name: str) -> Table:
        """Return the same table under another name, as the configuration may ask for candles."""
        return Table(
            name=name,
            meaning=self.meaning,
            columns=self.columns,
            key=self.key,
            time_column=self.time_column,
        )
