from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from btc_lifecycle.domain.tables import (
    ARCHIVE_FILES,
    CANDLE_GAPS,
    CANDLE_QUARANTINE,
    CANDLE_REVISIONS,
    CANDLES,
    FEATURE_COLUMNS,
    FEATURES,
    FETCHED_RANGES,
    TABLES,
    UTC_TIME,
    CandleTables,
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


class TestTablesOfCandles:
    def test_beside_candles_the_other_tables_have_their_plain_names(self):
        named = CandleTables.named()
        assert vars(named) == {
            "candles": CANDLES,
            "gaps": CANDLE_GAPS,
            "revisions": CANDLE_REVISIONS,
            "quarantine": CANDLE_QUARANTINE,
            "ranges": FETCHED_RANGES,
            "archive_files": ARCHIVE_FILES,
        }
        assert CandleTables.named("candles") == named
        assert set(vars(named).values()) <= set(TABLES)

    def test_beside_any_other_name_the_others_carry_it_too(self):
        names = {part: table.name for part, table in vars(CandleTables.named("mine")).items()}
        assert names == {
            "candles": "mine",
            "gaps": "mine_candle_gaps",
            "revisions": "mine_candle_revisions",
            "quarantine": "mine_candle_quarantine",
            "ranges": "mine_fetched_ranges",
            "archive_files": "mine_archive_files",
        }

    def test_under_another_name_they_differ_in_nothing_else(self):
        for plain, mine in zip(
            vars(CandleTables.named()).values(),
            vars(CandleTables.named("mine")).values(),
            strict=True,
        ):
            assert replace(mine, name=plain.name) == plain

    def test_two_names_share_no_table(self):
        names = [
            table.name
            for name in ("candles", "mine", "other")
            for table in vars(CandleTables.named(name)).values()
        ]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize(
        ("table", "columns", "key", "nullable"),
        [
            (
                CANDLE_GAPS,
                ["symbol", "gap_start", "gap_end", "first_seen_at", "tries", "next_try_at"],
                ("symbol", "gap_start"),
                ["next_try_at"],
            ),
            (
                CANDLE_QUARANTINE,
                ["symbol", "kline", "open_time", "reason", "seen_at"],
                ("symbol", "kline"),
                ["open_time"],
            ),
            (
                FETCHED_RANGES,
                ["symbol", "range_start", "range_end"],
                ("symbol", "range_start"),
                [],
            ),
            (
                ARCHIVE_FILES,
                ["symbol", "file_name", "sha256", "n_rows", "n_differing", "stored_at"],
                ("symbol", "file_name"),
                [],
            ),
        ],
        ids=lambda value: value.name if isinstance(value, Table) else "",
    )
    def test_they_have_their_columns_and_keys(self, table, columns, key, nullable):
        assert table.schema.names() == columns
        assert table.key == key
        assert [column.name for column in table.columns if column.is_nullable] == nullable

    def test_a_revision_holds_every_value_that_a_candle_has(self):
        """A column that candles gain must not be lost when a candle is revised."""
        columns = {column.name: column for column in CANDLE_REVISIONS.columns}
        assert CANDLE_REVISIONS.key == (*CANDLES.key, "revised_at")
        revised_at = columns.pop("revised_at")
        assert not revised_at.is_nullable
        assert tuple(columns.values()) == CANDLES.columns
