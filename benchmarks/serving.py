"""The HTTP service under wrk, beside an endpoint that does nothing and other servers of the model."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import lightgbm
import numpy as np
import serving_rivals
import typer
from measuring import Figure, show
from serving_rivals import MLFLOW, MLSERVER, NOTHING, OURS, Contender, Load, Round, Running

from btc_lifecycle.adapters.registry import PROMOTED, Registry
from btc_lifecycle.adapters.registry.native import NativeModel, find_library
from btc_lifecycle.domain.tables import FEATURE_COLUMNS

N_FEATURES, N_ROWS = 30, 20_000
CLIENTS, JUDGED_CLIENTS = (1, 16, 64), 16
AIMS_OF_RATE = {MLFLOW: 40.0, MLSERVER: 3.0, NOTHING: 0.8}
AIM_OF_P99 = 2.0
AIM_READY_S, AIM_MB = 2.0, 150.0
IN_PROCESS_RUNS = 50
MLFLOW_PROGRAM = Path(sys.executable).with_name("mlflow")


def main(
    seconds: Annotated[int, typer.Option(help="of each round of each server", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="in which the servers take turns", min=1)] = 5,
    clients: Annotated[
        list[int] | None, typer.Option(help="connections at once; by default 1, 16 and 64")
    ] = None,
    starts: Annotated[int, typer.Option(help="how often ours is started", min=1)] = 5,
    wrk: Annotated[str, typer.Option(help="the load generator's program")] = "wrk",
    mlflow: Annotated[
        Path, typer.Option(help="MLflow's program, where the model's libraries are too")
    ] = MLFLOW_PROGRAM,
    mlserver: Annotated[
        Path | None, typer.Option(help="MLServer's program; README.md says how to get it")
    ] = None,
) -> None:
    """Measure the service and others, one worker each, one row of 30 features a request."""
    # Unless it becomes an exception, a request to end would leave the servers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    booster, rows = make_booster()
    show(f"One row of {N_FEATURES} features in process", in_process(booster, rows))
    program = shutil.which(wrk)
    with TemporaryDirectory() as created:
        folder = Path(created)
        model = promote(booster, rows, data_dir=folder / "data")
        contenders = found(model, rows[0].tolist(), mlflow=mlflow, mlserver=mlserver, folder=folder)
        with ExitStack() as stack:
            begun = [begin(it, stack, folder=folder, starts=starts) for it in contenders]
            servers = [server for server, _ in begun]
            for server in servers:
                check(server, booster=booster, row=rows[:1])
            loaded_mb = [server.memory_mb() for server in servers]
            if program is None:
                print(f"requests per second are left out: there is no {wrk} on the path")
            else:
                load = Load(program=program, seconds=seconds, rounds=rounds, folder=folder)
                for n_clients in clients or CLIENTS:
                    figures = under_load(servers, load=load, n_clients=n_clients)
                    show(f"{n_clients} clients, rounds of {seconds} s", figures)
            used_mb = [server.memory_mb() for server in servers]
        if program is not None:
            check_log(folder / "data", n_answered=load.n_answered[OURS])
        figures = [
            figure
            for (server, ready_s), loaded, used in zip(begun, loaded_mb, used_mb, strict=True)
            for figure in cost_figures(server, ready_s=ready_s, loaded_mb=loaded, used_mb=used)
        ]
        show("From start to ready, and memory with all child processes", figures)


def make_booster() -> tuple[lightgbm.Booster, np.ndarray]:
    """Return a booster of the size that training makes, and the rows that it learnt from."""
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(N_ROWS, N_FEATURES))
    is_up = rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=N_ROWS) > 0
    names = [column.name for column in FEATURE_COLUMNS[:N_FEATURES]]
    parameters = {"objective": "binary", "num_leaves": 8, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(
        {**parameters, "learning_rate": 0.03},
        lightgbm.Dataset(rows, label=is_up, feature_name=names),
        num_boost_round=300,
    )
    return booster, rows


def promote(booster: lightgbm.Booster, rows: np.ndarray, *, data_dir: Path) -> Path:
    """Return the folder of a new champion's files, in a store of its own."""
    (data_dir / "mlflow").mkdir(parents=True)
    uri = f"sqlite:///{data_dir / 'mlflow' / 'mlflow.db'}"
    registry = Registry(uri, uri)
    with registry.open_run("candidate"):
        run_id = registry.log_candidate(
            booster,
            golden_rows=rows[:16],
            feature_names=booster.feature_name(),
            parameters={},
            metrics={},
            tags={"source": "synthetic"},
            artifacts={},
        )
    number = registry.register(run_id, actor="benchmark")
    registry.conclude(number, PROMOTED, reason="it is to be measured", actor="benchmark")
    return next(data_dir.rglob("MLmodel")).parent


def in_process(booster: lightgbm.Booster, rows: np.ndarray) -> list[Figure]:
    """Measure one row at a time, ours and LightGBM's own way in turns."""
    native = NativeModel(find_library(), booster.model_to_string())
    ways = {
        "ours: NativeModel.predict": native.predict,
        "Booster.predict, one thread": partial(booster.predict, num_threads=1),
    }
    singles = [rows[i : i + 1] for i in range(200)]
    first, second = ([float(predict(row)[0]) for row in singles] for predict in ways.values())
    if first != second:
        raise SystemExit("ours predicts otherwise than Booster.predict")
    us: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(IN_PROCESS_RUNS):
        for name, predict in ways.items():
            began = perf_counter()
            for row in singles:
                predict(row)
            us[name].append((perf_counter() - began) / len(singles) * 1e6)
    return [Figure(name=name, values=values, unit="µs") for name, values in us.items()]


def found(
    model: Path, row: list[float], *, mlflow: Path, mlserver: Path | None, folder: Path
) -> list[Contender]:
    """Return ours, the floor, and the other servers that are installed."""
    contenders = [
        serving_rivals.ours(row, data_dir=folder / "data"),
        serving_rivals.nothing(row, folder=folder),
    ]
    if mlflow.exists():
        contenders.append(
            serving_rivals.mlflow_serve(
                row,
                program=mlflow.absolute(),
                model=model,
                names=[c.name for c in FEATURE_COLUMNS[:N_FEATURES]],
            )
        )
    else:
        print(f"mlflow models serve is left out: there is no {mlflow}")
    if mlserver is not None and mlserver.exists():
        contenders.append(
            serving_rivals.mlserver(row, program=mlserver.absolute(), model=model, folder=folder)
        )
    else:
        print(f"MLServer is left out: there is no program at {mlserver}")
    return contenders


def begin(
    contender: Contender, stack: ExitStack, *, folder: Path, starts: int
) -> tuple[Running, list[float]]:
    """Return a server that runs until the stack is closed, and how long each of its starts took."""
    ready_s = []
    for _ in range(starts - 1 if contender.name == OURS else 0):
        with serving_rivals.running(contender, folder=folder) as once:
            ready_s.append(once.ready_s)
    server = stack.enter_context(serving_rivals.running(contender, folder=folder))
    return server, [*ready_s, server.ready_s]


def check(server: Running, *, booster: lightgbm.Booster, row: np.ndarray) -> None:
    """Refuse to measure a server that answers something else than the model's probability."""
    answer, read = server.answer(), server.contender.probability
    expected = float(booster.predict(row, num_threads=1)[0])
    if read is not None and abs(read(answer) - expected) > 1e-9:
        raise SystemExit(f"{server.name} answered {answer}, the model says {expected}")


def check_log(data_dir: Path, *, n_answered: int) -> None:
    """Refuse figures of a service that did not log each of its predictions."""
    paths = (data_dir / "predictions").glob("*.jsonl")
    n_logged = sum(path.read_bytes().count(b"\n") for path in paths)
    if n_logged < n_answered:
        raise SystemExit(f"ours logged {n_logged} of {n_answered} predictions")


def under_load(servers: Sequence[Running], *, load: Load, n_clients: int) -> list[Figure]:
    """Measure all servers in turns, the others idle meanwhile."""
    rounds: dict[str, list[Round]] = {server.name: [] for server in servers}
    for server in servers:
        load.put_on(server, n_clients=n_clients, seconds=1)  # warms up
    for _ in range(load.rounds):
        for server in servers:
            rounds[server.name].append(load.put_on(server, n_clients=n_clients))
    return [*absolute_figures(rounds), *ratios(rounds, is_judged=n_clients == JUDGED_CLIENTS)]


def absolute_figures(rounds: dict[str, list[Round]]) -> Iterator[Figure]:
    """Yield requests per second and latencies of each server."""
    for name, of_it in rounds.items():
        rates = [it.rate for it in of_it]
        yield Figure(name=f"{name}: requests", values=rates, unit="1/s", better="more")
        yield Figure(name=f"{name}: p50", values=[it.p50_ms for it in of_it], unit="ms")
        yield Figure(name=f"{name}: p99", values=[it.p99_ms for it in of_it], unit="ms")


def ratios(rounds: dict[str, list[Round]], *, is_judged: bool) -> Iterator[Figure]:
    """Yield ours in terms of each other server, round by round."""
    own = rounds[OURS]
    for name, theirs in rounds.items():
        if name == OURS:
            continue
        pairs = list(zip(own, theirs, strict=True))
        yield Figure(
            name=f"ours / {name}: requests",
            values=[a.rate / b.rate for a, b in pairs],
            unit="times",
            aim=AIMS_OF_RATE[name] if is_judged else None,
            better="more",
        )
        yield Figure(
            name=f"ours / {name}: p99",
            values=[a.p99_ms / b.p99_ms for a, b in pairs],
            unit="times",
            aim=AIM_OF_P99 if is_judged and name == NOTHING else None,
        )


def cost_figures(
    server: Running, *, ready_s: list[float], loaded_mb: float, used_mb: float
) -> list[Figure]:
    """Return how long a server takes to be ready and what memory it holds, ours with the aims."""
    aim_s, aim_mb = (AIM_READY_S, AIM_MB) if server.name == OURS else (None, None)
    return [
        Figure(name=f"{server.name}: start to ready", values=ready_s, unit="s", aim=aim_s),
        Figure(name=f"{server.name}: memory, ready", values=[loaded_mb], unit="MB"),
        Figure(name=f"{server.name}: memory, at the end", values=[used_mb], unit="MB", aim=aim_mb),
    ]


if __name__ == "__main__":
    typer.run(main)
