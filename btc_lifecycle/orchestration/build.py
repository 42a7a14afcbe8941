"""Assembly: settings become adapters, adapters become resources, all becomes one code location."""

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from btc_lifecycle.adapters.archive import Archive
from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.registry import EXPERIMENT, VOLATILITY_MODEL_NAME
from btc_lifecycle.adapters.warehouse import LOCK_WAIT, CandleStore, Warehouse
from btc_lifecycle.domain.tables import CandleTables
from btc_lifecycle.orchestration.assets import ASSETS
from btc_lifecycle.orchestration.assets.learn import CANDIDATE_RUNS, VOLATILITY_RUNS
from btc_lifecycle.orchestration.automation import SCHEDULES, SENSORS
from btc_lifecycle.orchestration.io_managers import CandidateRuns, WarehouseIOManager
from btc_lifecycle.orchestration.jobs import JOBS
from btc_lifecycle.orchestration.journal import open_registry
from btc_lifecycle.orchestration.resources import mlflow_run
from btc_lifecycle.orchestration.upkeep import upkeep_job
from btc_lifecycle.settings import Settings

WARMUP_DAYS = 1
"""Candles loaded before the learning window, for the history of the window's first features."""


def build_defs(
    settings: Settings, *, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """Return the code location; ``resources`` replaces single resources, as a test may want."""
    return dg.Definitions(
        assets=ASSETS,
        jobs=[*JOBS, upkeep_job],
        schedules=SCHEDULES,
        sensors=SENSORS,
        # One process per run: a step in a process of its own imports everything again, seconds where
        # the minute schedule has sixty of them.
        executor=dg.in_process_executor,
        resources={**_resources(settings), **(resources or {})},
    )


def open_exchange(settings: Settings) -> Exchange:
    """Return the exchange of the settings; nothing is requested yet."""
    pace = Pace(settings.exchange_state_dir, weight_share=settings.ingest.weight_share)
    return Exchange(settings.ingest.exchange, base_urls=settings.exchange_base_urls, pace=pace)


def open_store(settings: Settings, *, lock_wait: timedelta = LOCK_WAIT) -> CandleStore:
    """Return the candles of the settings; nothing is opened yet."""
    tables = CandleTables.named(settings.ingest.table)
    return CandleStore(Warehouse(settings.feature_db_path, lock_wait=lock_wait), tables)


def _resources(settings: Settings) -> dict[str, object]:
    registry = open_registry(settings)
    volatility_registry = open_registry(settings, model_name=VOLATILITY_MODEL_NAME)
    store = open_store(settings)
    return {
        "settings": settings,
        "exchange": open_exchange(settings),
        "archive": Archive(settings.archive_url)
        if settings.ingest.backfill_from == "archive"
        else None,
        "warehouse": store.warehouse,
        "candle_store": store,
        "told": None,
        "registry": registry,
        "volatility_registry": volatility_registry,
        "mlflow": mlflow_run.configured(
            {
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": settings.mlflow_tracking_uri,
            }
        ),
        "io_manager": WarehouseIOManager(
            database=str(settings.feature_db_path),
            window_days=settings.lifecycle.learn.window_days,
            warmup_days=WARMUP_DAYS,
            candles_table=settings.ingest.table,
        ),
        CANDIDATE_RUNS: CandidateRuns(registry),
        VOLATILITY_RUNS: CandidateRuns(volatility_registry),
    }
