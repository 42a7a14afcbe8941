from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.adapters.warehouse.recovery import (
    RebuildRecord,
    RestoreCounts,
    rebuild,
    restore_snapshots,
    set_aside,
)
from btc_lifecycle.adapters.warehouse.snapshots import write_snapshots
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.adapters.warehouse.story import (
    END,
    GAP,
    MONTHS_START,
    N_ROWS,
    NOW,
    SOURCE,
    TABLES,
    assert_filled,
    candles,
    files_in,
    make_template,
)

ASIDE = "bitcoin.duckdb.damaged-20261123T160500Z"
JANUARY = "BTCUSDT/2024-01.parquet"
EVERYTHING = RestoreCounts(n_rows=N_ROWS, n_files=10, unusable=())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def warehouse(tmp_path: Path, template: Path) -> Warehouse:
    """A filled store of which there are snapshots."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Warehouse(tmp_path / "bitcoin.duckdb", lock_wait=timedelta())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_rows(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM candles WHERE symbol = 'ETH/USDT'")


class TestRebuild:
    @pytest.mark.parametrize(
        "damage",
        [cut_in_half, lose_rows, lambda path: path.write_bytes(b"garbage")],
        ids=["cut", "rows lost", "garbage"],
    )
    def test_a_damaged_store_is_set_aside_and_comes_back(
        self, warehouse: Warehouse, folder: Path, damage: Callable[[Path], None]
    ):
        damage(warehouse.path)
        left = warehouse.path.read_bytes()
        record = rebuild(warehouse, TABLES, folder=folder, now=NOW)
        aside = warehouse.path.with_name(ASIDE)
        assert record.problem is not None
        assert record == RebuildRecord(
            problem=record.problem, set_aside=aside, restored=EVERYTHING, held_from=record.held_from
        )
        assert aside.read_bytes() == left
        assert warehouse.path.with_name(f"{ASIDE}.manifest.json").exists()
        assert_filled(warehouse)

    def test_a_sound_store_stays_as_it_is(self, warehouse: Warehouse, folder: Path):
        record = rebuild(warehouse, TABLES, folder=folder, now=NOW)
        assert record == RebuildRecord(
            problem=None,
            set_aside=None,
            restored=RestoreCounts(n_rows=0, n_files=10, unusable=()),
            held_from=record.held_from,
        )
        assert record.held_from == warehouse.read(TABLES.candles)["open_time"].min()
        assert_filled(warehouse)

    def test_the_next_one_still_knows_since_when_there_were_candles(
        self, warehouse: Warehouse, tmp_path: Path
    ):
        """Without snapshots, and interrupted before the exchange was asked, all history was given up."""
        warehouse.path.write_bytes(b"garbage")
        nowhere = tmp_path / "no snapshots"
        assert rebuild(warehouse, TABLES, folder=nowhere, now=NOW).set_aside is not None
        again = rebuild(warehouse, TABLES, folder=nowhere, now=NOW)
        assert (again.problem, again.held_from) == (None, MONTHS_START)

    def test_what_changed_since_the_snapshot_stays_as_it_is(
        self, warehouse: Warehouse, folder: Path
    ):
        """A bad row that was seen again broke the rebuild, a gap that was filled came back."""
        seen_again = warehouse.read(TABLES.quarantine).with_columns(seen_at=pl.lit(END))
        warehouse.upsert(TABLES.quarantine, seen_again)
        with warehouse.connect() as connection:
            connection.execute("UPDATE candle_gaps SET gap_start = gap_start + INTERVAL 1 MINUTE")
        gaps = warehouse.read(TABLES.gaps)
        assert rebuild(warehouse, TABLES, folder=folder, now=NOW).restored.n_rows == 0
        assert_frame_equal(warehouse.read(TABLES.quarantine), seen_again)
        assert_frame_equal(warehouse.read(TABLES.gaps), gaps)

    def test_a_store_that_is_open_in_another_process_is_not_moved(self, warehouse: Warehouse):
        """It was renamed under an ingest, whose batch went into the file set aside."""
        code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
        command = [sys.executable, "-c", code, str(warehouse.path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as holder:
            assert holder.stdout.readline() == "open\n"
            with pytest.raises(NeighbourUnavailableError, match="open in another process"):
                set_aside(warehouse.path, now=NOW)
            holder.communicate("\n")
        assert_filled(warehouse)

    def test_a_sound_store_is_built_again_when_forced(self, warehouse: Warehouse, folder: Path):
        record = rebuild(warehouse, TABLES, folder=folder, now=NOW, is_forced=True)
        assert record.problem is None
        assert record.set_aside == warehouse.path.with_name(ASIDE)
        assert_filled(warehouse)
        assert_filled(Warehouse(record.set_aside))

    def test_a_store_that_is_gone_comes_back(self, warehouse: Warehouse, folder: Path):
        warehouse.path.unlink()
        record = rebuild(warehouse, TABLES, folder=folder, now=NOW, is_forced=True)
        assert (record.problem, record.set_aside) == (None, None)
        assert_filled(warehouse)

    def test_a_killed_rebuild_is_finished_by_the_next(self, warehouse: Warehouse, folder: Path):
        warehouse.path.unlink()
        warehouse.upsert(CANDLES, candles()[:50], source=SOURCE)
        record = rebuild(warehouse, TABLES, folder=folder, now=NOW)
        assert (record.set_aside, record.restored.n_rows) == (None, N_ROWS - 50)
        assert_filled(warehouse)

    def test_a_store_in_use_is_not_touched(self, warehouse: Warehouse, folder: Path):
        before = files_in(folder.parent)
        with (
            duckdb.connect(str(warehouse.path)),
            pytest.raises(NeighbourUnavailableError, match="stayed locked"),
        ):
            rebuild(warehouse, TABLES, folder=folder, now=NOW, is_forced=True)
        assert files_in(folder.parent) == before

    def test_without_snapshots_a_damaged_store_is_set_aside_all_the_same(
        self, warehouse: Warehouse, tmp_path: Path
    ):
        cut_in_half(warehouse.path)
        record = rebuild(warehouse, TABLES, folder=tmp_path / "none", now=NOW)
        assert record.restored == RestoreCounts(n_rows=0, n_files=0, unusable=())
        assert not warehouse.path.exists()


class TestRestore:
    def test_a_stored_row_is_never_replaced(self, warehouse: Warehouse, folder: Path):
        revised = candles()[:3].with_columns(pl.col("close") + 1)
        warehouse.upsert(CANDLES, revised)
        assert restore_snapshots(warehouse, TABLES, folder=folder).n_rows == 0
        assert_frame_equal(warehouse.read(CANDLES)[:3], revised)

    @pytest.mark.parametrize("is_deleted", [True, False])
    def test_a_damaged_file_is_told_and_what_it_held_counts_as_never_asked_for(
        self, warehouse: Warehouse, folder: Path, is_deleted: bool
    ):
        """Ranges once said that a lost month had been fetched, so nobody fetched it again."""
        warehouse.path.unlink()
        whole = (folder / JANUARY).read_bytes()
        (folder / JANUARY).write_bytes(whole[:-40] + bytes([whole[-40] ^ 4]) + whole[-39:])
        if is_deleted:
            (folder / JANUARY).unlink()
        restored = restore_snapshots(warehouse, TABLES, folder=folder)
        assert restored == RestoreCounts(
            n_rows=N_ROWS - 50,
            n_files=9,
            unusable=(f"{folder / JANUARY}: missing, or other than its checksum says",),
        )
        february = MONTHS_START + timedelta(hours=1)
        assert warehouse.read(CANDLES, symbol="BTC/USDT")["open_time"][0] == february
        assert warehouse.read(TABLES.ranges).rows() == [
            ("BTC/USDT", *GAP),
            ("BTC/USDT", february, END),
            ("ETH/USDT", MONTHS_START, END),
        ]
        assert warehouse.read(TABLES.gaps).height == 1

    def test_a_file_that_the_index_does_not_know_is_told(self, warehouse: Warehouse, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        del index["files"][JANUARY]
        (folder / "index.json").write_text(json.dumps(index))
        restored = restore_snapshots(warehouse, TABLES, folder=folder)
        assert restored.unusable == (f"{folder / JANUARY}: not in index.json",)

    def test_a_file_of_another_version_is_told(self, warehouse: Warehouse, folder: Path):
        pl.read_parquet(folder / JANUARY).drop("trades").write_parquet(folder / JANUARY)
        index = json.loads((folder / "index.json").read_text())
        index["files"][JANUARY]["sha256"] = sha256((folder / JANUARY).read_bytes()).hexdigest()
        (folder / "index.json").write_text(json.dumps(index))
        restored = restore_snapshots(warehouse, TABLES, folder=folder)
        assert restored.unusable == (
            f"{folder / JANUARY}: its columns are not those of table candles",
        )

    def test_snapshots_of_another_source_are_refused(
        self, warehouse: Warehouse, tmp_path: Path, folder: Path
    ):
        synthetic = Warehouse(tmp_path / "synthetic.duckdb")
        synthetic.upsert(CANDLES, candles()[:5], source="synthetic")
        with pytest.raises(DataError, match="candles of source 'synthetic', these are from 'bin"):
            restore_snapshots(synthetic, TABLES, folder=folder)
        assert synthetic.count(CANDLES) == 5

    def test_candles_without_a_source_come_back_without_one(self, tmp_path: Path, folder: Path):
        unclaimed = Warehouse(tmp_path / "unclaimed.duckdb")
        unclaimed.upsert(CANDLES, candles())
        write_snapshots(unclaimed, TABLES, folder=folder)
        unclaimed.path.unlink()
        assert restore_snapshots(unclaimed, TABLES, folder=folder).n_rows == candles().height
        assert unclaimed.source() is None


class TestSetAside:
    def test_the_log_and_the_manifest_go_along_and_nothing_is_overwritten(self, tmp_path: Path):
        database = tmp_path / "bitcoin.duckdb"
        for generation in ("one", "two"):
            for end in ("", ".wal", ".manifest.json"):
                (tmp_path / f"bitcoin.duckdb{end}").write_text(generation)
            set_aside(database, now=NOW)
        contents = {name: content.decode() for name, content in files_in(tmp_path).items()}
        ends = ("", ".wal", ".manifest.json")
        assert contents == {
            **{f"{ASIDE}{end}": "one" for end in ends},
            **{f"{ASIDE}-2{end}": "two" for end in ends},
        }

    def test_rows_that_were_only_in_the_log_can_be_read_where_it_lies_now(self, tmp_path: Path):
        database = tmp_path / "bitcoin.duckdb"
        connection = duckdb.connect(str(database))
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE t AS SELECT 7 AS seven")
        connection.close()
        aside = set_aside(database, now=NOW)
        with duckdb.connect(str(aside), read_only=True) as opened:
            assert opened.execute("FROM t").fetchall() == [(7,)]

    def test_a_name_that_cannot_be_given_is_told(self, tmp_path: Path):
        database = tmp_path / f"{'x' * 240}.duckdb"
        database.write_bytes(b"garbage")
        with pytest.raises(NeighbourUnavailableError, match="could not be set aside: File name"):
            set_aside(database, now=NOW)
        assert database.read_bytes() == b"garbage"
