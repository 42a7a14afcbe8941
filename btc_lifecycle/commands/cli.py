"""The command line: each command gathers settings, makes one call and prints what came of it.

Errors raised on purpose end with status 1, one line that says what happened and one that says what
to do; mistakes in the arguments end with status 2.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from btc_lifecycle.commands import lifecycle, status
from btc_lifecycle.domain.errors import LifecycleError
from btc_lifecycle.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Port = Annotated[int, typer.Option(help="port to bind to", min=0, max=65_535)]
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command line; errors raised on purpose are shown without a traceback."""
    try:
        app()
    except LifecycleError as error:
        errors.print(f"[red]error:[/red] {escape(error.message)}", soft_wrap=True)
        errors.print(f"[yellow]hint:[/yellow] {escape(error.hint)}", soft_wrap=True)
        sys.exit(1)


@app.command()
def ingest() -> None:
    """Store the candles that closed since the last ingest, and report on them."""
    _show_ingested("ingested", lifecycle.ingest())


@app.command()
def backfill(
    start: Annotated[datetime, typer.Option(help="in the first month, UTC", formats=["%Y-%m-%d"])],
    end: Annotated[
        datetime | None,
        typer.Option(help="in the last month, or the first day after it", formats=["%Y-%m-%d"]),
    ] = None,
) -> None:
    """Store the candles of past months, older ones than the first ingest reached included."""
    until = _utc(end) if end else None
    figures = lifecycle.backfill(start=_utc(start), end=until, console=console)
    _show_ingested("backfilled", figures)


@app.command()
def rebuild(
    *,
    force: Annotated[bool, typer.Option("--force", help="though the database is sound")] = False,
) -> None:
    """Set a damaged database aside and make it again from snapshots and the exchange."""
    _show("rebuilt", lifecycle.rebuild(is_forced=force, console=console))


@app.command()
def track() -> None:
    """Train and score candidate models, tracked in MLflow."""
    _show_parts(lifecycle.track())


@app.command()
def register() -> None:
    """Register the newest candidates, and let those serve that earn it."""
    _show_parts(lifecycle.register())


@app.command()
def rollback(
    *,
    model: Annotated[
        str, typer.Option(help=f"{' or '.join(lifecycle.MODEL_NAMES)}")
    ] = lifecycle.MODEL_NAMES[0],
) -> None:
    """Let the version before the champion serve again."""
    _show("rolled back", lifecycle.rollback(model))


@app.command()
def monitor() -> None:
    """Join predictions with outcomes, measure drift, reach a verdict on retraining."""
    _show("monitored", lifecycle.monitor())


@app.command(name="status")
def show_status() -> None:
    """Show what is stored, trained and serving, on one screen."""
    _show_parts(status.status())


@app.command()
def serve(
    *,
    host: Annotated[str, typer.Option(help="address to bind to")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(help="processes that share the port", min=1)] = 1,
) -> None:
    """Serve predictions over HTTP with the champion."""
    from btc_lifecycle.commands import serving  # noqa: PLC0415  # uvicorn

    serving.serve(host=host, port=port, workers=workers)


@app.command(name="mlflow")
def mlflow_ui(
    port: Port = 5000,
) -> None:
    """Start MLflow's UI on the tracking store of the lifecycle."""
    uri = load_settings().mlflow_tracking_uri
    program = Path(sys.executable).with_name("mlflow")
    # Its job queue would cost seven idle processes and two gigabytes.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    arguments = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execve(program, [str(program), *arguments], environment)  # noqa: S606


@app.command(name="sandbox")
def sandbox_exchange(
    *,
    market: Annotated[str, typer.Option(help="synthetic or replay")] = "synthetic",
    data: Annotated[Path | None, typer.Option(help="folder of Parquet files to replay")] = None,
    now: Annotated[
        str | None,
        typer.Option(help="the exchange's time at the start, ISO 8601; else the present"),
    ] = None,
    speed: Annotated[float, typer.Option(help="seconds of its clock per second")] = 1.0,
    seed: Annotated[int, typer.Option(help="of the synthetic market")] = 7,
    history_days: Annotated[
        int, typer.Option(help="of the synthetic market", min=1, max=3650)
    ] = 60,
    port: Port = 8765,
) -> None:
    """Run the sandbox exchange: Binance's REST calls on 127.0.0.1, offline."""
    from btc_lifecycle.commands import sandbox  # noqa: PLC0415  # its market and server

    start = sandbox.parse_time(now) if now else datetime.now(UTC)
    made = sandbox.make_market(
        market, data=data, seed=seed, start=start - timedelta(days=history_days)
    )
    exchange = sandbox.make_exchange(made, now=start, speed=speed, port=port)
    console.print(f"sandbox exchange ({market}) on [bold]{exchange.url}[/bold]")
    console.print(f"use it with: EXCHANGE_BASE_URL={exchange.url} ./task ingest")
    with suppress(KeyboardInterrupt), closing(exchange):
        exchange.serve_forever()


@app.command()
def demo(
    *,
    data_dir: Annotated[
        Path | None, typer.Option(help="empty folder to work in; else a temporary one, kept")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the synthetic market")] = 7,
) -> None:
    """Run the whole lifecycle offline on a synthetic market."""
    from btc_lifecycle.commands.demo.story import run_demo  # noqa: PLC0415

    run_demo(console, data_dir=data_dir, seed=seed)


def _utc(day: datetime) -> datetime:
    return day.replace(tzinfo=UTC)


def _show_ingested(title: str, figures: Mapping[str, object]) -> None:
    """Show the figures; end with status 1 if a market failed while others went well."""
    _show(title, figures)
    if any(name.startswith(lifecycle.FAILED) for name in figures):
        raise typer.Exit(1)


def _show_parts(parts: Mapping[str, Mapping[str, object]]) -> None:
    for title, figures in parts.items():
        _show(title, figures)


def _show(title: str, figures: Mapping[str, object]) -> None:
    # Plain lines and no table: a path that was wrapped cannot be copied.
    console.print(f"[bold]{escape(title)}[/bold]")
    width = max(map(len, figures))
    for name, value in figures.items():
        label = name.removeprefix("dagster/").ljust(width)
        console.print(f"  [dim]{label}[/dim]  {escape(_shown(value))}", soft_wrap=True)


def _shown(value: object) -> str:
    if value is None:
        return "none yet"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{value:,.0f}"
    return f"{value:.5f}" if isinstance(value, float) else str(value)
