"""The four jobs: named selections of assets. ``dagster/max_runtime`` frees the pool of a killed run."""

from datetime import timedelta

import dagster as dg

MAX_RUNTIME = "dagster/max_runtime"


def _ended_after(limit: timedelta) -> dict[str, str]:
    return {MAX_RUNTIME: str(int(limit.total_seconds()))}


ingest_job = dg.define_asset_job(
    "ingest_job",
    selection=["candles", "online_features", "ingestion_report"],
    description="Store what closed since the newest candle, tell the service, report on it.",
    tags=_ended_after(timedelta(minutes=5)),
)
training_job = dg.define_asset_job(
    "training_job",
    selection=[
        "features",
        "labels",
        "candidate_model",
        "candidate_volatility",
        "evaluation",
        "production_model",
        "production_volatility",
        "model_report",
    ],
    description="Train candidates, score them on unseen rows, promote those that earn it.",
    tags=_ended_after(timedelta(hours=1)),
)
monitoring_job = dg.define_asset_job(
    "monitoring_job",
    selection=[
        "features",
        "labels",
        "predictions",
        "outcomes",
        "drift_metrics",
        "live_summary",
        "monitoring_report",
    ],
    description="Join predictions with outcomes, measure drift, reach a verdict on retraining.",
    tags=_ended_after(timedelta(minutes=30)),
)


backfill_job = dg.define_asset_job(
    "backfill_job",
    selection=["candle_history"],
    description="Store the candles of chosen months, older ones than the first ingest reached included.",
    tags=_ended_after(timedelta(hours=6)),
)

JOBS = (ingest_job, backfill_job, training_job, monitoring_job)
