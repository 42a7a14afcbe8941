"""What the registry speaks of: names, aliases, tags, versions and the URIs that name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from btc_lifecycle.domain.errors import ConfigurationError

EXPERIMENT = "bitcoin-lifecycle"
MODEL_NAME = "bitcoin-model"
CHAMPION_ALIAS = "production"
CANDIDATE_ALIAS = "candidate"
PREVIOUS_ALIAS = "previous"

ROLLED_BACK = "rolled back"
"""Verdict on a champion that was taken from its place: it does not come back by itself."""

DIGEST_TAG = "model_sha256"
MODEL_URI_TAG = "model_uri"
FEATURE_NAMES_TAG = "feature_names"

UNREGISTERED = "unregistered"
HOW_TO_TRAIN = "train a model with `./task track`, then promote it with `./task register`"
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MODEL_URI = re.compile(r"models:/([^/@:]+)(?:@([A-Za-z0-9_-]+)|/([1-9][0-9]*))")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version of a model; ``feature_names`` is the order of the model's inputs."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    feature_names: tuple[str, ...]
    created_at: datetime


def parse_model_uri(model_uri: str) -> tuple[str, str]:
    """Return the model's name and the alias or version number that a URI names.

    Raises:
        ConfigurationError: If it is neither ``models:/name@alias`` nor ``models:/name/3``.
    """
    match = _MODEL_URI.fullmatch(model_uri)
    if match is None:
        raise ConfigurationError(
            f"model URI {model_uri!r} names no registered model",
            hint=f"set MODEL_URI to models:/{MODEL_NAME}@{CHAMPION_ALIAS} or models:/{MODEL_NAME}/3",
        )
    name, alias, number = match.groups()
    return name, alias or number


def feature_names_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the model's inputs in order, none where the tag is missing."""
    return tuple(filter(None, tags.get(FEATURE_NAMES_TAG, "").split(",")))


def utc_time(unix_ms: int) -> datetime:
    """Return the time of MLflow's milliseconds since 1970."""
    return _UNIX_EPOCH + timedelta(milliseconds=unix_ms)
