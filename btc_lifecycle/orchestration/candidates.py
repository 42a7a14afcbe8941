"""A candidate's way, the same for each head: trained, scored, judged.

What lives here: what is read from tables and registry for each step, and what is written back. What
does not: rules of splits, scores and promotion, which are in domain/learn.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from io import BytesIO

import numpy as np
import polars as pl

from btc_lifecycle.adapters.registry import FINAL_VERDICTS, ModelVersion, Registry
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn import promotion
from btc_lifecycle.domain.learn.evaluation import as_metrics, utc_days
from btc_lifecycle.domain.learn.features import available_features
from btc_lifecycle.domain.learn.heads import Baselines, Head
from btc_lifecycle.domain.learn.labels import average_uniqueness
from btc_lifecycle.domain.learn.refusals import refuse_unknown_features
from btc_lifecycle.domain.learn.training import predict
from btc_lifecycle.domain.learn.tuning import Trial, tune
from btc_lifecycle.domain.learn.walk import Recipe, Walk, walk
from btc_lifecycle.orchestration.learning import (
    Tables,
    facts_of,
    horizon_of,
    labels_of,
    leak_of,
    require_eligible,
    rival_of,
    unseen_rows,
)
from btc_lifecycle.settings import LearnSettings

BASELINES = "baselines.json"
PREDICTED = "walk_forward.parquet"
SCORES = "scores.parquet"
"""Artifacts of a candidate's run: its rivals' numbers, what all predicted unseen, and the scores."""

_N_GOLDEN_ROWS = 16
_MOST_WORKERS = 2
"""Folds at the same time: each holds its own copy of the rows."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training came to, before it is logged: the walk forward, its facts, the search's trials."""

    recipe: Recipe
    walk: Walk
    facts: Mapping[str, str]
    trials: list[Trial]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a candidate; `outcome` is the verdict's."""

    version: ModelVersion
    outcome: str
    reason: str


def train_candidate(head: Head, tables: Tables, *, learn: LearnSettings) -> Trained:
    """Return a candidate of the tables' newest window.

    Raises:
        DataError: If the candles are of no known source, or cannot be learnt from.
    """
    if tables.source is None:
        raise DataError(
            "nobody knows which market the candles are of, or they are of several",
            hint="ingest into an empty database, or make this one again with ./task rebuild",
        )
    names = tuple(n for n in available_features(tables.features) if n not in learn.leave_out)
    refuse_unknown_features(tables.features, feature_names=names)
    labels = labels_of(head, tables.labels, learn=learn)
    examples = head.join(tables.features, labels, feature_names=names)
    recipe = Recipe(
        head=head,
        feature_names=names,
        horizon_min=horizon_of(head, learn),
        split=learn.split,
        parameters=learn.training,
        weigh=average_uniqueness if learn.labels.weighting == "uniqueness" else None,
    )
    n_workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    trials = []
    if learn.tuning.n_trials:
        trials = tune(examples, recipe=recipe, policy=learn.tuning, n_workers=n_workers)
        recipe = replace(recipe, parameters=trials[0].parameters)
    walked = walk(examples, recipe=recipe, n_workers=n_workers)
    facts = facts_of(walked, examples, recipe=recipe, source=tables.source, learn=learn)
    return Trained(recipe=recipe, walk=walked, facts=facts, trials=trials)


def log_trained(
    registry: Registry,
    trained: Trained,
    *,
    run: AbstractContextManager[object],
    artifacts: Mapping[str, bytes | Mapping[str, object]],
) -> str:
    """Return the id of the run that holds the candidate, which ``run`` opens and ends."""
    walked, recipe = trained.walk, trained.recipe
    model = walked.model
    split = {f"split_{name}": value for name, value in asdict(recipe.split).items()}
    with run:
        run_id = registry.log_candidate(
            model.booster,
            golden_rows=_golden_rows(walked, feature_names=recipe.feature_names),
            feature_names=recipe.feature_names,
            parameters={**asdict(recipe.parameters), **split},
            metrics={"best_iteration": float(model.best_iteration)},
            tags=trained.facts,
            artifacts={
                BASELINES: walked.baselines.to_json(),
                PREDICTED: parquet(walked.predicted),
                **artifacts,
            },
        )
        for number, trial in enumerate(trained.trials):
            with registry.open_run(f"trial {number}", parent_run_id=run_id) as trial_id:
                registry.log_parameters(trial_id, asdict(trial.parameters))
                registry.log_metrics(trial_id, {"inner_test_loss": trial.loss})
    return run_id


def score_candidate(
    head: Head, *, registry: Registry, run_id: str, learn: LearnSettings
) -> pl.DataFrame:
    """Return the SCORES of what the walk forward predicted, after logging them with the run."""
    predicted = read_parquet(registry, run_id, PREDICTED)
    rng = np.random.default_rng(learn.training.seed)
    scores = head.score(predicted, rule=learn.trading, rng=rng)
    registry.log_artifacts(run_id, {SCORES: parquet(scores)})
    registry.log_metrics(run_id, as_metrics(scores))
    return scores


def judge_candidate(
    head: Head,
    tables: Tables,
    *,
    registry: Registry,
    run_id: str,
    learn: LearnSettings,
    actor: str,
) -> Decision:
    """Return what became of a candidate, after registering and, where it earned that, promoting it.

    Raises:
        NothingToServeError: If it was never scored.
        DataError: If it is of another source than the database, or no row is left to judge by.
    """
    require_eligible(registry.candidate_of(run_id), head=head, source=tables.source)
    registry.register(run_id, actor=actor)
    candidate, champion = registry.candidate_of(run_id), registry.champion()
    if champion is not None and champion.version == candidate.version:
        reason = f"version {champion.version} already serves"
        return Decision(version=champion, outcome=promotion.PROMOTED, reason=reason)
    if candidate.verdict in FINAL_VERDICTS:
        reason = f"version {candidate.version} was {candidate.verdict} before; train another"
        return Decision(version=candidate, outcome=candidate.verdict, reason=reason)
    verdict = _verdict(
        head, tables, registry=registry, candidate=candidate, champion=champion, learn=learn
    )
    registry.conclude(
        candidate.version,
        verdict.outcome,
        reason=verdict.reason,
        actor=actor,
        market_time=tables.market_now,
    )
    return Decision(version=candidate, outcome=verdict.outcome, reason=verdict.reason)


def _verdict(
    head: Head,
    tables: Tables,
    *,
    registry: Registry,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    learn: LearnSettings,
) -> promotion.Verdict:
    if leak := leak_of(candidate):
        return promotion.Verdict(outcome=promotion.REFUSED, reason=leak)
    rival, why_none = rival_of(candidate, champion, tables.features)
    rows = unseen_rows(head, tables, candidate, champion=rival)
    verdict = promotion.decide(
        _losses(head, rows, registry=registry, candidate=candidate, rival=rival),
        policy=learn.promotion,
        champion_version=None if rival is None else rival.version,
        rng=np.random.default_rng(learn.training.seed),
    )
    return replace(verdict, reason=f"{verdict.reason}; {why_none}") if why_none else verdict


def _losses(
    head: Head,
    rows: pl.DataFrame,
    *,
    registry: Registry,
    candidate: ModelVersion,
    rival: ModelVersion | None,
) -> promotion.Losses:
    baselines = read_baselines(head, registry, candidate.run_id)
    of_baselines = {
        name: head.losses(values, rows) for name, values in baselines.predict(rows).items()
    }
    return promotion.Losses(
        candidate=head.losses(predictions(head, registry, candidate, rows), rows),
        baselines=of_baselines,
        champion=None
        if rival is None
        else head.losses(predictions(head, registry, rival, rows), rows),
        day=utc_days(rows["open_time"]),
    )


def predictions(
    head: Head, registry: Registry, version: ModelVersion, rows: pl.DataFrame
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a version's prediction for each row."""
    return predict(
        registry.load_booster(version),
        rows,
        target=head.target,
        feature_names=version.feature_names,
    )


def read_baselines(head: Head, registry: Registry, run_id: str) -> Baselines:
    """Return the baselines that were fitted with a candidate."""
    return head.read_baselines(registry.read_json(run_id, BASELINES))


def read_parquet(registry: Registry, run_id: str, file_name: str) -> pl.DataFrame:
    """Return a frame that was logged with a run."""
    return pl.read_parquet(BytesIO(registry.read_bytes(run_id, file_name)))


def parquet(frame: pl.DataFrame) -> bytes:
    """Return a frame as the content of a Parquet file."""
    file = BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def _golden_rows(
    walked: Walk, *, feature_names: tuple[str, ...]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return validation rows from all over their span: what a loaded model must predict as now."""
    rows = walked.split.validation.select(feature_names)
    every = max(1, rows.height // _N_GOLDEN_ROWS)
    return rows.gather_every(every).head(_N_GOLDEN_ROWS).to_numpy()
