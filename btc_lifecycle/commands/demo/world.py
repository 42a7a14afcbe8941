"""The demo's surroundings: a folder, a sandbox exchange and a service, each a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from btc_lifecycle.domain.errors import LifecycleError, NeighbourUnavailableError
from btc_lifecycle.settings import ROOT

WINDOW_DAYS = 28
N_FOLDS = 2
"""The demo learns from four weeks, so that a new regime fills most of them after twenty days."""

_START_WAIT_S = 60.0
_POLL_S = 0.1


class DemoError(LifecycleError):
    """A step of the demo did not do what it claims."""


class World:
    """Child processes and places of one demo; as a context manager it ends the processes."""

    def __init__(self, folder: Path, *, seed: int, now: datetime) -> None:
        self.folder, self.seed, self.now = folder, seed, now
        self.exchange_url = f"http://127.0.0.1:{_free_port()}"
        self.service_url = f"http://127.0.0.1:{_free_port()}"
        self._processes = list[subprocess.Popen[bytes]]()

    def __enter__(self) -> Self:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        _write_configuration(self.folder)
        os.environ.update(self.environment())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            process.kill()

    def environment(self) -> dict[str, str]:
        """Return the environment that keeps every command to the demo's folder."""
        mlflow_uri = f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"
        # All by name: where a variable is empty, a .env file of the working folder would fill it.
        return {
            "BTC_DATA_DIR": str(self.folder),
            "INGEST_CONFIG": str(self.folder / "config" / "bitcoin_ingest.json"),
            "LIFECYCLE_CONFIG": str(self.folder / "config" / "lifecycle.json"),
            "FEATURE_DB_PATH": str(self.folder / "feature_store" / "bitcoin.duckdb"),
            "BTC_REPORT_DIR": str(self.folder / "reports"),
            "MLFLOW_TRACKING_URI": mlflow_uri,
            "MLFLOW_REGISTRY_URI": mlflow_uri,
            "MODEL_URI": "models:/bitcoin-model@production",
            "EXCHANGE_BASE_URL": self.exchange_url,
            "PREDICTION_LOG_DIR": str(self.folder / "predictions"),
            "BTC_API_KEY": "",
        }

    def start_exchange(self) -> dict[str, Any]:
        """Start the sandbox exchange and return its state."""
        port = self.exchange_url.rpartition(":")[2]
        self._start(
            "sandbox", "--port", port, "--now", self.now.isoformat(), "--seed", str(self.seed)
        )
        return self._wait(lambda: get(f"{self.exchange_url}/sandbox/state"), what="the exchange")

    def start_service(self) -> dict[str, Any]:
        """Start the service and return its health once it has a model."""
        self._start("serve", "--port", self.service_url.rpartition(":")[2])
        return self._wait(lambda: get(f"{self.service_url}/health"), what="the service")

    def leap(self, time_: datetime) -> None:
        """Set the exchange's clock; the market in between is there when it is asked for."""
        post(f"{self.exchange_url}/sandbox/clock", {"now": time_.isoformat()})

    def change_regime(self, starts_at: datetime) -> dict[str, Any]:
        """Turn the market's order flow against the price, twice as strong; treble volatility and volume."""
        return post(
            f"{self.exchange_url}/sandbox/regime",
            {
                "starts_at": starts_at.isoformat(),
                "volatility_factor": 3.0,
                "volume_factor": 3.0,
                "flow_effect_factor": -2.0,
            },
        )

    def wait_for_version(self, version: str) -> dict[str, Any]:
        """Return the service's model once it is the version, without a restart."""

        def model() -> dict[str, Any]:
            answer = get(f"{self.service_url}/model")
            if str(answer["version"]) != version:
                raise NeighbourUnavailableError(
                    f"the service still answers with version {answer['version']}",
                    hint=f"it should pick up version {version} within seconds",
                )
            return answer

        return self._wait(model, what=f"version {version} in the service")

    def _start(self, *command: str) -> None:
        with (self.folder / "logs" / f"{command[0]}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(  # noqa: S603  # our own commands
                    [sys.executable, "-m", "btc_lifecycle.commands", *command],
                    # No .env lies here, so the service asks for no key.
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, ask: Callable[[], dict[str, Any]], *, what: str) -> dict[str, Any]:
        ends_at = time.monotonic() + _START_WAIT_S
        while True:
            try:
                return ask()
            except NeighbourUnavailableError as error:
                if time.monotonic() > ends_at or self._processes[-1].poll() is not None:
                    raise DemoError(
                        f"{what} did not come up: {error.message}",
                        hint=f"read the logs in {self.folder / 'logs'}",
                    ) from error
                time.sleep(_POLL_S)


def get(url: str) -> dict[str, Any]:
    """Return the JSON answer of a GET; NeighbourUnavailableError for any status but 200."""
    return _answer(lambda: httpx.get(url, timeout=10), url=url)


def post(url: str, body: object) -> dict[str, Any]:
    """Return the JSON answer of a POST; NeighbourUnavailableError for any status but 200."""
    return _answer(lambda: httpx.post(url, json=body, timeout=30), url=url)


def _answer(call: Callable[[], httpx.Response], *, url: str) -> dict[str, Any]:
    try:
        response = call()
    except httpx.HTTPError as error:
        raise NeighbourUnavailableError(f"{url}: {error}", hint="see the demo's logs") from error
    if response.status_code != httpx.codes.OK:
        raise NeighbourUnavailableError(
            f"{url} answered {response.status_code}: {response.text[:300]}",
            hint="see the demo's logs",
        )
    answer: dict[str, Any] = response.json()
    return answer


def _write_configuration(folder: Path) -> None:
    ingest = json.loads((ROOT / "config" / "bitcoin_ingest.json").read_text(encoding="utf-8"))
    lifecycle = json.loads((ROOT / "config" / "lifecycle.json").read_text(encoding="utf-8"))
    lifecycle["learn"]["window_days"] = WINDOW_DAYS
    # A month in five folds would leave two days to judge a candidate by, which is luck.
    lifecycle["learn"]["split"]["n_folds"] = N_FOLDS
    for name, content in {"bitcoin_ingest": ingest, "lifecycle": lifecycle}.items():
        path = folder / "config" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
