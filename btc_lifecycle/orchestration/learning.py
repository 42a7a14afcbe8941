"""What the learning assets share: the candidate's facts as tags, and its unseen rows.

What lives here: how a candidate's facts travel through the registry. What does not: rules of
features, labels, splits, scores and promotion, which are in domain/learn.
"""

import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.adapters.registry import ModelVersion, Registry
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.splits import Split, hash_examples, join_examples
from btc_lifecycle.domain.learn.training import TrainedModel, predict_up
from btc_lifecycle.settings import ROOT

DRIFT_REFERENCE = "drift_reference.json"
"""Artifact of a candidate's run: how the features lay over its training span."""


def facts_of(
    model: TrainedModel, split: Split, examples: pl.DataFrame, *, source: str, horizon_min: int
) -> dict[str, str]:
    """Return a candidate's facts as the tags of its MLflow run; times in ISO 8601."""
    return {
        "source": source,
        "horizon_min": str(horizon_min),
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "test_from": split.test["open_time"].to_list()[0].isoformat(),
        "test_until": split.test["open_time"].to_list()[-1].isoformat(),
        "n_train": str(model.n_train),
        "n_validation": str(model.n_validation),
        "prior_up": repr(model.prior_up),
        "data_sha256": hash_examples(examples),
        "code_version": code_version(),
    }


def require_eligible(candidate: ModelVersion, *, source: str | None) -> None:
    """Raise where a candidate may not be judged for promotion.

    Raises:
        NothingToServeError: If it was never scored: monitoring could not hold a live score against
            anything.
        DataError: If it was trained on another source than the database holds.
    """
    if "test_log_loss" not in candidate.metrics:
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


def rival_of(
    candidate: ModelVersion, champion: ModelVersion | None, features: pl.DataFrame
) -> tuple[ModelVersion | None, str]:
    """Return the champion if the candidate's rows can judge it, and else why they cannot."""
    if champion is None:
        return None, ""
    for fact in ("source", "horizon_min"):
        theirs, ours = champion.tags[fact], candidate.tags[fact]
        if theirs != ours:
            return None, f"champion {champion.version} has {fact} {theirs}, not {ours}"
    missing = sorted(set(champion.feature_names) - set(features.columns))
    if missing:
        return None, f"champion {champion.version} needs {', '.join(missing)}, no features any more"
    return champion, ""


def unseen_rows(
    features: pl.DataFrame,
    labels: pl.DataFrame,
    candidate: ModelVersion,
    *,
    champion: ModelVersion | None = None,
) -> pl.DataFrame:
    """Return the examples since the candidate's test began, later than all that it learnt from.

    Rows that the champion was trained on would flatter it, so they are left out where it is given.

    Raises:
        DataError: If the tables no longer hold the candidate's test examples.
    """
    test_from = time_of(candidate.tags, "test_from")
    names = dict.fromkeys(candidate.feature_names + (champion.feature_names if champion else ()))
    of_horizon = labels.filter(horizon_min=int(candidate.tags["horizon_min"]))
    examples = join_examples(features, of_horizon, feature_names=tuple(names))
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


def probabilities(
    registry: Registry, version_: ModelVersion, rows: pl.DataFrame
) -> npt.NDArray[np.float64]:
    """Return a registered version's probability of a rise for each row."""
    booster = registry.load_booster(version_)
    return predict_up(booster, rows, feature_names=version_.feature_names)


def time_of(tags: Mapping[str, str], name: str) -> datetime:
    """Return a time that ``facts_of`` wrote."""
    return datetime.fromisoformat(tags[name])


def title_facts(version_: ModelVersion) -> dict[str, str]:
    """Return what was trained on what and when, by the names that a report shows."""
    tags = version_.tags

    def span(start: str, end: str) -> str:
        return f"{time_of(tags, start):%Y-%m-%d %H:%M} to {time_of(tags, end):%Y-%m-%d %H:%M} UTC"

    return {
        "Model": f"{version_.name} {version_.version}",
        "Predicts": f"direction of the next {tags['horizon_min']} minutes",
        "Features": str(len(version_.feature_names)),
        "Trained on": span("trained_from", "trained_until"),
        "Tested on": span("test_from", "test_until"),
        "Training rows": f"{int(tags['n_train']):,} and {int(tags['n_validation']):,} to stop early",
        "Data (SHA-256)": tags["data_sha256"][:16],
        "Code": tags["code_version"],
    }


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
