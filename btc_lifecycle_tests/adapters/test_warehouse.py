from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import duckdb
import numpy as np
import polars as pl
import pytest
from duckdb import DuckDBPyConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import (
    UpsertCounts,
    Warehouse,
    is_table,
    read_rows,
    upsert_rows,
)
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    DataError,
    NeighbourUnavailableError,
    NothingToServeError,
)
from btc_lifecycle.domain.tables import (
    CANDLES,
    DRIFT_METRICS,
    FEATURES,
    LABELS,
    OUTCOMES,
    PREDICTIONS,
    TABLES,
    UTC_TIME,
    Table,
)
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)
by_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "feature_store" / "bitcoin.duckdb", lock_wait=timedelta(seconds=20))


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process believes to be in New York, where clocks change twice a year."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    assert time.tzname == ("EST", "EDT")
    yield
    monkeypatch.undo()
    time.tzset()


def rows_of(table: Table, n: int = 6) -> pl.DataFrame:
    """Return plausible rows of any table, nulls where it allows them, times across a clock change."""
    rng = np.random.default_rng(3)
    # In New York 2024-03-10 02:30 does not exist and 2024-11-03 01:30 happens twice.
    spring, autumn = datetime(2024, 3, 10, 2, 30, tzinfo=UTC), datetime(2024, 11, 3, 5, tzinfo=UTC)
    times = [spring + i * timedelta(minutes=15) for i in range(n // 2)]
    times += [autumn + i * timedelta(minutes=15) for i in range(n - n // 2)]
    makers = {
        "VARCHAR": lambda: [f"it's {i}" for i in range(n)],
        "TIMESTAMP": lambda: [at + timedelta(microseconds=1) for at in times],
        "DOUBLE": lambda: rng.normal(size=n).tolist(),
        "BIGINT": lambda: rng.integers(-(2**60), 2**60, n).tolist(),
        "BOOLEAN": lambda: [i % 2 == 0 for i in range(n)],
    }
    columns = {column.name: makers[column.type]() for column in table.columns}
    for number, column in enumerate(table.columns):
        if column.is_nullable:
            columns[column.name][number % n] = None
    return pl.DataFrame(columns, schema=table.schema).sort(table.key)


class TestRoundTrip:
    @by_table
    def test_what_was_stored_is_what_is_read(self, warehouse: Warehouse, table: Table):
        rows = rows_of(table)
        assert warehouse.upsert(table, rows) == UpsertCounts(n_new=6, n_revised=0, n_total=6)
        assert_frame_equal(warehouse.read(table), rows)

    @by_table
    @pytest.mark.usefixtures("new_york")
    def test_the_zone_of_the_process_moves_no_time(self, warehouse: Warehouse, table: Table):
        rows = rows_of(table)
        warehouse.upsert(table, rows)
        assert_frame_equal(warehouse.read(table), rows)
        with duckdb.connect(str(warehouse.path), read_only=True) as connection:
            stored = connection.execute(
                f"SELECT {table.time_column} FROM {table.name} ORDER BY ALL"  # noqa: S608
            ).fetchall()
        assert [at.replace(tzinfo=UTC) for (at,) in stored] == sorted(rows[table.time_column])

    @pytest.mark.usefixtures("new_york")
    def test_bounds_of_time_mean_the_same_in_every_zone(self, warehouse: Warehouse):
        candles = make_candles(10)
        warehouse.upsert(CANDLES, candles)
        fourth = candles["open_time"][4]
        assert warehouse.read(CANDLES, start=fourth).height == 6
        elsewhere = fourth.astimezone(datetime.now().astimezone().tzinfo)
        assert warehouse.read(CANDLES, start=elsewhere).height == 6
        assert warehouse.open_times(CANDLES, symbol="BTC/USDT").max() == START + 9 * MINUTE

    def test_columns_in_another_order_are_stored_by_name(self, warehouse: Warehouse):
        rows = rows_of(CANDLES)
        warehouse.upsert(CANDLES, rows.select(reversed(rows.columns)))
        assert_frame_equal(warehouse.read(CANDLES), rows)

    def test_times_in_milliseconds_and_another_zone_are_the_same_instants(
        self, warehouse: Warehouse
    ):
        candles = make_candles(5)
        in_tokyo = pl.col("open_time").cast(pl.Datetime("ms", "UTC"))
        warehouse.upsert(CANDLES, candles.with_columns(in_tokyo.dt.convert_time_zone("Asia/Tokyo")))
        assert_frame_equal(warehouse.read(CANDLES), candles)

    def test_nan_is_kept_apart_from_missing_and_is_no_revision(self, warehouse: Warehouse):
        features = rows_of(FEATURES).with_columns(pl.lit(float("nan")).alias("rsi_14m"))
        warehouse.upsert(FEATURES, features)
        assert warehouse.upsert(FEATURES, features).n_revised == 0
        assert warehouse.read(FEATURES)["rsi_14m"].is_nan().all()

    @pytest.mark.parametrize("name", ["order", "incoming", "candles_2"])
    def test_the_table_of_candles_may_have_any_name_even_one_of_sql(
        self, warehouse: Warehouse, name: str
    ):
        """A table named by one of SQL's words ended in a parser error."""
        table = CANDLES.renamed(name)
        warehouse.upsert(table, make_candles(3), source="synthetic")
        assert warehouse.upsert(table, make_candles(4), source="synthetic").n_total == 4
        assert warehouse.read(table, window_days=1).height == 4
        assert warehouse.count(table) == len(warehouse.open_times(table, symbol="BTC/USDT")) == 4
        assert warehouse.open_times(table, symbol="BTC/USDT").max() == START + 3 * MINUTE
        assert warehouse.source() == "synthetic"


class TestUpsert:
    def test_it_counts_new_revised_and_all_rows(self, warehouse: Warehouse):
        candles = make_candles(10)
        warehouse.upsert(CANDLES, candles[:6])
        is_revised = pl.col("open_time") == candles["open_time"][5]
        volume = pl.when(is_revised).then(pl.col("volume") + 1).otherwise(pl.col("volume"))
        counts = warehouse.upsert(CANDLES, candles[4:].with_columns(volume))
        assert counts == UpsertCounts(n_new=4, n_revised=1, n_total=10)
        assert warehouse.read(CANDLES)["volume"][5] == candles["volume"][5] + 1

    def test_a_value_that_became_known_or_unknown_is_a_revision(self, warehouse: Warehouse):
        known, unknown = make_candles(3), make_candles(3, with_taker=False)
        warehouse.upsert(CANDLES, unknown)
        assert warehouse.upsert(CANDLES, known).n_revised == 3
        assert warehouse.upsert(CANDLES, unknown).n_revised == 3
        assert_frame_equal(warehouse.read(CANDLES), unknown)

    def test_the_same_rows_again_change_nothing(self, warehouse: Warehouse):
        candles = make_candles(50)
        warehouse.upsert(CANDLES, candles)
        counts = warehouse.upsert(CANDLES, candles)
        assert counts == UpsertCounts(n_new=0, n_revised=0, n_total=50)
        assert_frame_equal(warehouse.read(CANDLES), candles)

    def test_an_empty_frame_changes_nothing(self, warehouse: Warehouse):
        candles = make_candles(5)
        warehouse.upsert(CANDLES, candles)
        counts = warehouse.upsert(CANDLES, candles.clear())
        assert counts == UpsertCounts(n_new=0, n_revised=0, n_total=5)
        assert_frame_equal(warehouse.read(CANDLES), candles)

    def test_symbols_with_equal_times_are_different_rows(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(5))
        assert warehouse.upsert(CANDLES, make_candles(5, symbol="ETH/USDT")).n_new == 5
        assert warehouse.count(CANDLES) == 10
        assert warehouse.count(CANDLES, symbol="ETH/USDT") == 5

    def test_the_store_itself_refuses_a_second_row_of_a_key(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(1))
        with duckdb.connect(str(warehouse.path)) as connection:
            with pytest.raises(duckdb.ConstraintException):
                connection.execute("INSERT INTO candles SELECT * FROM candles")
            with pytest.raises(duckdb.ConstraintException):
                connection.execute("UPDATE candles SET volume = NULL")

    @settings(max_examples=25)
    @given(
        batches=st.lists(
            st.dictionaries(st.integers(0, 12), st.integers(0, 2), max_size=8), max_size=4
        )
    )
    def test_it_stores_and_counts_as_a_dictionary_would(
        self, in_memory: DuckDBPyConnection, batches: list[dict[int, int]]
    ):
        in_memory.execute("DROP TABLE IF EXISTS labels")
        expected: dict[int, int] = {}
        for batch in batches:
            revised = {key for key in batch if expected.get(key, batch[key]) != batch[key]}
            n_new = len(batch.keys() - expected.keys())
            expected |= batch
            assert upsert_rows(in_memory, LABELS, labels(batch)) == UpsertCounts(
                n_new=n_new, n_revised=len(revised), n_total=len(expected)
            )
        assert_frame_equal(read_rows(in_memory, LABELS), labels(expected))

    @settings(max_examples=25)
    @given(
        spans=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 15)), min_size=1, max_size=4),
        shuffled=st.randoms(),
    )
    def test_any_order_and_overlap_of_batches_gives_the_same_table(
        self, in_memory: DuckDBPyConnection, spans: list[tuple[int, int]], shuffled: Random
    ):
        candles = make_candles(45)
        in_memory.execute("DROP TABLE IF EXISTS candles")
        shuffled.shuffle(spans)
        for first, length in spans:
            upsert_rows(in_memory, CANDLES, candles[first : first + length])
        covered = {i for first, length in spans for i in range(first, first + length)}
        assert_frame_equal(read_rows(in_memory, CANDLES), candles[sorted(covered)])


@pytest.fixture(scope="module")
def in_memory() -> Iterator[DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def labels(direction_by_minute: dict[int, int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": "BTC/USDT",
            "open_time": [START + minute * MINUTE for minute in direction_by_minute],
            "method": "horizon",
            "horizon_min": 15,
            "forward_log_return": [0.1 * sign for sign in direction_by_minute.values()],
            "direction": list(direction_by_minute.values()),
            "matures_at": [START + (minute + 16) * MINUTE for minute in direction_by_minute],
            "forward_log_volatility": None,
        },
        schema=LABELS.schema,
    ).sort("open_time")


class TestRefusals:
    @pytest.fixture
    def stored(self, warehouse: Warehouse) -> pl.DataFrame:
        candles = make_candles(5)
        warehouse.upsert(CANDLES, candles, source="binance")
        return candles

    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            (lambda rows: rows.drop("volume"), r"columns lack \['volume'\] and have \[\] too many"),
            (
                lambda rows: rows.with_columns(pl.lit(1).alias("vwap")),
                r"columns lack \[\] and have \['vwap'\] too many",
            ),
            (
                lambda rows: rows.with_columns(
                    pl.when(pl.col("volume") != rows["volume"][2]).then("close").alias("close")
                ),
                r"missing values where none may be: \{'close': 1\}",
            ),
            (
                lambda rows: rows.with_columns(pl.lit(None, dtype=pl.String).alias("symbol")),
                r"missing values where none may be: \{'symbol': 8\}",
            ),
            (lambda rows: pl.concat([rows, rows[:3]]), "3 rows repeat the key symbol, open_time"),
            (
                lambda rows: rows.with_columns(pl.lit("abc").alias("open")),
                "conversion from `str` to `f64` failed in column 'open'",
            ),
        ],
        ids=["lacks", "too many", "null", "null key", "repeats", "type"],
    )
    def test_a_bad_frame_is_refused_whole_with_the_tables_name(
        self, warehouse: Warehouse, stored: pl.DataFrame, broken, problem: str
    ):
        with pytest.raises(DataError, match=problem) as refusal:
            warehouse.upsert(CANDLES, broken(make_candles(8, seed=1)))
        assert refusal.value.message.startswith("rows for table candles were refused: ")
        assert "\n" not in refusal.value.message
        assert "nothing was stored" in refusal.value.hint
        assert_frame_equal(warehouse.read(CANDLES), stored)

    def test_rows_of_another_source_are_refused_and_none_is_stored(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        with pytest.raises(DataError) as refusal:
            warehouse.upsert(CANDLES, make_candles(9, seed=1), source="synthetic")
        assert refusal.value.message == (
            "the database holds candles of source 'binance', these are from 'synthetic'"
        )
        assert "BTC_DATA_DIR" in refusal.value.hint
        assert warehouse.source() == "binance"
        assert_frame_equal(warehouse.read(CANDLES), stored)

    def test_one_database_holds_one_source_whatever_its_tables_are_called(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        """A second table of candles took another source's rows, and features mixed both."""
        with pytest.raises(DataError, match="holds candles of source 'binance'"):
            warehouse.upsert(CANDLES.renamed("candles_two"), stored, source="synthetic")
        with pytest.raises(DataError, match="holds candles of source 'binance'"):
            warehouse.require_source("synthetic")
        warehouse.require_source("binance")
        assert warehouse.count(CANDLES.renamed("candles_two")) == 0

    def test_a_sources_name_is_kept_letter_by_letter(self, warehouse: Warehouse):
        hostile = "it's; DROP TABLE candles; --"
        warehouse.upsert(CANDLES, make_candles(3), source=hostile)
        assert warehouse.source() == hostile
        assert warehouse.upsert(CANDLES, make_candles(3), source=hostile).n_total == 3

    def test_a_table_with_the_columns_of_another_version_is_not_written(self, warehouse: Warehouse):
        warehouse.path.parent.mkdir()
        with duckdb.connect(str(warehouse.path)) as connection:
            connection.execute("CREATE TABLE labels (symbol VARCHAR, open_time TIMESTAMP)")
        with pytest.raises(DataError, match="table labels has the columns symbol, open_time, this"):
            warehouse.upsert(LABELS, labels({0: 1}))

    def test_an_error_between_two_writes_undoes_both(
        self, warehouse: Warehouse, stored: pl.DataFrame
    ):
        def delete_and_fail() -> None:
            with warehouse.connect() as connection:
                connection.execute("DELETE FROM candles").fetchall()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            delete_and_fail()
        assert_frame_equal(warehouse.read(CANDLES), stored)


@pytest.fixture(scope="module")
def filled() -> Iterator[tuple[DuckDBPyConnection, pl.DataFrame]]:
    candles = pl.concat(
        make_candles(10, start=START + timedelta(days=day), symbol=symbol)
        for symbol, day in [("BTC/USDT", 0), ("BTC/USDT", 3), ("ETH/USDT", 2)]
    )
    with duckdb.connect() as connection:
        upsert_rows(connection, CANDLES, candles.sample(fraction=1, shuffle=True, seed=0))
        yield connection, candles


class TestReading:
    @given(
        symbol=st.sampled_from([None, "BTC/USDT", "ETH/USDT", "XRP/USDT"]),
        start=st.none() | st.integers(-10, 4500),
        end=st.none() | st.integers(-10, 4500),
        window_days=st.none() | st.integers(1, 4),
    )
    def test_filters_are_those_of_a_plain_filter(
        self,
        filled: tuple[DuckDBPyConnection, pl.DataFrame],
        symbol: str | None,
        start: int | None,
        end: int | None,
        window_days: int | None,
    ):
        connection, candles = filled
        start_time, end_time = (None if x is None else START + x * MINUTE for x in (start, end))
        newest = candles["open_time"].max()
        expected = [
            row
            for row in candles.iter_rows(named=True)
            if (symbol is None or row["symbol"] == symbol)
            and (start_time is None or row["open_time"] >= start_time)
            and (end_time is None or row["open_time"] < end_time)
            and (window_days is None or row["open_time"] > newest - timedelta(days=window_days))
        ]
        rows = read_rows(
            connection,
            CANDLES,
            symbol=symbol,
            start=start_time,
            end=end_time,
            window_days=window_days,
        )
        assert_frame_equal(rows, pl.DataFrame(expected, schema=CANDLES.schema))

    def test_the_window_of_predictions_is_cut_by_when_they_were_made(self, warehouse: Warehouse):
        rows = rows_of(PREDICTIONS)
        warehouse.upsert(PREDICTIONS, rows)
        newest = rows["made_at"].max()
        recent = rows.filter(pl.col("made_at") > newest - timedelta(days=1))
        assert_frame_equal(warehouse.read(PREDICTIONS, window_days=1), recent)

    def test_a_bound_without_a_zone_is_refused(self, warehouse: Warehouse):
        """It was taken as a time of the zone that the process happened to run in."""
        warehouse.upsert(CANDLES, make_candles(1))
        naive = datetime(2024, 1, 1)  # noqa: DTZ001
        with pytest.raises(ConfigurationError, match="2024-01-01T00:00:00 has no zone; add one"):
            warehouse.read(CANDLES, start=naive)
        with pytest.raises(ConfigurationError, match="has no zone"):
            warehouse.read(CANDLES, end=naive)

    def test_the_newest_open_time_is_that_of_the_symbol(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(7))
        warehouse.upsert(CANDLES, make_candles(3, symbol="ETH/USDT"))
        assert warehouse.open_times(CANDLES, symbol="BTC/USDT").max() == START + 6 * MINUTE
        assert warehouse.open_times(CANDLES, symbol="ETH/USDT").max() == START + 2 * MINUTE
        assert warehouse.open_times(CANDLES, symbol="XRP/USDT").max() is None
        times = warehouse.open_times(CANDLES, symbol="ETH/USDT")
        assert times.to_list() == [START + i * MINUTE for i in range(3)]

    def test_a_table_that_is_not_there_yet_has_no_rows(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(1))
        assert_frame_equal(warehouse.read(OUTCOMES), OUTCOMES.schema.to_frame())
        assert warehouse.count(OUTCOMES) == 0
        assert warehouse.open_times(FEATURES, symbol="BTC/USDT").max() is None
        assert warehouse.open_times(FEATURES, symbol="BTC/USDT").dtype == UTC_TIME
        assert warehouse.source() is None
        with warehouse.connect(read_only=True) as connection:
            assert is_table(connection, CANDLES)
            assert not is_table(connection, DRIFT_METRICS)

    def test_a_file_that_is_not_there_yet_is_nothing_to_serve(self, warehouse: Warehouse):
        for read in (warehouse.read, warehouse.count):
            with pytest.raises(NothingToServeError) as nothing:
                read(CANDLES)
            assert nothing.value.message == f"there is no database at {warehouse.path}"
            assert nothing.value.hint == "run ./task ingest to make it"
        assert not warehouse.path.parent.exists()

    def test_who_asks_what_is_there_already_gets_nothing_from_a_missing_file(
        self, warehouse: Warehouse
    ):
        """An ingest that found no candle was told to run an ingest."""
        assert warehouse.open_times(CANDLES, symbol="BTC/USDT").max() is None
        assert warehouse.open_times(CANDLES, symbol="BTC/USDT").is_empty()
        assert warehouse.source() is None
        assert not warehouse.path.parent.exists()


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
connection.execute("SELECT 1").fetchall()
print("held", flush=True)
sys.stdin.readline()
connection.close()
"""


@contextmanager
def another_process(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


class TestOtherProcesses:
    def test_a_file_that_stays_locked_is_an_error_that_names_who_holds_it(
        self, warehouse: Warehouse
    ):
        warehouse.upsert(CANDLES, make_candles(3))
        impatient = Warehouse(warehouse.path, lock_wait=timedelta(milliseconds=150))
        with another_process(HOLD, warehouse.path, "write") as holder:
            assert holder.stdout.readline() == "held\n"
            for use in (impatient.read, lambda table: impatient.upsert(table, make_candles(3))):
                with pytest.raises(NeighbourUnavailableError) as refusal:
                    use(CANDLES)
                assert f"{warehouse.path} stayed locked for 0.15 s" in refusal.value.message
                assert f"PID {holder.pid}" in refusal.value.message
                assert "close the program that holds it" in refusal.value.hint

    @pytest.mark.parametrize("mode", ["write", "read"])
    def test_a_writer_waits_until_the_file_is_released(
        self, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, mode: str
    ):
        warehouse.upsert(CANDLES, make_candles(3))
        pauses: list[float] = []
        with another_process(HOLD, warehouse.path, mode) as holder:
            assert holder.stdout.readline() == "held\n"

            def release(seconds: float) -> None:
                pauses.append(seconds)
                holder.communicate("release\n")

            monkeypatch.setattr(time, "sleep", release)
            assert warehouse.upsert(CANDLES, make_candles(5)).n_new == 2
        assert len(pauses) == 1
        assert 0.02 <= pauses[0] <= 0.1

    def test_readers_read_beside_each_other(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(3))
        impatient = Warehouse(warehouse.path, lock_wait=timedelta())
        with another_process(HOLD, warehouse.path, "read") as holder:
            assert holder.stdout.readline() == "held\n"
            assert impatient.count(CANDLES) == 3

    def test_after_an_error_the_file_is_free_for_another_process(self, warehouse: Warehouse):
        warehouse.upsert(CANDLES, make_candles(3))
        with pytest.raises(DataError):
            warehouse.upsert(CANDLES, make_candles(3).drop("open"))
        with another_process(HOLD, warehouse.path, "write") as other:
            assert other.stdout.readline() == "held\n"

    def test_two_processes_that_upsert_at_once_lose_nothing_and_double_nothing(
        self, warehouse: Warehouse
    ):
        code = """
import sys
from datetime import timedelta
from pathlib import Path
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles

warehouse, candles, first = Warehouse(Path(sys.argv[1])), make_candles(200), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print(sum(
    warehouse.upsert(CANDLES, candles[start : start + 20]).n_new
    for start in range(first, first + 100, 15)
))
"""
        with (
            another_process(code, warehouse.path, 0) as one,
            another_process(code, warehouse.path, 50) as two,
        ):
            assert [process.stdout.readline() for process in (one, two)] == ["ready\n"] * 2
            with ThreadPoolExecutor() as threads:
                answers = threads.map(lambda process: process.communicate("go\n")[0], (one, two))
            n_new = [int(answer) for answer in answers]
        assert_frame_equal(warehouse.read(CANDLES), make_candles(200)[:160])
        assert sum(n_new) == 160

    def test_two_processes_that_make_the_same_file_at_once_make_a_whole_one(self, tmp_path: Path):
        """DuckDB let both write the beginning of the file, which then was no database for good."""
        code = """
import sys
from pathlib import Path
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles

candles = make_candles(20)[int(sys.argv[2]) :][:10]
Warehouse(Path(sys.argv[1]) / "warm.duckdb").upsert(CANDLES, candles)
print("ready", flush=True)
for line in sys.stdin:
    Warehouse(Path(sys.argv[1]) / line.strip()).upsert(CANDLES, candles)
    print("done", flush=True)
"""
        names = [f"{number}.duckdb" for number in range(10)]
        with (
            another_process(code, tmp_path, 0) as one,
            another_process(code, tmp_path, 10) as two,
        ):
            assert [process.stdout.readline() for process in (one, two)] == ["ready\n"] * 2
            for name in names:
                for process in (one, two):
                    process.stdin.write(f"{name}\n")
                    process.stdin.flush()
                assert [process.stdout.readline() for process in (one, two)] == ["done\n"] * 2
        assert {Warehouse(tmp_path / name).count(CANDLES) for name in names} == {20}
        assert [path.name for path in tmp_path.glob(".*")] == []

    @pytest.mark.parametrize("is_committed", [False, True])
    def test_a_killed_writer_leaves_whole_transactions(
        self, warehouse: Warehouse, is_committed: bool
    ):
        candles = make_candles(10)
        warehouse.upsert(CANDLES, candles[:3])
        code = """
import os, sys
from pathlib import Path
from btc_lifecycle.adapters.warehouse import Warehouse, upsert_rows
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles

with Warehouse(Path(sys.argv[1])).connect() as connection:
    upsert_rows(connection, CANDLES, make_candles(10)[:9])
    if sys.argv[2] == "True":
        connection.commit()
    os.kill(os.getpid(), 9)
"""
        with another_process(code, warehouse.path, is_committed) as killed:
            assert killed.wait() == -9
        n_rows = 9 if is_committed else 3
        assert_frame_equal(warehouse.read(CANDLES), candles[:n_rows])
        assert warehouse.upsert(CANDLES, candles).n_new == 10 - n_rows
