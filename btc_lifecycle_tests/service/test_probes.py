"""Probes of the Open Inference Protocol, with and without a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from btc_lifecycle.service.app import create_app
from btc_lifecycle_tests.service.conftest import service_settings


@pytest.fixture
def without_model(tmp_path: Path) -> TestClient:
    app = create_app(service_settings(f"sqlite:///{tmp_path / 'none.db'}", tmp_path))
    return TestClient(app)


def test_with_a_champion_the_service_and_its_model_are_ready(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    answer = client.get("/v2/models/bitcoin-model/ready")
    assert (answer.status_code, answer.json()) == (200, {"name": "bitcoin-model", "ready": True})


@pytest.mark.parametrize("path", ["/", "/live", "/health", "/v2/health/live", "/v2/health/ready"])
def test_a_balancer_may_ask_without_wanting_a_body(client, without_model, path):
    assert client.head(path).status_code == 200
    wanted = 200 if path in {"/", "/live", "/v2/health/live"} else 503
    assert without_model.head(path).status_code == wanted


def test_without_a_champion_only_the_process_lives(without_model):
    assert without_model.get("/v2/health/live").status_code == 200
    answer = without_model.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    answer = without_model.get("/v2/models/bitcoin-model/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)


def test_the_volatility_model_is_told_apart_and_does_not_hold_the_service_up(client):
    assert client.get("/v2/models/bitcoin-volatility/ready").status_code == 503
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("name", ["another", "%F0%9F%92%A9", "production"])
def test_a_model_that_is_not_served_here_is_not_found(client, name):
    answer = client.get(f"/v2/models/{name}/ready")
    assert answer.status_code == 404
    assert "bitcoin-model or bitcoin-volatility" in answer.json()["error"]["hint"]


def test_a_uri_that_names_no_model_is_told_and_costs_no_probe(champion_uri, tmp_path):
    app = create_app(service_settings(champion_uri, tmp_path, model_uri="production"))
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.service.live.refresh()
        assert client.get("/v2/models/bitcoin-model/ready").status_code == 404
        assert "names no registered model" in client.get("/health").json()["error"]["message"]
