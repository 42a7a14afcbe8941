"""What the registry speaks of: names, aliases, verdicts, tags, versions, moves and URIs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.learn.promotion import REFUSED

EXPERIMENT = "bitcoin-lifecycle"
MODEL_NAME = "bitcoin-model"
VOLATILITY_MODEL_NAME = "bitcoin-volatility"
CHAMPION_ALIAS = "production"
CANDIDATE_ALIAS = "candidate"
PREVIOUS_ALIAS = "previous"

ROLLED_BACK = "rolled back"
FINAL_VERDICTS = frozenset({REFUSED, ROLLED_BACK})
"""Verdicts that asking again does not change: such a version is never promoted."""

MODEL_NAME_TAG = "model_name"
MODEL_URI_TAG = "model_uri"
MODEL_FILES_TAG = "model_files"
FEATURE_NAMES_TAG = "feature_names"
LIBRARIES_TAG = "library_versions"
VERDICT_TAG, VERDICT_REASON_TAG = "verdict", "verdict_reason"

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

    @property
    def verdict(self) -> str | None:
        """What was concluded on it: one of the verdicts, None before the first."""
        return self.tags.get(VERDICT_TAG)


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """A row of the journal: that an alias is about to move, has moved, or did not after all.

    Attributes:
        move_id: The same in the row before a move and in the one after it; a UUID.
        moved_at: When this row was written.
        from_version: Where the alias was, None if it did not exist.
        actor: Who moved it: a person at the command line, a job's run.
    """

    move_id: str
    moved_at: datetime
    model_name: str
    alias: str
    from_version: str | None
    to_version: str
    actor: str
    reason: str
    state: Literal["intended", "done", "abandoned"]


class Journal(Protocol):
    """An append-only record of alias moves; what ``append`` took outlives the process."""

    def append(self, move: AliasMove) -> None:
        """Keep a row; on return it is on disk."""

    def unfinished(self) -> list[AliasMove]:
        """Return intended moves without a row that they were done or abandoned, oldest first."""


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
