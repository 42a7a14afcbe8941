"""What many tests share: hypothesis profiles and an MLflow store that costs nothing to make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from btc_lifecycle.adapters.registry import Registry

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=300, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


# What MLflow and Starlette warn of in their own code, on calls that cannot avoid it.
_FOREIGN_WARNINGS = (
    "ignore:Using `httpx` with `starlette.testclient` is deprecated",
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in _FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def _no_tracking_uri_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes its URIs into the environment, where the next test's settings look."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def empty_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's tables and nothing else, made once as that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}", f"sqlite:///{path}", experiment="template").ensure_experiment()
    return path


@pytest.fixture
def mlflow_uri(empty_mlflow_store: Path, tmp_path: Path) -> str:
    """The URI of a store of the test's own."""
    # Not at the top: it imports MLflow and LightGBM, which most tests never need.
    from btc_lifecycle_tests.model_builders import copy_store

    return copy_store(empty_mlflow_store, tmp_path)


@pytest.fixture
def registry(mlflow_uri: str) -> Registry:
    return Registry(mlflow_uri, mlflow_uri)
