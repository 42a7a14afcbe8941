from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.orchestration.storage import (
    DataFolderArtifacts,
    DataFolderStorage,
    delete_runs,
    newest_records,
    open_instance,
    stray_files,
)
from btc_lifecycle.settings import ROOT


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run_ids(instance: dg.DagsterInstance) -> list[str]:
    return [run.run_id for run in instance.get_runs()]


@dg.asset
def thing() -> int:
    return 1


def test_a_folder_that_cannot_be_written_is_named(data_dir: Path):
    """A hundred lines of a database's traceback ended in `readonly database`."""
    data_dir.write_text("a file where a folder should be")
    with pytest.raises(ConfigurationError, match=f"data folder {data_dir} cannot be written"):
        open_instance()


def test_runs_lie_in_the_data_folder_and_are_there_when_it_is_opened_again(data_dir: Path):
    with open_instance() as instance:
        result = dg.materialize([thing], instance=instance)
        assert Path(instance.storage_directory()).is_relative_to(data_dir / "dagster")
    assert (data_dir / "dagster" / "history" / "runs.db").exists()
    assert {path.name for path in data_dir.iterdir()} == {"dagster"}
    assert {path.name for path in data_dir.parent.iterdir()} == {"data"}
    with open_instance() as again:
        assert run_ids(again) == [result.run_id]
        assert again.get_latest_materialization_event(thing.key) is not None


def test_two_folders_never_see_each_others_runs(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    with open_instance() as one:
        dg.materialize([thing], instance=one)
        monkeypatch.setenv("BTC_DATA_DIR", str(data_dir.with_name("other")))
        with open_instance() as other:
            assert run_ids(other) == []
        assert len(run_ids(one)) == 1


def test_a_process_whose_dagster_home_is_the_checkout_uses_the_data_folder(data_dir: Path):
    """As ``dagster dev`` opens it: by DAGSTER_HOME, with nothing set but the data folder."""
    code = """
import dagster as dg
instance = dg.DagsterInstance.get()
print(type(instance.run_storage).__module__, instance.storage_directory())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"DAGSTER_HOME": str(ROOT), "BTC_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(data_dir / "dagster") in answer.stdout
    for folder in ("history", "schedules", "storage"):
        assert not (ROOT / folder).exists()


def test_the_storages_take_no_configuration():
    assert DataFolderStorage.config_type() == {}
    assert DataFolderArtifacts.config_type() == {}


def test_processes_that_open_an_empty_folder_at_once_all_succeed(data_dir: Path):
    """The second of two first commands ended in an IntegrityError of the run storage."""
    code = (
        "from btc_lifecycle.orchestration.storage import open_instance; open_instance().dispose()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]


@pytest.fixture
def instance(data_dir: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        yield instance


@dg.asset_check(asset=thing)
def thing_is_sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def run_of_thing(instance: dg.DagsterInstance) -> str:
    return dg.materialize([thing, thing_is_sound], instance=instance).run_id


def record_partition(instance: dg.DagsterInstance, partition: str) -> str:
    """Record a partition of an asset that has none itself, as the backfill does."""

    @dg.op
    def store(context) -> None:
        context.log_event(dg.AssetMaterialization("thing", partition=partition))

    @dg.job
    def backfill() -> None:
        store()

    return backfill.execute_in_process(instance=instance).run_id


def traces(data_dir: Path, run_id: str) -> list[str]:
    """Return every table and file under Dagster's folder that still names a run."""
    folder = data_dir / "dagster"
    found = [str(path) for path in folder.rglob("*") if run_id in path.name]
    for database in folder.rglob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            dump = "\n".join(connection.iterdump())
        found += [f"{database.name}: {line[:80]}" for line in dump.splitlines() if run_id in line]
    return found


def test_a_deleted_run_leaves_nothing_behind_but_what_assets_last_were(
    data_dir: Path, instance: dg.DagsterInstance
) -> None:
    """Dagster's own deletion leaves a file of 130 kB a run, and its check results."""
    old, new = run_of_thing(instance), run_of_thing(instance)
    folder = Path(instance.storage_directory()) / old
    folder.mkdir(parents=True)
    (folder / "kept by an IO manager").touch()
    assert len(traces(data_dir, old)) > 5
    delete_runs(instance, [old])
    assert traces(data_dir, old) == []
    assert run_ids(instance) == [new]
    assert instance.all_logs(new)
    delete_runs(instance, [old])
    delete_runs(instance, [])


def test_the_newest_records_are_those_of_each_asset_partition_and_check(
    instance: dg.DagsterInstance,
) -> None:
    replaced, january, whole = (
        record_partition(instance, "2024-01"),
        record_partition(instance, "2024-01"),
        run_of_thing(instance),
    )
    february = record_partition(instance, "2024-02")
    assert newest_records(instance) == {january, february, whole}
    delete_runs(instance, [replaced])
    stored = instance.get_materialized_partitions(thing.key)
    assert stored == {"2024-01", "2024-02"}


def test_the_newest_attempt_on_an_asset_is_a_record_even_if_it_failed(
    instance: dg.DagsterInstance,
) -> None:
    @dg.asset(key="thing")
    def failing() -> None:
        raise ZeroDivisionError

    stored = run_of_thing(instance)
    failed = dg.materialize([failing], instance=instance, raise_on_error=False).run_id
    assert newest_records(instance) == {stored, failed}


def test_files_are_stray_once_their_run_is_gone_and_nobody_wrote_them_for_a_while(
    instance: dg.DagsterInstance,
) -> None:
    kept, deleted = run_of_thing(instance), run_of_thing(instance)
    now = datetime.now(UTC)
    instance.delete_run(deleted)
    assert stray_files(instance, until=now - timedelta(hours=1)) == set()
    assert stray_files(instance, until=now + timedelta(minutes=1)) == {deleted}
    assert run_ids(instance) == [kept]


def test_runs_of_another_storage_are_refused() -> None:
    with (
        dg.DagsterInstance.ephemeral() as ephemeral,
        pytest.raises(ConfigurationError, match="whose files nobody here knows"),
    ):
        delete_runs(ephemeral, ["run"])
