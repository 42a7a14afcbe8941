"""Runs of candidates: opened and ended, logged into, found again."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest

from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError
from btc_lifecycle_tests.model_builders import FEATURES, GOLDEN_ROWS, log_candidate, make_booster


def info(registry, run_id):
    return mlflow.MlflowClient(registry.tracking_uri).get_run(run_id).info


def test_an_empty_experiment_has_no_candidate(registry):
    assert registry.newest_candidate_run() is None
    registry.ensure_experiment()
    assert registry.newest_candidate_run() is None


def test_a_candidate_needs_an_active_run_of_the_same_store(registry, tmp_path):
    def log():
        registry.log_candidate(
            make_booster(),
            golden_rows=GOLDEN_ROWS,
            feature_names=FEATURES,
            parameters={},
            metrics={},
            tags={},
            artifacts={},
        )

    with pytest.raises(ConfigurationError, match="no MLflow run is active"):
        log()
    experiment_id = registry.ensure_experiment()
    mlflow.set_tracking_uri(registry.tracking_uri)
    with mlflow.start_run(experiment_id=experiment_id):
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
        with pytest.raises(ConfigurationError, match="the active run is elsewhere"):
            log()
        mlflow.set_tracking_uri(registry.tracking_uri)


def test_a_candidate_with_other_feature_names_than_its_booster_is_refused(registry):
    with pytest.raises(DataError, match="was trained on"):
        registry.log_candidate(
            make_booster(),
            golden_rows=GOLDEN_ROWS,
            feature_names=("rsi_14m", "log_return_1m", "log_return_5m"),
            parameters={},
            metrics={},
            tags={},
            artifacts={},
        )


def test_json_artifacts_come_back_as_they_were_logged(registry):
    run_id = log_candidate(registry)
    assert registry.read_json(run_id, "drift_reference.json") == {"bins": [0.0, 0.5, 1.0]}
    with pytest.raises(NothingToServeError, match=f"{run_id} has no artifact other.json"):
        registry.read_json(run_id, "other.json")
    assert registry.read_bytes(run_id, "card.md") == b"# Card"


def test_artifacts_can_be_added_later(registry):
    run_id = log_candidate(registry)
    registry.log_artifacts(run_id, {"predictions.parquet": b"PAR1\0\xff", "notes.json": {"n": 1}})
    assert registry.read_bytes(run_id, "predictions.parquet") == b"PAR1\0\xff"
    assert registry.read_json(run_id, "notes.json") == {"n": 1}


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_a_json_artifact_that_is_no_object_is_refused(registry, tmp_path, content):
    run_id = log_candidate(registry)
    (path,) = tmp_path.rglob("drift_reference.json")
    path.write_text(content)
    with pytest.raises(DataError, match="is not a JSON object"):
        registry.read_json(run_id, "drift_reference.json")


def test_a_run_is_finished_after_its_block_and_failed_after_an_error(registry):
    with registry.open_run("fine", tags={"dagster_run_id": "d1"}) as fine:
        assert mlflow.active_run().info.run_id == fine
        assert info(registry, fine).status == "RUNNING"
    with (
        pytest.raises(RuntimeError, match="no memory"),
        registry.open_run("broken") as broken,
    ):
        raise RuntimeError("no memory")
    with pytest.raises(KeyboardInterrupt), registry.open_run("stopped") as stopped:
        raise KeyboardInterrupt
    assert mlflow.active_run() is None
    assert (info(registry, fine).status, info(registry, fine).run_name) == ("FINISHED", "fine")
    assert info(registry, broken).status == info(registry, stopped).status == "FAILED"


def test_a_run_within_another_is_its_child_and_leaves_it_active(registry):
    """The training step holds the run of dagster-mlflow while trials open their own."""
    with registry.open_run("outer") as outer:
        with registry.open_run("inner") as inner:
            assert mlflow.active_run().info.run_id == inner
        assert mlflow.active_run().info.run_id == outer
        registry.log_metrics(outer, {"loss": 0.5})
    client = mlflow.MlflowClient(registry.tracking_uri)
    assert client.get_run(inner).data.tags["mlflow.parentRunId"] == outer
    assert client.get_run(inner).data.metrics == {}
    assert client.get_run(outer).data.metrics == {"loss": 0.5}
    assert info(registry, inner).status == info(registry, outer).status == "FINISHED"


def test_a_run_can_be_the_child_of_one_that_has_ended(registry):
    with registry.open_run("training") as training:
        pass
    with (
        registry.open_run("other") as other,
        registry.open_run("late", parent_run_id=training) as late,
    ):
        registry.log_parameters(late, {"num_leaves": 31, "policy": None})
    found = mlflow.MlflowClient(registry.tracking_uri).get_run(late)
    assert found.data.tags["mlflow.parentRunId"] == training
    assert found.data.params == {"num_leaves": "31", "policy": "None"}
    assert info(registry, other).status == "FINISHED"


def test_a_run_that_its_block_ended_or_left_open_ends_no_other(registry):
    with registry.open_run("outer") as outer:
        with registry.open_run("ended"):
            mlflow.end_run("FAILED")
        assert mlflow.active_run().info.run_id == outer
        with registry.open_run("left open") as left_open:
            foreign = mlflow.start_run(nested=True).info.run_id
        assert mlflow.active_run().info.run_id == foreign
        assert info(registry, left_open).status == "FINISHED"
        mlflow.end_run()
        mlflow.end_run()
    assert info(registry, outer).status == "FINISHED"
    assert mlflow.active_run() is None


def test_no_run_opens_beneath_one_of_another_store(registry, tmp_path):
    registry.ensure_experiment()
    with registry.open_run("outer"):
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
        with pytest.raises(ConfigurationError, match="elsewhere"), registry.open_run("inner"):
            raise AssertionError
        mlflow.set_tracking_uri(registry.tracking_uri)


def test_a_candidate_of_another_dagster_run_is_not_found(registry):
    mine = log_candidate(registry, tags={"dagster_run_id": "mine"})
    log_candidate(registry, seed=1, tags={"dagster_run_id": "other"})
    assert registry.newest_candidate_run(dagster_run_id="mine") == mine
    assert registry.newest_candidate_run(dagster_run_id="none") is None


def test_a_candidate_knows_what_it_was_made_with(registry):
    tags = registry.candidate_of(log_candidate(registry)).tags
    versions = json.loads(tags["library_versions"])
    assert versions.keys() == {"python", "lightgbm", "numpy", "polars", "mlflow"}
    assert versions["numpy"] == np.__version__
    assert tags["model_name"] == registry.model_name


@pytest.mark.parametrize(
    "rows", [[], [[0.0, 1.0]], [0.0, 1.0, 2.0], [[0.0, 1.0, np.inf]], np.zeros((0, 3))]
)
def test_a_candidate_without_usable_golden_rows_is_refused(registry, rows):
    with pytest.raises(DataError, match="golden rows"):
        registry.log_candidate(
            make_booster(),
            golden_rows=rows,
            feature_names=FEATURES,
            parameters={},
            metrics={},
            tags={},
            artifacts={},
        )
