"""The registry as the service reads it: the same versions and the same checks, without MLflow.

MLflow's import costs seconds and more memory than all the rest of the service, for a look-up of a
few rows every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property, partial
from typing import Protocol
from urllib.parse import urlsplit

from btc_lifecycle.adapters.registry.far_files import far_files, far_sizes
from btc_lifecycle.adapters.registry.loading import load_native
from btc_lifecycle.adapters.registry.local_files import local_files, local_folder, local_sizes
from btc_lifecycle.adapters.registry.mlflow_database import MlflowDatabase
from btc_lifecycle.adapters.registry.mlflow_server import MlflowServer
from btc_lifecycle.adapters.registry.native import NativeModel
from btc_lifecycle.adapters.registry.records import HOW_TO_TRAIN, ModelVersion, parse_model_uri
from btc_lifecycle.adapters.registry.store import refused
from btc_lifecycle.domain.errors import NothingToServeError

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_HIGHEST_VERSION = 2**31 - 1

_Sizes = Callable[[], dict[str, int | None]]
_Contents = Callable[[], dict[str, bytes]]


class _LookUps(Protocol):
    def version(self, name: str, alias_or_number: str) -> ModelVersion | None: ...

    def newest_versions(self, name: str, *, limit: int) -> list[ModelVersion]: ...

    def metrics(self, run_ids: Collection[str]) -> dict[str, dict[str, float]]: ...

    def model_location(self, model_id: str) -> str | None: ...


class RegistryReader:
    """What the service needs of the registry, from MLflow's database or its server.

    Nothing is opened before the first call, and no database is kept open after one; threads may
    share it. Every method raises NeighbourUnavailableError when a store does not answer properly, and
    ConfigurationError when a URI names none.
    """

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        self._tracking_uri, self._registry_uri = tracking_uri, registry_uri

    def resolve(self, model_uri: str) -> ModelVersion:
        """Return the version that a URI names: ``models:/name@alias`` or ``models:/name/3``.

        Raises:
            ConfigurationError: If the URI has neither form.
            NothingToServeError: If no such model, alias or version exists.
        """
        name, alias_or_number = parse_model_uri(model_uri)
        found = None
        if not alias_or_number.isdecimal() or int(alias_or_number[:11]) <= _HIGHEST_VERSION:
            found = self._registry.version(name, alias_or_number)
        if found is None:
            raise NothingToServeError(f"{model_uri} does not exist", hint=HOW_TO_TRAIN)
        return self._with_metrics([found])[0]

    def newest_versions(self, model_name: str, *, limit: int) -> list[ModelVersion]:
        """Return versions of a model, newest first, none where there is no such model."""
        return self._with_metrics(self._registry.newest_versions(model_name, limit=limit))

    def load(self, version: ModelVersion) -> NativeModel:
        """Return the model of a version, which predicts as when it was logged.

        Raises:
            NothingToServeError: If files are missing, damaged, or not a plain LightGBM model.
        """
        return load_native(version, store=_Files(self._tracking, tracking_uri=self._tracking_uri))

    @cached_property
    def _tracking(self) -> _LookUps:
        return _look_ups(self._tracking_uri)

    @cached_property
    def _registry(self) -> _LookUps:
        return _look_ups(self._registry_uri)

    def _with_metrics(self, versions: list[ModelVersion]) -> list[ModelVersion]:
        run_ids = {version.run_id for version in versions if version.run_id}
        metrics = self._tracking.metrics(run_ids) if run_ids else {}
        return [replace(it, metrics=metrics.get(it.run_id, {})) for it in versions]


class _Files:
    """The files of logged models, wherever the tracking store says that they are."""

    def __init__(self, tracking: _LookUps, *, tracking_uri: str) -> None:
        self._tracking, self._tracking_uri = tracking, tracking_uri

    def model_location(self, model_id: str) -> str | None:
        """Return the artifact folder of a logged model, None where there is no such model."""
        return self._tracking.model_location(model_id)

    def file_sizes(self, folder_uri: str) -> dict[str, int | None]:
        """Return how many bytes each file of a folder has, by name; None for what is no file."""
        file_sizes, _ = self._ways(folder_uri)
        return file_sizes()

    def read_folder(self, folder_uri: str) -> dict[str, bytes]:
        """Return the content of each file that lies directly in a folder, by name."""
        _, read_folder = self._ways(folder_uri)
        return read_folder()

    def _ways(self, folder_uri: str) -> tuple[_Sizes, _Contents]:
        """Return how to learn the sizes and the content of a folder's files."""
        folder, path = local_folder(folder_uri), _passed_on(folder_uri)
        if folder is not None:
            return partial(local_sizes, folder), partial(local_files, folder)
        if path is not None and isinstance(self._tracking, MlflowServer):
            return partial(self._tracking.file_sizes, path), partial(
                self._tracking.read_folder, path
            )
        return (
            partial(far_sizes, folder_uri, tracking_uri=self._tracking_uri),
            partial(far_files, folder_uri, tracking_uri=self._tracking_uri),
        )


def _look_ups(uri: str) -> _LookUps:
    scheme = uri.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        try:
            return MlflowServer(uri)
        except ValueError as error:
            raise refused(f"{uri!r} is no address of a server: {error}") from error
    if scheme.partition("+")[0] in _DATABASES:
        return MlflowDatabase(uri)
    raise refused(f"{uri!r} is neither a database nor a server")


def _passed_on(folder_uri: str) -> str | None:
    """Return the path of a folder that the tracking server passes on, None for any other."""
    parts = urlsplit(folder_uri)
    is_passed_on = parts.scheme == "mlflow-artifacts" and not parts.netloc
    return parts.path.strip("/") if is_passed_on else None
