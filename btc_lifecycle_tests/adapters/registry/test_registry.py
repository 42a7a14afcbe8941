"""The registry against real MLflow stores on disk."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import mlflow
import pytest

from btc_lifecycle.adapters.registry import (
    DEFERRED,
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    UNREGISTERED,
    Registry,
)
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError
from btc_lifecycle_tests.model_builders import (
    ACTOR,
    FEATURES,
    log_candidate,
    model_file,
    promote_new,
)


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


def test_a_candidate_is_readable_before_it_is_registered(registry):
    run_id = log_candidate(registry, seed=2)
    registry.log_metrics(run_id, {"test_brier": 0.25})
    candidate = registry.candidate_of(run_id)
    assert candidate.version == UNREGISTERED
    assert candidate.verdict is None
    assert candidate.feature_names == FEATURES
    assert candidate.metrics == {"test_auc": 0.53, "test_brier": 0.25}
    assert registry.load_booster(candidate).feature_name() == list(FEATURES)


def test_registering_twice_gives_one_version_under_the_alias_candidate(registry):
    run_id = log_candidate(registry, tags={"n_train": "140"})
    assert registry.register(run_id, actor=ACTOR) == "1"
    assert registry.register(run_id, actor=ACTOR) == "1"
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
    registry.register(old, actor=ACTOR)
    registry.register(new, actor=ACTOR)
    assert registry.register(old, actor=ACTOR) == "1"
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
        registry.register(run.info.run_id, actor=ACTOR)
    with pytest.raises(NothingToServeError, match="has no model"):
        registry.candidate_of("0" * 32)


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


@pytest.fixture
def served(history, tmp_path) -> Registry:
    """Version 2 serves, 1 is previous, 3 is the candidate."""
    return history.copy_to(tmp_path / "served")


def numbers(registry: Registry) -> tuple[str | None, str | None]:
    champion, previous = registry.champion(), registry.version("previous")
    return champion and champion.version, previous and previous.version


def test_promotion_moves_the_champion_and_keeps_the_one_before(served):
    assert numbers(served) == ("2", "1")
    market_time = datetime(2024, 5, 1, 12, tzinfo=UTC)
    served.conclude("3", PROMOTED, reason="it is better", actor="ann", market_time=market_time)
    assert numbers(served) == ("3", "2")
    champion = served.champion()
    assert champion.verdict == PROMOTED
    assert champion.tags["verdict_reason"] == "it is better"
    assert champion.tags["verdict_actor"] == "ann"
    assert champion.tags["verdict_market_time"] == "2024-05-01T12:00:00+00:00"


def test_the_first_promotion_has_no_version_before_it(registry):
    assert promote_new(registry).version == "1"
    assert numbers(registry) == ("1", None)


def test_promoting_the_champion_again_changes_nothing(served):
    before = served.champion()
    served.conclude("2", PROMOTED, reason="again", actor=ACTOR)
    assert numbers(served) == ("2", "1")
    assert served.champion() == before


@pytest.mark.parametrize("verdict", [REFUSED, DEFERRED])
def test_a_no_is_recorded_and_moves_nothing(served, verdict):
    served.conclude("3", verdict, reason="worse than version 2", actor="ann")
    assert numbers(served) == ("2", "1")
    assert served.version("3").verdict == verdict
    assert served.version("3").tags["verdict_reason"] == "worse than version 2"
    assert served.version("3").tags["verdict_actor"] == "ann"
    assert served._aliases._journal.rows() == []


def test_a_deferred_version_may_be_promoted_later_and_keeps_nothing_of_the_old_verdict(served):
    market_time = datetime(2024, 5, 1, tzinfo=UTC)
    served.conclude("3", DEFERRED, reason="too few rows", actor="ann", market_time=market_time)
    served.conclude("3", PROMOTED, reason="it is better", actor="bob")
    tags = {k: v for k, v in served.champion().tags.items() if k.startswith(("verdict", "pending"))}
    tags.pop("verdict_at")
    assert tags == {
        "verdict": PROMOTED,
        "verdict_reason": "it is better",
        "verdict_actor": "bob",
    }


def test_a_refused_version_is_not_promoted_by_asking_again(served):
    served.conclude("3", REFUSED, reason="worse", actor=ACTOR)
    served.conclude("3", REFUSED, reason="worse still", actor=ACTOR)
    assert served.version("3").tags["verdict_reason"] == "worse"
    for verdict in (PROMOTED, DEFERRED):
        with pytest.raises(DataError, match="version 3 was refused before: worse; train another"):
            served.conclude("3", verdict, reason="please", actor=ACTOR)
    assert numbers(served) == ("2", "1")


def test_the_version_that_serves_is_not_refused(served):
    """Of two processes that judged at once, one promoted and the other refused."""
    for verdict in (REFUSED, DEFERRED):
        with pytest.raises(DataError, match=f"version 2 serves and cannot be {verdict}.*rollback"):
            served.conclude("2", verdict, reason="worse", actor=ACTOR)
    assert served.champion().verdict == PROMOTED


def test_only_verdicts_on_candidates_are_concluded(served):
    with pytest.raises(ValueError, match="'rolled back' is no verdict on a candidate"):
        served.conclude("3", ROLLED_BACK, reason="", actor=ACTOR)


def test_a_version_that_does_not_exist_gets_no_verdict(served):
    for verdict in (PROMOTED, REFUSED, DEFERRED):
        with pytest.raises(NothingToServeError, match="has no version 9"):
            served.conclude("9", verdict, reason="whatever", actor=ACTOR)
    assert numbers(served) == ("2", "1")


def test_rollback_trades_the_champion_with_the_one_before(served):
    assert served.rollback(actor="ann").version == "1"
    assert numbers(served) == ("1", "2")
    assert served.version("2").verdict == ROLLED_BACK
    assert served.version("2").tags["verdict_reason"] == "version 1 serves in its place"
    assert served.version("1").tags["verdict_reason"] == "it is better"


def test_a_rolled_back_version_returns_only_by_another_rollback(served):
    served.rollback(actor=ACTOR)
    with pytest.raises(DataError, match="version 2 was rolled back before"):
        served.conclude("2", PROMOTED, reason="again", actor=ACTOR)
    assert served.rollback(actor=ACTOR).version == "2"
    assert numbers(served) == ("2", "1")
    assert served.champion().verdict == PROMOTED
    assert served.champion().tags["verdict_reason"] == "serves again in place of version 1"


def test_there_is_nothing_to_roll_back_to_before_a_second_promotion(registry):
    with pytest.raises(NothingToServeError, match="no version before the champion"):
        registry.rollback(actor=ACTOR)
    promote_new(registry)
    with pytest.raises(NothingToServeError, match="no version before the champion"):
        registry.rollback(actor=ACTOR)


def test_two_models_of_one_experiment_know_nothing_of_each_other(registry):
    volatility = Registry(
        registry.tracking_uri, registry.tracking_uri, model_name="bitcoin-volatility"
    )
    direction_run = log_candidate(registry, seed=0)
    volatility_run = log_candidate(volatility, seed=1)
    assert registry.newest_candidate_run() == direction_run
    assert volatility.newest_candidate_run() == volatility_run
    with pytest.raises(NothingToServeError, match="has no model for bitcoin-volatility"):
        volatility.register(direction_run, actor=ACTOR)
    assert volatility.register(volatility_run, actor=ACTOR) == "1"
    volatility.conclude("1", PROMOTED, reason="it is better", actor=ACTOR)
    assert registry.champion() is None
    assert registry.resolve("models:/bitcoin-volatility@production") == volatility.champion()
