"""An MLflow database that is absent, locked, damaged, foreign or replaced; reading changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from btc_lifecycle.adapters.registry import mlflow_database
from btc_lifecycle.adapters.registry.mlflow_database import MlflowDatabase
from btc_lifecycle.adapters.registry.reading import RegistryReader
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    NeighbourUnavailableError,
    NothingToServeError,
)

CHAMPION = "models:/bitcoin-model@production"


@pytest.fixture
def path(history, tmp_path) -> Path:
    """A copy of a store whose version 2 serves."""
    return Path(shutil.copy(history.store, tmp_path / "mlflow.db"))


def read(path: Path) -> str:
    return RegistryReader(f"sqlite:///{path}", f"sqlite:///{path}").resolve(CHAMPION).version


def test_a_look_up_changes_no_byte_and_leaves_nothing_open(path):
    before, modified = path.read_bytes(), path.stat().st_mtime_ns
    assert read(path) == "2"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, modified)
    assert [it.name for it in path.parent.iterdir()] == ["mlflow.db"]
    if Path("/proc/self/fd").is_dir():
        targets = (os.path.realpath(it) for it in Path("/proc/self/fd").iterdir())
        assert str(path) not in targets


def test_a_statement_that_writes_is_refused(path):
    with (
        closing(MlflowDatabase(f"sqlite:///{path}")._open_file()) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM model_versions")


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_file_that_is_not_there_yet_is_not_created(tmp_path, is_empty):
    """MLflow's client creates an empty file before its tables."""
    path = tmp_path / "mlflow" / "mlflow.db"
    if is_empty:
        path.parent.mkdir()
        path.touch()
    with pytest.raises(NothingToServeError, match="does not exist; train a model with"):
        read(path)
    database = MlflowDatabase(f"sqlite:///{path}")
    assert database.newest_versions("bitcoin-model", limit=3) == []
    assert path.exists() == path.parent.exists() == is_empty
    assert not is_empty or path.stat().st_size == 0


def test_a_relative_path_starts_in_the_working_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert read(Path("mlflow.db")) == "2"


def test_a_path_with_odd_characters_is_found(path):
    odd = path.rename(path.with_name("a b%20?#ü.db"))
    assert read(odd) == "2"


def test_a_file_that_is_deleted_and_comes_back_is_followed(path):
    aside = path.with_name("aside")
    for _ in range(2):
        path.rename(aside)
        with pytest.raises(NothingToServeError):
            read(path)
        aside.rename(path)
        assert read(path) == "2"


def test_a_held_lock_is_waited_for_no_longer_than_bounded(path, monkeypatch):
    monkeypatch.setattr(mlflow_database, "_SQLITE_WAIT_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NeighbourUnavailableError, match=r"failed: .*database is locked"):
            read(path)
        writer.execute("ROLLBACK")
    assert read(path) == "2"


def test_one_who_only_reads_or_prepares_to_write_is_not_waited_for(path, monkeypatch):
    monkeypatch.setattr(mlflow_database, "_SQLITE_WAIT_S", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE registered_model_aliases SET version = 1")
        assert read(path) == "2"
        writer.execute("COMMIT")
    assert read(path) == "1"


def test_what_a_killed_writer_left_is_rolled_back(path):
    """Opened with mode=ro every look-up failed until somebody wrote."""
    code = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN')\n"
        "c.execute('UPDATE registered_model_aliases SET version = 1')\n"
        "c.execute('CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1'\n"
        "          ' FROM n WHERE i < 5000) SELECT i, hex(randomblob(100)) AS x FROM n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert path.with_name("mlflow.db-journal").stat().st_size > 0
    assert read(path) == "2"
    assert not path.with_name("mlflow.db-journal").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: b"x" * 5000,
        lambda content: content[:200] + bytes(len(content) - 200),
    ],
    ids=["first half", "header alone", "no database", "zeros"],
)
def test_a_damaged_file_is_unavailable(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NeighbourUnavailableError, match=r"MLflow .*; "):
        read(path)


def test_a_folder_in_its_place_is_unavailable(tmp_path):
    with pytest.raises(NeighbourUnavailableError, match="unable to open database file"):
        read(tmp_path)


def test_a_file_in_place_of_its_folder_is_unavailable(tmp_path):
    (tmp_path / "mlflow").touch()
    with pytest.raises(NeighbourUnavailableError, match="failed: "):
        read(tmp_path / "mlflow" / "mlflow.db")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE model_version_tags",
        "DROP TABLE latest_metrics",
        "ALTER TABLE model_versions RENAME COLUMN workspace TO somewhere",
        "ALTER TABLE registered_model_aliases RENAME COLUMN alias TO nickname",
    ],
)
def test_tables_of_another_mlflow_are_told_as_such(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    told = r"the tables are not those of MLflow 3\.17: .*no such (table|column).*db upgrade"
    with pytest.raises(NeighbourUnavailableError, match=told):
        read(path)


def test_the_mlflow_that_is_named_is_the_one_that_is_installed():
    from importlib.metadata import version

    assert version("mlflow").startswith(f"{mlflow_database.READS}.")


@pytest.mark.parametrize(
    "uri",
    ["sqlite", "postgresql+nothing://user:secret@127.0.0.1/mlflow", "mssql+a+b://x", "mysql://[x"],
)
def test_a_uri_that_names_no_driver_is_a_configuration_error(uri):
    with pytest.raises(ConfigurationError, match="no database can be opened by") as caught:
        MlflowDatabase(uri).metrics({"run"})
    assert "secret" not in str(caught.value)


def test_another_database_is_asked_by_its_own_driver(history):
    """SQLite once more, by a URI that names its driver."""
    database = MlflowDatabase(f"sqlite+pysqlite:///{history.store}")
    found = database.version("bitcoin-model", "production")
    assert found == MlflowDatabase(f"sqlite:///{history.store}").version("bitcoin-model", "2")
