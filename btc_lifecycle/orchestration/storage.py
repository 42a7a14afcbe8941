"""Dagster's own storage under the data folder.

dagster.yaml names these classes because its ``env:`` form knows no default, and ``dagster dev`` has
to start in a fresh checkout with nothing set. Both take the folder from ``BTC_DATA_DIR``. What else
lives here: what of a run lies where, so that all of it can be deleted.
"""

import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.orchestration.launching import ClaimedRunStorage, RunClaims
from btc_lifecycle.settings import ROOT, dagster_dir


class DataFolderStorage(DagsterSqliteStorage):
    """Runs, events, ticks and schedules in SQLite files under ``$BTC_DATA_DIR/dagster``."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = ClaimedRunStorage(
            self._run_storage._conn_string, claims=RunClaims(Path(base_dir) / "claims")
        )

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """Takes no configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, object]
    ) -> "DataFolderStorage":
        """Return the storage in the folder that the environment names."""
        del config_value
        folder = dagster_dir()
        folder.mkdir(parents=True, exist_ok=True)
        # Two processes that find no tables would both create them, and one would fail.
        with FileLock(folder / ".opening.lock"):
            return cls.from_local(base_dir=str(folder), inst_data=inst_data)


class DataFolderArtifacts(LocalArtifactStorage):
    """Files of runs under ``$BTC_DATA_DIR/dagster``."""

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """Takes no configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> "DataFolderArtifacts":
        """Return the storage in the folder that the environment names."""
        del config_value
        return cls(base_dir=str(dagster_dir()), inst_data=inst_data)


def open_instance() -> dg.DagsterInstance:
    """Return the Dagster instance that dagster.yaml describes, as ``dagster dev`` opens it.

    Raises:
        ConfigurationError: If the data folder cannot be made or written.
    """
    folder = dagster_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the data folder {folder.parent} cannot be written: {error.strerror}",
            hint="mend its permissions, free some space, or set BTC_DATA_DIR to another folder",
        ) from error
    return dg.DagsterInstance.from_config(str(ROOT))


def newest_records(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs that hold what Dagster knows of assets at present.

    These are the runs of the newest materialization of each asset and of each of its partitions, of
    the newest result of each check, and of the newest attempt on each asset.
    """
    events, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    newest_events = (
        sa.select(sa.func.max(events.id))
        .where(events.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value)
        .group_by(events.asset_key, events.partition)
    )
    newest_checks = sa.select(sa.func.max(checks.id)).group_by(
        checks.asset_key, checks.check_name, checks.partition
    )
    run_ids = sa.union(
        sa.select(events.run_id).where(events.id.in_(newest_events)),
        sa.select(checks.run_id).where(checks.id.in_(newest_checks)),
        sa.select(AssetKeyTable.c.last_run_id),
    )
    with _events(instance).index_connection() as connection:
        return {run_id for (run_id,) in connection.execute(run_ids) if run_id}


def stray_files(instance: dg.DagsterInstance, *, until: datetime) -> set[str]:
    """Return ids of runs that are gone while a file of their events, older than that, is not."""
    storage, stray = _events(instance), set[str]()
    for run_id in set(storage.get_all_run_ids()).difference(instance.get_run_ids()):
        # Another process may sweep as well.
        with suppress(FileNotFoundError):
            if Path(storage.path_for_shard(run_id)).stat().st_mtime < until.timestamp():
                stray.add(run_id)
    return stray


def delete_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> None:
    """Delete all of some runs: their events, files and check results, at last the runs themselves.

    Dagster's own ``delete_run`` leaves an emptied file of events behind, and the check results.
    """
    storage = _events(instance)
    of_runs = AssetCheckExecutionsTable.c.run_id.in_(run_ids)
    with storage.index_connection() as connection:
        for run_id in run_ids:
            storage.delete_events_for_run(connection, run_id)
        connection.execute(AssetCheckExecutionsTable.delete().where(of_runs))
    for run_id in run_ids:
        shard = storage.path_for_shard(run_id)
        for suffix in ("", "-wal", "-shm"):
            Path(shard + suffix).unlink(missing_ok=True)
        shutil.rmtree(Path(instance.storage_directory()) / run_id, ignore_errors=True)
    # Last: what a killed process leaves half done is found again by the run.
    for run_id in run_ids:
        instance.run_storage.delete_run(run_id)


def _events(instance: dg.DagsterInstance) -> SqliteEventLogStorage:
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        raise ConfigurationError(
            f"Dagster keeps its events in a {type(storage).__name__}, whose files nobody here knows",
            hint="let dagster.yaml name DataFolderStorage as its storage",
        )
    return storage
