"""Assembly: settings become adapters, adapters become resources, all becomes one code location."""

from collections.abc import Mapping

import dagster as dg

from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.registry import EXPERIMENT, Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.orchestration.assets import ASSETS
from btc_lifecycle.orchestration.assets.learn import CANDIDATE_RUNS
from btc_lifecycle.orchestration.automation import SCHEDULES, SENSORS
from btc_lifecycle.orchestration.io_managers import CandidateRuns, WarehouseIOManager
from btc_lifecycle.orchestration.jobs import JOBS
from btc_lifecycle.orchestration.resources import mlflow_run
from btc_lifecycle.settings import Settings

WARMUP_DAYS = 1
"""Candles loaded before the learning window, for the history of the window's first features."""


def build_defs(
    settings: Settings, *, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """Return the code location; ``resources`` replaces single resources, as a test may want."""
    return dg.Definitions(
        assets=ASSETS,
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        # One process per run: a step in a process of its own imports everything again, seconds where
        # the minute schedule has sixty of them.
        executor=dg.in_process_executor,
        resources={**_resources(settings), **(resources or {})},
    )


def _resources(settings: Settings) -> dict[str, object]:
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_registry_uri)
    return {
        "settings": settings,
        "exchange": Exchange(settings.ingest.exchange, base_url=settings.exchange_base_url),
        "warehouse": Warehouse(settings.feature_db_path),
        "registry": registry,
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
    }
