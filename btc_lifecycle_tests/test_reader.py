from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import ConfigurationError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.reader import BitcoinCandle, count_candles, load_candles_from_duckdb
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FEATURE_DB_PATH", "INGEST_CONFIG", "LIFECYCLE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def db_path(data_dir: Path) -> Path:
    return data_dir / "feature_store" / "bitcoin.duckdb"


@pytest.fixture
def stored(db_path: Path) -> pl.DataFrame:
    """Candles of two markets, of which the second has no taker data."""
    candles = pl.concat(
        [make_candles(20), make_candles(10, symbol="ETH/USDT", seed=1, with_taker=False)]
    )
    Warehouse(db_path).upsert(CANDLES, candles)
    return candles


def test_a_candle_has_the_fields_of_the_table_in_order():
    assert [field.name for field in fields(BitcoinCandle)] == CANDLES.schema.names()
    optional = [field.name for field in fields(BitcoinCandle) if "None" in str(field.type)]
    assert optional == [column.name for column in CANDLES.columns if column.is_nullable]


def test_it_reads_what_sql_reads(stored: pl.DataFrame, db_path: Path):
    with duckdb.connect(str(db_path), read_only=True) as connection:
        rows = connection.execute("SELECT * FROM candles ORDER BY symbol, open_time").fetchall()
    candles = load_candles_from_duckdb()
    assert [
        (candle.symbol, candle.open_time.replace(tzinfo=None), *list(asdict(candle).values())[2:])
        for candle in candles
    ] == rows
    assert {candle.open_time.tzinfo.utcoffset(None) for candle in candles} == {timedelta(0)}
    assert count_candles() == len(rows) == 30


@pytest.mark.usefixtures("stored")
def test_a_candle_cannot_be_changed():
    candle = load_candles_from_duckdb()[0]
    with pytest.raises(FrozenInstanceError):
        candle.close = 1.0  # type: ignore[misc]


def test_a_polars_frame_of_the_records_is_the_table(stored: pl.DataFrame):
    frame = pl.DataFrame(load_candles_from_duckdb(), schema=CANDLES.schema)
    assert_frame_equal(frame, stored)


def test_without_the_schema_polars_keeps_the_times_in_utc(stored: pl.DataFrame):
    frame = pl.DataFrame(load_candles_from_duckdb())
    in_utc = pl.col("open_time").dt.replace_time_zone("UTC")
    assert_frame_equal(frame.with_columns(in_utc), stored)


def test_a_pandas_frame_of_the_records_is_the_table(stored: pl.DataFrame):
    frame = pd.DataFrame(load_candles_from_duckdb())
    assert frame.columns.to_list() == CANDLES.schema.names()
    assert frame["close"].to_list() == stored["close"].to_list()
    assert isinstance(frame["open_time"].dtype, pd.DatetimeTZDtype)
    assert frame["open_time"].to_list() == stored["open_time"].to_list()
    assert frame["trades"].isna().sum() == 10


@pytest.mark.usefixtures("stored")
def test_filters_are_by_market_and_half_open_time():
    start, end = START + 3 * MINUTE, START + 5 * MINUTE
    candles = load_candles_from_duckdb(symbol="ETH/USDT", start=start, end=end)
    assert [(candle.symbol, candle.open_time) for candle in candles] == [
        ("ETH/USDT", START + 3 * MINUTE),
        ("ETH/USDT", START + 4 * MINUTE),
    ]
    assert len(load_candles_from_duckdb(start=start)) == 17 + 7
    assert len(load_candles_from_duckdb(end=end)) == 5 + 5
    assert load_candles_from_duckdb(symbol="XRP/USDT") == []
    assert count_candles(symbol="ETH/USDT") == 10
    assert count_candles(symbol="XRP/USDT") == 0


@pytest.mark.usefixtures("stored")
def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ConfigurationError, match="has no zone"):
        load_candles_from_duckdb(start=datetime(2024, 1, 1))  # noqa: DTZ001


def test_another_file_may_be_named_as_text_or_path(tmp_path: Path):
    elsewhere = tmp_path / "x.duckdb"
    Warehouse(elsewhere).upsert(CANDLES, make_candles(3))
    assert len(load_candles_from_duckdb(elsewhere)) == 3
    assert count_candles(str(elsewhere)) == 3
    assert count_candles(elsewhere, table="candles") == 3


def test_the_table_is_that_of_the_ingest_configuration(
    db_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ingest.json").write_text(json.dumps({"table": "minutes"}))
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "ingest.json"))
    Warehouse(db_path).upsert(CANDLES.renamed("minutes"), make_candles(4))
    assert count_candles() == len(load_candles_from_duckdb()) == 4
    assert count_candles(table="candles") == 0


def test_without_a_database_there_is_nothing_to_serve(db_path: Path):
    for read in (load_candles_from_duckdb, count_candles):
        with pytest.raises(NothingToServeError, match=r"run \./task ingest") as nothing:
            read()
        assert str(db_path) in nothing.value.message


@pytest.mark.usefixtures("stored")
def test_a_table_that_is_not_there_has_no_candles():
    for table in ("candles_of_tomorrow", "it's"):
        assert load_candles_from_duckdb(table=table) == []
        assert count_candles(table=table) == 0


@pytest.mark.usefixtures("stored")
def test_times_are_utc_in_a_process_of_another_zone(data_dir: Path):
    code = """
from btc_lifecycle.reader import load_candles_from_duckdb
print(load_candles_from_duckdb(symbol="BTC/USDT")[0].open_time.isoformat())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"BTC_DATA_DIR": str(data_dir), "TZ": "America/New_York"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == START.astimezone(UTC).isoformat()
