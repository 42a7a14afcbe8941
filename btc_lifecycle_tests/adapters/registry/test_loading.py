"""Models that were damaged or swapped in the store: each is refused, and those beside it load."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pytest

from btc_lifecycle.adapters.registry import ModelVersion, Registry, loading
from btc_lifecycle.adapters.registry.native import NativeModel
from btc_lifecycle.adapters.registry.reading import RegistryReader
from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle_tests.adapters.registry.test_canary import DAMAGES
from btc_lifecycle_tests.model_builders import (
    ACTOR,
    FEATURES,
    GOLDEN_ROWS,
    copy_store,
    log_candidate,
    make_booster,
    model_file,
    promote_new,
)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Version 2, whose files and tags a test may damage, beside version 1."""

    registry: Registry
    folder: Path
    other: Path

    @property
    def reader(self) -> RegistryReader:
        return RegistryReader(self.registry.tracking_uri, self.registry.tracking_uri)

    @property
    def version(self) -> ModelVersion:
        return self.registry.version("2")

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        path = self.folder / name
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before

    def set_tag(self, name: str, value: str) -> None:
        client = mlflow.MlflowClient(self.registry.tracking_uri, self.registry.tracking_uri)
        client.set_model_version_tag("bitcoin-model", "2", name, value)

    def forge(self) -> None:
        """Let the tag name the files as they are now."""
        facts = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in self.folder.iterdir()
        }
        self.set_tag("model_files", json.dumps(facts))


@pytest.fixture(scope="module")
def shared(empty_mlflow_store, tmp_path_factory) -> Iterator[Stored]:
    uri = copy_store(empty_mlflow_store, tmp_path_factory.mktemp("shared"))
    registry = Registry(uri, uri)
    first, second = promote_new(registry, seed=0), promote_new(registry, seed=1)
    yield Stored(
        registry=registry,
        folder=model_file(registry, second, "."),
        other=model_file(registry, first, "."),
    )
    loads_beside(registry)


@pytest.fixture
def stored(shared, tmp_path) -> Iterator[Stored]:
    """Whatever a test does to version 2 is undone after it."""
    whole, tags = tmp_path / "whole", shared.version.tags
    shutil.copytree(shared.folder, whole)
    yield shared
    shutil.rmtree(shared.folder, ignore_errors=True)
    shutil.copytree(whole, shared.folder)
    for name, value in tags.items():
        shared.set_tag(name, value)


def predictions(model) -> list[float]:
    if isinstance(model, NativeModel):
        return model.predict(GOLDEN_ROWS).tolist()
    return model.predict(GOLDEN_ROWS, num_threads=1).tolist()


def loads_beside(registry: Registry) -> None:
    booster = registry.load_booster(registry.version("1"))
    assert predictions(booster) == predictions(make_booster(0))


def refused(stored: Stored, problem: str) -> None:
    """Check that both ways of loading refuse version 2, in the same words."""
    version = stored.version
    assert stored.reader.resolve("models:/bitcoin-model/2") == version
    told = rf"bitcoin-model version 2 was not loaded: .*{problem}.*rollback"
    with pytest.raises(NothingToServeError, match=told) as by_package:
        stored.registry.load_booster(version)
    with pytest.raises(NothingToServeError, match=told) as by_library:
        stored.reader.load(version)
    messages = [caught.value.message for caught in (by_package, by_library)]
    assert len({message.replace("LightGBM says: ", "") for message in messages}) == 1


def test_an_unharmed_model_predicts_as_it_did_when_it_was_logged(stored):
    for _ in range(2):
        expected = predictions(make_booster(1))
        assert predictions(stored.registry.load_booster(stored.version)) == expected
        assert predictions(stored.reader.load(stored.version)) == expected
        stored.forge()


def test_rows_beside_the_golden_ones_are_predicted_as_well(stored):
    rows = np.array([[1e308, -1e308, 0.0], [np.nan, np.nan, np.nan], [-2.0, 1.0, 0.1]])
    booster = stored.registry.load_booster(stored.version)
    assert booster.predict(rows).tolist() == make_booster(1).predict(rows).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: text + b"\n",
        lambda text: b"\xff" + text,
        lambda text: text.replace(b"num_leaves=4", b"num_leaves=9", 1),
        lambda text: bytes([text[0], text[1] ^ 1]) + text[2:],
        lambda text: text.replace(b"rsi_14m", b"rsi_41m", 1),
        lambda text: b"\0" * len(text),
    ],
)
def test_a_changed_text_is_refused_before_anything_reads_it(stored, change):
    stored.change("model.lgb", change)
    refused(stored, "(SHA-256 of its model.lgb differs|its model.lgb is not the file of)")


@pytest.mark.parametrize(
    "name",
    ["MLmodel", "golden.json", "conda.yaml", "requirements.txt", "input_example.json"],
)
def test_every_file_is_covered_not_the_text_alone(stored, name):
    stored.change(name, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    refused(stored, f"the SHA-256 of its {name} differs from its tag")


@pytest.mark.parametrize(
    "damage",
    [
        "empty", "foreign", "cut in its parameters", "a line lost, sizes told",
        "more leaves than there are", "a feature beyond the row", "classes beyond memory",
        "a bit flipped in a leaf",
    ],
)  # fmt: skip
def test_a_damaged_text_with_forged_digests_ends_no_more_than_its_trial(stored, damage):
    (stored.folder / "model.lgb").write_text(DAMAGES[damage])
    stored.forge()
    refused(stored, "its model.lgb failed in a trial process")
    loads_beside(stored.registry)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:200] + b"\0" + text[200:],
        lambda text: text + b"\0",
        lambda text: b"\xff\xfe",
    ],
)
def test_a_text_that_is_none_is_refused_though_its_digest_matches(stored, change):
    stored.change("model.lgb", change)
    stored.forge()
    refused(stored, "its model.lgb is no text")


def test_other_feature_names_are_refused_though_their_digest_matches(stored):
    stored.change("model.lgb", lambda text: text.replace(b"rsi_14m", b"rsi_41m"))
    stored.forge()
    refused(stored, "its tag feature_names differs from the model's own inputs")


def test_features_in_another_order_are_refused(stored):
    stored.set_tag("feature_names", ",".join(reversed(FEATURES)))
    refused(stored, "its tag feature_names differs from the model's own inputs")


def test_a_last_line_that_lightgbm_cannot_read_is_refused(stored):
    stored.change("model.lgb", lambda text: text.replace(b"categorical:null", b"categorical:{"))
    stored.forge()
    refused(stored, "failed in a trial process: it does not end by saying that it knows no cat")


def test_a_text_that_only_the_trial_was_content_with_is_refused(stored, monkeypatch):
    monkeypatch.setattr(loading, "try_out", lambda text, *, golden: None)
    (stored.folder / "model.lgb").write_text("tree\nno more\n")
    stored.forge()
    refused(stored, "LightGBM refused its model.lgb: ")


def test_predictions_that_differ_in_this_process_alone_are_refused(stored, monkeypatch):
    monkeypatch.setattr(loading, "try_out", lambda text, *, golden: None)
    stored.change("model.lgb", lambda text: text.replace(b"sigmoid:1", b"sigmoid:2"))
    stored.forge()
    refused(stored, "it predicts 0.")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda golden: golden.replace(b'"predictions": [0.', b'"predictions": [0.1'),
            "it predicts",
        ),
        (lambda golden: golden.replace(b"[[", b"[[1e9, "), "holds no golden predictions"),
        (lambda golden: b"{}", "holds no golden predictions"),
        (lambda golden: b'{"rows": [[1.0]], "predictions": [0.5]}', "have not the 3 numbers"),
    ],
)
def test_altered_golden_predictions_are_refused_though_their_digest_matches(
    stored, change, problem
):
    stored.change("golden.json", change)
    stored.forge()
    refused(stored, problem)


def test_the_model_of_another_version_is_refused_wherever_it_is_copied(stored):
    shutil.rmtree(stored.folder)
    shutil.copytree(stored.other, stored.folder)
    refused(stored, "differs from its tag|is not the file of")


@pytest.mark.parametrize("name", ["model.lgb", "MLmodel", "golden.json", "conda.yaml"])
def test_a_missing_file_is_named(stored, name):
    (stored.folder / name).unlink()
    refused(stored, f"its {name} is missing")


def test_a_folder_that_is_gone_is_refused(stored):
    shutil.rmtree(stored.folder)
    refused(stored, "its MLmodel is missing")


def test_a_file_that_was_added_is_refused(stored):
    (stored.folder / "model.pkl").write_bytes(b"\x80\x04.")
    refused(stored, "its model.pkl was not there when it was logged")


def test_a_folder_that_was_added_is_refused(stored):
    (stored.folder / "code").mkdir()
    (stored.folder / "code" / "evil.py").write_text("raise SystemExit")
    refused(stored, "its code was not there when it was logged")


@pytest.mark.parametrize(
    "target", ["other version", "itself", "/dev/zero", "nowhere", "its content"]
)
def test_a_link_in_place_of_a_file_is_not_followed(stored, tmp_path, target):
    path = stored.folder / "model.lgb"
    targets = {
        "other version": stored.other / "model.lgb",
        "itself": path,
        "nowhere": tmp_path / "x",
    }
    targets["its content"] = shutil.copy(path, tmp_path / "copy")
    path.unlink()
    path.symlink_to(targets.get(target, target))
    refused(stored, "its model.lgb is not the file of")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(stored):
    (stored.folder / "model.lgb").unlink()
    os.mkfifo(stored.folder / "model.lgb")
    refused(stored, "its model.lgb is not the file of")


def _with(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(description: bytes) -> bytes:
        assert old in description
        return description.replace(old, new)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _with(b"loader_module: mlflow.lightgbm", b"loader_module: evil"),
        _with(b"    loader_module:", b"    code: code\n    loader_module:"),
        _with(b"code: null", b"code: code"),
        _with(b"flavors:", b"flavors:\n  sklearn: {pickled_model: model.pkl}"),
        _with(b"  lightgbm:", b"  xgboost:"),
        _with(b"data: model.lgb", b"data: model.pkl"),
        _with(b"lightgbm.basic.Booster", b"lightgbm.sklearn.LGBMClassifier"),
        lambda _: b"flavors: {lightgbm: 1, python_function: 2}",
        lambda _: b"[]",
        lambda _: b"{",
        lambda _: b"[" * 20_000,
        lambda _: b"!!python/object/apply:os.system ['true']",
    ],
)
def test_a_model_that_is_not_a_plain_booster_is_refused_though_its_digest_matches(stored, change):
    stored.change("MLmodel", change)
    stored.forge()
    refused(stored, "does not describe a plain LightGBM booster")


@pytest.mark.parametrize(
    "tag",
    ["", "{", "[]", "[" * 20_000, "{}", '{"MLmodel": {}, "model.lgb": {}}',
     '{"MLmodel": 1, "model.lgb": 2, "golden.json": 3}'],
)  # fmt: skip
def test_a_tag_that_names_no_files_is_refused(stored, tag):
    stored.set_tag("model_files", tag)
    refused(stored, "its tag model_files does not name a model's files")


@pytest.mark.parametrize(
    "uri", ["", "models:/m-0", f"models:/m-{'0' * 32}", "models:/../../etc", "x"]
)
def test_a_tag_that_names_no_logged_model_is_refused(stored, uri):
    stored.set_tag("model_uri", uri)
    refused(stored, "its tag model_uri names no logged model")


def test_a_version_that_another_tool_registered_is_refused_not_misread(registry):
    registry.register(log_candidate(registry), actor=ACTOR)
    client = mlflow.MlflowClient(registry.tracking_uri)
    client.create_model_version("bitcoin-model", source="/tmp/elsewhere")  # noqa: S108
    foreign = registry.version("2")
    assert (foreign.run_id, foreign.feature_names, foreign.metrics) == ("", (), {})
    with pytest.raises(NothingToServeError, match="its tag model_uri names no logged model"):
        registry.load_booster(foreign)


def test_a_model_that_stopped_early_predicts_as_it_did(registry):
    """Its text holds the trees up to the best one only."""
    rng = np.random.default_rng(0)
    rows, label = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    train = lightgbm.Dataset(rows[:100], label=label[:100], feature_name=list(FEATURES))
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 4, "num_threads": 1, "verbosity": -1},
        train,
        valid_sets=[train.create_valid(rows[100:], label=label[100:])],
        num_boost_round=50,
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert booster.best_iteration < 50
    with registry.open_run("candidate"):
        run_id = registry.log_candidate(
            booster,
            golden_rows=GOLDEN_ROWS,
            feature_names=FEATURES,
            parameters={},
            metrics={},
            tags={},
            artifacts={},
        )
    loaded = registry.load_booster(registry.candidate_of(run_id))
    assert predictions(loaded) == predictions(booster)
