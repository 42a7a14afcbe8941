from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.orchestration.storage import (
    DataFolderArtifacts,
    DataFolderStorage,
    open_instance,
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
