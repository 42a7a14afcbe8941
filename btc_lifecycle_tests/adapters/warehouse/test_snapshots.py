from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.adapters.warehouse.snapshots import SnapshotCounts, write_snapshots
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLES, FEATURES, CandleTables
from btc_lifecycle.sandbox.market import as_ms
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle_tests.adapters.warehouse.story import (
    TABLES,
    beside,
    candles,
    files_in,
    make_template,
)
from btc_lifecycle_tests.builders import make_candles

ALL = SnapshotCounts(n_written=10, n_unchanged=0)
NONE = SnapshotCounts(n_written=0, n_unchanged=10)
JANUARY, FEBRUARY = "BTCUSDT/2024-01.parquet", "BTCUSDT/2024-02.parquet"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def warehouse(tmp_path: Path, template: Path) -> Warehouse:
    """A filled store of which there is no snapshot."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    (tmp_path / "snapshots").rename(tmp_path / "written_once")
    return Warehouse(tmp_path / "bitcoin.duckdb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


class TestWriting:
    def test_candles_lie_by_symbol_and_month_and_each_other_table_in_one_file(
        self, warehouse: Warehouse, folder: Path
    ):
        assert write_snapshots(warehouse, TABLES, folder=folder) == ALL
        months = [
            f"{symbol}/2024-0{month}.parquet"
            for symbol in ("BTCUSDT", "ETHUSDT")
            for month in (1, 2)
        ]
        tables = [f"tables/{name}.parquet" for name in beside()]
        assert set(files_in(folder)) == {*months, *tables, "index.json"}
        stored = pl.concat(pl.read_parquet(folder / month) for month in months)
        assert_frame_equal(stored, candles())
        for name, rows in beside().items():
            assert_frame_equal(pl.read_parquet(folder / "tables" / f"{name}.parquet"), rows)

    def test_what_can_be_made_again_is_left_out(self, warehouse: Warehouse, folder: Path):
        warehouse.upsert(FEATURES, FEATURES.schema.to_frame())
        assert write_snapshots(warehouse, TABLES, folder=folder) == ALL

    def test_the_sandbox_exchange_replays_them(self, warehouse: Warehouse, folder: Path):
        write_snapshots(warehouse, TABLES, folder=folder)
        market = ReplayMarket(folder)
        assert market.symbols == ("BTCUSDT", "ETHUSDT")
        february = datetime(2024, 2, 1, tzinfo=UTC)
        assert as_ms(february) in market.block_starts("ETHUSDT", until_ms=as_ms(february))
        months = market.describe()["months"]
        assert months == {symbol: ["2024-01", "2024-02"] for symbol in market.symbols}

    def test_a_december_ends_with_the_year(self, tmp_path: Path, folder: Path):
        year_end = make_candles(4, start=datetime(2023, 12, 31, 23, 58, tzinfo=UTC))
        warehouse = Warehouse(tmp_path / "other.duckdb")
        warehouse.upsert(CANDLES, year_end)
        write_snapshots(warehouse, TABLES, folder=folder)
        assert_frame_equal(pl.read_parquet(folder / "BTCUSDT" / "2023-12.parquet"), year_end[:2])
        assert_frame_equal(pl.read_parquet(folder / "BTCUSDT" / "2024-01.parquet"), year_end[2:])

    def test_candles_under_another_name_have_a_folder_of_their_own(
        self, warehouse: Warehouse, folder: Path
    ):
        other = CandleTables.named("more_candles")
        warehouse.upsert(other.candles, candles()[:5])
        write_snapshots(warehouse, TABLES, folder=folder)
        write_snapshots(warehouse, other, folder=folder)
        assert write_snapshots(warehouse, TABLES, folder=folder) == NONE
        assert pl.read_parquet(folder / "more_candles" / JANUARY).height == 5

    def test_without_a_database_there_is_nothing_to_copy(self, tmp_path: Path, folder: Path):
        with pytest.raises(NothingToServeError):
            write_snapshots(Warehouse(tmp_path / "none.duckdb"), TABLES, folder=folder)
        assert not folder.exists()


class TestWritingAgain:
    @pytest.fixture(autouse=True)
    def _written_once(self, warehouse: Warehouse, folder: Path) -> None:
        folder.with_name("written_once").rename(folder)

    def test_what_did_not_change_is_not_written(self, warehouse: Warehouse, folder: Path):
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert write_snapshots(warehouse, TABLES, folder=folder) == NONE
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times

    @pytest.mark.parametrize("column", ["close", "trades", "taker_buy_quote"])
    def test_a_value_that_changed_writes_its_month_only(
        self, warehouse: Warehouse, folder: Path, column: str
    ):
        before = files_in(folder)
        revised = candles()[0].with_columns(pl.col(column) + 1)
        warehouse.upsert(CANDLES, revised)
        assert write_snapshots(warehouse, TABLES, folder=folder).n_written == 1
        after = files_in(folder)
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {JANUARY, "index.json"}
        assert_frame_equal(pl.read_parquet(folder / JANUARY)[:1], revised)

    def test_a_table_whose_rows_went_is_written_empty(self, warehouse: Warehouse, folder: Path):
        with warehouse.connect() as connection:
            connection.execute("DELETE FROM candle_gaps")
        assert write_snapshots(warehouse, TABLES, folder=folder).n_written == 1
        assert pl.read_parquet(folder / "tables" / "candle_gaps.parquet").is_empty()

    @pytest.mark.parametrize("is_deleted", [True, False])
    def test_a_damaged_or_missing_file_is_written_again(
        self, warehouse: Warehouse, folder: Path, is_deleted: bool
    ):
        whole = (folder / JANUARY).read_bytes()
        (folder / JANUARY).write_bytes(whole[:100] + b"x" + whole[101:])
        if is_deleted:
            (folder / JANUARY).unlink()
        assert write_snapshots(warehouse, TABLES, folder=folder).n_written == 1
        assert (folder / JANUARY).read_bytes() == whole

    def test_without_a_readable_index_everything_is_written_again(
        self, warehouse: Warehouse, folder: Path
    ):
        (folder / "index.json").write_text("{")
        assert write_snapshots(warehouse, TABLES, folder=folder) == ALL
        assert write_snapshots(warehouse, TABLES, folder=folder) == NONE

    def test_another_source_is_refused_before_anything_is_written(
        self, tmp_path: Path, folder: Path
    ):
        before = files_in(folder)
        synthetic = Warehouse(tmp_path / "synthetic.duckdb")
        synthetic.upsert(CANDLES, candles()[5:], source="synthetic")
        with pytest.raises(DataError) as refusal:
            write_snapshots(synthetic, TABLES, folder=folder)
        assert refusal.value.message == (
            f"{folder} holds snapshots of source 'binance', the database holds 'synthetic'"
        )
        assert "move that folder" in refusal.value.hint
        assert files_in(folder) == before

    def test_a_store_that_lost_rows_is_not_copied(self, warehouse: Warehouse, folder: Path):
        before = files_in(folder)
        with duckdb.connect(str(warehouse.path)) as connection:
            connection.execute("DELETE FROM candles WHERE symbol = 'ETH/USDT'")
        with pytest.raises(DataError, match="lost candles"):
            write_snapshots(warehouse, TABLES, folder=folder)
        assert files_in(folder) == before

    def test_a_file_that_cannot_be_written_is_named_and_the_rest_stays(
        self, warehouse: Warehouse, folder: Path
    ):
        (folder / FEBRUARY).unlink()
        (folder / FEBRUARY).mkdir()
        with pytest.raises(NeighbourUnavailableError, match=r"2024-02\.parquet could not be"):
            write_snapshots(warehouse, TABLES, folder=folder)
        assert [path.name for path in folder.rglob(".*")] == []
        (folder / FEBRUARY).rmdir()
        assert write_snapshots(warehouse, TABLES, folder=folder).n_written == 1
