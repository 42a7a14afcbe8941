"""What the commands do: run jobs of the code location and return the figures to show."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import MODEL_NAME, VOLATILITY_MODEL_NAME
from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.commands.progress import showing_progress
from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dagster as dg
    from rich.console import Console

Figures = dict[str, object]
MODEL_NAMES = (MODEL_NAME, VOLATILITY_MODEL_NAME)
_FACTS = ("source", "trained_from", "trained_until", "walked_from", "test_until", "n_folds")
_DIRECTION_SCORES = {
    "log_loss": ("prior", "contrarian", "logistic"),
    "auc": ("contrarian", "logistic"),
    "accuracy": ("prior", "contrarian", "logistic"),
}
_VOLATILITY_SCORES = {"r_squared": ("har", "last_value"), "mse": ("har", "last_value")}

FAILED = "failed "
"""Start of the name under which an ingest tells of a market that failed."""


def ingest() -> Figures:
    """Run the ingest job and return what the newest candles are."""
    settings = load_settings()
    result = _run(settings, "ingest_job")
    return {
        **_metadata(result, "candles"),
        "database": settings.feature_db_path,
        "report": _metadata(result, "ingestion_report")["report"],
    }


def backfill(*, start: datetime, end: datetime | None, console: Console) -> Figures:
    """Run the backfill job over the months from ``start`` to ``end`` and return what it stored."""
    from btc_lifecycle.orchestration.build import open_exchange, open_store  # noqa: PLC0415
    from btc_lifecycle.orchestration.ingestion import n_minutes_to_fetch  # noqa: PLC0415
    from btc_lifecycle.orchestration.partitions import MONTHS, RANGE_TAGS  # noqa: PLC0415

    settings = load_settings()
    exchange, store = open_exchange(settings), open_store(settings)
    now = exchange.server_time()
    until = min(filter(None, (end, now)))
    windows = {
        month: MONTHS.time_window_for_partition_key(month) for month in MONTHS.get_partition_keys()
    }
    months = [key for key, window in windows.items() if window.end > start and window.start < until]
    if start >= until or not months:
        raise ConfigurationError(
            f"there is no month to fetch from {start:%Y-%m-%d} to {until:%Y-%m-%d} UTC",
            hint="name a --start before --end and before the exchange's present, from 2017-08 on",
        )
    stretch = Stretch(start=windows[months[0]].start, end=min(windows[months[-1]].end, now))
    totals = {
        symbol: n_minutes_to_fetch(store, symbol, stretch=stretch)
        for symbol in settings.ingest.symbols
    }
    tags = dict(zip(RANGE_TAGS, (months[0], months[-1]), strict=True))
    with showing_progress(console, totals=totals, used_share=exchange.used_share) as told:
        resources = {"exchange": exchange, "told": told}
        result = _run(settings, "backfill_job", tags=tags, resources=resources)
    return _metadata(result, "candle_history")


def rebuild(*, is_forced: bool, console: Console) -> Figures:
    """Make a damaged database again, from its snapshots and then from the exchange.

    Args:
        is_forced: Make it again though it is sound.
        console: Where to show the backfill's progress.
    """
    from btc_lifecycle.adapters import warehouse  # noqa: PLC0415  # loads DuckDB's neighbours
    from btc_lifecycle.orchestration.build import open_store  # noqa: PLC0415

    settings = load_settings()
    store = open_store(settings)
    record = warehouse.rebuild(
        store.warehouse,
        store.tables,
        folder=settings.snapshots_dir,
        now=clock.now(),
        is_forced=is_forced,
    )
    fetched = (
        backfill(start=record.held_from, end=None, console=console) if record.held_from else {}
    )
    return {
        "problem": record.problem or "none found",
        "set aside": record.set_aside or "nothing",
        "rows from snapshots": record.restored.n_rows,
        "snapshots that were of no use": "; ".join(record.restored.unusable) or "none",
        "rows from the exchange": fetched.get(
            "new_rows", "none: nothing says since when; use ./task backfill"
        ),
        "database": settings.feature_db_path,
    }


def track() -> dict[str, Figures]:
    """Train and score candidates; return their scores beside those of the baselines, by model."""
    result = _run(
        load_settings(),
        "training_job",
        assets=["features", "labels", "candidate_model", "candidate_volatility", "evaluation"],
    )
    direction = {**_metadata(result, "candidate_model"), **_metadata(result, "evaluation")}
    return {
        "direction": _scored(direction, _DIRECTION_SCORES),
        "volatility": _scored(_metadata(result, "candidate_volatility"), _VOLATILITY_SCORES),
    }


def register() -> dict[str, Figures]:
    """Register the newest candidates and decide on their promotion; return the decisions."""
    result = _run(
        load_settings(),
        "training_job",
        assets=["production_model", "production_volatility", "model_report"],
    )
    return {
        "direction": _metadata(result, "production_model"),
        "volatility": _metadata(result, "production_volatility"),
        "reports": _metadata(result, "model_report"),
    }


def rollback(model_name: str) -> Figures:
    """Make the version before a model's champion serve again; return what serves now.

    Raises:
        ConfigurationError: If there is no model of this name.
    """
    from btc_lifecycle.orchestration.journal import open_registry  # noqa: PLC0415  # DuckDB

    if model_name not in MODEL_NAMES:
        raise ConfigurationError(
            f"there is no model {model_name!r}", hint=f"name one of {', '.join(MODEL_NAMES)}"
        )
    registry = open_registry(load_settings(), model_name=model_name)
    now_serving = registry.rollback(actor=f"{getpass.getuser()}, rollback")
    return {"serving": f"{now_serving.name} {now_serving.version}"}


def _scored(figures: Figures, scores: Mapping[str, tuple[str, ...]]) -> Figures:
    """Return a candidate's facts, and each score with its interval and those of its rivals."""
    lines = {name: figures[name] for name in _FACTS}
    for score, rivals in scores.items():
        low, high = figures.get(f"test_{score}_low"), figures.get(f"test_{score}_high")
        interval = "" if low is None else f" ({low:.5f} to {high:.5f})"
        beside = "".join(f", {rival} {figures[f'{rival}_{score}']:.5f}" for rival in rivals)
        lines[score] = f"{figures[f'test_{score}']:.5f}{interval}{beside}"
    return lines


def monitor() -> Figures:
    """Run the monitoring job; return the verdict on retraining."""
    result = _run(load_settings(), "monitoring_job")
    metadata = _metadata(result, "drift_metrics")
    return {
        "retrain": metadata["retrain"],
        "reason": metadata["reason"],
        "report": _metadata(result, "monitoring_report")["report"],
    }


def _run(
    settings: Settings,
    job: str,
    *,
    assets: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
    resources: Mapping[str, object] | None = None,
) -> dg.ExecuteInProcessResult:
    # Not at the top: Dagster costs a second that rollback need not pay.
    from btc_lifecycle.orchestration.build import build_defs  # noqa: PLC0415
    from btc_lifecycle.orchestration.storage import open_instance  # noqa: PLC0415

    with open_instance() as instance:
        defs = build_defs(settings, resources=resources)
        return run_job(defs, instance, job, assets=assets, tags=tags)


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> Figures:
    # A range of partitions has an event for each, all with the figures of the whole.
    event, *_ = result.asset_materializations_for_node(asset)
    return _values(event.metadata)


def _values(metadata: Mapping[str, dg.MetadataValue]) -> Figures:
    import dagster as dg  # noqa: PLC0415  # loaded by the run already

    return {
        name: f"{datetime.fromtimestamp(entry.value, tz=UTC):%Y-%m-%d %H:%M} UTC"
        if isinstance(entry, dg.TimestampMetadataValue)
        else entry.value
        for name, entry in metadata.items()
        # Charts and tables are for the UI.
        if not isinstance(entry, dg.MarkdownMetadataValue)
    }
