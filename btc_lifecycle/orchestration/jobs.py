"""The four jobs: named selections of assets. ``dagster/max_runtime`` frees the pool of a killed run."""

from datetime import timedelta

import dagster as dg

from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL
from btc_lifecycle.orchestration.ingestion import ingest_range
from btc_lifecycle.orchestration.partitions import MONTHS
from btc_lifecycle.settings import Settings

MAX_RUNTIME = "dagster/max_runtime"


def _ended_after(limit: timedelta) -> dict[str, str]:
    return {MAX_RUNTIME: str(int(limit.total_seconds()))}


ingest_job = dg.define_asset_job(
    "ingest_job",
    selection=["candles", "ingestion_report"],
    description="Store what closed since the newest candle, and report on it.",
    tags=_ended_after(timedelta(minutes=5)),
)
training_job = dg.define_asset_job(
    "training_job",
    selection=[
        "features",
        "labels",
        "candidate_model",
        "evaluation",
        "production_model",
        "model_report",
    ],
    description="Train a candidate, score it on unseen rows, promote it if it earns that.",
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
        "monitoring_report",
    ],
    description="Join predictions with outcomes, measure drift, reach a verdict on retraining.",
    tags=_ended_after(timedelta(minutes=30)),
)


@dg.op(pool=WAREHOUSE_POOL)
def backfill_candles(
    context: dg.OpExecutionContext,
    settings: dg.ResourceParam[Settings],
    exchange: dg.ResourceParam[Exchange],
    warehouse: dg.ResourceParam[Warehouse],
) -> None:
    """Store every closed candle of the run's months, whatever is stored already."""
    table, window = CANDLES.renamed(settings.ingest.table), context.partition_time_window
    stats = [
        ingest_range(
            exchange,
            warehouse,
            table,
            symbol=symbol,
            start=window.start,
            end=window.end,
            now=exchange.server_time(),
        )
        for symbol in settings.ingest.symbols
    ]
    context.log_event(
        dg.AssetMaterialization(
            asset_key=CANDLES.name,
            partition=context.partition_key,
            metadata={
                "new_rows": sum(figures.new_rows for figures in stats),
                "dagster/row_count": sum(figures.total_rows for figures in stats),
            },
        )
    )


@dg.job(
    partitions_def=MONTHS,
    tags=_ended_after(timedelta(hours=1)),
)
def backfill_job() -> None:
    """Store the candles of chosen months, older ones than the first ingest reached included."""
    backfill_candles()


JOBS = (ingest_job, backfill_job, training_job, monitoring_job)
