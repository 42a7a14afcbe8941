"""The registry without MLflow says what MLflow's own client says, of a database and of a server.

Whoever upgrades MLflow learns here whether its tables and its interface are still the same.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pytest
import sqlalchemy

from btc_lifecycle.adapters.registry import ModelVersion, Registry
from btc_lifecycle.adapters.registry.reading import RegistryReader
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    NeighbourUnavailableError,
    NothingToServeError,
)
from btc_lifecycle_tests.adapters.registry.server_process import mlflow_server
from btc_lifecycle_tests.model_builders import (
    ACTOR,
    GOLDEN_ROWS,
    copy_store,
    log_candidate,
    make_booster,
    model_file,
    promote_new,
)


def reader_of(registry: Registry) -> RegistryReader:
    return RegistryReader(registry.tracking_uri, registry.tracking_uri)


@dataclass(frozen=True, kw_only=True)
class Served:
    """Version 2 serves, 1 is previous, 3 the candidate, 4 was deleted, 5 is another tool's."""

    registry: Registry
    reader: RegistryReader
    passed_on: Path | None = None


def make_history(uri: str) -> Served:
    registry = Registry(uri, uri)
    first = promote_new(registry, seed=0)
    promote_new(registry, seed=1)
    registry.register(log_candidate(registry, seed=2, tags={"note": "a;'b\"\nü"}), actor=ACTOR)
    odd = {"nan": math.nan, "inf": math.inf, "low": -math.inf, "tiny": 5e-324, "zero": 0.0}
    registry.log_metrics(first.run_id, odd)
    registry.log_metrics(first.run_id, {"test_auc": 0.54})
    client = mlflow.MlflowClient(uri, uri)
    for source in ("deleted", "foreign"):
        version = client.create_model_version("bitcoin-model", source=f"{source}://x")
        if source == "deleted":
            client.set_registered_model_alias("bitcoin-model", "deleted", version.version)
            client.delete_model_version("bitcoin-model", version.version)
    client.create_registered_model("a model: none of its versions".replace(":", ""))
    return Served(registry=registry, reader=reader_of(registry))


@pytest.fixture(scope="module")
def database(empty_mlflow_store, tmp_path_factory) -> Served:
    return make_history(copy_store(empty_mlflow_store, tmp_path_factory.mktemp("history")))


@pytest.fixture(scope="module")
def server(database, tmp_path_factory) -> Iterator[Served]:
    """A server of the same history, that passes version 1's files on; the others are on disk."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(
        Path(database.registry.tracking_uri.removeprefix("sqlite:///")).parent, folder / "x"
    )
    store, artifacts = folder / "x" / "mlflow.db", folder / "x" / "artifacts"
    first = database.registry.version("1").tags["model_uri"].removeprefix("models:/")
    move_artifacts(
        f"sqlite:///{store}", f"mlflow-artifacts:/models/{first}/artifacts", model_id=first
    )
    with mlflow_server(store, artifacts=artifacts) as uri:
        registry = Registry(uri, uri)
        yield Served(
            registry=registry,
            reader=reader_of(registry),
            passed_on=artifacts / "models" / first / "artifacts",
        )


@pytest.fixture(params=["database", "server"])
def served(request) -> Served:
    return request.getfixturevalue(request.param)


def comparable(version: ModelVersion) -> ModelVersion:
    """Return a version whose missing metrics equal themselves."""
    metrics = {name: repr(value) for name, value in version.metrics.items()}
    return replace(version, metrics=metrics)


@pytest.mark.parametrize(
    "which", ["@production", "@candidate", "@previous", "@2", "/1", "/2", "/3"]
)
def test_a_version_is_what_mlflow_says_of_it(served, which):
    uri = f"models:/bitcoin-model{which}"
    found = served.reader.resolve(uri)
    assert comparable(found) == comparable(served.registry.resolve(uri))
    assert found.metrics
    assert found.feature_names


@pytest.mark.parametrize("which", ["@latest", "@Latest", "/5"])
def test_a_version_of_another_tool_and_the_latest_are_what_mlflow_says(served, which):
    found = served.reader.resolve(f"models:/bitcoin-model{which}")
    assert (found.version, found.run_id, found.metrics, found.tags) == ("5", "", {}, {})
    created = served.reader.resolve("models:/bitcoin-model/3").created_at
    assert found.created_at > created


def test_metrics_keep_what_is_no_number(served):
    metrics = served.reader.resolve("models:/bitcoin-model/1").metrics
    assert math.isnan(metrics["nan"])
    assert metrics["inf"] == -metrics["low"] == sys.float_info.max
    assert (metrics["tiny"], metrics["zero"], metrics["test_auc"]) == (5e-324, 0.0, 0.54)


@pytest.mark.parametrize(
    "uri",
    [
        "models:/bitcoin-model@nobody",
        "models:/bitcoin-model@deleted",
        "models:/bitcoin-model/4",
        "models:/bitcoin-model/99",
        "models:/bitcoin-model@PRODUCTION",
        "models:/another-model@production",
        "models:/another-model/1",
        "models:/a model none of its versions@latest",
    ],
)
def test_what_is_absent_is_told_as_the_registry_tells_it(served, uri):
    with pytest.raises(NothingToServeError) as expected:
        served.registry.resolve(uri)
    with pytest.raises(NothingToServeError, match="train a model with") as caught:
        served.reader.resolve(uri)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("number", [2**31, 2**63, 10**40])
def test_a_number_that_no_version_can_have_is_absent(served, number):
    with pytest.raises(NothingToServeError, match=f"bitcoin-model/{number} does not exist"):
        served.reader.resolve(f"models:/bitcoin-model/{number}")


@pytest.mark.parametrize("uri", ["", "bitcoin-model", "models:/x", "models:/m/0", "runs:/a/model"])
def test_a_uri_that_names_no_version_is_a_configuration_error(served, uri):
    with pytest.raises(ConfigurationError, match="names no registered model"):
        served.reader.resolve(uri)


def test_the_newest_versions_come_first_and_deleted_ones_not_at_all(served):
    newest = served.reader.newest_versions("bitcoin-model", limit=3)
    assert [version.version for version in newest] == ["5", "3", "2"]
    everything = served.reader.newest_versions("bitcoin-model", limit=100)
    assert [version.version for version in everything] == ["5", "3", "2", "1"]
    for version in everything[1:]:
        expected = served.registry.version(version.version)
        assert comparable(version) == comparable(expected)
    assert served.reader.newest_versions("another-model", limit=3) == []


@pytest.mark.parametrize(("number", "seed"), [("1", 0), ("2", 1), ("3", 2)])
def test_a_loaded_model_predicts_as_the_registrys_booster(served, number, seed):
    model = served.reader.load(served.reader.resolve(f"models:/bitcoin-model/{number}"))
    expected = make_booster(seed).predict(GOLDEN_ROWS, num_threads=1)
    assert model.predict(GOLDEN_ROWS).tobytes() == expected.tobytes()


def test_a_version_of_another_tool_is_refused(served):
    with pytest.raises(NothingToServeError, match="its tag model_uri names no logged model"):
        served.reader.load(served.reader.resolve("models:/bitcoin-model/5"))


def test_a_logged_model_that_was_deleted_is_refused(served):
    version = served.reader.resolve("models:/bitcoin-model/3")
    registry, run_id = served.registry, log_candidate(served.registry, seed=4)
    logged = registry.candidate_of(run_id).tags["model_uri"]
    other = replace(version, tags={**version.tags, "model_uri": logged})
    with pytest.raises(NothingToServeError, match=r"differs from its tag|is not the file of"):
        served.reader.load(other)
    mlflow.MlflowClient(registry.tracking_uri).delete_logged_model(logged.rpartition("/")[2])
    with pytest.raises(NothingToServeError, match="its tag model_uri names no logged model"):
        served.reader.load(other)


def test_the_runs_metrics_come_from_the_tracking_store(served, mlflow_uri):
    found = RegistryReader(mlflow_uri, served.registry.tracking_uri).resolve(
        "models:/bitcoin-model@production"
    )
    assert found.metrics == {}
    assert found.tags == served.reader.resolve("models:/bitcoin-model@production").tags


def test_files_that_the_server_passes_on_are_verified_as_those_on_disk(server):
    version = server.reader.resolve("models:/bitcoin-model/1")
    text, golden = server.passed_on / "model.lgb", server.passed_on / "golden.json"
    content = text.read_bytes()
    try:
        text.write_bytes(content.replace(b"rsi_14m", b"rsi_41m"))
        refused(server, version, r"the SHA-256 of its model\.lgb differs from its tag")
        text.write_bytes(content[:-1])
        refused(server, version, r"its model\.lgb is not the file of")
        text.unlink()
        refused(server, version, r"its model\.lgb is missing")
        (server.passed_on / "model.lgb").mkdir()
        refused(server, version, r"its model\.lgb is not the file of")
        text.rmdir()
        golden.rename(text)
        refused(server, version, "its golden.json is missing")
        text.rename(golden)
    finally:
        text.write_bytes(content)
    assert server.reader.load(version).n_features == 3


def refused(served: Served, version: ModelVersion, problem: str) -> None:
    for load in (served.reader.load, served.registry.load_booster):
        with pytest.raises(NothingToServeError, match=problem):
            load(version)


def test_files_that_only_mlflow_reaches_are_read_by_a_process_of_its_own(registry, mlflow_uri):
    version = promote_new(registry, seed=3)
    folder = model_file(registry, version, ".")
    client = mlflow.MlflowClient(mlflow_uri)
    client.log_artifacts(version.run_id, str(folder), "copied")
    move_artifacts(mlflow_uri, f"runs:/{version.run_id}/copied")
    shutil.rmtree(folder)
    model = reader_of(registry).load(version)
    expected = make_booster(3).predict(GOLDEN_ROWS, num_threads=1)
    assert model.predict(GOLDEN_ROWS).tobytes() == expected.tobytes()


def test_files_that_nobody_reaches_are_unavailable_not_missing(registry, mlflow_uri):
    version = promote_new(registry)
    move_artifacts(mlflow_uri, "mlflow-artifacts:/1/models")
    with pytest.raises(NeighbourUnavailableError, match="mlflow-artifacts:/1/models failed: "):
        reader_of(registry).load(version)


def move_artifacts(mlflow_uri: str, location: str, *, model_id: str = "%") -> None:
    engine = sqlalchemy.create_engine(mlflow_uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE logged_models SET artifact_location = :location WHERE model_id LIKE :model"
            ),
            {"location": location, "model": model_id},
        )


def test_a_moved_alias_is_seen_at_once(registry):
    reader, uri = reader_of(registry), "models:/bitcoin-model@production"
    for seed in range(3):
        promoted = promote_new(registry, seed=seed)
        assert reader.resolve(uri) == promoted
    registry.rollback(actor=ACTOR)
    assert reader.resolve(uri).version == "2"
    client = mlflow.MlflowClient(registry.tracking_uri)
    client.delete_registered_model_alias("bitcoin-model", "production")
    with pytest.raises(NothingToServeError, match="does not exist"):
        reader.resolve(uri)


def test_a_store_that_was_made_anew_is_seen(registry, mlflow_uri, empty_mlflow_store):
    promote_new(registry)
    reader, path = reader_of(registry), Path(mlflow_uri.removeprefix("sqlite:///"))
    assert reader.resolve("models:/bitcoin-model@production").version == "1"
    shutil.copy(empty_mlflow_store, path.with_name("new.db")).replace(path)
    with pytest.raises(NothingToServeError, match="does not exist"):
        reader.resolve("models:/bitcoin-model@production")


@pytest.mark.parametrize("uri", ["foo://x", "/tmp/mlruns", "file:///tmp/mlruns", ""])  # noqa: S108
def test_a_uri_of_no_store_is_a_configuration_error(uri):
    with pytest.raises(ConfigurationError, match="is neither a database nor a server"):
        RegistryReader(uri, uri).resolve("models:/bitcoin-model@production")


def test_an_address_that_is_none_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="is no address of a server: Invalid IPv6"):
        RegistryReader("http://[x", "http://[x").newest_versions("bitcoin-model", limit=1)


def test_nothing_that_is_slow_to_import_is_imported(served):
    code = (
        "import json, sys; import numpy as np\n"
        "from btc_lifecycle.adapters.registry import RegistryReader\n"
        "reader = RegistryReader(sys.argv[1], sys.argv[1])\n"
        "model = reader.load(reader.resolve('models:/bitcoin-model@production'))\n"
        "model.predict(np.zeros((1, model.n_features)))\n"
        "reader.newest_versions('bitcoin-model', limit=2)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, served.registry.tracking_uri],
        capture_output=True,
        check=True,
    )
    heavy = {"mlflow", "lightgbm", "sklearn", "scipy", "pandas", "dagster", "duckdb"}
    assert not heavy & set(json.loads(ended.stdout))


def test_what_is_registered_through_a_server_is_read_through_it(empty_mlflow_store, tmp_path):
    """A server refused to register what the same client registers in a file."""
    store = Path(copy_store(empty_mlflow_store, tmp_path).removeprefix("sqlite:///"))
    with mlflow_server(store, artifacts=tmp_path / "artifacts") as uri:
        registry = Registry(uri, uri)
        for seed in range(2):
            promote_new(registry, seed=seed)
        registry.rollback(actor=ACTOR)
        reader = reader_of(registry)
        champion = reader.resolve("models:/bitcoin-model@production")
        assert champion.version == "1"
        assert (
            reader.load(champion).predict(GOLDEN_ROWS).tolist()
            == make_booster(0).predict(GOLDEN_ROWS).tolist()
        )
