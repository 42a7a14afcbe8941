"""The IO manager under real Dagster, with toy assets named like tables of the warehouse."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLES, LABELS, PREDICTIONS
from btc_lifecycle.orchestration.io_managers import CandidateRuns, WarehouseIOManager
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-10")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "data" / "x.duckdb", lock_wait=timedelta(seconds=20))


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def labels(first: int, n: int, *, direction: int = 1) -> pl.DataFrame:
    minutes = range(first, first + n)
    return pl.DataFrame(
        {
            "symbol": "BTC/USDT",
            "open_time": [START + minute * MINUTE for minute in minutes],
            "method": "horizon",
            "horizon_min": 15,
            "forward_log_return": 0.01 * direction,
            "direction": direction,
            "matures_at": [START + (minute + 16) * MINUTE for minute in minutes],
            "forward_log_volatility": None,
        },
        schema=LABELS.schema,
    )


def materialize(
    warehouse: Warehouse,
    asset: dg.AssetsDefinition,
    *upstream: dg.AssetsDefinition,
    partition_key: str | None = None,
    window_days: int = 30,
    warmup_days: int = 0,
    candles_table: str = "candles",
    raises: bool = True,
) -> dg.ExecuteInProcessResult:
    """Materialize one asset; those upstream of it are only there to be loaded."""
    return dg.materialize(
        [asset, *upstream],
        selection=[asset],
        partition_key=partition_key,
        raise_on_error=raises,
        resources={
            "io_manager": WarehouseIOManager(
                database=str(warehouse.path),
                window_days=window_days,
                warmup_days=warmup_days,
                candles_table=candles_table,
            )
        },
    )


def asset_of(
    frame: pl.DataFrame, *, name: str = "labels", **options: object
) -> dg.AssetsDefinition:
    @dg.asset(name=name, **options)
    def made() -> pl.DataFrame:
        return frame

    return made


def partitioned(frame: pl.DataFrame, *, partitions_def: dg.PartitionsDefinition = DAYS) -> object:
    return asset_of(frame, partitions_def=partitions_def, metadata={"partition_expr": "open_time"})


def loader(name: str) -> tuple[dg.AssetsDefinition, list[pl.DataFrame]]:
    """Return an asset that takes the table as input, and the list that it puts it into."""
    seen: list[pl.DataFrame] = []

    @dg.asset(ins={"table": dg.AssetIn(name)})
    def reading(table: pl.DataFrame) -> None:
        seen.append(table)

    return reading, seen


def loaded(warehouse: Warehouse, name: str, **options: object) -> pl.DataFrame:
    reading, seen = loader(name)
    materialize(warehouse, reading, asset_of(pl.DataFrame(), name=name), **options)
    return seen[0]


class TestStoring:
    def test_rows_are_upserted_by_key_and_counted(self, warehouse: Warehouse):
        materialize(warehouse, asset_of(labels(0, 5)))
        result = materialize(warehouse, asset_of(labels(3, 5, direction=-1)))
        expected = pl.concat([labels(0, 3), labels(3, 5, direction=-1)])
        assert_frame_equal(warehouse.read(LABELS), expected)
        (event,) = result.asset_materializations_for_node("labels")
        figures = {key: event.metadata[key].value for key in ("new_rows", "revised_rows")}
        assert figures == {"new_rows": 3, "revised_rows": 2}
        assert event.metadata["dagster/row_count"].value == 8

    def test_the_same_rows_again_change_nothing(self, warehouse: Warehouse):
        for _ in range(2):
            result = materialize(warehouse, asset_of(labels(0, 5)))
        (event,) = result.asset_materializations_for_node("labels")
        assert event.metadata["new_rows"].value == event.metadata["revised_rows"].value == 0
        assert_frame_equal(warehouse.read(LABELS), labels(0, 5))

    def test_columns_in_another_order_are_stored_by_name(self, warehouse: Warehouse):
        """The stock IO manager stores by position: prices would change places without a word."""
        candles = make_candles(5)
        shuffled = candles.select(reversed(candles.columns))
        materialize(warehouse, asset_of(shuffled, name="candles"))
        assert_frame_equal(warehouse.read(CANDLES), candles)

    def test_an_empty_frame_changes_nothing(self, warehouse: Warehouse):
        materialize(warehouse, asset_of(labels(0, 5)))
        materialize(warehouse, asset_of(LABELS.schema.to_frame()))
        assert_frame_equal(warehouse.read(LABELS), labels(0, 5))

    def test_a_frame_that_is_refused_leaves_the_rows_as_they_were(self, warehouse: Warehouse):
        materialize(warehouse, asset_of(labels(0, 5)))
        without_direction = labels(0, 9, direction=-1).with_columns(
            pl.lit(None, dtype=pl.Int64).alias("direction")
        )
        with pytest.raises(DataError, match="rows for table labels were refused: missing values"):
            materialize(warehouse, asset_of(without_direction))
        assert_frame_equal(warehouse.read(LABELS), labels(0, 5))

    def test_the_configured_name_of_the_table_of_candles_is_used(self, warehouse: Warehouse):
        candles = make_candles(5)
        materialize(warehouse, asset_of(candles, name="candles"), candles_table="minutes")
        assert warehouse.count(CANDLES) == 0
        assert_frame_equal(warehouse.read(CANDLES.renamed("minutes")), candles)
        assert_frame_equal(loaded(warehouse, "candles", candles_table="minutes"), candles)

    @pytest.mark.parametrize("is_refused", [False, True])
    def test_afterwards_the_file_is_free_for_a_writer_of_another_process(
        self, warehouse: Warehouse, is_refused: bool
    ):
        """The stock IO manager keeps the connection, and the lock with it, after an error."""
        frame = labels(0, 5).drop("direction") if is_refused else labels(0, 5)
        result = materialize(warehouse, asset_of(frame), raises=False)
        assert result.success is not is_refused
        code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE t (i INT)')"
        subprocess.run([sys.executable, "-c", code, warehouse.path], check=True)


class TestPartitions:
    def day(self, number: int, n: int, *, direction: int = 1) -> pl.DataFrame:
        return labels(number * 1440, n, direction=direction)

    def test_a_partition_is_replaced_and_its_neighbours_are_kept(self, warehouse: Warehouse):
        for number in range(3):
            frame = self.day(number, 1440)
            materialize(warehouse, partitioned(frame), partition_key=f"2024-01-0{number + 1}")
        anew = self.day(1, 20, direction=-1)
        result = materialize(warehouse, partitioned(anew), partition_key="2024-01-02")
        expected = pl.concat([self.day(0, 1440), anew, self.day(2, 1440)])
        assert_frame_equal(warehouse.read(LABELS), expected)
        (event,) = result.asset_materializations_for_node("labels")
        assert event.metadata["dagster/row_count"].value == 2900

    @pytest.mark.usefixtures("new_york")
    def test_days_are_utc_days_in_every_zone(self, warehouse: Warehouse):
        materialize(warehouse, asset_of(pl.concat([self.day(0, 1440), self.day(1, 1440)])))
        anew = self.day(1, 1440, direction=-1)
        materialize(warehouse, partitioned(anew), partition_key="2024-01-02")
        assert_frame_equal(warehouse.read(LABELS), pl.concat([self.day(0, 1440), anew]))

    def test_an_empty_frame_does_not_empty_the_partition(self, warehouse: Warehouse):
        """The stock IO manager deletes the partition first and asks for the rows afterwards."""
        materialize(warehouse, partitioned(self.day(1, 5)), partition_key="2024-01-02")
        empty = LABELS.schema.to_frame()
        materialize(warehouse, partitioned(empty), partition_key="2024-01-02")
        assert_frame_equal(warehouse.read(LABELS), self.day(1, 5))

    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            (lambda rows: pl.concat([rows, rows[:1]]), "1 rows repeat the key"),
            (lambda rows: rows.drop("direction"), r"columns lack \['direction'\]"),
        ],
    )
    def test_a_frame_that_is_refused_leaves_the_partition_as_it_was(
        self, warehouse: Warehouse, broken, problem: str
    ):
        materialize(warehouse, partitioned(self.day(1, 5)), partition_key="2024-01-02")
        frame = broken(self.day(1, 9, direction=-1))
        with pytest.raises(DataError, match=problem):
            materialize(warehouse, partitioned(frame), partition_key="2024-01-02")
        assert_frame_equal(warehouse.read(LABELS), self.day(1, 5))

    def test_rows_outside_the_partition_are_refused(self, warehouse: Warehouse):
        """They were stored, and the next run of their own partition would have deleted them."""
        frame = pl.concat([self.day(1, 1440), self.day(2, 3)])
        with pytest.raises(DataError) as refusal:
            materialize(warehouse, partitioned(frame), partition_key="2024-01-02")
        assert refusal.value.message == (
            "3 of 1443 rows for table labels lie outside the partition "
            "2024-01-02 00:00 to 2024-01-03 00:00 UTC"
        )
        assert warehouse.count(LABELS) == 0

    def test_a_partition_of_candles_is_replaced_in_the_table_of_the_configured_name(
        self, warehouse: Warehouse
    ):
        """The table that the asset is named after was looked for, and nothing was deleted."""

        def run(frame: pl.DataFrame) -> None:
            options = {"partitions_def": DAYS, "metadata": {"partition_expr": "open_time"}}
            asset = asset_of(frame, name="candles", **options)
            materialize(warehouse, asset, partition_key="2024-01-01", candles_table="minutes")

        run(make_candles(9, seed=1))
        run(make_candles(5))
        assert_frame_equal(warehouse.read(CANDLES.renamed("minutes")), make_candles(5))

    def test_a_partition_that_is_loaded_has_the_rows_of_its_day(self, warehouse: Warehouse):
        both = pl.concat([self.day(0, 1440), self.day(1, 7)])
        materialize(warehouse, asset_of(both))
        seen: list[pl.DataFrame] = []

        @dg.asset(partitions_def=DAYS)
        def reading(labels: pl.DataFrame) -> None:
            seen.append(labels)

        for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
            materialize(warehouse, reading, partitioned(both), partition_key=day, window_days=1)
        assert [frame.height for frame in seen] == [1440, 7, 0]
        assert_frame_equal(seen[1], self.day(1, 7))

    def test_a_partitioning_by_anything_but_time_is_refused(self, warehouse: Warehouse):
        by_symbol = partitioned(
            labels(0, 5), partitions_def=dg.StaticPartitionsDefinition(["BTC", "ETH"])
        )
        with pytest.raises(ConfigurationError, match="labels cannot be partitioned by BTC"):
            materialize(warehouse, by_symbol, partition_key="BTC")
        assert warehouse.count(LABELS) == 0


class TestLoading:
    @pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
    def test_what_is_loaded_is_what_was_stored_with_aware_times(
        self, warehouse: Warehouse, zone: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            materialize(warehouse, asset_of(labels(0, 90)))
            assert_frame_equal(loaded(warehouse, "labels"), labels(0, 90))
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_only_the_newest_days_are_loaded(self, warehouse: Warehouse):
        two_days = labels(0, 2 * 1440 + 10)
        warehouse.upsert(LABELS, two_days)
        newest = loaded(warehouse, "labels", window_days=1)
        assert_frame_equal(newest, two_days[-1440:])
        assert_frame_equal(loaded(warehouse, "labels", window_days=3), two_days)

    def test_only_candles_are_loaded_with_the_days_that_warm_features_up(
        self, warehouse: Warehouse
    ):
        """Features and labels came with a day more, so that training had a longer window than set."""
        warehouse.upsert(LABELS, labels(0, 3 * 1440))
        warehouse.upsert(CANDLES, make_candles(3 * 1440))
        options = {"window_days": 1, "warmup_days": 1}
        assert loaded(warehouse, "labels", **options).height == 1440
        assert loaded(warehouse, "candles", **options).height == 2 * 1440

    def test_a_table_that_is_not_there_yet_is_an_empty_frame(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(1))
        assert_frame_equal(loaded(warehouse, "predictions"), PREDICTIONS.schema.to_frame())

    def test_a_file_that_is_not_there_yet_is_nothing_to_serve(self, warehouse: Warehouse):
        with pytest.raises(NothingToServeError, match=r"run \./task ingest"):
            loaded(warehouse, "labels")
        assert not warehouse.path.exists()

    def test_a_table_is_loaded_while_another_process_reads_the_file(self, warehouse: Warehouse):
        """The stock IO manager takes the writer's lock to read."""
        warehouse.upsert(LABELS, labels(0, 5))
        code = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print("held", flush=True)
sys.stdin.readline()
"""
        with subprocess.Popen(
            [sys.executable, "-c", code, warehouse.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdout.readline() == "held\n"
            frame = loaded(warehouse, "labels")
            assert reader.poll() is None
            reader.communicate("release\n")
        assert_frame_equal(frame, labels(0, 5))


def test_a_step_gets_its_own_runs_candidate_before_a_newer_one_of_another() -> None:
    registry = _KnownCandidates({"mine": "older", None: "newest"})
    loader = CandidateRuns(registry)  # type: ignore[arg-type]
    assert loader.load_input(_step_of("mine")) == "older"
    assert loader.load_input(_step_of("theirs")) == "newest"


def test_without_any_candidate_the_reader_is_told_to_train_one() -> None:
    loader = CandidateRuns(_KnownCandidates({}))  # type: ignore[arg-type]
    with pytest.raises(
        NothingToServeError, match=r"no candidate yet; train one with \./task track"
    ):
        loader.load_input(_step_of("mine"))


class _KnownCandidates:
    def __init__(self, run_ids: dict[str | None, str]) -> None:
        self._run_ids = run_ids

    def newest_candidate_run(self, *, dagster_run_id: str | None = None) -> str | None:
        return self._run_ids.get(dagster_run_id)


def _step_of(run_id: str) -> dg.InputContext:
    return SimpleNamespace(step_context=SimpleNamespace(run_id=run_id))  # type: ignore[return-value]
