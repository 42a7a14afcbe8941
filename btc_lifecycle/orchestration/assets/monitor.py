"""Assets of the third phase: predictions, outcomes, drift and their report.

Each reads its inputs, makes one call and reports figures; rules are in domain/monitor.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import takewhile
from typing import cast

import dagster as dg
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.prediction_log import read_prediction_log
from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.domain.ingest.candles import INTERVAL
from btc_lifecycle.domain.monitor import drift, retraining
from btc_lifecycle.domain.monitor.outcomes import join_outcomes
from btc_lifecycle.domain.monitor.predictions import predictions_frame
from btc_lifecycle.domain.monitor.reference import Reference
from btc_lifecycle.domain.tables import DRIFT_METRICS, OUTCOMES
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL, report_folder
from btc_lifecycle.orchestration.jobs import training_job
from btc_lifecycle.orchestration.learning import DRIFT_REFERENCE, time_of
from btc_lifecycle.settings import Settings

FACTS = "facts"
"""Metadata of drift_metrics from which the sensor reaches its verdict."""

CHAMPION = "btc_lifecycle/retrain_champion"
"""Tag of a retraining run: the version that it is to replace."""

NO_METRICS = "no drift metrics yet; run ./task monitor"


@dg.asset(group_name="monitor", pool=WAREHOUSE_POOL, kinds={"duckdb", "json"})
def predictions(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> pl.DataFrame:
    """Every row that the service scored, imported from the prediction log, each once."""
    records, n_torn = read_prediction_log(settings.prediction_log_dir)
    context.add_output_metadata({"records_read": len(records), "torn_lines": n_torn})
    return predictions_frame(records)


@dg.asset(group_name="monitor", pool=WAREHOUSE_POOL, kinds={"duckdb", "polars"})
def outcomes(
    registry: dg.ResourceParam[Registry], predictions: pl.DataFrame, labels: pl.DataFrame
) -> pl.DataFrame:
    """Predictions joined with what happened at their model's horizon, once their labels matured."""
    matured = [OUTCOMES.schema.to_frame()]
    for number in predictions["model_version"].unique().sort():
        version = registry.version(number)
        # Without its version nobody can say what a prediction was about.
        if version is not None:
            of_horizon = labels.filter(horizon_min=int(version.tags["horizon_min"]))
            matured.append(join_outcomes(predictions.filter(model_version=number), of_horizon))
    return pl.concat(matured)


@dg.asset(group_name="monitor", pool=WAREHOUSE_POOL, kinds={"duckdb", "polars"})
def drift_metrics(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    registry: dg.ResourceParam[Registry],
    features: pl.DataFrame,
    outcomes: pl.DataFrame,
) -> pl.DataFrame:
    """How the newest window differs from the champion's training, and how well the champion scores."""
    policy, market_now = settings.lifecycle.monitor, _market_now(features)
    champion, candidate = registry.champion(), registry.candidate()
    metrics = DRIFT_METRICS.schema.to_frame()
    if champion is not None:
        reference = Reference.from_json(registry.read_json(champion.run_id, DRIFT_REFERENCE))
        window_start = market_now - timedelta(hours=policy.drift.window_hours)
        psi = drift.drift_metrics(
            features,
            reference,
            symbol=drift.ALL_SYMBOLS,
            window_start=window_start,
            window_end=market_now,
            model_version=champion.version,
            policy=policy.drift,
        )
        log_loss = drift.log_loss_metric(
            outcomes,
            window_start=window_start,
            window_end=market_now,
            model_version=champion.version,
            reference_log_loss=champion.metrics["test_log_loss"],
            max_increase=policy.retraining.max_log_loss_increase,
            min_outcomes=policy.retraining.min_outcomes,
        )
        metrics = pl.concat([psi, log_loss])
    champion_version = champion.version if champion else None
    facts = retraining.facts_from_metrics(
        metrics,
        champion_version=champion_version,
        reference_log_loss=champion.metrics["test_log_loss"] if champion else None,
        last_trained_at=time_of(candidate.tags, "test_until") if candidate else None,
        market_now=market_now,
        n_attempts=count_attempts(context.instance, champion_version),
        n_failures=count_failures(context.instance, champion_version),
    )
    verdict = retraining.decide(facts, policy=policy.retraining)
    context.add_output_metadata(
        {FACTS: facts.to_json(), "retrain": verdict.retrain, "reason": verdict.reason}
    )
    return metrics


@dg.asset(group_name="monitor", pool=WAREHOUSE_POOL, kinds={"pdf"})
def monitoring_report(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: dg.ResourceParam[Warehouse],
    drift_metrics: pl.DataFrame,
    outcomes: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """PDF on the newest drift metrics, the live score and the verdict on retraining."""
    from btc_lifecycle.adapters.report_pdf import write_monitoring_report  # noqa: PLC0415

    facts = newest_facts(context.instance)
    policy = settings.lifecycle.monitor.retraining
    made_at = clock.now()
    report = write_monitoring_report(
        report_folder(settings, "monitoring", made_at=made_at),
        metrics=drift_metrics.filter(pl.col("window_end") == pl.col("window_end").max()),
        history=drift_metrics,
        outcomes=outcomes,
        verdict=retraining.decide(facts, policy=policy).reason if facts else NO_METRICS,
        source=warehouse.source() or "unknown",
        made_at=made_at,
    )
    return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(report)})


def newest_facts(instance: dg.DagsterInstance) -> retraining.DriftFacts | None:
    """Return the facts of the newest drift metrics, None before the first ones."""
    event = instance.get_latest_materialization_event(drift_metrics.key)
    if event is None or event.asset_materialization is None:
        return None
    recorded = event.asset_materialization.metadata[FACTS].value
    return retraining.DriftFacts.from_json(cast("Mapping[str, object]", recorded))


def count_attempts(instance: dg.DagsterInstance, champion_version: str | None) -> int:
    """Return how many retrainings for a champion ended with a candidate; it still serves."""
    return instance.get_runs_count(
        dg.RunsFilter(
            job_name=training_job.name,
            tags={CHAMPION: str(champion_version)},
            statuses=[dg.DagsterRunStatus.SUCCESS],
        )
    )


def count_failures(instance: dg.DagsterInstance, champion_version: str | None) -> int:
    """Return how many retrainings for a champion failed since a training last succeeded.

    A training by hand that succeeds counts too: it shows that the cause is gone.
    """
    newest_first = instance.get_runs(
        dg.RunsFilter(
            job_name=training_job.name,
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS],
        )
    )
    failed = takewhile(lambda run: run.status is dg.DagsterRunStatus.FAILURE, newest_first)
    return sum(run.tags.get(CHAMPION) == str(champion_version) for run in failed)


def _market_now(features: pl.DataFrame) -> datetime:
    newest = features["open_time"].max()
    if not isinstance(newest, datetime):
        raise NothingToServeError(
            "there are no features yet, so nothing to monitor",
            hint="run ./task ingest, then ./task monitor",
        )
    return newest + INTERVAL
