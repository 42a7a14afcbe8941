"""Access to MLflow's stores: one client, its errors translated, artifacts as bytes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from btc_lifecycle.adapters.registry.local_files import local_files, local_folder, local_sizes
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

_ENVIRONMENT = {
    # A registry that is down must cost a caller seconds, not MLflow's default of four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # What goes wrong is raised; the rest are remarks on its own database and on pip.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
SQLITE, INVALID = "sqlite:///", "INVALID_PARAMETER_VALUE"
_LOCK_WAIT_S = 60
_CREDENTIALS = re.compile(r"//[^/\s]*@")

P = ParamSpec("P")
R = TypeVar("R")


class MlflowStore:
    """MLflow's tracking store and model registry; nothing is opened before the first call."""

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        self.tracking_uri, self.registry_uri = tracking_uri, registry_uri
        self._files = [
            Path(uri.removeprefix(SQLITE)).absolute()
            for uri in (tracking_uri, registry_uri)
            if uri.startswith(SQLITE)
        ]

    @property
    def is_absent(self) -> bool:
        """Whether the stores are SQLite files that nobody created yet.

        Opening them would create them, in seconds; a look-up can answer without.
        """
        return bool(self._files) and not any(file.exists() for file in self._files)

    @property
    def artifact_location(self) -> str | None:
        """Where a new experiment's artifacts belong: beside an SQLite store, else the server's say."""
        if not self.tracking_uri.startswith(SQLITE):
            return None
        return (self._files[0].parent / "artifacts").as_uri()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client of both stores."""
        for file in self._files:
            file.parent.mkdir(parents=True, exist_ok=True)
        with self.translated():
            import mlflow  # noqa: PLC0415
            from mlflow import MlflowClient  # noqa: PLC0415

            # Whatever client asks, MLflow looks a logged model's place up in its global store.
            mlflow.set_tracking_uri(self.tracking_uri)
            mlflow.set_registry_uri(self.registry_uri)
            return MlflowClient(self.tracking_uri, self.registry_uri)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Let one process at a time create what is missing in SQLite files.

        Two that found nothing would both create it, and one would fail.
        """
        with self._alone(".creating.lock"):
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let one process at a time move aliases of an SQLite store; the others wait.

        A server's store has no lock that its clients share: there, only one may write.

        Raises:
            NeighbourUnavailableError: If another process took longer than a minute.
        """
        with self._alone(".changing.lock"):
            yield

    @contextmanager
    def _alone(self, lock: str) -> Iterator[None]:
        if not self._files:
            yield
            return
        path = self._files[0].with_name(lock)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(path).acquire(timeout=_LOCK_WAIT_S)
        except Timeout as error:
            raise NeighbourUnavailableError(
                f"another process has held {path} for {_LOCK_WAIT_S} s",
                hint="let it end, then try again",
            ) from error
        with held:
            yield

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn MLflow's errors into the lifecycle's.

        Raises:
            ConfigurationError: If MLflow refuses an argument, such as a URI's scheme.
            NeighbourUnavailableError: If a store does not answer properly.
        """
        _set_environment()
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if getattr(error, "error_code", None) == INVALID:
                raise refused(str(error)) from error
            raise unavailable(self.registry_uri, str(error)) from error

    def look_up(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return what a call of MLflow finds, None where MLflow says that it does not exist."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with self.translated():
            try:
                return call(*args, **kwargs)
            except MlflowException as error:
                if is_not_found(error.error_code, str(error)):
                    return None
                raise

    def find_version(self, model_name: str, alias_or_number: str) -> MlflowModelVersion | None:
        """Return MLflow's record of a version by alias or number, None where there is none."""
        if self.is_absent:
            return None
        is_number = alias_or_number.isdecimal()
        call = (
            self.client.get_model_version if is_number else self.client.get_model_version_by_alias
        )
        return self.look_up(call, model_name, alias_or_number)

    def model_location(self, model_id: str) -> str | None:
        """Return the artifact folder of a logged model, None where there is no such model."""
        logged = self.look_up(self.client.get_logged_model, model_id)
        return None if logged is None else str(logged.artifact_location)

    def read_artifact(self, artifact_uri: str) -> bytes | None:
        """Return an artifact's content, None where there is no such artifact."""
        with tempfile.TemporaryDirectory() as folder, self.translated():
            path = self._download(artifact_uri, folder)
            return None if path is None else path.read_bytes()

    def write_artifact(self, run_id: str, file_name: str, content: bytes) -> None:
        """Log a document with a run."""
        with tempfile.TemporaryDirectory() as folder, self.translated():
            path = Path(folder, file_name)
            path.write_bytes(content)
            self.client.log_artifact(run_id, str(path))

    def file_sizes(self, folder_uri: str) -> dict[str, int | None]:
        """Return how many bytes each file of an artifact folder has, by name.

        It is None for what is not a file of a known size: reading a folder, a link or a device
        could take for ever.
        """
        from mlflow.artifacts import list_artifacts  # noqa: PLC0415

        folder = local_folder(folder_uri)
        if folder is not None:
            return local_sizes(folder)
        found = self.look_up(list_artifacts, folder_uri, tracking_uri=self.tracking_uri)
        return {
            info.path.rpartition("/")[2]: None if info.is_dir else info.file_size
            for info in found or ()
        }

    def read_folder(self, folder_uri: str) -> dict[str, bytes]:
        """Return the content of each file that lies directly in an artifact folder, by name."""
        with tempfile.TemporaryDirectory() as downloads, self.translated():
            folder = local_folder(folder_uri) or self._download(folder_uri, downloads)
            return {} if folder is None else local_files(folder)

    def _download(self, artifact_uri: str, folder: str) -> Path | None:
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415

        path = self.look_up(
            download_artifacts,
            artifact_uri=artifact_uri,
            dst_path=folder,
            tracking_uri=self.tracking_uri,
        )
        return None if path is None else Path(path)


def _set_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def is_not_found(error_code: str | None, said: str) -> bool:
    """Return whether MLflow's error says that what was asked for does not exist."""
    # A missing alias is reported as an invalid parameter; only the text tells it from others.
    is_missing_alias = error_code == INVALID and "not found" in said
    return is_missing_alias or error_code == "RESOURCE_DOES_NOT_EXIST"


def refused(said: str) -> ConfigurationError:
    """Return the error for a request that MLflow calls invalid, with what it said of it."""
    return ConfigurationError(
        f"MLflow refused a request: {_first_line(said)}",
        hint="check MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI and MODEL_URI",
    )


def unavailable(uri: str, said: str) -> NeighbourUnavailableError:
    """Return the error for a store that does not answer properly, without its credentials."""
    return NeighbourUnavailableError(
        f"MLflow at {_first_line(uri.partition('?')[0])} failed: {_first_line(said)}",
        hint="check that the store or server is up and writable, then try again",
    )


def _first_line(said: str) -> str:
    return _CREDENTIALS.sub("//", said.strip()).partition("\n")[0][:200]
