"""Tiny boosters, and candidates of them in a registry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import mlflow
import numpy as np

from btc_lifecycle.adapters.registry import PROMOTED, ModelVersion, Registry

FEATURES = ("log_return_1m", "log_return_5m", "rsi_14m")
GOLDEN_ROWS = np.random.default_rng(7).normal(size=(16, len(FEATURES)))
ACTOR = "a test"


def copy_store(store: Path, folder: Path) -> str:
    """Return the URI of a copy of an MLflow store in a folder of its own under ``folder``."""
    path = folder / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(store, path)
    return f"sqlite:///{path}"


def make_booster(seed: int = 0, *, feature_names: Sequence[str] = FEATURES) -> lightgbm.Booster:
    """Return a booster of three trees that predicts differently for each seed."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, len(feature_names)))
    is_up = rows[:, seed % len(feature_names)] + rng.normal(size=200) > 0
    return lightgbm.train(
        {"objective": "binary", "num_leaves": 4, "num_threads": 1, "seed": seed, "verbosity": -1},
        lightgbm.Dataset(rows, label=is_up, feature_name=list(feature_names)),
        num_boost_round=3,
    )


def log_candidate(
    registry: Registry,
    *,
    seed: int = 0,
    tags: dict[str, str] | None = None,
    feature_names: Sequence[str] = FEATURES,
) -> str:
    """Return the finished run of a candidate, logged as the training step does it."""
    with registry.open_run("candidate"):
        return registry.log_candidate(
            make_booster(seed, feature_names=feature_names),
            golden_rows=np.random.default_rng(7).normal(size=(16, len(feature_names))),
            feature_names=feature_names,
            parameters={"seed": seed, "num_leaves": 4},
            metrics={"test_auc": 0.53},
            tags={"source": "synthetic", **(tags or {})},
            artifacts={"drift_reference.json": {"bins": [0.0, 0.5, 1.0]}, "card.md": b"# Card"},
        )


def promote_new(
    registry: Registry,
    *,
    seed: int = 0,
    tags: dict[str, str] | None = None,
    feature_names: Sequence[str] = FEATURES,
) -> ModelVersion:
    """Return a new champion."""
    run_id = log_candidate(registry, seed=seed, tags=tags, feature_names=feature_names)
    number = registry.register(run_id, actor=ACTOR)
    registry.conclude(number, PROMOTED, reason="it is better", actor=ACTOR)
    champion = registry.champion()
    assert champion is not None
    return champion


def model_file(registry: Registry, version: ModelVersion, name: str = "model.lgb") -> Path:
    """Return where a version's file lies on disk."""
    model_id = version.tags["model_uri"].removeprefix("models:/")
    logged = mlflow.MlflowClient(registry.tracking_uri).get_logged_model(model_id)
    return Path(logged.artifact_location.removeprefix("file://")) / name
