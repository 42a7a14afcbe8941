"""From a booster to its model files in MLflow, and back, without ever running foreign code.

Only LightGBM's own text is read, after its digest matched: LightGBM aborts the whole process on
some damaged texts, and MLflow's generic loader runs code that a model's description names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

import numpy as np
import yaml  # type: ignore[import-untyped, unused-ignore]

from btc_lifecycle.adapters.registry.records import (
    DIGEST_TAG,
    FEATURE_NAMES_TAG,
    MODEL_URI_TAG,
    ModelVersion,
)
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import NothingToServeError

if TYPE_CHECKING:
    from lightgbm import Booster
    from numpy.typing import ArrayLike

_DESCRIPTION, _TEXT = "MLmodel", "model.lgb"


def log_booster(
    store: MlflowStore, booster: Booster, *, input_example: ArrayLike, feature_names: Sequence[str]
) -> dict[str, str]:
    """Return the tags that find and verify the model, after logging it into the active run."""
    import mlflow  # noqa: PLC0415
    import mlflow.lightgbm  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    row = np.asarray(input_example, dtype=np.float64).reshape(1, len(feature_names))
    example = pd.DataFrame(row, columns=list(feature_names))
    info = mlflow.lightgbm.log_model(
        booster,
        name="model",
        input_example=example,
        signature=mlflow.models.infer_signature(example, booster.predict(row, num_threads=1)),
        # Left to itself MLflow finds these out by loading the model in a new process, for seconds.
        pip_requirements=[f"{p}=={installed_version(p)}" for p in ("lightgbm", "mlflow", "numpy")],
    )
    text = store.read_artifact(f"{info.artifact_path}/{_TEXT}")
    if text is None:
        raise NothingToServeError(
            f"{info.model_uri} has no {_TEXT} right after it was logged",
            hint="look at the artifact store's disk, then train again",
        )
    return {
        DIGEST_TAG: hashlib.sha256(text).hexdigest(),
        MODEL_URI_TAG: info.model_uri,
        FEATURE_NAMES_TAG: ",".join(feature_names),
    }


def load_booster(version: ModelVersion, *, store: MlflowStore) -> Booster:
    """Return the booster of a version, registered or not.

    Raises:
        NothingToServeError: If files are missing, damaged, or not a plain LightGBM model.
    """
    model_id = version.tags.get(MODEL_URI_TAG, "").removeprefix("models:/")
    logged = store.look_up(store.client.get_logged_model, model_id) if model_id else None
    if logged is None:
        raise _unusable(version, f"its tag {MODEL_URI_TAG} names no logged model")
    description = store.read_artifact(f"{logged.artifact_location}/{_DESCRIPTION}")
    text = store.read_artifact(f"{logged.artifact_location}/{_TEXT}")
    if description is None or text is None:
        raise _unusable(version, f"its {_TEXT if description else _DESCRIPTION} is missing")
    if not _is_plain_lightgbm(description):
        raise _unusable(version, f"its {_DESCRIPTION} does not describe a plain LightGBM booster")
    if hashlib.sha256(text).hexdigest() != version.tags.get(DIGEST_TAG):
        raise _unusable(version, f"the SHA-256 of its {_TEXT} differs from its tag {DIGEST_TAG}")
    import lightgbm  # noqa: PLC0415

    booster = lightgbm.Booster(model_str=text.decode())
    if tuple(booster.feature_name()) != version.feature_names:
        raise _unusable(version, f"its tag {FEATURE_NAMES_TAG} differs from the model's own inputs")
    return booster


def _unusable(version: ModelVersion, problem: str) -> NothingToServeError:
    """Return the error that refuses a version, naming it and the way out."""
    return NothingToServeError(
        f"{version.name} version {version.version} was not loaded: {problem}",
        hint="go back with `./task rollback`, or train and promote another version",
    )


def _is_plain_lightgbm(description: bytes) -> bool:
    """Return whether an MLmodel file names the two flavours of a booster and no code of its own."""
    try:
        content = yaml.safe_load(description)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    match content:
        case {"flavors": {"lightgbm": dict(native), "python_function": dict(generic)} as flavours}:
            return (
                len(flavours) == 2
                and not native.get("code")
                and not generic.get("code")
                and generic.get("loader_module") == "mlflow.lightgbm"
            )
    return False
