"""The service in processes of its own: under load, through every trouble, until its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import pytest

from btc_lifecycle.adapters.prediction_log import read_prediction_log
from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle_tests.adapters.registry.test_canary import DAMAGES
from btc_lifecycle_tests.model_builders import copy_store, make_booster, model_file, promote_new
from btc_lifecycle_tests.service.serving_process import BODY, ROW, Load, Serving, serving

HASTE = {"poll_seconds": 0.05, "body_timeout_s": 1.0}
ENDED = {0, -signal.SIGTERM}
"""Once all is done, uvicorn lets the signal that told it to end take its usual effect."""

EVERYWHERE = ("--host", "0.0.0.0")  # noqa: S104  # what is refused without a key

SCORES = {(str(n + 1), make_booster(n).predict([ROW])[0]) for n in range(2)}


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store with two versions, between which a test moves the alias."""

    uri: str
    path: Path
    model_dir: Path

    def point_to(self, version: str) -> None:
        self._client.set_registered_model_alias("bitcoin-model", "production", version)

    def point_nowhere(self) -> None:
        self._client.delete_registered_model_alias("bitcoin-model", "production")

    @property
    def _client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.uri, self.uri)


@pytest.fixture(scope="module")
def two_versions(empty_mlflow_store, tmp_path_factory) -> Store:
    uri = copy_store(empty_mlflow_store, tmp_path_factory.mktemp("two"))
    registry = Registry(uri, uri)
    promote_new(registry, seed=0)
    version = promote_new(registry, seed=1)
    return Store(
        uri=uri,
        path=Path(uri.removeprefix("sqlite:///")),
        model_dir=model_file(registry, version, "."),
    )


@pytest.fixture
def store(two_versions, tmp_path) -> Iterator[Store]:
    """The store whose alias points to version 1; what a test does to version 2 is undone."""
    uri, whole = copy_store(two_versions.path, tmp_path), tmp_path / "whole"
    shutil.copytree(two_versions.model_dir, whole)
    store = Store(
        uri=uri, path=Path(uri.removeprefix("sqlite:///")), model_dir=two_versions.model_dir
    )
    store.point_to("1")
    yield store
    shutil.rmtree(store.model_dir, ignore_errors=True)
    shutil.copytree(whole, store.model_dir)


@pytest.fixture
def data_dir(tmp_path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def service(store, data_dir) -> Iterator[Serving]:
    with serving(data_dir, registry_uri=store.uri, haste=HASTE) as running:
        yield running


def serves(running: Serving, version: str) -> Callable[[], bool]:
    return lambda: running.health()["model"]["version"] == version


def is_stale(running: Serving, problem: str) -> Callable[[], bool]:
    def check() -> bool:
        health = running.health()
        return health["status"] == "stale" and problem in health["problem"]

    return check


def test_ten_moves_under_load_fail_no_request_and_mix_no_versions(store, service):
    with Load(service) as load:
        for move in range(10):
            wanted = "21"[move % 2]
            store.point_to(wanted)
            service.wait_for(serves(service, wanted))
            load.goes_on()
    assert load.scores() == SCORES


@pytest.mark.slow
def test_a_hundred_moves_under_load_fail_no_request_and_mix_no_versions(store, service):
    with Load(service) as load:
        for move in range(100):
            store.point_to("21"[move % 2])
        service.wait_for(serves(service, "1"))
        for move in range(100):
            wanted = "21"[move % 2]
            store.point_to(wanted)
            service.wait_for(serves(service, wanted))
    assert load.scores() == SCORES


def test_a_registry_in_trouble_leaves_the_last_good_model_serving(store, service):
    with Load(service, n_threads=1) as load:
        content = store.path.read_bytes()
        aside = store.path.rename(store.path.with_name("aside"))
        service.wait_for(is_stale(service, "does not exist"))
        store.path.write_bytes(b"x" * len(content))
        service.wait_for(is_stale(service, "MLflow at sqlite"))
        aside.replace(store.path)
        service.wait_for(lambda: service.health()["status"] == "ok")
        store.point_nowhere()
        service.wait_for(is_stale(service, "production does not exist"))
        load.goes_on()
        store.point_to("2")
        service.wait_for(serves(service, "2"))
        load.goes_on()
    assert load.scores() == SCORES


def test_no_damaged_version_serves_and_the_one_before_it_does(store, service):
    def rewrite(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], object]:
        return lambda: path.write_bytes(change(path.read_bytes()))

    text, described = store.model_dir / "model.lgb", store.model_dir / "MLmodel"
    golden = store.model_dir / "golden.json"
    damages = [
        lambda: shutil.rmtree(store.model_dir),
        text.unlink,
        golden.unlink,
        described.unlink,
        lambda: (store.model_dir / "model.pkl").write_bytes(b"\x80\x04."),
        lambda: (text.unlink(), os.mkfifo(text)),
        lambda: (text.unlink(), text.symlink_to("/dev/zero")),
        rewrite(text, lambda content: content[: len(content) // 2]),
        rewrite(text, lambda content: b""),
        rewrite(text, lambda content: bytes([content[0] ^ 1]) + content[1:]),
        rewrite(golden, lambda content: content.replace(b"0.", b"0.1", 1)),
        rewrite(described, lambda content: content.replace(b"code: null", b"code: code")),
        *[rewrite(text, lambda _, d=damage: DAMAGES[d].encode()) for damage in [*DAMAGES][::7]],
    ]
    whole = store.path.parent / "whole2"
    shutil.copytree(store.model_dir, whole)
    with Load(service, n_threads=1) as load:
        for damage in damages:
            damage()
            store.point_to("2")
            service.wait_for(is_stale(service, "version 2 was not loaded"))
            store.point_to("1")
            service.wait_for(lambda: service.health()["status"] == "ok")
            shutil.rmtree(store.model_dir, ignore_errors=True)
            shutil.copytree(whole, store.model_dir)
        load.goes_on()
    assert {version for version, _ in load.scores()} == {"1"}
    store.point_to("2")
    service.wait_for(serves(service, "2"))


def test_started_without_a_registry_it_lives_says_what_to_do_and_finds_its_model_later(
    two_versions, tmp_path, data_dir
):
    path = tmp_path / "mlflow.db"
    with serving(data_dir, registry_uri=f"sqlite:///{path}", haste=HASTE, ready="/live") as running:
        unready = [running.get(p) for p in ("/health", "/v2/health/ready")] + [running.predict()]
        assert [answer.status_code for answer in unready] == [503, 503, 503]
        running.wait_for(lambda: "./task track" in running.get("/health").text)
        shutil.copy(two_versions.path, path)
        running.wait_for(lambda: running.get("/v2/health/ready").status_code == 200)
        assert running.predict().status_code == 200


def test_a_prediction_log_that_cannot_be_written_costs_no_answer(service):
    service.log_dir.write_text("in the folder's place")
    lost = [service.predict() for _ in range(3)]
    service.wait_for(lambda: service.health()["predictions_dropped"] == 3)
    assert "btc_prediction_log_dropped_total 3.0" in service.get("/metrics").text
    service.log_dir.unlink()
    kept = [service.predict() for _ in range(3)]
    service.wait_for(lambda: len(read_prediction_log(service.log_dir)[0]) == 3)
    assert {answer.status_code for answer in lost + kept} == {200}
    assert logged_ids(service) == {answer.json()["prediction_id"] for answer in kept}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system cannot fill a disk so")
def test_a_full_disk_costs_records_and_no_answer_until_there_is_room_again(service):
    before = [service.predict() for _ in range(3)]
    service.wait_for(lambda: len(read_prediction_log(service.log_dir)[0]) == 3)
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (1, hard))
    lost = [service.predict() for _ in range(3)]
    service.wait_for(lambda: service.health()["predictions_dropped"] == 3)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    after = [service.predict() for _ in range(3)]
    service.wait_for(lambda: len(read_prediction_log(service.log_dir)[0]) == 6)
    assert {answer.status_code for answer in before + lost + after} == {200}
    assert logged_ids(service) == {answer.json()["prediction_id"] for answer in before + after}


def logged_ids(running: Serving) -> set[object]:
    return {record["prediction_id"] for record in read_prediction_log(running.log_dir)[0]}


def test_told_to_end_under_load_it_finishes_what_it_began_and_logs_every_answer(service):
    whole, n_held = request(json.dumps(BODY).encode()), 10
    with ExitStack() as stack:
        idle, half_head, stuck, begun = (stack.enter_context(service.connect()) for _ in range(4))
        with Load(service) as load:
            load.goes_on(100)
            idle.sendall(whole)
            first = idle.recv(65_536)
            half_head.sendall(whole[:40])
            stuck.sendall(whole[:-n_held])
            begun.sendall(whole[:-n_held])
            threading.Timer(0.2, begun.sendall, [whole[-n_held:]]).start()
            assert service.end() in ENDED
        answers = [first, read_all(begun)]
        assert read_all(stuck).startswith(b"HTTP/1.1 400")
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 2
    assert {answer.status_code for answer in load.answers} == {200}
    assert not [failure for failure in load.failures if "incomplete" in str(failure)]
    answered = {answer.json()["prediction_id"] for answer in load.answers}
    answered |= {
        json.loads(answer.partition(b"\r\n\r\n")[2])["prediction_id"] for answer in answers
    }
    # What was scored for a connection that then ended may be there beside them.
    assert answered <= logged_ids(service)
    assert len(logged_ids(service)) <= len(answered) + len(load.failures)


def read_all(connection: socket.socket) -> bytes:
    content = b""
    while part := connection.recv(65_536):
        content += part
    return content


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2500, reason="too few files may be open here"
)
def test_a_thousand_connections_at_once_are_answered_or_told_to_come_again(store, data_dir):
    haste = {"body_timeout_s": 30.0, "max_concurrent_requests": 64}
    with serving(data_dir, registry_uri=store.uri, haste=haste) as running:
        answers = asyncio.run(_burst(running, n=1000))
        statuses = Counter(answer[9:12] for answer in answers)
        assert set(statuses) == {b"200", b"503"}, statuses
        assert statuses[b"200"] >= 64
        busy = [answer for answer in answers if answer[9:12] == b"503"]
        assert all(b"\r\nretry-after: 1\r\n" in answer for answer in busy)
        assert all(b'"code": "busy"' in answer for answer in busy)
        assert running.predict().status_code == 200


async def _burst(running: Serving, *, n: int) -> list[bytes]:
    """Return the answers to requests that all begin before any is sent whole; probes meanwhile."""
    body, n_held = json.dumps(BODY).encode(), 10
    links = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(n)]
    for _, writer in links:
        writer.write(request(body)[:-n_held])
    for path in ("/health", "/live", "/v2/health/ready"):
        answer = await asyncio.to_thread(running.get, path)
        assert answer.status_code == 200
    for _, writer in links:
        writer.write(body[-n_held:])
    answers = []
    for reader, writer in links:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", head)
        answers.append(head + await reader.readexactly(int(length)))
        writer.close()
    return answers


def request(body: bytes) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def test_two_workers_follow_a_move_count_together_and_end_together(store, data_dir):
    arguments = ("--workers", "2")
    with serving(data_dir, *arguments, registry_uri=store.uri) as running:
        running.wait_for(lambda: running.predict() and len(workers_of(running)) == 2)
        with Load(running, keeps_connections=False) as load:
            load.goes_on()
            store.point_to("2")
            running.wait_for(lambda: both_answer(running, "2"))
        assert load.scores() == SCORES
        counted = re.search(
            r'path="/predict",status="200"} (\d+)', running.get("/metrics").text
        ).group(1)
        assert running.end() in ENDED
    assert len(logged_ids(running)) == int(counted)


def workers_of(running: Serving) -> set[str]:
    """Return the processes that wrote to the prediction log."""
    return {path.name.split("-")[2] for path in running.log_dir.glob("*.jsonl")}


def both_answer(running: Serving, version: str) -> bool:
    """Return whether the last that each worker logged is of one version."""
    # Up to its last newline: a line may be on its way.
    whole = [path.read_bytes().rpartition(b"\n")[0] for path in running.log_dir.glob("*.jsonl")]
    newest = [lines.splitlines()[-1] for lines in whole if lines]
    return {json.loads(line)["model_version"] for line in newest} == {version}


def test_without_a_key_it_refuses_to_be_reached_by_others(store, data_dir):
    command = [sys.executable, "-m", "btc_lifecycle.commands", "serve", *EVERYWHERE]
    environment = {**os.environ, "BTC_DATA_DIR": str(data_dir), "BTC_API_KEY": ""}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    told = " ".join((ended.stdout + ended.stderr).split())
    assert "binds to this machine only, 0.0.0.0 was asked for" in told
    assert "BTC_API_KEY" in told


def test_with_a_key_it_may_be_reached_by_others_who_have_it(store, data_dir):
    key = {"BTC_API_KEY": "s3cret"}
    with serving(data_dir, *EVERYWHERE, registry_uri=store.uri, environment=key) as running:
        assert running.predict().status_code == 401
        headers = {"X-API-Key": "s3cret"}
        url = f"{running.url}/predict"
        assert httpx.post(url, json=BODY, headers=headers, trust_env=False).status_code == 200


def test_plain_uvicorn_serves_it_as_well(store, data_dir):
    program = ("uvicorn", "btc_lifecycle.service.app:app")
    with serving(data_dir, registry_uri=store.uri, program=program) as running:
        with Load(running, n_threads=1) as load:
            load.goes_on()
        assert running.end() in ENDED
    assert load.scores() < SCORES
    assert len(logged_ids(running)) == len(load.answers)


def test_a_process_that_serves_has_loaded_nothing_that_only_training_needs(store, data_dir):
    code = (
        "import asyncio, sys; import btc_lifecycle.commands.serving;"
        "from btc_lifecycle.service.app import app; service = app.state.service;"
        "service.live.refresh(); service.volatility.refresh();"
        "from btc_lifecycle.service.rows import PLAIN; import numpy as np;"
        "row, model = np.array([[1.0, 2.0, 3.0]]), service.live.model;"
        "answer = service.scorer.answer(PLAIN, row, model=model);"
        "print(*{name.partition('.')[0] for name in sys.modules}, answer.body.decode())"
    )
    environment = {
        **os.environ,
        "BTC_DATA_DIR": str(data_dir),
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_REGISTRY_URI": store.uri,
    }
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert '"probability_up":' in ended.stdout, ended.stderr
    slow = {"mlflow", "lightgbm", "sklearn", "scipy", "pandas", "dagster", "duckdb"}
    assert not slow & {*ended.stdout.split()}
