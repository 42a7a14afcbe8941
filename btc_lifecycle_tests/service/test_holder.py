"""The live model through every way in which a registry can disappoint it."""

from __future__ import annotations

import threading
import types
from pathlib import Path

import mlflow
import numpy as np
import pytest

from btc_lifecycle.adapters.registry import Registry, RegistryReader
from btc_lifecycle.service.holder import LiveModel
from btc_lifecycle_tests.model_builders import (
    ACTOR,
    FEATURES,
    log_candidate,
    make_booster,
    model_file,
    promote_new,
)
from btc_lifecycle_tests.service.conftest import MODEL_URI

ROWS = np.array([[0.4, -1.0, 0.6], [0.0, 2.0, -1.0]])


def live_model(registry: Registry, *, model_uri: str = MODEL_URI) -> LiveModel:
    reader = RegistryReader(registry.tracking_uri, registry.tracking_uri)
    live = LiveModel(reader, model_uri=model_uri, poll_seconds=0.01)
    live.refresh()
    return live


def serves(live: LiveModel, version: str, *, seed: int) -> bool:
    assert live.model is not None
    return (
        live.model.version.version == version
        and live.model.predict(ROWS) == make_booster(seed).predict(ROWS).tolist()
    )


def test_without_a_model_it_starts_and_says_how_to_get_one(registry):
    live = live_model(registry)
    assert live.model is None
    assert "train a model with `./task track`" in live.problem


def test_a_first_champion_is_picked_up(registry):
    live = live_model(registry)
    promote_new(registry)
    live.refresh()
    assert serves(live, "1", seed=0)
    assert live.problem is None


def test_a_moved_alias_is_followed_and_a_rollback_too(registry):
    promote_new(registry, seed=0)
    live = live_model(registry)
    promote_new(registry, seed=1)
    assert serves(live, "1", seed=0)
    live.refresh()
    assert serves(live, "2", seed=1)
    registry.rollback(actor=ACTOR)
    live.refresh()
    assert serves(live, "1", seed=0)


def test_a_registry_made_anew_is_followed_though_its_numbers_start_again(registry):
    """The old booster answered with the new version's feature names: a wrong score or a 500."""
    promote_new(registry, seed=0)
    live = live_model(registry)
    mlflow.MlflowClient(registry.tracking_uri).delete_registered_model(registry.model_name)
    promote_new(registry, seed=1)
    live.refresh()
    assert serves(live, "1", seed=1)


def test_a_new_candidate_alone_changes_nothing(registry):
    promote_new(registry)
    live = live_model(registry)
    registry.register(log_candidate(registry, seed=1), actor=ACTOR)
    live.refresh()
    assert serves(live, "1", seed=0)


def test_the_same_version_is_not_loaded_again_but_its_metrics_are_fresh(registry):
    champion = promote_new(registry)
    live = live_model(registry)
    before = live.model
    registry.log_metrics(champion.run_id, {"test_auc": 0.53})
    live.refresh()
    assert live.model.trees is before.trees
    assert live.model.loaded_at == before.loaded_at
    assert live.model.version.metrics["test_auc"] == 0.53


def test_a_damaged_new_version_leaves_the_last_good_one_serving_until_it_is_mended(registry):
    promote_new(registry, seed=0)
    live = live_model(registry)
    path = model_file(registry, promote_new(registry, seed=1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    live.refresh()
    assert serves(live, "1", seed=0)
    assert "version 2 was not loaded: its model.lgb is not" in live.problem
    path.write_bytes(content)
    live.refresh()
    assert serves(live, "2", seed=1)
    assert live.problem is None


@pytest.mark.parametrize("names", ["log_return_5m,log_return_1m,rsi_14m", "", "rsi_14m"])
def test_a_tag_changed_under_the_serving_model_changes_nothing_but_what_is_said(registry, names):
    """Rows by name were scored in the wrong columns, and health said that all was well."""
    champion = promote_new(registry)
    live = live_model(registry)
    mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri).set_model_version_tag(
        "bitcoin-model", champion.version, "feature_names", names
    )
    live.refresh()
    assert serves(live, "1", seed=0)
    assert live.model.version.feature_names == FEATURES
    assert "the tag feature_names of bitcoin-model version 1 was changed" in live.problem


def test_the_newest_versions_are_known_without_asking_for_them_each_time(registry):
    live = live_model(registry)
    assert "still being loaded" in live.versions
    promote_new(registry, seed=0)
    live.refresh()
    assert [version.version for version in live.versions] == ["1"]


def test_a_removed_alias_leaves_the_last_good_model_serving(registry):
    promote_new(registry)
    live = live_model(registry)
    mlflow.MlflowClient(registry.tracking_uri).delete_registered_model_alias(
        "bitcoin-model", "production"
    )
    live.refresh()
    assert serves(live, "1", seed=0)
    assert "models:/bitcoin-model@production does not exist" in live.problem


def test_a_registry_that_went_away_leaves_the_last_good_model_serving(registry):
    promote_new(registry)
    live = live_model(registry)
    path = Path(registry.tracking_uri.removeprefix("sqlite:///"))
    path.write_bytes(b"x" * path.stat().st_size)
    live.refresh()
    assert serves(live, "1", seed=0)
    assert "MLflow at sqlite" in live.problem


def test_a_registry_that_is_down_at_the_start_is_named():
    live = live_model(Registry("http://127.0.0.1:9", "http://127.0.0.1:9"))
    assert live.model is None
    assert "MLflow at http://127.0.0.1:9 failed" in live.problem


def test_a_wrong_uri_is_named(registry):
    assert "names no registered model" in live_model(registry, model_uri="production").problem


def test_a_fixed_version_stays_whatever_is_promoted(registry):
    promote_new(registry, seed=0)
    live = live_model(registry, model_uri="models:/bitcoin-model/1")
    promote_new(registry, seed=1)
    live.refresh()
    assert serves(live, "1", seed=0)


class FlakyReader(RegistryReader):
    """Fails in a way that nobody foresaw, the first two times."""

    n_calls = 0
    has_answered = threading.Event()

    def resolve(self, model_uri):
        self.n_calls += 1
        if self.n_calls <= 2:
            raise RuntimeError("nobody foresaw this")
        found = super().resolve(model_uri)
        if self.n_calls > 3:
            self.has_answered.set()
        return found


def test_the_background_look_up_survives_what_nobody_foresaw(registry, caplog):
    promote_new(registry)
    flaky = FlakyReader(registry.tracking_uri, registry.tracking_uri)
    live = LiveModel(flaky, model_uri=MODEL_URI, poll_seconds=0.01)
    live.start()
    assert flaky.has_answered.wait(30)
    live.stop()
    assert serves(live, "1", seed=0)


def test_a_model_that_predicts_no_probability_is_not_served(registry):
    class Regression(RegistryReader):
        def load(self, version):
            return types.SimpleNamespace(predict=lambda rows: np.full(len(rows), 7.0))

    promote_new(registry)
    live = LiveModel(
        Regression(registry.tracking_uri, registry.tracking_uri),
        model_uri=MODEL_URI,
        poll_seconds=1.0,
    )
    live.refresh()
    assert live.model is None
    assert "version 1 predicts what is no number from 0 to 1" in live.problem


def test_no_answer_mixes_two_versions_while_the_alias_moves(registry):
    promote_new(registry, seed=0)
    promote_new(registry, seed=1)
    live = live_model(registry)
    wanted = {str(n + 1): make_booster(n).predict(ROWS).tolist() for n in range(2)}
    is_over, wrong = threading.Event(), []

    def predict_on() -> None:
        while not is_over.is_set():
            model = live.model
            if model.predict(ROWS) != wanted[model.version.version]:
                wrong.append(model.version.version)

    threads = [threading.Thread(target=predict_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        registry.rollback(actor=ACTOR)
        live.refresh()
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
