"""A server that is down, slow, protected or none at all; what MLflow's own answers, test_reading tells."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from datetime import timedelta

import pytest

from btc_lifecycle.adapters.registry import mlflow_server
from btc_lifecycle.adapters.registry.mlflow_server import MlflowServer
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

VERSION = {"name": "m", "version": "3", "creation_timestamp": 1_700_000_000_000}


class _Server(http.server.ThreadingHTTPServer):
    """Answers every request with ``status`` and ``body`` once ``may_answer``; keeps the headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.seen = 200, b"{}", []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.server.may_answer.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def fake():
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.may_answer.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("environment", "user", "sent"),
    [
        ({}, "", None),
        ({"USERNAME": "ada"}, "", None),
        ({"USERNAME": "ada", "PASSWORD": "s:ü"}, "", basic("ada:s:ü")),
        ({"TOKEN": "t0ken"}, "", "Bearer t0ken"),
        ({"USERNAME": "ada", "PASSWORD": "x", "TOKEN": "t0ken"}, "", basic("ada:x")),
        ({"USERNAME": "ada", "PASSWORD": "x"}, "bob:p%40ss@", basic("bob:p@ss")),
    ],
)
def test_it_says_who_it_is_as_mlflows_client_does(fake, monkeypatch, environment, user, sent):
    fake.body = json.dumps({"model_version": VERSION}).encode()
    server = MlflowServer(f"http://{user}{fake.place}/")
    for name, value in environment.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    assert server.version("m", "3").version == "3"
    assert fake.seen == [("/api/2.0/mlflow/model-versions/get?name=m&version=3", sent)]


def test_a_server_below_a_path_is_asked_there(fake):
    assert MlflowServer(f"http://{fake.place}/below/").newest_versions("a b", limit=2) == []
    assert fake.seen[0][0].startswith("/below/api/2.0/mlflow/model-versions/search?")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b"[" * 100_000),
        (200, b'{"model_version": {"name": "m"}}'),
        (200, b'{"model_version": 3}'),
        (200, b'{"model_version": {"name": "m", "version": 1, "creation_timestamp": "x"}}'),
        (404, b"<html>not found</html>"),
        (302, b""),
        (401, b"You are not authenticated."),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
        (429, b"slow down"),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "database is locked"}'),
        (503, b"[]"),
    ],
)
def test_an_answer_that_is_not_mlflows_is_unavailable_not_empty(fake, status, body):
    fake.status, fake.body = status, body
    server = MlflowServer(f"http://ada:s3cret@{fake.place}")
    with pytest.raises(NeighbourUnavailableError, match=f"http://{fake.place} failed: ") as caught:
        server.version("m", "production")
    assert "s3cret" not in str(caught.value)


def test_what_the_server_said_of_its_failure_is_passed_on(fake):
    fake.status = 500
    fake.body = b'{"error_code": "INTERNAL_ERROR", "message": "database is locked"}'
    with pytest.raises(NeighbourUnavailableError, match="500 INTERNAL_ERROR database is locked"):
        MlflowServer(f"http://{fake.place}").metrics({"run"})


def test_a_refused_request_is_a_configuration_error(fake):
    fake.status = 400
    fake.body = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}'
    with pytest.raises(ConfigurationError, match="MLflow refused a request: bad name"):
        MlflowServer(f"http://{fake.place}").newest_versions("m", limit=1)


@pytest.mark.parametrize("body", [b'{"files": [{"path": 3}]}', b'{"files": [1]}', b"nothing"])
def test_a_listing_that_cannot_be_read_is_unavailable(fake, body):
    fake.body = body
    with pytest.raises(NeighbourUnavailableError, match="is not one of MLflow"):
        MlflowServer(f"http://{fake.place}").file_sizes("1/models")


def test_what_is_listed_without_a_size_is_no_file(fake):
    listed = [
        {"path": "plain", "is_dir": False, "file_size": "12"},
        {"path": "folder", "is_dir": True},
        {"path": "unknown", "is_dir": False},
    ]
    fake.body = json.dumps({"files": listed}).encode()
    server = MlflowServer(f"http://{fake.place}")
    assert server.file_sizes("1/a") == {"plain": 12, "folder": None, "unknown": None}
    assert list(server.read_folder("1/a b")) == ["plain"]
    assert fake.seen[-1][0] == "/api/2.0/mlflow-artifacts/artifacts/1/a%20b/plain"


def test_a_file_that_is_longer_than_any_model_is_not_read(fake, monkeypatch):
    monkeypatch.setattr(mlflow_server, "MOST_BYTES", 60)
    fake.body = json.dumps({"files": [{"path": "long", "file_size": 1}], "x": "." * 60}).encode()
    with pytest.raises(NeighbourUnavailableError, match="the body is longer than 60 bytes"):
        MlflowServer(f"http://{fake.place}").read_folder("1/a")


def test_a_server_that_is_slow_is_given_up(fake, monkeypatch):
    monkeypatch.setattr(mlflow_server, "_LOOK_UP", timedelta(seconds=0.05))
    fake.may_answer.clear()
    with pytest.raises(NeighbourUnavailableError, match=r"no whole answer within 0\.05 s"):
        MlflowServer(f"http://{fake.place}").model_location("m-0")


def test_a_server_that_is_down_is_unavailable():
    with pytest.raises(NeighbourUnavailableError, match=r"http://127\.0\.0\.1:9 failed: .*refused"):
        MlflowServer("http://ada:s3cret@127.0.0.1:9").version("m", "1")
