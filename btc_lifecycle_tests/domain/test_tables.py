from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from btc_lifecycle.domain.tables import (
    CANDLES,
    FEATURE_COLUMNS,
    FEATURES,
    TABLES,
    UTC_TIME,
    Table,
)

by_name = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def test_names_of_tables_are_unique():
    names = [table.name for table in TABLES]
    assert len(set(names)) == len(names)


@by_name
def test_names_of_columns_are_unique(table: Table):
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)


@by_name
def test_the_key_is_made_of_columns_that_are_never_missing(table: Table):
    columns = {column.name: column for column in table.columns}
    assert table.key
    assert all(not columns[name].is_nullable for name in table.key)


@by_name
def test_something_beside_the_key_is_stored(table: Table):
    assert set(table.schema.names()) > set(table.key)


@by_name
def test_windows_are_cut_on_a_time_that_is_never_missing(table: Table):
    (column,) = [column for column in table.columns if column.name == table.time_column]
    assert column.type == "TIMESTAMP"
    assert not column.is_nullable


@by_name
def test_every_column_says_what_it_means_and_every_time_its_zone(table: Table):
    assert table.meaning.endswith(".")
    assert all(column.meaning for column in table.columns)
    assert {column.unit for column in table.columns if column.type == "TIMESTAMP"} == {"UTC"}


@by_name
def test_the_schema_has_the_columns_in_order_with_times_in_utc(table: Table):
    types = {
        "VARCHAR": pl.String,
        "TIMESTAMP": UTC_TIME,
        "DOUBLE": pl.Float64,
        "BIGINT": pl.Int64,
        "BOOLEAN": pl.Boolean,
    }
    assert list(table.schema.items()) == [
        (column.name, types[column.type]) for column in table.columns
    ]


def test_candles_have_the_columns_of_the_public_contract():
    assert CANDLES.schema.names() == [
        "symbol",
        "open_time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "trades",
        "taker_buy_base",
        "taker_buy_quote",
    ]
    assert CANDLES.key == ("symbol", "open_time")
    nullable = [column.name for column in CANDLES.columns if column.is_nullable]
    assert nullable == ["quote_volume", "trades", "taker_buy_base", "taker_buy_quote"]


def test_every_feature_is_a_number_that_may_be_missing():
    assert all(column.is_nullable and column.type == "DOUBLE" for column in FEATURE_COLUMNS)
    assert FEATURES.schema.names()[2:] == [column.name for column in FEATURE_COLUMNS]


@by_name
def test_a_renamed_table_differs_in_its_name_alone(table: Table):
    renamed = table.renamed("mine")
    assert renamed.name == "mine"
    assert replace(renamed, name=table.name) == table
