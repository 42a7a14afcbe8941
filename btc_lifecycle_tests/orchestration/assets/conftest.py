"""One lifecycle, run once from the first ingest to monitoring; its tests look at what each job left.

Each fixture is a job's run after the one before, so any test may be the first to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle_tests.model_builders import copy_store
from btc_lifecycle_tests.orchestration.prediction_lines import write_predictions
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    Metadata,
    SmallLifecycle,
    make_exchange,
    small_settings,
    trained_otherwise,
)


@pytest.fixture(scope="package")
def exchange() -> Iterator[SandboxExchange]:
    with make_exchange() as running:
        yield running


@pytest.fixture(scope="package")
def life(
    exchange: SandboxExchange,
    empty_mlflow_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SmallLifecycle]:
    folder = tmp_path_factory.mktemp("lifecycle")
    uri = copy_store(empty_mlflow_store, folder)
    with dg.DagsterInstance.ephemeral() as instance:
        settings = small_settings(folder, mlflow_uri=uri, exchange_url=exchange.url)
        yield SmallLifecycle(settings=settings, instance=instance)


@pytest.fixture(scope="package")
def ingested(life: SmallLifecycle) -> Metadata:
    return life.run("ingest_job")


@pytest.fixture(scope="package")
def trained(life: SmallLifecycle, ingested: Metadata) -> Metadata:
    return life.run("training_job")


@pytest.fixture(scope="package")
def first_champion(life: SmallLifecycle, trained: Metadata) -> ModelVersion:
    champion = life.registry.champion()
    assert champion is not None
    return champion


@pytest.fixture(scope="package")
def registered_again(life: SmallLifecycle, first_champion: ModelVersion) -> Metadata:
    return life.run("training_job", "production_model", "production_volatility", "model_report")


@pytest.fixture(scope="package")
def refused(life: SmallLifecycle, registered_again: Metadata) -> Metadata:
    """A candidate of one weak tree, whose own test rows begin among those the champion learnt from."""
    weak = trained_otherwise(
        life.settings, split={"n_folds": 1}, num_boost_round=1, learning_rate=0.01
    )
    return life.run("training_job", settings=weak)


@pytest.fixture(scope="package")
def monitored(life: SmallLifecycle, refused: Metadata) -> Metadata:
    write_predictions(life.settings.prediction_log_dir)
    return life.run("monitoring_job")
