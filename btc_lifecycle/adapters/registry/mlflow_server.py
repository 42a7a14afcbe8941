"""Look-ups by the REST interface of an MLflow server, without MLflow."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from btc_lifecycle.adapters.http import HttpAnswer, HttpClient, HttpError
from btc_lifecycle.adapters.registry.model_files import MOST_BYTES
from btc_lifecycle.adapters.registry.records import ModelVersion, feature_names_of, utc_time
from btc_lifecycle.adapters.registry.store import INVALID, is_not_found, refused, unavailable

_LOOK_UP, _DOWNLOAD = timedelta(seconds=3), timedelta(seconds=20)
_API, _ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"


class MlflowServer:
    """An MLflow store behind its tracking server.

    Every method raises NeighbourUnavailableError where the server does not answer properly in
    time, and ConfigurationError where it refuses a request. Name and password are those in the
    URI, else what MLflow's client takes from the environment: MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._user, _, place = parts.netloc.rpartition("@")
        self._root = parts._replace(netloc=place, query="", fragment="").geturl().rstrip("/")
        self._look_ups = HttpClient(total=_LOOK_UP)
        self._downloads = HttpClient(total=_DOWNLOAD, max_bytes=MOST_BYTES)

    def version(self, name: str, alias_or_number: str) -> ModelVersion | None:
        """Return a version by alias or number, without its metrics, None where there is none."""
        with self._understood():
            if alias_or_number.isdecimal():
                found = self._found("/model-versions/get", name=name, version=alias_or_number)
            else:
                found = self._found("/registered-models/alias", name=name, alias=alias_or_number)
            return None if found is None else _record(found["model_version"])

    def newest_versions(self, name: str, *, limit: int) -> list[ModelVersion]:
        """Return versions of a model, without their metrics, newest first."""
        with self._understood():
            found = self._found(
                "/model-versions/search",
                filter=f"name = '{name}'",
                order_by="version_number DESC",
                max_results=limit,
            )
            return [_record(version) for version in (found or {}).get("model_versions", [])]

    def metrics(self, run_ids: Collection[str]) -> dict[str, dict[str, float]]:
        """Return the last value of each metric, by name, of those runs that have any."""
        with self._understood():
            runs = [self._found("/runs/get", run_id=run_id) for run_id in run_ids]
            return {
                run["run"]["info"]["run_id"]: {it["key"]: float(it["value"]) for it in metrics}
                for run in runs
                if run is not None and (metrics := run["run"]["data"].get("metrics"))
            }

    def model_location(self, model_id: str) -> str | None:
        """Return the artifact folder of a logged model, None where there is no such model."""
        with self._understood():
            found = self._found(f"/logged-models/{model_id}")
            return None if found is None else str(found["model"]["info"]["artifact_uri"])

    def file_sizes(self, folder: str) -> dict[str, int | None]:
        """Return how many bytes each file of a folder has that the server passes on, by name.

        It is None for what is no file of a known size.
        """
        with self._understood():
            found = _document(self._asked(f"{_ARTIFACTS}?{urlencode({'path': folder})}"))
            return {
                info["path"].rpartition("/")[2]: int(info["file_size"])
                if "file_size" in info and not info.get("is_dir")
                else None
                for info in found.get("files", [])
            }

    def read_folder(self, folder: str) -> dict[str, bytes]:
        """Return the content of each file of a folder that the server passes on, by name."""
        names = [name for name, size in self.file_sizes(folder).items() if size is not None]
        targets = {name: f"{_ARTIFACTS}/{quote(f'{folder}/{name}')}" for name in names}
        with self._understood():
            return {
                name: self._asked(target, client=self._downloads).body
                for name, target in targets.items()
            }

    def _found(self, path: str, **query: object) -> dict[str, Any] | None:
        try:
            return _document(self._asked(f"{_API}{path}?{urlencode(query)}"))
        except _NotFoundError:
            return None

    def _asked(self, target: str, *, client: HttpClient | None = None) -> HttpAnswer:
        headers = _authorization(self._user)
        answer = (client or self._look_ups).get(f"{self._root}{target}", headers=headers)
        if answer.status != 200:
            raise _error(answer, uri=self._root)
        return answer

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except HttpError as error:
            raise unavailable(self._root, error.message) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = f"its answer is not one of MLflow: {error!r:.100}"
            raise unavailable(self._root, said) from error


class _NotFoundError(Exception):
    pass


def _error(answer: HttpAnswer, *, uri: str) -> Exception:
    """Return the error that an answer of another status than 200 stands for."""
    try:
        document = _document(answer)
        code, said = document["error_code"], str(document.get("message", ""))
    except (ValueError, KeyError):
        code, said = None, ""
    if is_not_found(code, said):
        return _NotFoundError(said)
    if code == INVALID:
        return refused(said)
    return unavailable(uri, f"status {answer.status} {code or answer.reason} {said}".strip())


def _document(answer: HttpAnswer) -> dict[str, Any]:
    document = json.loads(answer.body)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  # as any other that cannot be read
    return document


def _record(version: Mapping[str, Any]) -> ModelVersion:
    tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
    return ModelVersion(
        name=version["name"],
        version=str(version["version"]),
        run_id=version.get("run_id", ""),
        tags=tags,
        metrics={},
        feature_names=feature_names_of(tags),
        created_at=utc_time(int(version["creation_timestamp"])),
    )


def _authorization(user: str) -> dict[str, str]:
    """Return the header that a server asks who it is by; read anew, as MLflow's client does."""
    environment = os.environ
    name, password = (environment.get(f"MLFLOW_TRACKING_{it}") for it in ("USERNAME", "PASSWORD"))
    if user:
        basic = unquote(user)
    elif name and password:
        basic = f"{name}:{password}"
    elif token := environment.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    else:
        return {}
    return {"Authorization": f"Basic {b64encode(basic.encode()).decode()}"}
