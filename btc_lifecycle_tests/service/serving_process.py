"""The service in a process group of its own, from its start to its certain end.

Run as a module it is what it starts where a test cannot wait: the same app under the same server,
with the times that `HASTE` says.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from fastapi import FastAPI

ROW = [0.4, -1.0, 0.6]
BODY = {"features": ROW}

HASTE = "BTC_TEST_HASTE"
"""Names in the environment, as JSON, fields of ServiceSettings and of its limits to change."""

_LONGEST_S = 20.0
_PAUSE_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A running service: its process, its port, and the folder that is all its data."""

    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "predictions"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=10.0)

    def predict(self, body: object = BODY) -> httpx.Response:
        return httpx.post(self.url + "/predict", json=body, trust_env=False, timeout=10.0)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10.0)

    def health(self) -> dict[str, object]:
        return dict(self.get("/health").json())

    def said(self) -> str:
        """Return what the process wrote to its standard error."""
        return (self.data_dir / "stderr").read_text()

    def wait_for(self, is_so: Callable[[], object]) -> None:
        """Return once something is so; a connection that is refused is no answer yet."""
        deadline, pause = time.monotonic() + _LONGEST_S, threading.Event()
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            with suppress(httpx.TransportError):
                if is_so():
                    return
            pause.wait(_PAUSE_S)
        raise AssertionError(f"never came; health: {self.get('/health').text}\n{self.said()}")

    def end(self) -> int:
        """Return the exit status after a polite request to end, within uvicorn's own time."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@contextmanager
def serving(
    data_dir: Path,
    *arguments: str,
    registry_uri: str,
    environment: Mapping[str, str] | None = None,
    haste: Mapping[str, object] | None = None,
    ready: str = "/health",
    program: Sequence[str] = ("btc_lifecycle.commands", "serve"),
) -> Iterator[Serving]:
    """Yield `serve` once it answers 200; where there is haste, the same with other times.

    Args:
        data_dir: An existing folder of the service's own.
        arguments: Of `serve`, beside the port.
        registry_uri: Of the MLflow store.
        environment: Variables beside the test's own.
        haste: Fields of ServiceSettings, or of its limits, to change.
        ready: The path that must answer 200.
        program: What to run in place of `serve`.
    """
    port = free_port()
    command = program if haste is None else (__name__,)
    variables = {
        **os.environ,
        "BTC_DATA_DIR": str(data_dir),
        "MLFLOW_TRACKING_URI": registry_uri,
        # MLflow leaves its own in the environment of the tests.
        "MLFLOW_REGISTRY_URI": registry_uri,
        HASTE: json.dumps(haste),
        **(environment or {}),
    }
    with (data_dir / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port), *arguments],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        serving = Serving(process=process, port=port, data_dir=data_dir)
        serving.wait_for(lambda: serving.get(ready).status_code == 200)
        yield serving
    finally:
        # Workers may outlive the process that started them.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Threads that predict without a pause while the `with` block runs.

    Attributes:
        answers: Every answer, whatever its status.
        failures: What came in place of an answer; it ends the thread that it came to.
    """

    def __init__(
        self, serving: Serving, *, n_threads: int = 4, keeps_connections: bool = True
    ) -> None:
        self.answers: list[httpx.Response] = []
        self.failures: list[httpx.TransportError] = []
        self._serving, self._is_over = serving, threading.Event()
        self._limits = httpx.Limits(max_keepalive_connections=None if keeps_connections else 0)
        self._threads = [threading.Thread(target=self._run) for _ in range(n_threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, n_more: int = 20) -> None:
        """Return after so many more answers."""
        wanted = len(self.answers) + n_more
        self._serving.wait_for(lambda: len(self.answers) >= wanted or self.failures)

    def scores(self) -> set[tuple[str, float]]:
        """Return the versions that answered, each with what it answered; all went well."""
        assert not self.failures
        assert {answer.status_code for answer in self.answers} == {200}
        contents = [answer.json() for answer in self.answers]
        return {
            (content["model"]["version"], content["predictions"][0]["probability_up"])
            for content in contents
        }

    def _run(self) -> None:
        with httpx.Client(
            base_url=self._serving.url, trust_env=False, timeout=20.0, limits=self._limits
        ) as client:
            while not self._is_over.is_set():
                try:
                    self.answers.append(client.post("/predict", json=BODY))
                except httpx.TransportError as error:
                    self.failures.append(error)
                    return


def _hasty_app() -> FastAPI:
    from btc_lifecycle.service.app import create_app
    from btc_lifecycle.service.config import service_settings
    from btc_lifecycle.settings import ServeSettings, load_settings

    settings, changes = service_settings(load_settings()), json.loads(os.environ[HASTE])
    limits = {name: changes.pop(name) for name in [*changes] if name in ServeSettings.model_fields}
    return create_app(
        replace(settings, limits=settings.limits.model_copy(update=limits), **changes)
    )


def __getattr__(name: str) -> FastAPI:
    if name != "app":
        raise AttributeError(name)
    # A server asks more than once.
    app = globals()["app"] = _hasty_app()
    return app


if __name__ == "__main__":
    import uvicorn

    from btc_lifecycle.service import server

    uvicorn.run(
        "btc_lifecycle_tests.service.serving_process:app",
        **server.options(host="127.0.0.1", port=int(sys.argv[2]), workers=1),
    )
