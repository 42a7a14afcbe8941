from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.adapters.warehouse.failures import told_plainly
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.adapters.warehouse.damage import (
    LIMITED,
    cut,
    flip,
    is_noticed_or_harmless,
    run_child,
    without_permission,
)
from btc_lifecycle_tests.builders import make_candles

N_CANDLES = 4_000


@pytest.fixture(scope="module")
def truth() -> pl.DataFrame:
    return make_candles(N_CANDLES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, truth: pl.DataFrame) -> dict[str, bytes]:
    """A sound database and its manifest, by the end of their names; of two writes, as stores are."""
    path = tmp_path_factory.mktemp("whole") / "bitcoin.duckdb"
    Warehouse(path).upsert(CANDLES, truth[:-500], source="binance")
    Warehouse(path).upsert(CANDLES, truth[-500:], source="binance")
    manifest = path.with_name("bitcoin.duckdb.manifest.json")
    return {"": path.read_bytes(), ".manifest.json": manifest.read_bytes()}


@pytest.fixture
def path(tmp_path: Path, whole: dict[str, bytes]) -> Path:
    for end, content in whole.items():
        (tmp_path / f"bitcoin.duckdb{end}").write_bytes(content)
    return tmp_path / "bitcoin.duckdb"


def damage_noticed(
    path: Path, whole: bytes, truth: pl.DataFrame, *, seeds: range, damage: Callable[..., bytes]
) -> int:
    """Damage a file by each seed and return how often it was noticed; the rest must be harmless."""
    n_noticed = 0
    for seed in seeds:
        path.write_bytes(damage(whole, seed=seed))
        n_noticed += is_noticed_or_harmless(path, truth)
    return n_noticed


class TestDamage:
    @pytest.mark.parametrize("damage", [cut, flip])
    def test_it_is_noticed_wherever_it_changes_a_row(
        self, path: Path, whole: dict[str, bytes], truth: pl.DataFrame, damage
    ):
        assert damage_noticed(path, whole[""], truth, seeds=range(15), damage=damage) > 2

    @pytest.mark.slow
    @pytest.mark.parametrize("damage", [cut, flip])
    def test_it_is_noticed_wherever_it_changes_a_row_a_hundred_times(
        self, path: Path, whole: dict[str, bytes], truth: pl.DataFrame, damage
    ):
        assert damage_noticed(path, whole[""], truth, seeds=range(100, 200), damage=damage) > 20

    def test_a_flip_anywhere_in_the_headers_is_noticed(self, path: Path, whole: dict[str, bytes]):
        content = whole[""]
        for place in range(0, 12_288, 1_024):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(DataError, match=r"is damaged: .*(checksum|not a valid)"):
                Warehouse(path).count(CANDLES)

    def test_a_file_cut_short_is_noticed_before_its_old_count_is_told(
        self, path: Path, whole: dict[str, bytes]
    ):
        """DuckDB opens such a file and counts the rows that it had."""
        path.write_bytes(whole[""][: len(whole[""]) // 2])
        with pytest.raises(DataError, match="is damaged: IO Error") as refusal:
            Warehouse(path).count(CANDLES)
        assert str(path) in refusal.value.message
        assert "./task rebuild" in refusal.value.hint

    @pytest.mark.parametrize("content", [b"", bytes(50_000), b"not a database" * 1000])
    def test_a_file_that_is_no_database_is_left_as_it_is(self, path: Path, content: bytes):
        path.write_bytes(content)
        warehouse = Warehouse(path)
        for use in (warehouse.count, lambda table: warehouse.upsert(table, make_candles(1))):
            with pytest.raises(DataError, match=r"is damaged: .*not a valid DuckDB"):
                use(CANDLES)
        assert path.read_bytes() == content

    def test_an_error_within_duckdb_is_taken_for_damage(self, path: Path):
        def fail() -> None:
            with told_plainly(path):
                raise duckdb.InternalException("INTERNAL Error: assertion failed")

        with pytest.raises(DataError, match="is damaged: INTERNAL Error"):
            fail()

    def test_a_wrong_statement_is_no_damage(self, path: Path):
        def misspell() -> None:
            with Warehouse(path).connect() as connection:
                connection.execute("SELECT clothes FROM candles")

        with pytest.raises(duckdb.BinderException):
            misspell()
        assert Warehouse(path).count(CANDLES) == N_CANDLES


class TestPlaces:
    def test_a_full_disk_is_named_and_loses_nothing(self, path: Path, truth: pl.DataFrame):
        answer = run_child(LIMITED, path, 20_000, path.stat().st_size).stdout
        assert answer.startswith(f"NeighbourUnavailableError {path} could not be opened, read or")
        assert "File too large" in answer
        assert_frame_equal(Warehouse(path).read(CANDLES), truth)
        assert Warehouse(path).upsert(CANDLES, make_candles(N_CANDLES + 9)).n_new == 9

    def test_a_disk_too_full_to_begin_a_file_leaves_none(self, tmp_path: Path):
        """What DuckDB had written of it was taken for a damaged database ever after."""
        path = tmp_path / "new.duckdb"
        assert "File too large" in run_child(LIMITED, path, 10, 4096).stdout
        assert list(tmp_path.iterdir()) == []
        assert Warehouse(path).upsert(CANDLES, make_candles(10)).n_new == 10

    def test_a_file_that_may_not_be_written_is_named(self, path: Path, truth: pl.DataFrame):
        with (
            without_permission(path),
            pytest.raises(NeighbourUnavailableError, match="Permission denied"),
        ):
            Warehouse(path).upsert(CANDLES, truth)
        assert_frame_equal(Warehouse(path).read(CANDLES), truth)

    def test_a_file_in_place_of_the_folder_is_named(self, path: Path):
        inside = Warehouse(path / "x.duckdb")
        with pytest.raises(NeighbourUnavailableError, match=r"x\.duckdb could not be opened"):
            inside.upsert(CANDLES, make_candles(1))

    def test_a_folder_in_place_of_the_file_is_named(self, tmp_path: Path):
        folder = Warehouse(tmp_path)
        for use in (folder.count, lambda table: folder.upsert(table, make_candles(1))):
            with pytest.raises(NeighbourUnavailableError, match="Is a directory"):
                use(CANDLES)

    def test_a_file_of_a_newer_duckdb_is_no_damage(self, path: Path):
        def open_newer() -> None:
            with told_plainly(path):
                raise duckdb.IOException("IO Error: Trying to read a database file of version 999")

        with pytest.raises(NeighbourUnavailableError, match="version 999"):
            open_newer()

    def test_a_held_lock_is_no_damage(self, path: Path, truth: pl.DataFrame):
        with duckdb.connect(str(path)):
            impatient = Warehouse(path, lock_wait=timedelta())
            with pytest.raises(NeighbourUnavailableError, match="stayed locked"):
                impatient.verify()
        assert impatient.verify() == {"candles": N_CANDLES}
