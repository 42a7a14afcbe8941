"""What the commands do: run jobs of the code location and return the figures to show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.registry import UNREGISTERED, ModelVersion, Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.domain.errors import ConfigurationError, LifecycleError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dagster as dg

Figures = dict[str, object]


def ingest() -> Figures:
    """Run the ingest job and return what the newest candles are."""
    settings = load_settings()
    result = _run(settings, "ingest_job")
    return {
        **_metadata(result, "candles"),
        "database": settings.feature_db_path,
        "report": _metadata(result, "ingestion_report")["report"],
    }


def backfill(*, start: datetime, end: datetime | None) -> Iterator[tuple[str, Figures]]:
    """Run the backfill job for each month from ``start`` and yield what it stored."""
    from btc_lifecycle.orchestration.partitions import MONTHS  # noqa: PLC0415

    settings = load_settings()
    exchange = Exchange(settings.ingest.exchange, base_url=settings.exchange_base_url)
    until = min(filter(None, (end, exchange.server_time())))
    windows = {
        month: MONTHS.time_window_for_partition_key(month) for month in MONTHS.get_partition_keys()
    }
    months = [key for key, window in windows.items() if window.end > start and window.start < until]
    if start >= until or not months:
        raise ConfigurationError(
            f"there is no month to fetch from {start:%Y-%m-%d} to {until:%Y-%m-%d} UTC",
            hint="name a --start before --end and before the exchange's present, from 2017-08 on",
        )
    for month in months:
        result = _run(settings, "backfill_job", partition=month)
        yield month, _metadata(result, "backfill_candles")


def track() -> Figures:
    """Train and score a candidate; return its scores beside the prior's."""
    result = _run(
        load_settings(),
        "training_job",
        assets=["features", "labels", "candidate_model", "evaluation"],
    )
    facts, scores = _metadata(result, "candidate_model"), _metadata(result, "evaluation")
    shown = ("source", "trained_from", "trained_until", "test_from", "test_until")
    return {**{name: facts[name] for name in shown}, **scores}


def register() -> Figures:
    """Register the newest candidate and decide on its promotion; return the decision."""
    result = _run(load_settings(), "training_job", assets=["production_model", "model_report"])
    return {**_metadata(result, "production_model"), **_metadata(result, "model_report")}


def rollback() -> Figures:
    """Make the version before the champion serve again; return the two aliases."""
    now_serving = _registry(load_settings()).rollback()
    return {"serving": f"{now_serving.name} {now_serving.version}"}


def monitor() -> Figures:
    """Run the monitoring job; return the verdict on retraining."""
    result = _run(load_settings(), "monitoring_job")
    metadata = _metadata(result, "drift_metrics")
    return {
        "retrain": metadata["retrain"],
        "reason": metadata["reason"],
        "report": _metadata(result, "monitoring_report")["report"],
    }


def status() -> dict[str, Figures]:
    """Return what is stored, trained and serving."""
    settings = load_settings()
    registry = _registry(settings)
    return {
        "store": _store_status(settings),
        "champion": _version_status(registry.champion()),
        "candidate": _version_status(_newest_candidate(registry)),
    }


def _store_status(settings: Settings) -> Figures:
    warehouse, table = Warehouse(settings.feature_db_path), CANDLES.renamed(settings.ingest.table)
    figures: Figures = {"database": settings.feature_db_path}
    try:
        figures["source"] = warehouse.source()
        for symbol in settings.ingest.symbols:
            open_times = warehouse.open_times(table, symbol=symbol)
            newest = f", newest {open_times[-1]:%Y-%m-%d %H:%M} UTC" if len(open_times) else ""
            figures[symbol] = f"{len(open_times):,} candles{newest}"
    except LifecycleError as error:
        figures["problem"] = error
    return figures


def _newest_candidate(registry: Registry) -> ModelVersion | None:
    run_id = registry.newest_candidate_run()
    return registry.candidate_of(run_id) if run_id else None


def _version_status(version: ModelVersion | None) -> Figures:
    if version is None:
        return {"version": "none yet; ./task track and ./task register make one"}
    is_registered = version.version != UNREGISTERED
    figures: Figures = {
        "version": f"{version.name} {version.version}" if is_registered else "not registered yet",
        "source": version.tags["source"],
        "test_auc": version.metrics.get("test_auc", "not scored"),
        "decision": "none yet; ./task register makes one",
    }
    if "verdict" in version.tags:
        figures["decision"] = f"{version.tags['verdict']}: {version.tags['verdict_reason']}"
    return figures


def _registry(settings: Settings) -> Registry:
    return Registry(settings.mlflow_tracking_uri, settings.mlflow_registry_uri)


def _run(
    settings: Settings, job: str, *, assets: list[str] | None = None, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    # Not at the top: Dagster costs a second that status and rollback need not pay.
    from btc_lifecycle.orchestration.build import build_defs  # noqa: PLC0415
    from btc_lifecycle.orchestration.storage import open_instance  # noqa: PLC0415

    with open_instance() as instance:
        return run_job(build_defs(settings), instance, job, assets=assets, partition=partition)


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> Figures:
    (event,) = result.asset_materializations_for_node(asset)
    return _values(event.metadata)


def _values(metadata: Mapping[str, dg.MetadataValue]) -> Figures:
    import dagster as dg  # noqa: PLC0415  # loaded by the run already

    return {
        name: f"{datetime.fromtimestamp(entry.value, tz=UTC):%Y-%m-%d %H:%M} UTC"
        if isinstance(entry, dg.TimestampMetadataValue)
        else entry.value
        for name, entry in metadata.items()
    }
