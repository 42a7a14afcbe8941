"""Metrics as Prometheus reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.online_store import OnlineStore
from btc_lifecycle.service.app import create_app
from btc_lifecycle_tests.service.conftest import service_settings
from btc_lifecycle_tests.service.test_latest import CLOSED, snapshot


def samples(text: str) -> dict[str, float]:
    """Return the value of each sample by its name and labels."""
    return {
        sample.name + str(sorted(sample.labels.items()) or ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_predictions_scores_ages_and_losses_are_told(champion_uri, tmp_path, monkeypatch):
    app = create_app(service_settings(champion_uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        created = app.state.service.live.model.version.created_at
        monkeypatch.setattr(clock, "now", lambda: max(created, CLOSED) + timedelta(seconds=100))
        written = clock.now() - timedelta(seconds=20)
        OnlineStore(tmp_path / "online").write(snapshot(read_at=written))
        client.post("/predict", json={"features": [[0.4, -1.0, 0.6], [0.0, 0.0, 0.0]]})
        client.post("/predict", json={"features": [1]})
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    told = samples(answer.text)
    version = "[('model', 'bitcoin-model'), ('version', '1')]"
    assert told[f"btc_predictions_total{version}"] == 2
    assert told["btc_prediction_probability_up_count"] == 2
    assert told["btc_prediction_probability_up_bucket[('le', '+Inf')]"] == 2
    requests = "btc_http_requests_total[('method', 'POST'), ('path', '/predict'), ('status', '{}')]"
    assert (told[requests.format(200)], told[requests.format(422)]) == (1, 1)
    assert told["btc_http_request_duration_seconds_count[('path', '/predict')]"] == 2
    assert told[f"btc_model_age_seconds{version}"] == pytest.approx(
        (max(created, CLOSED) - created).total_seconds() + 100, abs=1
    )
    assert told["btc_feature_staleness_seconds[('symbol', 'BTC/USDT')]"] == 22.0
    assert told["btc_prediction_log_dropped_total"] == 0
    assert told["btc_model_refresh_failing[('uri', 'models:/bitcoin-model@production')]"] == 0
    assert told["btc_model_refresh_failing[('uri', 'models:/bitcoin-volatility@production')]"] == 1


def test_lost_records_show(champion_uri, tmp_path):
    (tmp_path / "log").write_text("a file where the folder should be")
    app = create_app(service_settings(champion_uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert client.post("/predict", json={"features": [0.4, -1.0, 0.6]}).status_code == 200
        assert app.state.service.log.flush()
        assert samples(client.get("/metrics").text)["btc_prediction_log_dropped_total"] == 1
        assert client.get("/health").json()["predictions_dropped"] == 1


def test_counts_of_all_worker_processes_are_summed(tmp_path):
    """Each worker counts into files of its own, and whichever is asked reads them all."""
    code = (
        "from types import SimpleNamespace\n"
        "from btc_lifecycle.service.metrics import Metrics\n"
        "from btc_lifecycle.service.predicting import Scored\n"
        "class Nothing:\n"
        "    def collect(self): return []\n"
        "metrics = Metrics(Nothing())\n"
        "metrics.saw_request(method='GET', path='/live', status=200, seconds=0.1)\n"
        "model = SimpleNamespace(version=SimpleNamespace(name='m', version='1'))\n"
        "metrics.saw_predictions(Scored(model=model, predictions=[{'probability_up': 0.5}]))\n"
        "print(metrics.text().decode())\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    counts = [re.findall(r"^btc_predictions_total\S* (\S+)$", text, re.MULTILINE) for text in texts]
    assert counts == [["1.0"], ["2.0"]]
