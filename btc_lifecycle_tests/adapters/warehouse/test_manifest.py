from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.adapters.warehouse.manifest import write_manifest
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLE_GAPS, CANDLES, LABELS
from btc_lifecycle_tests.adapters.warehouse.damage import LIMITED, run_child
from btc_lifecycle_tests.builders import make_candles


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "bitcoin.duckdb", lock_wait=timedelta(seconds=20))


@pytest.fixture
def stored(warehouse: Warehouse) -> pl.DataFrame:
    candles = make_candles(300)
    warehouse.upsert(CANDLES, candles, source="binance")
    return candles


def manifest_of(warehouse: Warehouse) -> Path:
    return warehouse.path.with_name("bitcoin.duckdb.manifest.json")


def log_of(warehouse: Warehouse) -> Path:
    return warehouse.path.with_name("bitcoin.duckdb.wal")


def behind_its_back(warehouse: Warehouse, *statements: str) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        for statement in statements:
            connection.execute(statement)


class TestWriting:
    def test_a_write_records_the_size_and_the_candles_of_each_symbol(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(5), source="binance")
        warehouse.upsert(CANDLES, make_candles(3, symbol="ETH/USDT"), source="binance")
        warehouse.upsert(CANDLES, make_candles(7))
        assert json.loads(manifest_of(warehouse).read_text()) == {
            "size_bytes": warehouse.path.stat().st_size,
            "tables": {
                "candles": {
                    "BTC/USDT": {
                        "n_rows": 7,
                        "first_open_time": "2024-01-01T00:00:00Z",
                        "last_open_time": "2024-01-01T00:06:00Z",
                    },
                    "ETH/USDT": {
                        "n_rows": 3,
                        "first_open_time": "2024-01-01T00:00:00Z",
                        "last_open_time": "2024-01-01T00:02:00Z",
                    },
                }
            },
        }

    def test_every_table_of_candles_is_recorded_under_its_name(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(1), source="binance")
        warehouse.upsert(CANDLES.renamed("order"), make_candles(2), source="binance")
        recorded = json.loads(manifest_of(warehouse).read_text())["tables"]
        assert {name: held["BTC/USDT"]["n_rows"] for name, held in recorded.items()} == {
            "candles": 1,
            "order": 2,
        }

    def test_a_refused_write_and_a_read_leave_the_manifest_alone(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        before = manifest_of(warehouse).stat()
        warehouse.read(CANDLES)
        with pytest.raises(DataError):
            warehouse.upsert(CANDLES, stored.drop("open"))
        assert manifest_of(warehouse).stat().st_ino == before.st_ino

    def test_a_database_of_an_earlier_version_gets_a_manifest_with_its_next_write(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        manifest_of(warehouse).unlink()
        assert warehouse.count(CANDLES) == 300
        assert not manifest_of(warehouse).exists()
        warehouse.upsert(LABELS, LABELS.schema.to_frame())
        assert '"n_rows":300' in manifest_of(warehouse).read_text().replace(" ", "")

    def test_a_manifest_that_cannot_be_understood_is_none(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        manifest_of(warehouse).write_text('{"size_bytes": "many"')
        assert warehouse.count(CANDLES) == 300
        warehouse.upsert(CANDLES, make_candles(301))
        assert '"n_rows":301' in manifest_of(warehouse).read_text().replace(" ", "")

    def test_a_folder_in_its_place_is_named(self, warehouse: Warehouse, stored: pl.DataFrame):
        manifest_of(warehouse).unlink()
        manifest_of(warehouse).mkdir()
        with pytest.raises(NeighbourUnavailableError, match=r"manifest\.json could not be read"):
            warehouse.count(CANDLES)
        with pytest.raises(NeighbourUnavailableError, match="the rows are stored; check its"):
            write_manifest(warehouse.path, held={})


LOSSES = {
    "rows within": ("DELETE FROM candles WHERE minute(open_time) = 7", "295 candles from"),
    "the newest row": (
        "DELETE FROM candles WHERE open_time >= '2024-01-01 04:59'",
        "299 candles from 2024-01-01 00:00 to 2024-01-01 04:58 UTC",
    ),
    "the newest row, with an older one in its place": (
        (
            "DELETE FROM candles WHERE open_time >= '2024-01-01 04:59'; INSERT INTO candles "
            "SELECT * REPLACE (TIMESTAMP '2023-12-31' AS open_time) FROM candles LIMIT 1"
        ),
        "300 candles from 2023-12-31 00:00 to 2024-01-01 04:58 UTC",
    ),
    "the oldest row": (
        "UPDATE candles SET open_time = '2024-02-01' WHERE open_time = '2024-01-01'",
        "300 candles from 2024-01-01 00:01 to 2024-02-01 00:00 UTC",
    ),
    "all rows": ("DELETE FROM candles", "and holds none"),
    "the table": ("DROP TABLE candles", "and holds none"),
}


class TestLosses:
    @pytest.mark.parametrize(("statements", "found"), LOSSES.values(), ids=LOSSES.keys())
    def test_what_is_gone_is_told_to_readers_and_writers(
        self, warehouse: Warehouse, stored: pl.DataFrame, statements: str, found: str
    ):
        behind_its_back(warehouse, *statements.split("; "))
        for use in (warehouse.count, lambda table: warehouse.upsert(table, stored)):
            with pytest.raises(DataError) as loss:
                use(CANDLES)
            assert loss.value.message.startswith(
                f"{warehouse.path} lost candles: table candles should hold 300 candles "
                "from 2024-01-01 00:00 to 2024-01-01 04:59 UTC of BTC/USDT, and holds "
            )
            assert found in loss.value.message
            assert "./task rebuild" in loss.value.hint
            assert str(manifest_of(warehouse)) in loss.value.hint

    def test_who_removed_rows_on_purpose_deletes_the_manifest(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        behind_its_back(warehouse, "DELETE FROM candles WHERE open_time < '2024-01-01 01:00'")
        manifest_of(warehouse).unlink()
        assert warehouse.count(CANDLES) == 240

    def test_who_removes_rows_through_the_store_records_it(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        with warehouse.connect() as connection:
            connection.execute("DELETE FROM candles WHERE open_time < '2024-01-01 01:00'")
        assert warehouse.count(CANDLES) == 240

    def test_other_tables_may_lose_rows(self, warehouse: Warehouse, stored: pl.DataFrame):
        warehouse.upsert(CANDLE_GAPS, CANDLE_GAPS.schema.to_frame())
        behind_its_back(warehouse, "DROP TABLE candle_gaps")
        assert warehouse.count(CANDLES) == 300

    def test_a_database_may_be_ahead_of_its_manifest(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        behind_its_back(
            warehouse,
            "INSERT INTO candles SELECT * REPLACE ('ETH/USDT' AS symbol) FROM candles",
            "INSERT INTO candles SELECT * REPLACE (TIMESTAMP '2025-01-01' AS open_time) "
            "FROM candles LIMIT 1",
        )
        assert warehouse.count(CANDLES) == 601

    def test_a_file_shorter_than_recorded_is_fine_while_every_row_is_there(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        """DuckDB gives space back when it closes a file, and may be killed before that is recorded."""
        recorded = json.loads(manifest_of(warehouse).read_text())
        recorded["size_bytes"] += 262_144
        manifest_of(warehouse).write_text(json.dumps(recorded))
        warehouse.path.touch()
        assert_frame_equal(warehouse.read(CANDLES), stored)

    def test_who_deletes_the_database_starts_afresh(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        warehouse.path.unlink()
        with pytest.raises(NothingToServeError):
            warehouse.verify()
        assert warehouse.upsert(CANDLES, stored[:2], source="synthetic").n_total == 2


class TestKilled:
    def test_between_commit_and_manifest_nothing_is_lost_and_nobody_complains(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        killed = run_child(
            "module.write_manifest = lambda *args, **named: os._exit(9)\n"
            "warehouse.upsert(CANDLES, candles)",
            warehouse.path,
            400,
        )
        assert killed.returncode == 9
        assert '"n_rows":300' in manifest_of(warehouse).read_text().replace(" ", "")
        assert_frame_equal(warehouse.read(CANDLES), make_candles(400))
        warehouse.upsert(CANDLES, make_candles(401))
        assert '"n_rows":401' in manifest_of(warehouse).read_text().replace(" ", "")

    @pytest.mark.parametrize("log", ["kept", "cut", "deleted"])
    def test_right_after_commit_the_log_holds_what_was_not_yet_told_to_anybody(
        self, warehouse: Warehouse, stored: pl.DataFrame, log: str
    ):
        killed = run_child(
            "with warehouse.connect() as connection:\n"
            "    upsert_rows(connection, CANDLES, candles)\n"
            "    connection.commit()\n"
            "    os._exit(9)",
            warehouse.path,
            400,
        )
        assert killed.returncode == 9
        if log == "cut":
            log_of(warehouse).write_bytes(log_of(warehouse).read_bytes()[:-100])
        if log == "deleted":
            log_of(warehouse).unlink()
        expected = make_candles(400) if log == "kept" else stored
        assert_frame_equal(warehouse.read(CANDLES), expected)

    @pytest.mark.parametrize("log", ["kept", "cut", "deleted", "flipped"])
    def test_a_log_that_holds_acknowledged_rows_is_missed(
        self, warehouse: Warehouse, stored: pl.DataFrame, log: str
    ):
        """On a full disk rows stay in the log, and without the log DuckDB opens without a word."""
        size = warehouse.path.stat().st_size
        assert run_child(LIMITED, warehouse.path, 330, size).stdout == "stored\n"
        content = log_of(warehouse).read_bytes()
        if log == "kept":
            assert_frame_equal(warehouse.read(CANDLES), make_candles(330))
            return
        log_of(warehouse).write_bytes(
            {"cut": content[:-100], "deleted": b"", "flipped": content[:-9] + b"x" + content[-8:]}[
                log
            ]
        )
        problem = "is damaged: .*WAL" if log == "flipped" else "lost candles: .* should hold 330"
        with pytest.raises(DataError, match=problem):
            warehouse.read(CANDLES)
