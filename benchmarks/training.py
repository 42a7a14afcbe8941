"""`./task track` on a year of minutes: both heads, five folds each, from tables to logged candidates."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import polars as pl
import typer
from measuring import Figure, Timed, made_up_candles, read_months, show

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.settings import ROOT

START = datetime(2024, 1, 1, tzinfo=UTC)
AIM_S, AIM_GB = 90.0, 3.0


def main(
    data: Annotated[
        Path | None, typer.Option(help="folder of a market's months as Parquet; else made up")
    ] = None,
    days: Annotated[int, typer.Option(help="how many are learnt from", min=8)] = 365,
    runs: Annotated[int, typer.Option(help="how often it is measured")] = 1,
) -> None:
    """Measure the command in a process of its own, with the shipped settings but for the window."""
    candles = (
        made_up_candles(start=START, n=days * 1440)
        if data is None
        else read_months(data).tail(days * 1440)
    )
    timed, peaks_gb = Timed(), []
    for _ in range(runs):
        with TemporaryDirectory() as folder:
            environment = prepare(Path(folder), candles, days=days)
            timed.run(lambda env=environment: track(env))
            peaks_gb.append(peak_of_children_gb())
    figures = [
        Figure(name="track: wall", unit="s", values=timed.wall_s, aim=AIM_S),
        Figure(name="track: peak of the process", unit="GB", values=peaks_gb, aim=AIM_GB),
    ]
    show(f"{candles.height:,} candles, two heads of five folds", figures)


def prepare(folder: Path, candles: pl.DataFrame, *, days: int) -> dict[str, str]:
    """Return the environment of a data folder that holds the candles."""
    Warehouse(folder / "feature_store" / "bitcoin.duckdb").upsert(
        CANDLES, candles, source="synthetic"
    )
    config = json.loads((ROOT / "config" / "lifecycle.json").read_text("utf-8"))
    config["learn"]["window_days"] = days
    (folder / "lifecycle.json").write_text(json.dumps(config), "utf-8")
    places = {"BTC_DATA_DIR": str(folder), "LIFECYCLE_CONFIG": str(folder / "lifecycle.json")}
    return {**os.environ, **places, "DAGSTER_HOME": str(ROOT)}


def track(environment: dict[str, str]) -> None:
    """Train and score both candidates."""
    command = [sys.executable, "-m", "btc_lifecycle.commands", "track"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def peak_of_children_gb() -> float:
    """Return the most memory that any process started from here has held so far."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    typer.run(main)
