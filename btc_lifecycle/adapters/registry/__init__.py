"""The model registry: candidates, the champion and their artifacts, kept in MLflow.

Nothing outside this package imports MLflow, and inside only calls do: the import takes seconds, and
most processes never need it.
"""

from __future__ import annotations

from btc_lifecycle.adapters.registry.records import (
    CANDIDATE_ALIAS,
    CHAMPION_ALIAS,
    EXPERIMENT,
    HOW_TO_TRAIN,
    MODEL_NAME,
    PREVIOUS_ALIAS,
    ROLLED_BACK,
    UNREGISTERED,
    ModelVersion,
)
from btc_lifecycle.adapters.registry.registry import Registry

__all__ = [
    "CANDIDATE_ALIAS",
    "CHAMPION_ALIAS",
    "EXPERIMENT",
    "HOW_TO_TRAIN",
    "MODEL_NAME",
    "PREVIOUS_ALIAS",
    "ROLLED_BACK",
    "UNREGISTERED",
    "ModelVersion",
    "Registry",
]
