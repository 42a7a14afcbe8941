"""How the service is started, short of starting it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import uvicorn

from btc_lifecycle.commands.serving import serve
from btc_lifecycle.domain.errors import ConfigurationError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, object]]:
    """The options of each server that was started in place of a real one."""
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("BTC_API_KEY", raising=False)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    told: list[dict[str, object]] = []

    def run(app: str, **options: object) -> None:
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        told.append({"app": app, "metrics": folder, "was_there": bool(folder), **options})
        if folder is not None:
            told[-1]["was_there"] = Path(folder).is_dir()

    monkeypatch.setattr(uvicorn, "run", run)
    return told


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_on_this_machine_alone_no_key_is_needed(started, host):
    serve(host=host, port=8001, workers=1)
    (options,) = started
    assert (options["host"], options["port"]) == (host, 8001)
    assert options["app"] == "btc_lifecycle.service.app:app"
    assert options["access_log"] is False
    assert options["metrics"] is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])  # noqa: S104
def test_where_others_could_reach_it_a_key_is_asked_for(started, monkeypatch, host):
    with pytest.raises(ConfigurationError, match="without a key") as refused:
        serve(host=host, port=8001, workers=1)
    assert "BTC_API_KEY" in refused.value.hint
    assert started == []
    monkeypatch.setenv("BTC_API_KEY", "s3cret")
    serve(host=host, port=8001, workers=1)
    assert len(started) == 1


def test_several_workers_count_into_one_folder_which_is_gone_afterwards(started, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")  # so that it is put back
    serve(host="127.0.0.1", port=8001, workers=2)
    (options,) = started
    assert (options["workers"], options["was_there"]) == (2, True)
    assert not Path(str(options["metrics"])).exists()
