"""Assets of the second phase: features, labels, candidate, evaluation, champion and their report.

Each reads its inputs, makes one call and reports figures; rules are in domain/learn.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import ROLLED_BACK, ModelVersion, Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.learn import evaluation as scoring
from btc_lifecycle.domain.learn import promotion
from btc_lifecycle.domain.learn.features import WARMUP_MIN, available_features, compute_features
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle.domain.learn.splits import join_examples, split_by_time
from btc_lifecycle.domain.learn.training import predict_up, train, varying_features
from btc_lifecycle.domain.monitor.reference import make_reference
from btc_lifecycle.orchestration.assets.common import (
    WAREHOUSE_POOL,
    by_symbol,
    report_folder,
)
from btc_lifecycle.orchestration.learning import (
    DRIFT_REFERENCE,
    facts_of,
    probabilities,
    require_eligible,
    rival_of,
    title_facts,
    unseen_rows,
)
from btc_lifecycle.settings import Settings

CANDIDATE_RUNS = "candidate_runs"
"""Key of the IO manager that hands the candidate's MLflow run id from step to step."""


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"duckdb", "polars"})
def features(candles: pl.DataFrame) -> pl.DataFrame:
    """What is known at each candle's close; the first rows of the window only warm it up."""
    return by_symbol(candles, lambda of_symbol: compute_features(of_symbol)[WARMUP_MIN:])


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"duckdb", "polars"})
def labels(settings: dg.ResourceParam[Settings], candles: pl.DataFrame) -> pl.DataFrame:
    """What happened after each candle's close, once it is known."""
    horizon_min = settings.lifecycle.learn.horizon_min
    return by_symbol(
        candles, lambda of_symbol: label_by_horizon(of_symbol, horizon_min=horizon_min)
    )


@dg.asset(
    group_name="learn",
    pool=WAREHOUSE_POOL,
    kinds={"lightgbm", "mlflow"},
    io_manager_key=CANDIDATE_RUNS,
)
def candidate_model(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    warehouse: dg.ResourceParam[Warehouse],
    mlflow: dg.ResourceParam[Any],
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> str:
    """A LightGBM model trained on the oldest part of the window, logged to MLflow; its run's id."""
    learn, monitor = settings.lifecycle.learn, settings.lifecycle.monitor
    known = available_features(features)
    of_horizon = labels.filter(horizon_min=learn.horizon_min)
    examples = join_examples(features, of_horizon, feature_names=known)
    split = split_by_time(examples, policy=learn.split)
    feature_names = varying_features(split.train, feature_names=known)
    model = train(split, feature_names=feature_names, parameters=learn.training)
    learnt_from = pl.concat([split.train, split.validation])
    reference = make_reference(learnt_from, feature_names=feature_names, policy=monitor.drift)
    facts = facts_of(
        model,
        split,
        examples,
        source=warehouse.source() or "unknown",
        horizon_min=learn.horizon_min,
    )
    with mlflow.active_run():
        run_id = registry.log_candidate(
            model.booster,
            input_example=split.train.select(feature_names).head(1).to_numpy(),
            feature_names=feature_names,
            parameters={**asdict(learn.training), **asdict(learn.split)},
            metrics={"best_iteration": float(model.best_iteration), "prior_up": model.prior_up},
            tags=facts,
            artifacts={DRIFT_REFERENCE: reference.to_json()},
        )
    context.add_output_metadata({**facts, "mlflow_run_id": run_id})
    return run_id


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"mlflow"})
def evaluation(
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    candidate_model: str,
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """The candidate's scores on rows it has not seen, beside those of the prior probability."""
    candidate = registry.candidate_of(candidate_model)
    rows = unseen_rows(features, labels, candidate)
    scores = scoring.evaluate(
        rows,
        probability_up=probabilities(registry, candidate, rows),
        prior_up=float(candidate.tags["prior_up"]),
        rng=np.random.default_rng(settings.lifecycle.learn.training.seed),
    )
    registry.log_metrics(candidate_model, scores.metrics())
    return dg.MaterializeResult(metadata={**scores.metrics(), "mlflow_run_id": candidate_model})


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"mlflow"}, deps=[evaluation])
def production_model(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    warehouse: dg.ResourceParam[Warehouse],
    candidate_model: str,
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """The version that serves: the candidate if it beats the prior and the champion on unseen rows."""
    require_eligible(registry.candidate_of(candidate_model), source=warehouse.source())
    registry.register(candidate_model)
    candidate, champion = registry.candidate_of(candidate_model), registry.champion()
    if champion is not None and champion.version == candidate.version:
        return _decided(champion, f"version {champion.version} already serves", is_promoted=True)
    if candidate.tags.get("verdict") == ROLLED_BACK:
        reason = f"version {candidate.version} was rolled back; train another with ./task track"
        return _decided(candidate, reason, is_promoted=False)
    rival, why_none = rival_of(candidate, champion, features)
    rows = unseen_rows(features, labels, candidate, champion=rival)
    verdict = promotion.decide(
        candidate=probabilities(registry, candidate, rows),
        champion=None if rival is None else probabilities(registry, rival, rows),
        prior_up=float(candidate.tags["prior_up"]),
        direction=rows["direction"].to_numpy(),
        champion_version=None if rival is None else rival.version,
        min_rows=settings.lifecycle.learn.min_comparison_rows,
    )
    reason = f"{verdict.reason}; {why_none}" if why_none else verdict.reason
    record = registry.promote if verdict.promote else registry.refuse
    newest = labels["matures_at"].max()
    record(
        candidate.version,
        reason=reason,
        market_time=newest if isinstance(newest, datetime) else None,
    )
    context.log.info("version %s: %s", candidate.version, reason)
    return _decided(candidate, reason, is_promoted=verdict.promote)


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"pdf"}, deps=[production_model])
def model_report(
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    candidate_model: str,
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """PDF on the candidate: scores beside the baseline, calibration, importance, decision."""
    from btc_lifecycle.adapters.report_pdf import write_modeling_report  # noqa: PLC0415

    candidate = registry.candidate_of(candidate_model)
    rows = unseen_rows(features, labels, candidate)
    booster = registry.load_booster(candidate)
    probability_up = predict_up(booster, rows, feature_names=candidate.feature_names)
    made_at = clock.now()
    report = write_modeling_report(
        report_folder(settings, "modeling", made_at=made_at),
        title_facts=title_facts(candidate),
        metrics=candidate.metrics,
        calibration=scoring.calibration_curve(probability_up, rows["direction"].to_numpy()),
        importance=pl.DataFrame(
            {
                "feature": booster.feature_name(),
                "gain": booster.feature_importance(importance_type="gain"),
            }
        ),
        verdict=candidate.tags["verdict_reason"],
        was_promoted=candidate.tags["verdict"] == "promoted",
        source=candidate.tags["source"],
        made_at=made_at,
    )
    return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(report)})


def _decided(
    version: ModelVersion, reason: str, *, is_promoted: bool
) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "model_version": version.version,
            "promoted": is_promoted,
            "reason": reason,
            "mlflow_run_id": version.run_id,
        }
    )
