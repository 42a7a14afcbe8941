"""Tiny boosters, and candidates of them in a registry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import mlflow
import numpy as np

from btc_lifecycle.adapters.registry import ModelVersion, Registry

FEATURES = ("log_return_1m", "log_return_5m", "rsi_14m")


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


def log_candidate(registry: Registry, *, seed: int = 0, tags: dict[str, str] | None = None) -> str:
    """Return the finished run of a candidate, logged as the training step does it."""
    booster = make_booster(seed)
    experiment_id = registry.ensure_experiment()
    mlflow.set_tracking_uri(registry.tracking_uri)
    with mlflow.start_run(experiment_id=experiment_id):
        return registry.log_candidate(
            booster,
            input_example=np.zeros((1, len(FEATURES))),
            feature_names=FEATURES,
            parameters={"seed": seed, "num_leaves": 4},
            metrics={"prior_up": 0.5},
            tags={"source": "synthetic", **(tags or {})},
            artifacts={"drift_reference.json": {"bins": [0.0, 0.5, 1.0]}},
        )


def promote_new(registry: Registry, *, seed: int = 0) -> ModelVersion:
    """Return a new champion."""
    number = registry.register(log_candidate(registry, seed=seed))
    registry.promote(number, reason="it is better")
    champion = registry.champion()
    assert champion is not None
    return champion


def model_file(registry: Registry, version: ModelVersion, name: str = "model.lgb") -> Path:
    """Return where a version's file lies on disk."""
    model_id = version.tags["model_uri"].removeprefix("models:/")
    logged = mlflow.MlflowClient(registry.tracking_uri).get_logged_model(model_id)
    return Path(logged.artifact_location.removeprefix("file://")) / name
