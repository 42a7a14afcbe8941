"""Labels of years of candles, beside the loop one would write and mlfinpy's triple barrier."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import exp
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import pandas as pd
import polars as pl
import typer
from measuring import Figure, Timed, made_up_candles, show

from btc_lifecycle.domain.learn.labels import (
    LabelPolicy,
    average_uniqueness,
    compute_labels,
    forward_log_volatility,
)

START = datetime(2017, 8, 17, 4, 0, tzinfo=UTC)
"""Binance's first BTC/USDT candle; 4.7 million minutes later it is July 2026."""

HORIZONS_MIN = (15, 60)
LOOPED_CANDLES, MLFINPY_CANDLES = 100_000, 20_000
MOST_SLOW_RUNS = 3
AIM_S = 1.5


def main(
    candles: Annotated[int, typer.Option(help="how many are labelled", min=2000)] = 4_700_000,
    runs: Annotated[int, typer.Option(help="how often each is measured, in turns")] = 5,
    mlfinpy: Annotated[
        Path | None, typer.Option(help="a Python that has mlfinpy; README.md says how to get it")
    ] = None,
) -> None:
    """Measure labels of made-up candles."""
    history = with_gaps(made_up_candles(start=START, n=candles))
    show(
        f"Labels of {history.height:,} candles",
        [*ours(history, runs=runs), *memory_figures(history)],
    )
    figures = looped(history.head(LOOPED_CANDLES), runs=runs)
    show(f"Triple barriers of {min(LOOPED_CANDLES, history.height):,} candles", figures)
    if mlfinpy is None or not mlfinpy.exists():
        print(f"mlfinpy is left out: there is no Python that has it at {mlfinpy}")
        return
    try:
        figures = mlfinpy_figures(history.head(MLFINPY_CANDLES), python=mlfinpy, runs=runs)
    except subprocess.SubprocessError as error:
        print(f"mlfinpy is left out: {error}")
        return
    show(f"Triple barriers of {min(MLFINPY_CANDLES, history.height):,} candles", figures)


def with_gaps(candles: pl.DataFrame) -> pl.DataFrame:
    """Return the candles without one hour of each 250,000."""
    return candles.filter((pl.int_range(pl.len()) - 600) % 250_000 >= 60)


def barriers(horizon_min: int) -> LabelPolicy:
    """Return barriers at one standard deviation of the last hour's volatility."""
    return LabelPolicy(method="triple_barrier", horizon_min=horizon_min)


def ours(candles: pl.DataFrame, *, runs: int) -> list[Figure]:
    """Measure each way to label in turns."""
    labels = compute_labels(candles, policy=barriers(60))
    by_horizon = LabelPolicy(horizon_min=15)
    ways: dict[str, tuple[Callable[[], object], float | None]] = {
        **{
            f"triple barriers, {horizon_min} minutes": (
                partial(compute_labels, candles, policy=barriers(horizon_min)),
                AIM_S,
            )
            for horizon_min in HORIZONS_MIN
        },
        "horizon, 15 minutes": (partial(compute_labels, candles, policy=by_horizon), None),
        "  of either, volatility": (partial(forward_log_volatility, candles), None),
        "uniqueness of 60-minute triple barriers": (partial(average_uniqueness, labels), None),
    }
    timed = {name: Timed() for name in ways}
    for _ in range(runs):
        for name, (work, _) in ways.items():
            timed[name].run(work)
    return [Figure.of_time(name, timed[name], aim=aim) for name, (_, aim) in ways.items()]


def memory_figures(candles: pl.DataFrame) -> list[Figure]:
    """Label in a process of its own, which holds the candles and nothing else."""
    with TemporaryDirectory() as path:
        file = Path(path) / "candles.arrow"
        # Uncompressed and without what labels do not look at, so that reading takes no more memory
        # than the candles do.
        candles.select("symbol", "open_time", "high", "low", "close").write_ipc(file)
        with get_context("spawn").Pool(1) as pool:
            before, after = pool.apply(peaks_mb, (file,))
    name = f"triple barriers, {HORIZONS_MIN[0]} minutes: peak memory"
    return [
        Figure(name=name, unit="MB", values=[after]),
        Figure(name="  of that, beyond reading the candles", unit="MB", values=[after - before]),
    ]


def peaks_mb(file: Path) -> tuple[float, float]:
    """Return this process's peak memory with the candles read, and with their labels made."""
    candles = pl.read_ipc(file)
    before = peak_mb()
    compute_labels(candles, policy=barriers(HORIZONS_MIN[0]))
    return before, peak_mb()


def peak_mb() -> float:
    """Return the most memory that this process has held, 0 where the system does not tell.

    What getrusage tells begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM:"))


def looped(candles: pl.DataFrame, *, runs: int) -> list[Figure]:
    """Measure ours and the obvious loop in turns; both must say the same."""
    policy, fast, slow = barriers(HORIZONS_MIN[0]), Timed(), Timed()
    frame = candles.select("open_time", "high", "low", "close").to_pandas()
    for _ in range(min(runs, MOST_SLOW_RUNS)):
        labels = fast.run(lambda: compute_labels(candles, policy=policy))
        theirs = slow.run(lambda: loop_over(frame, policy))
        require(
            labels["direction"].to_list() == [direction for direction, _ in theirs]
            and np.allclose(labels["forward_log_return"], [r for _, r in theirs], atol=1e-12),
            "the loop labels otherwise",
        )
    n = candles.height
    return [
        *costs("ours", fast, n=n),
        *costs("pandas and a loop that stops at the touch", slow, n=n),
    ]


def loop_over(frame: pd.DataFrame, policy: LabelPolicy) -> list[tuple[int, float]]:
    """Return direction and log return of each label, as a straightforward script finds them."""
    squared_return = np.log(frame["close"] / frame["close"].shift(1)) ** 2
    mean = squared_return.rolling(policy.volatility_window_min).mean()
    widths = (policy.barrier_width * np.sqrt(mean * policy.horizon_min)).tolist()
    high, low, close = (frame[name].tolist() for name in ("high", "low", "close"))
    minute = (frame["open_time"].astype("int64") // 60_000_000).tolist()
    labels = []
    for i in range(policy.volatility_window_min, len(frame) - policy.horizon_min):
        before, limit = i - policy.volatility_window_min, i + policy.horizon_min
        if minute[limit] - minute[before] != limit - before:
            continue
        upper, lower = close[i] * exp(widths[i]), close[i] * exp(-widths[i])
        for j in range(i + 1, limit + 1):
            if low[j] <= lower:
                labels.append((-1, -widths[i]))
                break
            if high[j] >= upper:
                labels.append((1, widths[i]))
                break
        else:
            log_return = float(np.log(close[limit] / close[i]))
            labels.append((int(np.sign(log_return)), log_return))
    return labels


MLFINPY_SCRIPT = """
import json, sys, time
import numpy as np, pandas as pd
from mlfinpy.labeling import add_vertical_barrier, get_bins, get_events

minute_us, close = np.load(sys.argv[1])
horizon_min, window_min = int(sys.argv[2]), int(sys.argv[3])
close = pd.Series(close, index=pd.to_datetime(minute_us.astype("int64"), unit="us"))
started = time.perf_counter(), time.process_time()
squared_return = np.log(close / close.shift(1)) ** 2
target = np.sqrt(squared_return.rolling(window_min).mean() * horizon_min).dropna()
limits = add_vertical_barrier(target.index, close, num_minutes=horizon_min)
events = get_events(close, target.index, [1, 1], target, 0.0, 1, limits, verbose=False)
n_labels = len(get_bins(events, close))
wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
print(json.dumps({"wall_s": wall, "cpu_s": cpu, "n_labels": n_labels}))
"""


def mlfinpy_figures(candles: pl.DataFrame, *, python: Path, runs: int) -> list[Figure]:
    """Measure mlfinpy, in one process, on the same barriers; it looks at closes alone."""
    policy, fast, slow = barriers(HORIZONS_MIN[0]), Timed(), Timed()
    with TemporaryDirectory() as path:
        file = Path(path) / "candles.npy"
        minute_us = candles["open_time"].dt.epoch("us").cast(pl.Float64)
        np.save(file, np.stack([minute_us.to_numpy(), candles["close"].to_numpy()]))
        for _ in range(min(runs, MOST_SLOW_RUNS)):
            fast.run(lambda: compute_labels(candles, policy=policy))
            theirs = run_mlfinpy(python, file=file, policy=policy)
            require(theirs.n_labels > 0.9 * candles.height, f"it made {theirs.n_labels} labels")
            slow.wall_s.append(theirs.wall_s)
            slow.cpu_s.append(theirs.cpu_s)
    n = candles.height
    return [*costs("ours", fast, n=n), *costs("mlfinpy get_events and get_bins", slow, n=n)]


@dataclass(frozen=True, kw_only=True)
class MlfinpyRun:
    """What one run of mlfinpy took, imports and reading left out."""

    wall_s: float
    cpu_s: float
    n_labels: int


def run_mlfinpy(python: Path, *, file: Path, policy: LabelPolicy) -> MlfinpyRun:
    """Label in the environment of mlfinpy, which wants an older numpy than ours."""
    sizes = [str(policy.horizon_min), str(policy.volatility_window_min)]
    ended = subprocess.run(
        [python, "-W", "ignore", "-c", MLFINPY_SCRIPT, file, *sizes],
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        last_line = ended.stderr.strip().splitlines()[-1]
        raise subprocess.SubprocessError(f"it stopped with {ended.returncode}: {last_line}")
    return MlfinpyRun(**json.loads(ended.stdout.splitlines()[-1]))


def costs(name: str, timed: Timed, *, n: int) -> list[Figure]:
    """Return the time, and processor time per candle."""
    per_candle = [1e6 * seconds / n for seconds in timed.cpu_s]
    return [
        Figure.of_time(name, timed),
        Figure(name=name, unit="µs CPU per candle", values=per_candle),
    ]


def require(is_true: bool, problem: str) -> None:  # noqa: FBT001  # as assert
    """Stop a measurement that did not do its work."""
    if not is_true:
        raise RuntimeError(problem)


if __name__ == "__main__":
    typer.run(main)
