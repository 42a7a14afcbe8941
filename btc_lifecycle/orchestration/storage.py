"""Dagster's own storage under the data folder.

dagster.yaml names these classes because its ``env:`` form knows no default, and ``dagster dev`` has
to start in a fresh checkout with nothing set. Both take the folder from ``BTC_DATA_DIR``.
"""

import tempfile
from collections.abc import Mapping

import dagster as dg
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.settings import ROOT, dagster_dir


class DataFolderStorage(DagsterSqliteStorage):
    """Runs, events, ticks and schedules in SQLite files under ``$BTC_DATA_DIR/dagster``."""

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
