"""A store that is down, is none, or is used by several processes at once."""

from __future__ import annotations

import http.server
import threading

import mlflow
import pytest
from filelock import FileLock

from btc_lifecycle.adapters.registry import Registry, store
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError
from btc_lifecycle_tests.model_builders import ACTOR


def test_processes_that_need_a_new_store_at_once_get_the_same_experiment(tmp_path, children):
    """Both created the tables, or the experiment, and the second failed."""
    assert children(tmp_path, "create", "create") == [0, 0]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    found = [it.name for it in client.search_experiments()]
    assert sorted(found) == ["Default", "bitcoin-lifecycle"]


def test_what_is_no_plain_file_has_no_size(registry, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    for uri in (tmp_path.as_uri(), str(tmp_path)):
        sizes = registry._store.file_sizes(uri)
        assert sizes == {"mlflow": None, "folder": None, "plain": 5, "link": None}


def test_whoever_waits_too_long_for_another_writer_is_told_so(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_WAIT_S", 0.05)
    with (
        FileLock(tmp_path / "mlflow" / ".changing.lock"),
        pytest.raises(NeighbourUnavailableError, match=r"another process has held .*\.changing"),
    ):
        registry.rollback(actor=ACTOR)


class _NotMlflow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def other_server_uri():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotMlflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_decides_itself_where_artifacts_go():
    assert MlflowStore("http://127.0.0.1:9", "http://127.0.0.1:9").artifact_location is None


def test_a_registry_that_is_down_is_unavailable_not_empty():
    registry = Registry("http://127.0.0.1:9", "http://127.0.0.1:9")
    with pytest.raises(
        NeighbourUnavailableError, match=r"MLflow at http://127.0.0.1:9 failed.*try"
    ):
        registry.champion()


def test_a_server_that_is_not_mlflow_is_unavailable(other_server_uri):
    with pytest.raises(NeighbourUnavailableError, match="not in a valid JSON format"):
        Registry(other_server_uri, other_server_uri).champion()


def test_a_password_in_the_uri_is_not_repeated():
    uri = "http://user:secret@127.0.0.1:9"
    with pytest.raises(NeighbourUnavailableError) as caught:
        Registry(uri, uri).champion()
    assert "secret" not in caught.value.message


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(NeighbourUnavailableError, match="not a database"):
        Registry(f"sqlite:///{path}", f"sqlite:///{path}").champion()


@pytest.mark.parametrize("uri", ["foo://x", "/tmp/mlruns"])  # noqa: S108
def test_a_store_that_mlflow_does_not_take_is_a_configuration_error(uri):
    with pytest.raises(ConfigurationError, match="MLflow refused"):
        Registry(uri, uri).champion()
