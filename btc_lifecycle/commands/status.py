"""One screen: what is stored, when it was looked for, what runs by itself, what serves, what drifts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from btc_lifecycle.adapters.registry import (
    UNREGISTERED,
    VOLATILITY_MODEL_NAME,
    ModelVersion,
    Registry,
)
from btc_lifecycle.domain.errors import LifecycleError, NothingToServeError
from btc_lifecycle.domain.tables import DRIFT_METRICS
from btc_lifecycle.settings import Settings, dagster_dir, load_settings

if TYPE_CHECKING:
    import dagster as dg

    from btc_lifecycle.adapters.warehouse import CandleStore, Holdings

Figures = dict[str, object]

_SHOWN_SCORES = ("test_auc", "test_r_squared")
_LOCK_WAIT = timedelta(seconds=3)
_TIME = "%Y-%m-%d %H:%M UTC"


def status() -> dict[str, Figures]:
    """Return what there is, by heading; a part that cannot be read says why."""
    from btc_lifecycle.orchestration.build import open_store  # noqa: PLC0415  # loads Dagster
    from btc_lifecycle.orchestration.journal import open_registry  # noqa: PLC0415  # loads DuckDB

    settings = load_settings()
    registry = open_registry(settings)
    volatility = open_registry(settings, model_name=VOLATILITY_MODEL_NAME)
    store = open_store(settings, lock_wait=_LOCK_WAIT)
    parts: dict[str, Callable[[], Figures]] = {
        "unfinished moves": lambda: _settled(registry, volatility),
        "store": lambda: _store_status(settings, store),
        "automation": _automation_status,
        "champion": lambda: _version_status(registry.champion()),
        "candidate": lambda: _version_status(_newest_candidate(registry)),
        "volatility champion": lambda: _version_status(volatility.champion()),
        "drift": lambda: _drift_status(store),
    }
    told = {title: _told(part) for title, part in parts.items()}
    return {title: figures for title, figures in told.items() if figures}


def _settled(*registries: Registry) -> Figures:
    """Return how the moves of aliases ended that a killed process left unfinished, after ending them."""
    ended = [move for registry in registries for move in registry.settle()]
    return {f"{move.model_name} {move.alias} to {move.to_version}": move.state for move in ended}


def _told(part: Callable[[], Figures]) -> Figures:
    try:
        return part()
    except LifecycleError as error:
        return {"problem": error}


def _store_status(settings: Settings, store: CandleStore) -> Figures:
    figures: Figures = {
        "database": settings.feature_db_path,
        "source": store.warehouse.source(),
    }
    for symbol in settings.ingest.symbols:
        holdings = store.holdings(symbol)
        figures[symbol] = _held(holdings)
        figures[f"{symbol} gaps"] = _missing(holdings)
    return figures


def _held(holdings: Holdings) -> str:
    if holdings.first_open_time is None or holdings.last_open_time is None:
        return "0 candles"
    first, last = holdings.first_open_time, holdings.last_open_time
    return f"{holdings.n_rows:,} candles, {first:{_TIME}} to {last:{_TIME}}"


def _missing(holdings: Holdings) -> str:
    n_gap = sum(gap.stretch.n_minutes for gap in holdings.gaps)
    return (
        f"{len(holdings.gaps):,} of {n_gap:,} minutes; "
        f"{holdings.n_missing_min - n_gap:,} minutes never asked for"
    )


def _automation_status() -> Figures:
    """Return each schedule and sensor with its newest tick, and the newest ingest of any kind."""
    from dagster import AssetKey  # noqa: PLC0415  # two thirds of a second

    from btc_lifecycle.orchestration.automation import SCHEDULES, SENSORS  # noqa: PLC0415
    from btc_lifecycle.orchestration.storage import open_instance  # noqa: PLC0415

    figures: Figures = {"last ingest": None}
    figures |= {instigator.name: "off" for instigator in (*SCHEDULES, *SENSORS)}
    if not dagster_dir().exists():
        return figures
    with open_instance() as instance:
        event = instance.get_latest_materialization_event(AssetKey("candles"))
        if event is not None:
            figures["last ingest"] = f"{_moment(event.timestamp)}, run {event.run_id[:8]}"
        for state in instance.all_instigator_state():
            if state.name in figures:
                figures[state.name] = _ticking(instance, state)
    return figures


def _ticking(instance: dg.DagsterInstance, state: dg.InstigatorState) -> str:
    is_on = "on" if state.is_running else "off"
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if not ticks:
        return is_on
    return f"{is_on}, last tick {_moment(ticks[0].timestamp)}: {ticks[0].status.value.lower()}"


def _moment(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, tz=UTC):{_TIME}}"


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
        **_scores_of(version),
        "decision": "none yet; ./task register makes one",
    }
    if "verdict" in version.tags:
        figures["decision"] = f"{version.tags['verdict']}: {version.tags['verdict_reason']}"
    return figures


def _scores_of(version: ModelVersion) -> Figures:
    return {name: version.metrics[name] for name in _SHOWN_SCORES if name in version.metrics} or {
        "scores": "none: it was never scored"
    }


def _drift_status(store: CandleStore) -> Figures:
    try:
        metrics = store.warehouse.read(DRIFT_METRICS)
    except NothingToServeError:
        return {"newest window": None}
    if metrics.is_empty():
        return {"newest window": None}
    newest = metrics.filter(metrics["window_end"] == metrics["window_end"].max())
    breaches = newest.filter("is_breach")
    end = newest["window_end"][0]
    return {
        "newest window": f"until {end:{_TIME}}, model {newest['model_version'][0]}",
        "beyond their limit": f"{breaches.height} of {newest.height} metrics",
    }
