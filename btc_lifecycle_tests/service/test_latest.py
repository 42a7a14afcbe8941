"""Predictions for the newest candle, from features that are fresh, stale, torn or not there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.online_store import OnlineCandle, OnlineSnapshot, OnlineStore
from btc_lifecycle.adapters.prediction_log import read_prediction_log
from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle.domain.monitor.predictions import predictions_frame
from btc_lifecycle.service.app import create_app
from btc_lifecycle_tests.model_builders import FEATURES, make_booster, promote_new
from btc_lifecycle_tests.service.conftest import service_settings

OPENED = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CLOSED = OPENED + timedelta(minutes=1)
VALUES = (0.4, -1.0, 0.6)


def snapshot(**changes: object) -> OnlineSnapshot:
    open_time = changes.get("open_time", OPENED)
    told: dict[str, object] = {
        "symbol": "BTC/USDT",
        "open_time": open_time,
        "features": {**dict(zip(FEATURES, VALUES, strict=True)), "another": None},
        "candles": (
            OnlineCandle(open_time=open_time, open=1.0, high=2.0, low=0.5, close=1.5, volume=3.0),
        ),
        "source": "synthetic",
        "market_time": CLOSED + timedelta(seconds=2),
        "read_at": CLOSED + timedelta(seconds=2),
        **changes,
    }
    return OnlineSnapshot(**told)  # type: ignore[arg-type]


@pytest.fixture
def online(tmp_path: Path) -> OnlineStore:
    return OnlineStore(tmp_path / "online")


@pytest.fixture
def client(
    champion_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """A client of a service whose clock stands half a minute after the newest candle closed."""
    monkeypatch.setattr(clock, "now", lambda: CLOSED + timedelta(seconds=30))
    app = create_app(service_settings(champion_uri, tmp_path))
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.service.live.refresh()
        yield client


def latest(client: TestClient, symbol: str = "BTC/USDT"):
    return client.get("/predict/latest", params={"symbol": symbol})


def error_code(answer) -> str:
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    return str(answer.json()["error"]["code"])


def test_the_newest_features_are_scored_by_the_champion(client, online):
    online.write(snapshot())
    answer = latest(client).json()
    assert answer["probability_up"] == make_booster().predict([VALUES])[0]
    assert answer["direction"] == (1 if answer["probability_up"] >= 0.5 else -1)
    assert answer["open_time"] == "2026-01-31T12:00:00Z"
    assert answer["matures_at"] is None  # this version does not say how far it looks
    assert (answer["age_seconds"], answer["source"]) == (30.0, "synthetic")
    assert answer["model"] == {"name": "bitcoin-model", "version": "1"}
    assert answer["expected_volatility_60m"] is None


def test_a_prediction_matures_its_horizon_after_its_candle_closed(
    registry: Registry, mlflow_uri: str, online, tmp_path, monkeypatch
):
    monkeypatch.setattr(clock, "now", lambda: CLOSED)
    promote_new(registry, tags={"horizon_min": "15"})
    online.write(snapshot())
    app = create_app(service_settings(mlflow_uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert latest(client).json()["matures_at"] == "2026-01-31T12:16:00Z"


@pytest.mark.parametrize("said", ["", "0", "-5", "9" * 4999, "99999999999", "1.5", "fifteen"])
def test_a_horizon_that_is_none_leaves_the_time_out(
    registry: Registry, mlflow_uri: str, online, tmp_path, monkeypatch, said
):
    """Anybody may write to a tag."""
    monkeypatch.setattr(clock, "now", lambda: CLOSED)
    promote_new(registry, tags={"horizon_min": said})
    registry.log_metrics(registry.champion().run_id, {"test_n_rows": float("nan")})
    online.write(snapshot())
    app = create_app(service_settings(mlflow_uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert latest(client).json()["matures_at"] is None
        overview = client.get("/overview").json()
        assert (overview["model"]["horizon_min"], overview["model"]["n_test_rows"]) == (None, None)
        assert overview["prediction"]["matures_at"] is None


def test_a_candle_that_was_revised_makes_another_prediction(client, online):
    online.write(snapshot())
    before = latest(client).json()["prediction_id"]
    online.write(snapshot(features=dict(zip(FEATURES, (0.5, -1.0, 0.6), strict=True))))
    assert latest(client).json()["prediction_id"] != before


def test_however_often_it_is_asked_for_it_is_one_prediction(client, online, tmp_path):
    online.write(snapshot())
    ids = {latest(client).json()["prediction_id"] for _ in range(3)}
    online.write(snapshot(open_time=OPENED + timedelta(minutes=1)))
    ids |= {latest(client).json()["prediction_id"]}
    assert len(ids) == 2
    assert client.app.state.service.log.flush()
    records, _ = read_prediction_log(tmp_path / "log")
    assert [record["prediction_id"] for record in records] == sorted(ids, key=[
        record["prediction_id"] for record in records
    ].index)  # fmt: skip
    assert [record["open_time"] for record in records] == [
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:01:00+00:00",
    ]
    assert records[0]["features"] == list(VALUES)


def test_two_processes_give_it_the_same_id_so_that_it_is_imported_once(
    champion_uri, client, online, tmp_path
):
    online.write(snapshot())
    other = create_app(service_settings(champion_uri, tmp_path))
    with TestClient(other) as second:
        other.state.service.live.refresh()
        ids = {latest(client).json()["prediction_id"], latest(second).json()["prediction_id"]}
    assert client.app.state.service.log.flush()
    records, _ = read_prediction_log(tmp_path / "log")
    assert (len(ids), len(records), predictions_frame(records).height) == (1, 2, 1)


def test_features_beyond_the_configured_age_are_refused(client, online, monkeypatch):
    online.write(snapshot())
    monkeypatch.setattr(clock, "now", lambda: CLOSED + timedelta(seconds=180))
    assert latest(client).status_code == 200
    monkeypatch.setattr(clock, "now", lambda: CLOSED + timedelta(seconds=180.1))
    answer = latest(client)
    assert error_code(answer) == "stale_features"
    assert "closed 180 s ago, at 2026-01-31 12:01 UTC" in answer.json()["error"]["message"]


def test_a_market_without_features_is_told_from_those_that_have_some(client, online):
    assert "there are some of no market" in latest(client).json()["error"]["message"]
    online.write(snapshot())
    answer = latest(client, "ETH/USDT")
    assert error_code(answer) == "no_features"
    assert "there are some of BTC/USDT" in answer.json()["error"]["message"]


@pytest.mark.parametrize("missing", [{"rsi_14m": None}, "rsi_14m"])
def test_a_feature_that_is_missing_is_named(client, online, missing):
    features = dict(zip(FEATURES, VALUES, strict=True))
    if isinstance(missing, str):
        del features[missing]
    else:
        features |= missing
    online.write(snapshot(features=features))
    answer = latest(client)
    assert error_code(answer) == "incomplete_features"
    assert "1 features of the model are missing: rsi_14m" in answer.json()["error"]["message"]


def test_a_torn_file_is_named_and_harms_nothing_else(client, online, tmp_path):
    online.write(snapshot())
    path = tmp_path / "online" / "BTC-USDT.json"
    path.write_bytes(path.read_bytes()[:40])
    answer = latest(client)
    assert error_code(answer) == "no_features"
    assert "BTC-USDT.json" in answer.json()["error"]["message"]
    assert client.get("/metrics").status_code == client.get("/health").status_code == 200


@pytest.mark.parametrize("symbol", ["btc/usdt", "BTC", "BTC/USDT/X", "../../etc", "", "A/\ud7ff"])
def test_a_symbol_that_is_none_is_refused(client, symbol):
    assert latest(client, symbol).status_code == 422
    assert client.get("/predict/latest").status_code == 422


def test_without_a_model_it_says_so(tmp_path, online):
    online.write(snapshot())
    app = create_app(service_settings(f"sqlite:///{tmp_path / 'none.db'}", tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert error_code(latest(client)) == "no_model"
