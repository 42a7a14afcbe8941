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

from filelock import FileLock

from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

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
_SQLITE = "sqlite:///"
_CREDENTIALS = re.compile(r"//[^/@\s]*@")

P = ParamSpec("P")
R = TypeVar("R")


class MlflowStore:
    """MLflow's tracking store and model registry; nothing is opened before the first call."""

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        self.tracking_uri, self.registry_uri = tracking_uri, registry_uri
        self._files = [
            Path(uri.removeprefix(_SQLITE)).absolute()
            for uri in (tracking_uri, registry_uri)
            if uri.startswith(_SQLITE)
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
        if not self.tracking_uri.startswith(_SQLITE):
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
        if not self._files:
            yield
            return
        folder = self._files[0].parent
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".creating.lock"):
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
            first_line = _CREDENTIALS.sub("//", str(error).strip()).partition("\n")[0][:200]
            if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
                raise ConfigurationError(
                    f"MLflow refused a request: {first_line}",
                    hint="check MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI and MODEL_URI",
                ) from error
            raise NeighbourUnavailableError(
                f"MLflow at {_CREDENTIALS.sub('//', self.registry_uri)} failed: {first_line}",
                hint="check that the store or server is up and writable, then try again",
            ) from error

    def look_up(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return what a call of MLflow finds, None where MLflow says that it does not exist."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with self.translated():
            try:
                return call(*args, **kwargs)
            except MlflowException as error:
                if _is_not_found(error):
                    return None
                raise

    def read_artifact(self, artifact_uri: str) -> bytes | None:
        """Return an artifact's content, None where there is no such artifact."""
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415

        with tempfile.TemporaryDirectory() as folder, self.translated():
            path = self.look_up(
                download_artifacts,
                artifact_uri=artifact_uri,
                dst_path=folder,
                tracking_uri=self.tracking_uri,
            )
            return None if path is None else Path(path).read_bytes()


def _set_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _is_not_found(error: MlflowException) -> bool:
    # A missing alias is reported as an invalid parameter; only the text tells it from others.
    is_missing_alias = error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    return is_missing_alias or error.error_code == "RESOURCE_DOES_NOT_EXIST"
