"""What the learning assets share: the candidate's facts as tags, and its unseen rows.

What lives here: how a candidate's facts travel through the registry. What does not: rules of
features, labels, splits, scores and promotion, which are in domain/learn.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version

import polars as pl

from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.examples import hash_examples
from btc_lifecycle.domain.learn.heads import VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.labels import VOLATILITY_HORIZON_MIN
from btc_lifecycle.domain.learn.walk import Recipe, Walk
from btc_lifecycle.settings import ROOT, LearnSettings

DRIFT_REFERENCE = "drift_reference.json"
"""Artifact of a candidate's run: how the features lay over its training span."""

_COMPARABLE = ("source", "label_method", "horizon_min")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the learning steps read of the warehouse; `source` names the market of its candles."""

    features: pl.DataFrame
    labels: pl.DataFrame
    source: str | None = None

    @property
    def market_now(self) -> datetime | None:
        """The exchange's time at the newest outcome."""
        newest = self.labels["matures_at"].max()
        return newest if isinstance(newest, datetime) else None


def horizon_of(head: Head, learn: LearnSettings) -> int:
    """Return how many minutes ahead a head looks, at the most."""
    return VOLATILITY_HORIZON_MIN if head is VOLATILITY_HEAD else learn.labels.horizon_min


def labels_of(head: Head, labels: pl.DataFrame, *, learn: LearnSettings) -> pl.DataFrame:
    """Return the labels that a head learns from: directions of one method and horizon only."""
    if head is VOLATILITY_HEAD:
        return labels
    return labels.filter(method=learn.labels.method, horizon_min=learn.labels.horizon_min)


def facts_of(
    walked: Walk, examples: pl.DataFrame, *, recipe: Recipe, source: str, learn: LearnSettings
) -> dict[str, str]:
    """Return a candidate's facts as the tags of its MLflow run; times in ISO 8601."""
    model = walked.model
    test_from, test_until = _span(walked.split.test)
    walked_from, _ = _span(walked.predicted)
    is_direction = recipe.head is not VOLATILITY_HEAD
    return {
        "source": source,
        "predicts": recipe.head.name,
        "label_method": learn.labels.method if is_direction else "realized",
        "horizon_min": str(recipe.horizon_min),
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "test_from": test_from.isoformat(),
        "test_until": test_until.isoformat(),
        "walked_from": walked_from.isoformat(),
        "n_folds": str(walked.predicted["fold"].n_unique()),
        "parameters": json.dumps(asdict(recipe.parameters)),
        "n_train": str(model.n_train),
        "n_validation": str(model.n_validation),
        "data_sha256": hash_examples(examples),
        "code_version": code_version(),
    }


def require_eligible(candidate: ModelVersion, *, head: Head, source: str | None) -> None:
    """Raise where a candidate may not be judged for promotion.

    Raises:
        NothingToServeError: If it was never scored: monitoring could not hold a live score against
            anything.
        DataError: If it was trained on another source than the database holds.
    """
    if head.score_to_have not in candidate.metrics:
        raise NothingToServeError(
            f"the candidate of MLflow run {candidate.run_id} was never scored",
            hint="run ./task track again",
        )
    if candidate.tags["source"] != source:
        raise DataError(
            f"the newest candidate was trained on source {candidate.tags['source']!r}, "
            f"the database holds {source!r}",
            hint="train one on this database with ./task track",
        )


def leak_of(candidate: ModelVersion) -> str:
    """Return why a candidate's test rows are no test, nothing where they are."""
    learnt_until = time_of(candidate.tags, "trained_until")
    test_from = time_of(candidate.tags, "test_from")
    if learnt_until <= test_from:
        return ""
    return (
        f"it learnt from outcomes until {learnt_until:%Y-%m-%d %H:%M} UTC, but its test rows begin "
        f"at {test_from:%Y-%m-%d %H:%M} UTC: nothing it shows on them counts"
    )


def rival_of(
    candidate: ModelVersion, champion: ModelVersion | None, features: pl.DataFrame
) -> tuple[ModelVersion | None, str]:
    """Return the champion if the candidate's rows can judge it, and else why they cannot."""
    if champion is None:
        return None, ""
    for fact in _COMPARABLE:
        theirs, ours = champion.tags.get(fact), candidate.tags.get(fact)
        if theirs != ours:
            return None, f"champion {champion.version} has {fact} {theirs}, not {ours}"
    missing = sorted(set(champion.feature_names) - set(features.columns))
    if missing:
        return None, f"champion {champion.version} needs {', '.join(missing)}, no features any more"
    return champion, ""


def unseen_rows(
    head: Head,
    tables: Tables,
    candidate: ModelVersion,
    *,
    champion: ModelVersion | None = None,
) -> pl.DataFrame:
    """Return the examples since the candidate's test began, later than all that it learnt from.

    Rows that the champion was trained on would flatter it, so they are left out where it is given:
    what is left is the fair window.

    Raises:
        DataError: If the tables no longer hold the candidate's test examples.
    """
    test_from = time_of(candidate.tags, "test_from")
    names = dict.fromkeys(candidate.feature_names + (champion.feature_names if champion else ()))
    labels = tables.labels
    if head is not VOLATILITY_HEAD:
        labels = labels.filter(
            method=candidate.tags["label_method"], horizon_min=int(candidate.tags["horizon_min"])
        )
    examples = head.join(tables.features, labels, feature_names=tuple(names))
    rows = examples.filter(pl.col("open_time") >= test_from)
    if rows.is_empty():
        raise DataError(
            f"the tables hold no example from {test_from:%Y-%m-%d %H:%M} UTC on, where the "
            "candidate's test rows begin",
            hint="train a new candidate with ./task track",
        )
    if champion is None:
        return rows
    return rows.filter(pl.col("open_time") >= time_of(champion.tags, "trained_until"))


def time_of(tags: Mapping[str, str], name: str) -> datetime:
    """Return a time that ``facts_of`` wrote."""
    return datetime.fromisoformat(tags[name])


def span_of(tags: Mapping[str, str], start: str, end: str) -> str:
    """Return a span between two times that ``facts_of`` wrote, as a report shows it."""
    return f"{time_of(tags, start):%Y-%m-%d %H:%M} to {time_of(tags, end):%Y-%m-%d %H:%M} UTC"


def _span(rows: pl.DataFrame) -> tuple[datetime, datetime]:
    """Return the first and the last open time of rows."""
    opens = pl.col("open_time")
    first, last = rows.select(opens.min().alias("first"), opens.max().alias("last")).row(0)
    return first, last


def code_version() -> str:
    """Return the package's version, with the commit where the checkout is a git one."""
    try:
        commit = subprocess.run(  # noqa: S603  # a fixed command
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            capture_output=True,
            check=True,
            text=True,
            timeout=5,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version("btc-lifecycle")
    return f"{version('btc-lifecycle')}+{commit}"
