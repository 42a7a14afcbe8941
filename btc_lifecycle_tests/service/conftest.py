"""A served champion in a store of the module's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.service.app import create_app
from btc_lifecycle.service.config import ServiceSettings
from btc_lifecycle.settings import ServeSettings
from btc_lifecycle_tests.model_builders import copy_store, promote_new

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

MODEL_URI = "models:/bitcoin-model@production"


def service_settings(uri: str, folder: Path, **changes: object) -> ServiceSettings:
    """Return settings under which the test, not the clock, says when the alias is looked up.

    Args:
        uri: Of the MLflow store.
        folder: Where `log` is the prediction log and `online` the online store.
        changes: Settings, or limits of requests.
    """
    limits = {name: changes.pop(name) for name in [*changes] if name in ServeSettings.model_fields}
    chosen: dict[str, object] = {"model_uri": MODEL_URI, "poll_seconds": 3600.0, **changes}
    return ServiceSettings(
        tracking_uri=uri,
        registry_uri=uri,
        prediction_log_dir=folder / "log",
        online_dir=folder / "online",
        limits=ServeSettings(**limits),  # type: ignore[arg-type]
        **chosen,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def champion_uri(empty_mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = copy_store(empty_mlflow_store, tmp_path_factory.mktemp("service"))
    promote_new(Registry(uri, uri))
    return uri


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def client(champion_uri: str, folder: Path) -> Iterator[TestClient]:
    """A client of a service that has loaded version 1; server faults reach it as answers."""
    # Not at the top: it warns of httpx, before pytest knows which warnings to ignore.
    from fastapi.testclient import TestClient

    app = create_app(service_settings(champion_uri, folder, max_body_bytes=200_000))
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.service.live.refresh()
        yield client
