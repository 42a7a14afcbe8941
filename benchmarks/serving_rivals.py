"""The servers that serving.py measures: how each is started, put under load, and always stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

OURS, NOTHING = "ours", "FastAPI that does nothing"
MLFLOW, MLSERVER = "mlflow models serve", "MLServer"

_LONGEST_START_S, _GRACE_S = 120.0, 15.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""A single row gains nothing from a second thread, and waits for it."""

_DOES_NOTHING = """
from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict() -> dict[str, float]:
    return {"probability_up": 0.5}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
"""


_WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]

function done(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  local form = '\\n{{"answered": %d, "us": %d, "refused": %d, "lost": %d, "p50_us": %d, "p99_us": %d}}\\n'
  io.write(string.format(form, summary.requests, summary.duration, errors.status, lost,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server: its command, where a row is sent and how, and how its answer reads."""

    name: str
    command: Callable[[int], Sequence[str | Path]]
    health: str
    path: str
    body: Mapping[str, object]
    probability: Callable[[Any], float] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A contender that answers."""

    contender: Contender
    port: int
    process_id: int
    ready_s: float

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return self.contender.name

    def answer(self) -> Any:
        """Return what it answers to one row."""
        content = json.dumps(self.contender.body)
        status, answer = _ask(self.port, "POST", self.contender.path, content)
        if status != 200:
            raise SystemExit(f"{self.name} answered {status}: {answer[:300].decode()}")
        return json.loads(answer)

    def memory_mb(self) -> float:
        """Return the resident memory of its process and of all that this started."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
        )
        rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
        family = {self.process_id}
        while more := {pid for pid, parent, _ in rows if parent in family} - family:
            family |= more
        return sum(kilobytes for pid, _, kilobytes in rows if pid in family) * 1024 / 1e6


def ours(row: Sequence[float], *, data_dir: Path) -> Contender:
    """Return the service as `./task serve` starts it, its logs and metrics on."""
    module = [sys.executable, "-m", "btc_lifecycle.commands", "serve", "--port"]
    return Contender(
        name=OURS,
        command=lambda port: [*module, str(port)],
        health="/health",
        path="/predict",
        body={"features": list(row)},
        probability=lambda answer: answer["predictions"][0]["probability_up"],
        environment={"BTC_DATA_DIR": str(data_dir)},
    )


def nothing(row: Sequence[float], *, folder: Path) -> Contender:
    """Return a FastAPI endpoint that does nothing, by the same uvicorn, without access log."""
    (folder / "nothing.py").write_text(_DOES_NOTHING, "utf-8")
    uvicorn = [sys.executable, "-m", "uvicorn", "nothing:app", "--app-dir", folder]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port"]
    return Contender(
        name=NOTHING,
        command=lambda port: [*uvicorn, *options, str(port)],
        health="/health",
        path="/predict",
        body={"features": list(row)},
    )


def mlflow_serve(
    row: Sequence[float], *, program: Path, model: Path, names: Sequence[str]
) -> Contender:
    """Return `mlflow models serve`, which by itself starts one worker."""
    arguments = [
        "models",
        "serve",
        "--model-uri",
        model,
        "--env-manager",
        "local",
        "--workers",
        "1",
    ]
    return Contender(
        name=MLFLOW,
        command=lambda port: [program, *arguments, "--port", str(port)],
        health="/health",
        path="/invocations",
        body={"dataframe_split": {"columns": list(names), "data": [list(row)]}},
        probability=lambda answer: answer["predictions"][0],
        # It looks for uvicorn on the path, which need not hold this environment's programs.
        environment={**_ONE_THREAD, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
    )


def mlserver(row: Sequence[float], *, program: Path, model: Path, folder: Path) -> Contender:
    """Return MLServer with its LightGBM runtime in the server's own process, without access log."""
    described = {
        "name": "bitcoin",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(model / "model.lgb"), "version": "1"},
    }
    settings = {"debug": "false", "parallel_workers": "0", "host": "127.0.0.1"}

    def command(port: int) -> list[str | Path]:
        place = folder / "mlserver"
        place.mkdir(exist_ok=True)
        (place / "model-settings.json").write_text(json.dumps(described), "utf-8")
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        (place / "settings.json").write_text(json.dumps({**settings, **ports}), "utf-8")
        return [program, "start", place]

    table = {"name": "rows", "shape": [1, len(row)], "datatype": "FP64", "data": list(row)}
    return Contender(
        name=MLSERVER,
        command=command,
        health="/v2/models/bitcoin/ready",
        path="/v2/models/bitcoin/infer",
        body={"inputs": [table]},
        probability=lambda answer: answer["outputs"][0]["data"][0],
        environment=_ONE_THREAD,
    )


@dataclass(frozen=True, kw_only=True)
class Round:
    """What wrk saw of one server in one round."""

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(kw_only=True)
class Load:
    """The load that every server gets in turn."""

    program: str
    seconds: int
    rounds: int
    folder: Path
    n_answered: Counter[str] = field(default_factory=Counter)

    def put_on(self, server: Running, *, n_clients: int, seconds: int | None = None) -> Round:
        """Return what came of one round.

        Raises:
            SystemExit: If a single request was lost, or answered by an error.
        """
        script = self.folder / "post.lua"
        script.write_text(_WRK_SCRIPT.format(body=json.dumps(server.contender.body)), "utf-8")
        command = [self.program, "-t1", f"-c{n_clients}", f"-d{seconds or self.seconds}s"]
        url = f"http://127.0.0.1:{server.port}{server.contender.path}"
        ended = subprocess.run(
            [*command, "--latency", "--timeout", "30s", "-s", str(script), url],
            capture_output=True,
            text=True,
            check=True,
        )
        seen = json.loads(ended.stdout.strip().splitlines()[-1])
        if seen["refused"] or seen["lost"] or not seen["answered"]:
            raise SystemExit(f"{server.name} failed under {n_clients} clients: {seen}")
        self.n_answered[server.name] += seen["answered"]
        return Round(
            rate=seen["answered"] / seen["us"] * 1e6,
            p50_ms=seen["p50_us"] / 1000,
            p99_ms=seen["p99_us"] / 1000,
        )


@contextmanager
def running(contender: Contender, *, folder: Path) -> Iterator[Running]:
    """Start a server on a free port and yield it once it is ready; it ends with all it started."""
    port = free_port()
    log = folder / f"{contender.name.replace(' ', '_')}.log"
    with log.open("ab") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in contender.command(port)],
            env={**os.environ, **contender.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
        )
        try:
            while not _is_ready(port, contender.health):
                if process.poll() is not None or time.perf_counter() - began > _LONGEST_START_S:
                    said = log.read_text("utf-8", errors="replace")[-1000:]
                    raise SystemExit(f"{contender.name} did not start: {said}")
                time.sleep(0.005)
            ready_s = time.perf_counter() - began
            yield Running(contender=contender, port=port, process_id=process.pid, ready_s=ready_s)
        finally:
            _stop(process)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started, the gentle way first, so that it writes its logs."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(_GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def _is_ready(port: int, path: str) -> bool:
    try:
        return _ask(port, "GET", path)[0] == 200
    except (OSError, HTTPException):
        return False


def _ask(port: int, method: str, path: str, content: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
