"""The registry against real MLflow stores on disk."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import mlflow
import numpy as np
import pytest

from btc_lifecycle.adapters.registry import ROLLED_BACK, UNREGISTERED, ModelVersion, Registry
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    DataError,
    NeighbourUnavailableError,
    NothingToServeError,
)
from btc_lifecycle_tests.model_builders import (
    FEATURES,
    copy_store,
    log_candidate,
    make_booster,
    model_file,
    promote_new,
)

ROWS = np.array([[0.0, 0.0, 0.0], [1.5, -0.2, 0.4], [-2.0, 1.0, 0.1]])


def predictions(registry: Registry, version: ModelVersion) -> list[float]:
    return registry.load_booster(version).predict(ROWS, num_threads=1).tolist()


def test_importing_the_registry_imports_no_mlflow():
    code = "import sys, btc_lifecycle.adapters.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_that_does_not_exist_holds_nothing_and_is_not_created(tmp_path):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    registry = Registry(uri, uri)
    assert registry.champion() is None
    assert registry.candidate() is None
    assert registry.newest_candidate_run() is None
    assert list(tmp_path.iterdir()) == []


def test_the_first_write_creates_the_store_with_artifacts_beside_it(registry, tmp_path):
    run_id = log_candidate(registry)
    assert registry.newest_candidate_run() == run_id
    assert (tmp_path / "mlflow" / "artifacts" / run_id).is_dir()
    assert model_file(registry, registry.candidate_of(run_id)).is_relative_to(
        tmp_path / "mlflow/artifacts"
    )


def test_the_experiment_is_created_once(registry):
    assert registry.ensure_experiment() == registry.ensure_experiment()


def test_an_empty_experiment_has_no_candidate(registry):
    assert registry.newest_candidate_run() is None
    registry.ensure_experiment()
    assert registry.newest_candidate_run() is None


def test_a_candidate_is_readable_before_it_is_registered(registry):
    run_id = log_candidate(registry, seed=2)
    registry.log_metrics(run_id, {"test_auc": 0.53})
    candidate = registry.candidate_of(run_id)
    assert candidate.version == UNREGISTERED
    assert candidate.feature_names == FEATURES
    assert candidate.metrics == {"prior_up": 0.5, "test_auc": 0.53}
    assert predictions(registry, candidate) == make_booster(2).predict(ROWS).tolist()


def test_registering_twice_gives_one_version_under_the_alias_candidate(registry):
    run_id = log_candidate(registry, tags={"n_train": "140"})
    assert registry.register(run_id) == "1"
    assert registry.register(run_id) == "1"
    candidate = registry.candidate()
    assert candidate is not None
    assert candidate == registry.candidate_of(run_id) == registry.version("1")
    assert (candidate.run_id, candidate.feature_names) == (run_id, FEATURES)
    assert candidate.tags["source"] == "synthetic"
    assert candidate.tags["n_train"] == "140"
    assert not any(name.startswith("mlflow.") for name in candidate.tags)
    assert abs(candidate.created_at - datetime.now(UTC)).total_seconds() < 60
    assert registry.champion() is None


def test_registering_an_old_run_again_leaves_the_newest_candidate(registry):
    old, new = log_candidate(registry), log_candidate(registry, seed=1)
    registry.register(old)
    registry.register(new)
    assert registry.register(old) == "1"
    assert registry.candidate().run_id == new


def test_a_run_that_was_cut_short_is_no_candidate(registry):
    finished = log_candidate(registry)
    mlflow.set_tracking_uri(registry.tracking_uri)
    with (
        pytest.raises(RuntimeError, match="killed"),
        mlflow.start_run(experiment_id=registry.ensure_experiment()) as run,
    ):
        raise RuntimeError("killed")
    assert registry.newest_candidate_run() == finished
    with pytest.raises(NothingToServeError, match=f"{run.info.run_id} has no model.*task track"):
        registry.register(run.info.run_id)
    with pytest.raises(NothingToServeError, match="has no model"):
        registry.candidate_of("0" * 32)


def test_a_candidate_needs_an_active_run_of_the_same_store(registry, tmp_path):
    def log():
        registry.log_candidate(
            make_booster(),
            input_example=[0.0, 0.0, 0.0],
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
            input_example=[0.0, 0.0, 0.0],
            feature_names=("rsi_14m", "log_return_1m", "log_return_5m"),
            parameters={},
            metrics={},
            tags={},
            artifacts={},
        )


def test_promotion_moves_the_champion_and_keeps_the_one_before(registry):
    first = promote_new(registry, seed=0)
    second = promote_new(registry, seed=1)
    assert (first.version, second.version) == ("1", "2")
    assert registry.champion() == second
    assert registry.version("previous").version == "1"
    assert second.tags["verdict"] == "promoted"
    assert second.tags["verdict_reason"] == "it is better"
    assert predictions(registry, second) == make_booster(1).predict(ROWS).tolist()


def test_promoting_the_champion_again_changes_no_alias(registry):
    promote_new(registry)
    registry.promote("1", reason="again")
    assert registry.champion().version == "1"
    assert registry.version("previous") is None


def test_a_refusal_is_recorded_and_moves_nothing(registry):
    promote_new(registry)
    number = registry.register(log_candidate(registry, seed=1))
    market_time = datetime(2024, 5, 1, 12, tzinfo=UTC)
    registry.refuse(number, reason="worse than version 1", market_time=market_time)
    assert registry.champion().version == "1"
    refused = registry.version(number)
    assert refused.tags["verdict"] == "refused"
    assert refused.tags["verdict_reason"] == "worse than version 1"
    assert refused.tags["verdict_market_time"] == "2024-05-01T12:00:00+00:00"


def test_a_version_that_does_not_exist_is_neither_promoted_nor_refused(registry):
    promote_new(registry)
    for decide in (registry.promote, registry.refuse):
        with pytest.raises(NothingToServeError, match="has no version 9"):
            decide("9", reason="whatever")
    assert registry.champion().version == "1"


def test_rollback_trades_the_champion_with_the_one_before(registry):
    promote_new(registry, seed=0)
    with pytest.raises(NothingToServeError, match="no version before the champion"):
        registry.rollback()
    promote_new(registry, seed=1)
    assert registry.rollback().version == "1"
    assert (registry.champion().version, registry.version("previous").version) == ("1", "2")
    assert registry.version("2").tags["verdict"] == ROLLED_BACK
    assert registry.rollback().version == "2"


def test_a_uri_resolves_by_alias_and_by_number(registry):
    promote_new(registry)
    assert registry.resolve("models:/bitcoin-model@production").version == "1"
    assert registry.resolve("models:/bitcoin-model/1").version == "1"
    for missing in ("models:/bitcoin-model@nope", "models:/bitcoin-model/7", "models:/other/1"):
        with pytest.raises(NothingToServeError, match=r"does not exist; train a model"):
            registry.resolve(missing)


@pytest.mark.parametrize(
    "uri",
    ["", "bitcoin-model", "models:/", "models:/m", "models:/m@", "models:/m/0", "models:/m/latest",
     "models:/m@a/1", "models:/m/1\n", "runs:/abc/model", "models:/m-0123/x", "file:///tmp/model"],
)  # fmt: skip
def test_a_uri_that_names_no_registered_model_is_refused(registry, uri):
    with pytest.raises(ConfigurationError, match="names no registered model"):
        registry.resolve(uri)


def test_json_artifacts_come_back_as_they_were_logged(registry):
    run_id = log_candidate(registry)
    assert registry.read_json(run_id, "drift_reference.json") == {"bins": [0.0, 0.5, 1.0]}
    with pytest.raises(NothingToServeError, match=f"{run_id} has no artifact other.json"):
        registry.read_json(run_id, "other.json")


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_a_json_artifact_that_is_no_object_is_refused(registry, tmp_path, content):
    run_id = log_candidate(registry)
    (path,) = tmp_path.rglob("drift_reference.json")
    path.write_text(content)
    with pytest.raises(DataError, match="is not a JSON object"):
        registry.read_json(run_id, "drift_reference.json")


def test_tags_can_be_added_to_a_run(registry):
    run_id = log_candidate(registry)
    registry.set_run_tags(run_id, {"note": "looked at"})
    assert registry.candidate_of(run_id).tags["note"] == "looked at"


@pytest.fixture(scope="module")
def shared_champion(empty_mlflow_store, tmp_path_factory) -> tuple[Registry, ModelVersion]:
    uri = copy_store(empty_mlflow_store, tmp_path_factory.mktemp("shared"))
    registry = Registry(uri, uri)
    return registry, promote_new(registry)


@pytest.fixture
def champion(shared_champion) -> Iterator[tuple[Registry, ModelVersion]]:
    """A champion whose files a test may damage; they are mended after it."""
    registry, version = shared_champion
    files = {path: path.read_bytes() for path in model_file(registry, version, ".").iterdir()}
    yield registry, version
    for path, content in files.items():
        path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: text.replace(b"num_leaves=4", b"num_leaves=9", 1),
        lambda text: text.replace(b"-", b"", 1),
        lambda text: b"\xff" + text,
        lambda text: text + b"\n",
    ],
)
def test_a_damaged_model_text_is_never_given_to_lightgbm(champion, damage):
    """LightGBM aborts the process on several of these, which no except clause can stop."""
    registry, version = champion
    path = model_file(registry, version)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        NothingToServeError, match=r"version 1 was not loaded: the SHA-256.*rollback"
    ):
        registry.load_booster(version)


@pytest.mark.parametrize("name", ["model.lgb", "MLmodel"])
def test_a_missing_model_file_is_named(champion, name):
    registry, version = champion
    model_file(registry, version, name).unlink()
    with pytest.raises(
        NothingToServeError, match=f"version 1 was not loaded: its {name} is missing"
    ):
        registry.load_booster(version)


def _with(description: str, old: str, new: str) -> str:
    assert old in description
    return description.replace(old, new)


@pytest.mark.parametrize(
    "swap",
    [
        lambda text: _with(text, "loader_module: mlflow.lightgbm", "loader_module: evil"),
        lambda text: _with(text, "    loader_module:", "    code: code\n    loader_module:"),
        lambda text: _with(text, "code: null", "code: code"),
        lambda text: _with(text, "flavors:", "flavors:\n  sklearn: {pickled_model: model.pkl}"),
        lambda text: _with(text, "  lightgbm:", "  xgboost:"),
        lambda text: "flavors: {lightgbm: 1, python_function: 2}",
        lambda text: "[]",
        lambda text: "{",
        lambda text: "!!python/object/apply:os.system ['true']",
    ],
)
def test_a_model_that_is_not_a_plain_booster_is_refused(champion, swap):
    registry, version = champion
    path = model_file(registry, version, "MLmodel")
    path.write_text(swap(path.read_text()))
    with pytest.raises(NothingToServeError, match="does not describe a plain LightGBM booster"):
        registry.load_booster(version)


def test_a_version_whose_names_are_not_the_models_own_is_refused(registry):
    version = promote_new(registry)
    client = mlflow.MlflowClient(registry.tracking_uri)
    client.set_model_version_tag("bitcoin-model", "1", "feature_names", "rsi_14m,a,b")
    with pytest.raises(NothingToServeError, match="differs from the model's own inputs"):
        registry.load_booster(registry.version(version.version))


def test_a_version_that_another_tool_registered_is_refused_not_misread(registry):
    registry.register(log_candidate(registry))
    client = mlflow.MlflowClient(registry.tracking_uri)
    client.create_model_version("bitcoin-model", source="/tmp/elsewhere")  # noqa: S108
    foreign = registry.version("2")
    assert (foreign.run_id, foreign.feature_names, foreign.metrics) == ("", (), {})
    with pytest.raises(NothingToServeError, match="its tag model_uri names no logged model"):
        registry.load_booster(foreign)


class _NotMlflow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def other_server_uri():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotMlflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_decides_itself_where_artifacts_go():
    assert MlflowStore("http://127.0.0.1:9", "http://127.0.0.1:9").artifact_location is None


def test_a_registry_that_is_down_is_unavailable_not_empty():
    registry = Registry("http://127.0.0.1:9", "http://127.0.0.1:9")
    with pytest.raises(
        NeighbourUnavailableError, match=r"MLflow at http://127.0.0.1:9 failed.*try"
    ):
        registry.champion()


def test_a_server_that_is_not_mlflow_is_unavailable(other_server_uri):
    with pytest.raises(NeighbourUnavailableError, match="not in a valid JSON format"):
        Registry(other_server_uri, other_server_uri).champion()


def test_a_password_in_the_uri_is_not_repeated():
    uri = "http://user:secret@127.0.0.1:9"
    with pytest.raises(NeighbourUnavailableError) as caught:
        Registry(uri, uri).champion()
    assert "secret" not in caught.value.message


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(NeighbourUnavailableError, match="not a database"):
        Registry(f"sqlite:///{path}", f"sqlite:///{path}").champion()


@pytest.mark.parametrize("uri", ["foo://x", "/tmp/mlruns"])  # noqa: S108
def test_a_store_that_mlflow_does_not_take_is_a_configuration_error(uri):
    with pytest.raises(ConfigurationError, match="MLflow refused"):
        Registry(uri, uri).champion()
