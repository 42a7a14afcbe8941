"""The MLflow run of a training: how it ends when training does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.orchestration.small_lifecycle import SmallLifecycle, small_settings

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture
def life(tmp_path: Path, mlflow_uri: str) -> SmallLifecycle:
    settings = small_settings(tmp_path, mlflow_uri=mlflow_uri)
    return SmallLifecycle(settings=settings, instance=dg.DagsterInstance.ephemeral())


def mlflow_runs(life: SmallLifecycle) -> list[Run]:
    import mlflow

    client = mlflow.MlflowClient(life.settings.mlflow_tracking_uri)
    experiment = client.get_experiment_by_name("bitcoin-lifecycle")
    return client.search_runs([experiment.experiment_id])


def test_a_training_that_fails_is_failed_in_mlflow_too_and_leaves_no_candidate(
    life: SmallLifecycle,
) -> None:
    """MLflow called it FINISHED, and the next training of the process logged into the same run."""
    life.warehouse.upsert(CANDLES, make_candles(600), source="synthetic")
    for n_runs in (1, 2):
        with pytest.raises(DataError, match="345 examples of 1 days with every feature"):
            life.run("training_job")
        statuses = [run.info.status for run in mlflow_runs(life)]
        assert statuses == ["FAILED"] * n_runs
    assert life.registry.newest_candidate_run() is None
    assert life.registry.candidate() is None


def test_a_job_that_fails_before_its_training_fails_the_mlflow_run(life: SmallLifecycle) -> None:
    with pytest.raises(NothingToServeError, match="there is no database"):
        life.run("training_job")
    assert [run.info.status for run in mlflow_runs(life)] == ["FAILED"]


def test_artifacts_of_a_run_lie_beside_its_store(life: SmallLifecycle) -> None:
    with pytest.raises(NothingToServeError):
        life.run("training_job")
    (run,) = mlflow_runs(life)
    assert run.info.artifact_uri.startswith((life.settings.data_dir / "mlflow").as_uri())
