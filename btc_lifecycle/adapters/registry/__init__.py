"""The model registry: candidates, the champion and their artifacts, kept in MLflow.

Nothing outside this package imports MLflow, and inside only calls do: the import takes seconds, and
most processes never need it.
"""

from __future__ import annotations

from btc_lifecycle.adapters.registry.native import NativeModel
from btc_lifecycle.adapters.registry.reading import RegistryReader
from btc_lifecycle.adapters.registry.records import (
    CANDIDATE_ALIAS,
    CHAMPION_ALIAS,
    EXPERIMENT,
    FEATURE_NAMES_TAG,
    FINAL_VERDICTS,
    HOW_TO_TRAIN,
    LIBRARIES_TAG,
    MODEL_NAME,
    PREVIOUS_ALIAS,
    ROLLED_BACK,
    UNREGISTERED,
    VERDICT_REASON_TAG,
    VOLATILITY_MODEL_NAME,
    AliasMove,
    Journal,
    ModelVersion,
    parse_model_uri,
)
from btc_lifecycle.adapters.registry.registry import Registry
from btc_lifecycle.domain.learn.promotion import DEFERRED, PROMOTED, REFUSED

__all__ = [
    "CANDIDATE_ALIAS",
    "CHAMPION_ALIAS",
    "DEFERRED",
    "EXPERIMENT",
    "FEATURE_NAMES_TAG",
    "FINAL_VERDICTS",
    "HOW_TO_TRAIN",
    "LIBRARIES_TAG",
    "MODEL_NAME",
    "PREVIOUS_ALIAS",
    "PROMOTED",
    "REFUSED",
    "ROLLED_BACK",
    "UNREGISTERED",
    "VERDICT_REASON_TAG",
    "VOLATILITY_MODEL_NAME",
    "AliasMove",
    "Journal",
    "ModelVersion",
    "NativeModel",
    "Registry",
    "RegistryReader",
    "parse_model_uri",
]
