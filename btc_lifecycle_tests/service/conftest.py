"""A served champion in a store of the module's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.service.app import ServiceSettings, create_app
from btc_lifecycle_tests.model_builders import copy_store, promote_new

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

MODEL_URI = "models:/bitcoin-model@production"


def service_settings(uri: str, log_dir: Path, **changes: object) -> ServiceSettings:
    """Return settings under which the test, not the clock, says when the alias is looked up."""
    chosen: dict[str, object] = {"model_uri": MODEL_URI, "poll_seconds": 3600.0, **changes}
    return ServiceSettings(tracking_uri=uri, registry_uri=uri, prediction_log_dir=log_dir, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def champion_uri(empty_mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = copy_store(empty_mlflow_store, tmp_path_factory.mktemp("service"))
    promote_new(Registry(uri, uri))
    return uri


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def client(champion_uri: str, log_dir: Path) -> Iterator[TestClient]:
    """A client of a service that has loaded version 1; server faults reach it as answers."""
    # Not at the top: it warns of httpx, before pytest knows which warnings to ignore.
    from fastapi.testclient import TestClient

    app = create_app(service_settings(champion_uri, log_dir, max_body_bytes=200_000))
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.live.refresh()
        yield client
