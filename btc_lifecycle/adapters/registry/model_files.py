"""A model's files in MLflow: how they are logged, and what they must be before one is used.

Only LightGBM's own text is ever read into a model: MLflow's generic loader runs code that a model's
description names.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import yaml  # type: ignore[import-untyped, unused-ignore]

from btc_lifecycle.adapters.registry.golden import Golden
from btc_lifecycle.adapters.registry.records import (
    FEATURE_NAMES_TAG,
    MODEL_FILES_TAG,
    MODEL_URI_TAG,
    ModelVersion,
)
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import NothingToServeError

if TYPE_CHECKING:
    from lightgbm import Booster

DESCRIPTION, TEXT, GOLDEN = "MLmodel", "model.lgb", "golden.json"
MOST_BYTES = 32_000_000
"""Of all files of a version together, which have a few hundred kB: more is not even read."""
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-f]{32})")


class ModelStore(Protocol):
    """Where the files of logged models are looked up."""

    def model_location(self, model_id: str) -> str | None:
        """Return the artifact folder of a logged model, None where there is no such model."""

    def file_sizes(self, folder_uri: str) -> dict[str, int | None]:
        """Return how many bytes each file of a folder has, by name; None for what is no file."""

    def read_folder(self, folder_uri: str) -> dict[str, bytes]:
        """Return the content of each file that lies directly in a folder, by name."""


def log_booster(
    store: MlflowStore, booster: Booster, *, golden: Golden, feature_names: Sequence[str]
) -> dict[str, str]:
    """Return the tags that find and verify the model, after logging it into the active run."""
    import mlflow  # noqa: PLC0415
    import mlflow.lightgbm  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    example = pd.DataFrame(golden.table()[:1], columns=list(feature_names))
    info = mlflow.lightgbm.log_model(
        booster,
        name="model",
        input_example=example,
        signature=mlflow.models.infer_signature(example, np.array(golden.predictions[:1])),
        # Left to itself MLflow finds these out by loading the model in a new process, for seconds.
        pip_requirements=[f"{p}=={installed_version(p)}" for p in ("lightgbm", "mlflow", "numpy")],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, GOLDEN)
        path.write_bytes(golden.to_json())
        store.client.log_model_artifact(info.model_id, str(path))
    files = store.read_folder(info.artifact_path)
    if not {DESCRIPTION, TEXT, GOLDEN} <= files.keys():
        raise NothingToServeError(
            f"{info.model_uri} has only {sorted(files)} right after it was logged",
            hint="look at the artifact store's disk, then train again",
        )
    return {
        MODEL_FILES_TAG: json.dumps({name: _facts(files[name]) for name in sorted(files)}),
        MODEL_URI_TAG: info.model_uri,
        FEATURE_NAMES_TAG: ",".join(feature_names),
    }


def verified_files(version: ModelVersion, *, store: ModelStore) -> dict[str, bytes]:
    """Return a version's files by name, which are those that were logged and a plain booster's.

    Raises:
        NothingToServeError: If files are missing, added or changed, or describe another kind of
            model.
    """
    location = _location(version, store=store)
    logged = _logged_facts(version)
    sizes = store.file_sizes(location)
    for name in sorted(logged.keys() | sizes.keys()):
        if name not in sizes:
            raise unusable(version, f"its {name} is missing")
        if name not in logged:
            raise unusable(version, f"its {name} was not there when it was logged")
        if sizes[name] != logged[name]["bytes"]:
            raise unusable(version, f"its {name} is not the file of {logged[name]['bytes']} bytes")
    n_bytes = sum(filter(None, sizes.values()))
    if n_bytes > MOST_BYTES:
        raise unusable(version, f"its files have {n_bytes} bytes, more than {MOST_BYTES}")
    files = store.read_folder(location)
    changed = [name for name in sorted(logged) if _facts(files.get(name, b"")) != logged[name]]
    if changed:
        raise unusable(version, f"the SHA-256 of its {changed[0]} differs from its tag")
    if not _is_plain_lightgbm(files[DESCRIPTION]):
        raise unusable(version, f"its {DESCRIPTION} does not describe a plain LightGBM booster")
    return files


def unusable(version: ModelVersion, problem: str) -> NothingToServeError:
    """Return the error that refuses a version, naming it and the way out."""
    return NothingToServeError(
        f"{version.name} version {version.version} was not loaded: {problem}",
        hint="go back with `./task rollback`, or train and promote another version",
    )


def _location(version: ModelVersion, *, store: ModelStore) -> str:
    match = _LOGGED_MODEL.fullmatch(version.tags.get(MODEL_URI_TAG, ""))
    location = store.model_location(match[1]) if match else None
    if location is None:
        raise unusable(version, f"its tag {MODEL_URI_TAG} names no logged model")
    return location


def _logged_facts(version: ModelVersion) -> dict[str, dict[str, object]]:
    try:
        logged = json.loads(version.tags.get(MODEL_FILES_TAG, ""))
    except (ValueError, RecursionError):
        logged = None
    match logged:
        case {"MLmodel": _, "model.lgb": _, "golden.json": _} if all(
            isinstance(facts, dict) and facts.keys() == {"sha256", "bytes"}
            for facts in logged.values()
        ):
            return dict(logged)
    raise unusable(version, f"its tag {MODEL_FILES_TAG} does not name a model's files")


def _facts(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


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
                and native.get("model_class") == "lightgbm.basic.Booster"
                and native.get("data") == generic.get("data") == TEXT
                and generic.get("loader_module") == "mlflow.lightgbm"
            )
    return False
