"""From a version's files to a model, by way of a process that may die of them.

LightGBM aborts the whole process on some damaged texts, which no except clause can stop, so each
text is tried out in a canary process first. It costs a tenth of a second, and a version is loaded
once per promotion: no text is remembered as safe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from btc_lifecycle.adapters.registry.golden import Golden
from btc_lifecycle.adapters.registry.model_files import (
    GOLDEN,
    TEXT,
    ModelStore,
    unusable,
    verified_files,
)
from btc_lifecycle.adapters.registry.native import LightGbmError, NativeModel, find_library
from btc_lifecycle.adapters.registry.records import FEATURE_NAMES_TAG, ModelVersion

if TYPE_CHECKING:
    from lightgbm import Booster
    from numpy.typing import NDArray

CANARY_WAIT_S = 60.0
_CANARY = Path(__file__).with_name("canary.py")


def load_booster(version: ModelVersion, *, store: ModelStore) -> Booster:
    """Return the booster of a version, registered or not, which predicts as when it was logged.

    Raises:
        NothingToServeError: If files are missing, damaged, or not a plain LightGBM model.
    """
    text, golden = _tried_out(version, store=store)
    import lightgbm  # noqa: PLC0415

    with _refused(version, lightgbm.basic.LightGBMError):
        booster = lightgbm.Booster(model_str=text)
        predictions = np.asarray(booster.predict(golden.table(), num_threads=1))
    names = tuple(booster.feature_name())
    _require_the_same(version, names=names, predictions=predictions, golden=golden)
    return booster


def load_native(version: ModelVersion, *, store: ModelStore) -> NativeModel:
    """Return what ``load_booster`` does, without LightGBM's package."""
    text, golden = _tried_out(version, store=store)
    with _refused(version, LightGbmError):
        model = NativeModel(find_library(), text)
    names, predictions = model.feature_names(), model.predict(golden.table())
    _require_the_same(version, names=names, predictions=predictions, golden=golden)
    return model


def try_out(text: str, *, golden: Golden, wait_s: float = CANARY_WAIT_S) -> str | None:
    """Return what goes wrong where a process of its own loads a text, None if nothing does."""
    request = {"library": find_library(), "text": text, "rows": golden.rows}
    try:
        ended = subprocess.run(  # noqa: S603  # our own file by our own interpreter
            [sys.executable, "-I", "-S", str(_CANARY)],
            input=json.dumps(request).encode(),
            capture_output=True,
            # Each thread would claim address space, of which the process has little.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=wait_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {wait_s:g} s"
    if ended.returncode < 0:
        return f"signal {-ended.returncode} ended it"
    try:
        answer = json.loads(ended.stdout)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"predictions": list(predictions)}:
            difference = golden.difference(predictions)
            return None if difference is None else f"it predicts {difference}"
        case {"problem": str(problem)}:
            return problem
    return "its answer cannot be read"


def _tried_out(version: ModelVersion, *, store: ModelStore) -> tuple[str, Golden]:
    """Return a version's text, which harms no process, and what it predicted when it was logged."""
    files = verified_files(version, store=store)
    golden, text = Golden.from_json(files[GOLDEN]), _decoded(files[TEXT])
    if golden is None:
        raise unusable(version, f"its {GOLDEN} holds no golden predictions")
    if text is None:
        raise unusable(version, f"its {TEXT} is no text")
    problem = try_out(text, golden=golden)
    if problem is not None:
        raise unusable(version, f"its {TEXT} failed in a trial process: {problem}")
    return text, golden


@contextmanager
def _refused(version: ModelVersion, error_type: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error_type as error:
        raise unusable(version, f"LightGBM refused its {TEXT}: {error}") from error


def _require_the_same(
    version: ModelVersion,
    *,
    names: tuple[str, ...],
    predictions: NDArray[np.float64],
    golden: Golden,
) -> None:
    if names != version.feature_names:
        raise unusable(version, f"its tag {FEATURE_NAMES_TAG} differs from the model's own inputs")
    difference = golden.difference(predictions.tolist())
    if difference is not None:
        raise unusable(version, f"it predicts {difference}")


def _decoded(content: bytes) -> str | None:
    # LightGBM reads up to the first NUL: what follows would go unnoticed.
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
