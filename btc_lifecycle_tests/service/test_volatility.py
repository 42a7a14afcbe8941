"""Two models in one answer: the probability of a rise, and how much the next hour moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from btc_lifecycle.adapters.registry import VOLATILITY_MODEL_NAME, Registry
from btc_lifecycle.service.app import create_app
from btc_lifecycle_tests.model_builders import make_booster, promote_new
from btc_lifecycle_tests.service.conftest import service_settings

DIRECTION = ("log_return_5m", "realized_volatility_60m", "rsi_14m", "realized_volatility_15m")
VOLATILITY = ("realized_volatility_15m", "realized_volatility_60m")
ROWS = [[0.001, 4e-4, 0.6, 5e-4], [-0.002, 0.0, 0.3, 2e-4]]


@pytest.fixture
def client(registry: Registry, mlflow_uri: str, tmp_path: Path) -> Iterator[TestClient]:
    promote_new(registry, feature_names=DIRECTION)
    app = create_app(service_settings(mlflow_uri, tmp_path / "log"))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        yield client


def promote_volatility(client: TestClient, uri: str, *, feature_names: Sequence[str]) -> None:
    registry = Registry(uri, uri, model_name=VOLATILITY_MODEL_NAME)
    promote_new(registry, seed=1, feature_names=feature_names)
    client.app.state.service.volatility.refresh()


def test_without_a_volatility_model_only_the_direction_is_told(client: TestClient):
    client.app.state.service.volatility.refresh()
    predictions = client.post("/predict", json={"features": ROWS}).json()["predictions"]
    assert [set(row) for row in predictions] == [{"probability_up", "direction"}] * 2
    assert client.get("/health").status_code == 200


def test_the_expected_volatility_is_that_of_the_model_on_its_own_features(
    client: TestClient, mlflow_uri: str
):
    """Its inputs are found by name among the direction's; an hour without a move is no error."""
    promote_volatility(client, mlflow_uri, feature_names=VOLATILITY)
    answer = client.post("/predict", json={"features": ROWS}).json()
    rows = np.array(ROWS)
    trees = make_booster(1, feature_names=VOLATILITY).predict(rows[:, [3, 1]])
    expected = np.exp(trees) * np.maximum(rows[:, 1], 1e-6)
    told = [row["expected_volatility_60m"] for row in answer["predictions"]]
    assert told == pytest.approx(expected)
    assert answer["model"]["name"] == "bitcoin-model"
    up = make_booster(0, feature_names=DIRECTION).predict(rows)
    assert [row["probability_up"] for row in answer["predictions"]] == pytest.approx(up)


@pytest.mark.parametrize("made_up", [2.0, 1e300, -1e300])
def test_what_no_market_moves_is_not_expected_and_spoils_no_other_row(
    client: TestClient, mlflow_uri: str, made_up: float
):
    """The model's answer rests on a feature that a client may make up: that was a fault of ours."""
    promote_volatility(client, mlflow_uri, feature_names=VOLATILITY)
    rows = [[0.001, made_up, 0.6, 5e-4], ROWS[0]]
    answer = client.post("/predict", json={"features": rows})
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert "expected_volatility_60m" in second
    assert ("expected_volatility_60m" in first) == (made_up < 0)
    assert client.post("/predict", json={"features": rows[0]}).status_code == 200


def test_a_volatility_model_of_features_that_are_not_sent_says_nothing(
    client: TestClient, mlflow_uri: str
):
    names = (*VOLATILITY, "log_return_60m")
    promote_volatility(client, mlflow_uri, feature_names=names)
    (row, _) = client.post("/predict", json={"features": ROWS}).json()["predictions"]
    assert "expected_volatility_60m" not in row
