"""The demo's steps, in the order that the data travels; each checks what it claims."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.commands.demo.world import DemoError, World, get, post
from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.tables import FEATURES
from btc_lifecycle.settings import Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

MARKET_NOW = datetime(2025, 3, 3, tzinfo=UTC)
"""Where the synthetic market's clock starts; the same for every run, so that figures repeat."""

CALM_DAYS = 1
"""How long the service predicts before the market changes."""

CHANGED_DAYS = 22
"""How long it predicts afterwards: longer than the cooldown after the first training."""

_PAGE_ROWS = 1000
SYMBOL = "BTC/USDT"


@dataclass
class Demo:
    """The state that travels from step to step."""

    world: World
    settings: Settings
    defs: dg.Definitions
    instance: dg.DagsterInstance
    now: datetime
    version: str = ""
    end: dict[str, str] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)

    def run(self, job: str, *assets: str, tags: dict[str, str] | None = None) -> Metadata:
        """Run a job on the real instance and return its assets' metadata by name."""
        result = run_job(self.defs, self.instance, job, assets=list(assets) or None, tags=tags)
        return {
            event.step_materialization_data.materialization.asset_key.to_user_string(): {
                name: entry.value
                for name, entry in event.step_materialization_data.materialization.metadata.items()
            }
            for event in result.get_asset_materialization_events()
        }


Metadata = dict[str, dict[str, Any]]


def ingest_month(demo: Demo) -> str:
    """A month of candles through ccxt, and the report on them."""
    demo.world.start_exchange()
    made = demo.run("ingest_job")
    stored = made["candles"]
    _require(stored["new_rows"] == demo.settings.ingest.limit, f"{stored['new_rows']} new candles")
    _require(stored["source"] == "synthetic", f"the source is {stored['source']}")
    said = f"{stored['new_rows']:,} candles, {stored['missing_minutes']} minutes missing"
    demo.end["a month ingested"] = said
    demo.reports["ingestion"] = str(made["ingestion_report"]["report"])
    return said


def train_first(demo: Demo) -> str:
    """Features, labels, a candidate, its scores on unseen rows, and the gate."""
    made = demo.run("training_job")
    decision = made["production_model"]
    _require(decision["promoted"], f"the first candidate was refused: {decision['reason']}")
    demo.version = str(decision["model_version"])
    demo.end[f"model {demo.version} promoted"] = _scores(made["evaluation"])
    return f"model {demo.version} promoted: {decision['reason']}"


def serve(demo: Demo) -> str:
    """The service in a process of its own, with the champion behind the alias."""
    health = demo.world.start_service()
    return f"{demo.world.service_url}, {health['model']['name']} {health['model']['version']}"


def predict_calm(demo: Demo) -> str:
    """The market goes on; every candle is predicted over HTTP; nothing has drifted."""
    n_rows = _live(demo, days=CALM_DAYS)
    monitored = demo.run("monitoring_job")
    asked, said = _tick(demo)
    _require(asked is None, f"the sensor asked for a retraining on a calm market: {said}")
    n_outcomes = monitored["outcomes"]["new_rows"]
    return f"{n_rows:,} predictions, {n_outcomes:,} outcomes; no retraining: {said}"


def change_market(demo: Demo) -> str:
    """Order flow turns against the price, and all grows; the service predicts on."""
    changed_at = demo.now
    demo.world.change_regime(changed_at)
    n_rows = _live(demo, days=CHANGED_DAYS)
    return f"changed at {changed_at:%Y-%m-%d %H:%M} UTC, {n_rows:,} predictions since"


def find_drift(demo: Demo) -> str:
    """Outcomes are joined, drift is measured, and a report is made."""
    made = demo.run("monitoring_job")
    drift = made["drift_metrics"]
    _require(drift["retrain"], f"no retraining was called for: {drift['reason']}")
    facts = drift["facts"]
    demo.end["drift found"] = (
        f"{len(facts['drifted'])} of {facts['n_monitored']} features beyond their limits; live "
        f"log-loss {facts['live_log_loss']:.4f}, in the test {facts['reference_log_loss']:.4f}"
    )
    demo.reports["monitoring"] = str(made["monitoring_report"]["report"])
    return str(drift["reason"])


def retrain(demo: Demo) -> str:
    """The sensor asks for the training job; the gate compares candidate and champion."""
    request, said = _tick(demo)
    if request is None:
        raise DemoError(f"the sensor did not ask for a retraining: {said}", hint=_HINT)
    made = demo.run("training_job", tags=dict(request.tags))
    decision = made["production_model"]
    _require(decision["promoted"], f"the new candidate was refused: {decision['reason']}")
    demo.version = str(decision["model_version"])
    demo.end[f"model {demo.version} promoted"] = str(decision["reason"])
    demo.reports["modeling"] = str(made["model_report"]["report"])
    repeated, _ = _tick(demo)
    _require(repeated is None, "the sensor asked again right after the retraining")
    return f"asked with run key {request.run_key}; model {demo.version}: {decision['reason']}"


def reload_service(demo: Demo) -> str:
    """The running service answers with the new version."""
    demo.world.wait_for_version(demo.version)
    answer = _predict(demo, _features_since(demo, demo.now - timedelta(minutes=10)))
    answered = str(answer["model"]["version"])
    _require(answered == demo.version, f"the prediction came from version {answered}")
    probability_up = answer["predictions"][-1]["probability_up"]
    demo.end["service"] = f"answers with model {answered}, without a restart"
    return f"model {answered} answers: probability of a rise {probability_up:.3f}"


STEPS: tuple[tuple[str, Callable[[Demo], str]], ...] = (
    ("Ingest a month of candles and report on them", ingest_month),
    ("Train a candidate, score it, promote it", train_first),
    ("Start the prediction service", serve),
    (f"{CALM_DAYS} calm day: predict, join outcomes, look for drift", predict_calm),
    (f"The market changes; {CHANGED_DAYS} more days of predictions", change_market),
    ("Find the drift", find_drift),
    ("The sensor asks, a new candidate is trained and judged", retrain),
    ("The running service picks up the new version", reload_service),
)


def run_demo(console: Console, *, data_dir: Path | None, seed: int) -> None:
    """Run all steps and show what happened.

    Raises:
        LifecycleError: As soon as a step fails or did not do what it claims.
    """
    from btc_lifecycle.orchestration.build import build_defs  # noqa: PLC0415
    from btc_lifecycle.orchestration.storage import open_instance  # noqa: PLC0415

    folder = _empty_folder(data_dir)
    console.print(f"[bold]The lifecycle on a SYNTHETIC market[/bold], in {folder}\n")
    started = time.monotonic()
    with World(folder, seed=seed, now=MARKET_NOW) as world:
        settings = load_settings()
        with open_instance() as instance:
            demo = Demo(world, settings, build_defs(settings), instance, MARKET_NOW)
            for number, (title, step) in enumerate(STEPS, start=1):
                _show_step(console, demo, step, title=f"{number}/{len(STEPS)} {title}")
    _show_end(console, demo, seconds=time.monotonic() - started)


def _live(demo: Demo, *, days: int) -> int:
    since, demo.now = demo.now, demo.now + timedelta(days=days)
    demo.world.leap(demo.now)
    demo.run("ingest_job", "candles", "online_features")
    demo.run("monitoring_job", "features", "labels")
    rows = _features_since(demo, since)
    for page in rows.iter_slices(_PAGE_ROWS):
        _predict(demo, page)
    return rows.height


def _features_since(demo: Demo, since: datetime) -> pl.DataFrame:
    asked_for = get(f"{demo.world.service_url}/features")["features"]
    names = [feature["name"] for feature in asked_for]
    rows = Warehouse(demo.settings.feature_db_path).read(FEATURES, symbol=SYMBOL, start=since)
    return rows.select(*FEATURES.key, *names).drop_nulls()


def _predict(demo: Demo, rows: pl.DataFrame) -> dict[str, Any]:
    names = [name for name in rows.columns if name not in FEATURES.key]
    return post(
        f"{demo.world.service_url}/predict",
        {
            "features": rows.select(names).to_dicts(),
            "symbol": SYMBOL,
            "open_times": [time_.isoformat() for time_ in rows["open_time"]],
        },
    )


def _tick(demo: Demo) -> tuple[dg.RunRequest | None, str]:
    import dagster as dg  # noqa: PLC0415

    repository = demo.defs.get_repository_def()
    sensor = repository.get_sensor_def("retrain_on_drift")
    with dg.build_sensor_context(
        instance=demo.instance, repository_def=repository, resources={"settings": demo.settings}
    ) as context:
        ticked = sensor.evaluate_tick(context)
    if not ticked.run_requests:
        return None, str(ticked.skip_message)
    (request,) = ticked.run_requests
    is_repeated = demo.instance.get_runs_count(
        dg.RunsFilter(tags={"dagster/run_key": request.run_key or ""})
    )
    if is_repeated:
        return None, f"run {request.run_key} was asked for already"
    return request.with_replaced_attrs(
        tags={**request.tags, "dagster/run_key": request.run_key or ""}
    ), request.tags["btc_lifecycle/retrain_reason"]


def _scores(evaluation: dict[str, Any]) -> str:
    return (
        f"AUC {evaluation['test_auc']:.3f}, log-loss {evaluation['test_log_loss']:.4f} "
        f"(prior {evaluation['prior_log_loss']:.4f}) on {evaluation['test_n_rows']:,.0f} unseen rows"
    )


_HINT = "this is a defect: please report it with the logs in the demo's folder"


def _require(holds: object, problem: str) -> None:
    if not holds:
        raise DemoError(problem, hint=_HINT)


def _empty_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        return Path(tempfile.mkdtemp(prefix="btc_lifecycle_demo_"))
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise ConfigurationError(
            f"{data_dir} is not an empty folder", hint="name an empty or a new one with --data-dir"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    return data_dir.absolute()


def _show_step(console: Console, demo: Demo, step: Callable[[Demo], str], *, title: str) -> None:
    started = time.monotonic()
    with console.status(title):
        said = step(demo)
    console.print(f"[green]done[/green] [bold]{title}[/bold] ({time.monotonic() - started:.1f} s)")
    console.print(f"     {escape(said)}")


def _show_end(console: Console, demo: Demo, *, seconds: float) -> None:
    folder = demo.world.folder
    table = Table(box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in demo.end.items():
        table.add_row(name, escape(value))
    table.add_row("reports in", str(folder))
    for name, path in demo.reports.items():
        table.add_row("", f"{Path(path).relative_to(folder)} ({name})")
    for name, task in {"Dagster's UI": "ui", "MLflow's UI": "mlflow", "live page": "serve"}.items():
        table.add_row(name, f"BTC_DATA_DIR={folder} ./task {task}")
    title = f"The whole lifecycle ran in {seconds:.0f} s, on SYNTHETIC data"
    console.print()
    console.print(Panel(table, title=title, title_align="left"))
