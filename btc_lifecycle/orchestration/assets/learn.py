"""Assets of the second phase: features, labels, candidates, their scores, champions, the report.

Each reads its inputs, makes one call and reports figures; rules are in domain/learn.
"""

from typing import Any

import dagster as dg
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.learn.evaluation import as_metrics
from btc_lifecycle.domain.learn.features import WARMUP_MIN, compute_features
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.labels import compute_labels
from btc_lifecycle.domain.monitor.reference import make_reference
from btc_lifecycle.domain.tables import FEATURES, LABELS
from btc_lifecycle.orchestration.assets.common import (
    WAREHOUSE_POOL,
    by_symbol,
    report_folder,
)
from btc_lifecycle.orchestration.candidates import (
    judge_candidate,
    log_trained,
    score_candidate,
    train_candidate,
)
from btc_lifecycle.orchestration.columns import lineage_of_features, lineage_of_labels, schema_of
from btc_lifecycle.orchestration.inline_chart import interval_chart
from btc_lifecycle.orchestration.learning import DRIFT_REFERENCE, Tables
from btc_lifecycle.settings import LearnSettings, Settings

CANDIDATE_RUNS = "candidate_runs"
VOLATILITY_RUNS = "volatility_runs"
"""Keys of the IO managers that hand a candidate's MLflow run id from step to step."""


@dg.asset(
    group_name="learn",
    pool=WAREHOUSE_POOL,
    kinds={"duckdb", "polars"},
    metadata=schema_of(FEATURES),
)
def features(context: dg.AssetExecutionContext, candles: pl.DataFrame) -> pl.DataFrame:
    """What is known at each candle's close; the first rows of the window only warm it up."""
    context.add_output_metadata(lineage_of_features())
    return by_symbol(candles, lambda of_symbol: compute_features(of_symbol)[WARMUP_MIN:])


@dg.asset(
    group_name="learn",
    pool=WAREHOUSE_POOL,
    kinds={"duckdb", "polars"},
    metadata=schema_of(LABELS),
)
def labels(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    candles: pl.DataFrame,
) -> pl.DataFrame:
    """What happened after each candle's close, once it is known."""
    policy = settings.lifecycle.learn.labels
    context.add_output_metadata(lineage_of_labels())
    return by_symbol(candles, lambda of_symbol: compute_labels(of_symbol, policy=policy))


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
    """A LightGBM model of the direction, walked forward and logged to MLflow; its run's id."""
    tables = Tables(features=features, labels=labels, source=warehouse.source())
    trained = train_candidate(DIRECTION_HEAD, tables, learn=settings.lifecycle.learn)
    split = trained.walk.split
    reference = make_reference(
        pl.concat([split.train, split.validation]),
        feature_names=trained.recipe.feature_names,
        policy=settings.lifecycle.monitor.drift,
    )
    run_id = log_trained(
        registry,
        trained,
        run=mlflow.active_run(),
        artifacts={DRIFT_REFERENCE: reference.to_json()},
    )
    context.add_output_metadata({**trained.facts, "mlflow_run_id": run_id})
    return run_id


@dg.asset(
    group_name="learn",
    pool=WAREHOUSE_POOL,
    kinds={"lightgbm", "mlflow"},
    io_manager_key=VOLATILITY_RUNS,
)
def candidate_volatility(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    volatility_registry: dg.ResourceParam[Registry],
    warehouse: dg.ResourceParam[Warehouse],
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> str:
    """A LightGBM model of the next hour's volatility, walked forward and scored; its run's id."""
    learn = settings.lifecycle.learn
    tables = Tables(features=features, labels=labels, source=warehouse.source())
    trained = train_candidate(VOLATILITY_HEAD, tables, learn=learn)
    run = volatility_registry.open_run("volatility", tags={"dagster_run_id": context.run.run_id})
    run_id = log_trained(volatility_registry, trained, run=run, artifacts={})
    scores = score_candidate(
        VOLATILITY_HEAD, registry=volatility_registry, run_id=run_id, learn=learn
    )
    context.add_output_metadata(
        {
            **trained.facts,
            **as_metrics(scores),
            "mlflow_run_id": run_id,
            "folds": _folds(scores, rival="model", score="r_squared", title="R² of each fold"),
        }
    )
    return run_id


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"mlflow"})
def evaluation(
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    candidate_model: str,
) -> dg.MaterializeResult[None]:
    """Scores on rows that no fold's model had seen, with intervals, beside those of the baselines."""
    scores = score_candidate(
        DIRECTION_HEAD,
        registry=registry,
        run_id=candidate_model,
        learn=settings.lifecycle.learn,
    )
    gains = "Log-loss gain of each fold over the prior, nats"
    return dg.MaterializeResult(
        metadata={
            **as_metrics(scores),
            "mlflow_run_id": candidate_model,
            "folds": _folds(scores, rival="prior", score="log_loss_gain", title=gains),
        }
    )


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
    """The direction's version that serves: the candidate, if it earned that on unseen rows."""
    return _judged(
        context,
        DIRECTION_HEAD,
        Tables(features=features, labels=labels, source=warehouse.source()),
        registry=registry,
        run_id=candidate_model,
        learn=settings.lifecycle.learn,
    )


@dg.asset(group_name="learn", pool=WAREHOUSE_POOL, kinds={"mlflow"})
def production_volatility(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    volatility_registry: dg.ResourceParam[Registry],
    warehouse: dg.ResourceParam[Warehouse],
    candidate_volatility: str,
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """The volatility's version that serves: the candidate, if it earned that on unseen rows."""
    return _judged(
        context,
        VOLATILITY_HEAD,
        Tables(features=features, labels=labels, source=warehouse.source()),
        registry=volatility_registry,
        run_id=candidate_volatility,
        learn=settings.lifecycle.learn,
    )


@dg.asset(
    group_name="learn",
    pool=WAREHOUSE_POOL,
    kinds={"pdf"},
    deps=[production_model, production_volatility],
)
def model_report(
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    volatility_registry: dg.ResourceParam[Registry],
    candidate_model: str,
    candidate_volatility: str,
    features: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """PDF and model card on the candidates: scores beside baselines, what they use, the decisions."""
    from btc_lifecycle.orchestration.model_reporting import report_candidates  # noqa: PLC0415

    made_at = clock.now()
    report = report_candidates(
        report_folder(settings, "modeling", made_at=made_at),
        direction=registry.candidate_of(candidate_model),
        volatility=volatility_registry.candidate_of(candidate_volatility),
        registry=registry,
        tables=Tables(features=features, labels=labels),
        learn=settings.lifecycle.learn,
        made_at=made_at,
    )
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(report),
            "model_card": dg.MetadataValue.path(report.with_name("model_card.md")),
        }
    )


def _folds(scores: pl.DataFrame, *, rival: str, score: str, title: str) -> dg.MarkdownMetadataValue:
    of_folds = scores.filter(
        pl.col("fold").is_not_null(),
        pl.col("value").is_not_null(),
        rival=rival,
        score=score,
        delay_min=0,
    ).sort("fold")
    return interval_chart(
        [f"fold {fold}" for fold in of_folds["fold"]],
        of_folds["value"].to_list(),
        of_folds["low"].to_list(),
        of_folds["high"].to_list(),
        title=title,
        reference=0.0,
    )


def _judged(
    context: dg.AssetExecutionContext,
    head: Head,
    tables: Tables,
    *,
    registry: Registry,
    run_id: str,
    learn: LearnSettings,
) -> dg.MaterializeResult[None]:
    actor = f"{context.run.job_name} {context.run.run_id}"
    decision = judge_candidate(
        head, tables, registry=registry, run_id=run_id, learn=learn, actor=actor
    )
    context.log.info("version %s: %s", decision.version.version, decision.reason)
    return dg.MaterializeResult(
        metadata={
            "model_version": decision.version.version,
            "promoted": decision.outcome == "promoted",
            "verdict": decision.outcome,
            "reason": decision.reason,
            "mlflow_run_id": decision.version.run_id,
        }
    )
