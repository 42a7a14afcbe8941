"""The service as its clients see it, over HTTP and with real models."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from btc_lifecycle.adapters.prediction_log import read_prediction_log
from btc_lifecycle.domain.monitor.predictions import predictions_frame
from btc_lifecycle.service import app as app_module
from btc_lifecycle.service.app import create_app
from btc_lifecycle.service.errors import install_error_handlers
from btc_lifecycle_tests.model_builders import FEATURES, make_booster, promote_new
from btc_lifecycle_tests.service.conftest import service_settings

ROW = [0.4, -1.0, 0.6]
JSON = {"Content-Type": "application/json"}


def error_of(answer: httpx.Response) -> dict[str, str]:
    """Return the error of an answer, after checking that it has the one form and nothing else."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "hint", "message"]
    assert all(content["error"].values())
    return content["error"]


@pytest.mark.parametrize(
    ("features", "rows"),
    [
        (ROW, [ROW]),
        ([1, 2, 3], [[1.0, 2.0, 3.0]]),
        ([ROW, [0, 0, 0]], [ROW, [0.0, 0.0, 0.0]]),
        ([dict(zip(reversed(FEATURES), reversed(ROW), strict=True))], [ROW]),
    ],
)
def test_each_form_of_a_request_is_scored_as_the_booster_scores_it(client, features, rows):
    answer = client.post("/predict", json={"features": features})
    assert answer.status_code == 200
    content = answer.json()
    wanted = make_booster().predict(rows).tolist()
    assert content["predictions"] == [
        {"probability_up": p, "direction": 1 if p >= 0.5 else -1} for p in wanted
    ]
    assert content["model"] == {"name": "bitcoin-model", "version": "1"}
    assert uuid.UUID(content["prediction_id"]).version == 4
    assert sorted(content) == ["model", "prediction_id", "predictions"]


def test_a_thousand_rows_are_taken_and_one_more_is_not(client):
    answer = client.post("/predict", json={"features": [ROW] * 1000})
    assert len(answer.json()["predictions"]) == 1000
    refused = client.post("/predict", json={"features": [ROW] * 1001})
    assert refused.status_code == 422
    assert "1001 rows came; 1000 are taken" in error_of(refused)["message"]


def test_answers_reach_the_prediction_log_row_by_row(champion_uri, tmp_path):
    app = create_app(service_settings(champion_uri, tmp_path))
    body = {
        "features": [ROW, [0.0, 0.0, 0.0]],
        "symbol": "BTC/USDT",
        "open_times": ["2026-01-31T12:00:00Z", "2026-01-31T14:01:00+02:00"],
    }
    with TestClient(app) as client:
        app.state.service.live.refresh()
        answer = client.post("/predict", json=body).json()
        client.post("/predict", json={"features": ROW})
    records, n_skipped = read_prediction_log(tmp_path / "log")
    assert (len(records), n_skipped) == (3, 0)
    for position, record in enumerate(records[:2]):
        made_at = datetime.fromisoformat(record.pop("made_at"))
        assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=1)
        assert record == {
            "prediction_id": answer["prediction_id"],
            "row": position,
            "symbol": "BTC/USDT",
            "open_time": f"2026-01-31T12:0{position}:00+00:00",
            "model_name": "bitcoin-model",
            "model_version": "1",
            **answer["predictions"][position],
            "features": body["features"][position],
        }
    assert (records[2]["symbol"], records[2]["open_time"]) == (None, None)


def test_what_the_service_logs_is_what_monitoring_reads(client, folder):
    client.post("/predict", json={"features": [ROW, ROW]})
    assert client.app.state.service.log.flush()
    records, n_skipped = read_prediction_log(folder / "log")
    assert n_skipped == 0
    assert predictions_frame(records).height == len(records) >= 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"features": [1, 2]}', "row 0 has 2 values; the model takes 3: log_return_1m, log_ret"),
        (b'{"features": [[1, 2, 3], [1, 2, "x"]]}', "features[1][2]: "),
        (b'{"features": [{"rsi_14m": 1, "x": 1}]}', "row 0 lacks log_return_1m, log_return_5m and"),
        (b'{"features": [{"rsi_14m": "1"}]}', "features[0].rsi_14m: "),
        (b'{"features": [NaN]}', "NaN is not a JSON number"),
        (b"[]", "body: "),
    ],
)
def test_an_error_says_what_is_wrong_and_where(client, body, message):
    answer = client.post("/predict", content=body, headers=JSON)
    assert message in error_of(answer)["message"]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "", "json", "\xff"]
)
def test_a_body_that_does_not_say_it_is_json_is_refused(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type.encode("latin-1")}
    answer = client.post("/predict", content=json.dumps({"features": ROW}), headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "wrong_content_type")


def test_a_charset_after_the_content_type_is_fine(client):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = client.post("/predict", content=json.dumps({"features": ROW}), headers=headers)
    assert answer.status_code == 200


def test_a_body_over_the_limit_is_refused_with_or_without_its_length(client):
    large = b" " * 200_001
    for content in (large, iter([large[:150_000], large[150_000:]])):
        answer = client.post("/predict", content=content, headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/live/", 404),
        ("GET", "/%ff%00", 404),
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("POST", "/health", 405),
        ("DELETE", "/model", 405),
        ("BREW", "/live", 405),
    ],
)
def test_paths_and_methods_that_do_not_exist_get_the_same_form(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    error_of(answer)


def test_a_fault_behind_the_framework_keeps_the_form_and_is_told(client, monkeypatch):
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(client.app.state.service.scorer, "model", fail)
    answer = client.get("/model")
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")


def test_the_frameworks_own_errors_keep_the_form():
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/number")
    async def number(n: float) -> float:
        return n

    client = TestClient(app, raise_server_exceptions=False)
    assert error_of(client.get("/number?n=x"))["message"].startswith("query.n: ")


def test_the_model_and_its_features_are_described(client):
    assert client.get("/live").json() == {"status": "live"}
    assert client.get("/health").json() == {
        "status": "ok",
        "model": {"name": "bitcoin-model", "version": "1"},
        "problem": None,
        "predictions_dropped": 0,
    }
    features = client.get("/features").json()
    assert tuple(f["name"] for f in features["features"]) == FEATURES
    assert features["features"][2]["meaning"].startswith("relative strength over 14 minutes")
    model = client.get("/model").json()
    assert (model["version"], model["n_features"]) == ("1", 3)
    assert model["metrics"] == {"test_auc": 0.53}
    assert model["tags"]["source"] == "synthetic"


def test_a_metric_that_is_no_number_is_null(registry, mlflow_uri, tmp_path):
    version = promote_new(registry)
    registry.log_metrics(version.run_id, {"test_auc": float("nan"), "gain": float("inf")})
    app = create_app(service_settings(mlflow_uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert client.get("/model").json()["metrics"]["test_auc"] is None


def test_every_example_of_the_documents_is_a_request(client):
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        answer = client.post("/predict", json=example["value"])
        assert answer.status_code == 200, answer.text
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("path", ["/health", "/features", "/model", "/predict"])
def test_without_a_model_the_answer_is_503_and_says_how_to_train_one(tmp_path, path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    app = create_app(service_settings(uri, tmp_path))
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert client.get("/live").status_code == 200
        answer = (
            client.post(path, json={"features": ROW}) if path == "/predict" else client.get(path)
        )
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    error = error_of(answer)
    assert error["code"] == "no_model"
    assert "models:/bitcoin-model@production does not exist; train a model" in error["message"]
    assert "./task track" in error["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": b"\xff\xfe"}, 401),
        ({"Authorization": "Basic s3cret"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"X-API-Key": "s3cret"}, 200),
        ({"Authorization": "Bearer s3cret"}, 200),
    ],
)
def test_the_key_is_asked_for_where_one_is_set(champion_uri, tmp_path, headers, status):
    app = create_app(service_settings(champion_uri, tmp_path, api_key="s3cret"))
    with TestClient(app, headers=headers) as client:
        app.state.service.live.refresh()
        answers = [
            client.post("/predict", json={"features": ROW}),
            client.get("/features"),
            client.get("/model"),
        ]
        assert [answer.status_code for answer in answers] == [status] * 3
        if status == 401:
            assert error_of(answers[0])["code"] == "unauthorized"
        assert client.get("/live").status_code == client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 401), ("2001:db8::7", 401)],
)
def test_without_a_key_only_the_same_machine_is_answered(champion_uri, tmp_path, address, status):
    """Bound to every address by uvicorn itself, the service answered anybody."""
    app = create_app(service_settings(champion_uri, tmp_path))
    with TestClient(app, base_url="http://localhost", client=(address, 50_000)) as client:
        app.state.service.live.refresh()
        answer = client.post("/predict", json={"features": ROW})
        assert answer.status_code == status
        if status == 401:
            assert "BTC_API_KEY" in error_of(answer)["hint"]


def test_a_body_that_never_ends_is_given_up(champion_uri, tmp_path):
    app = create_app(service_settings(champion_uri, tmp_path, body_timeout_s=0.05))
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert b"body_incomplete" in sent[1]["body"]


def test_the_app_is_built_from_the_environment_at_the_first_use(monkeypatch, tmp_path):
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BTC_API_KEY", "s3cret")
    try:
        app = app_module.app
        assert app_module.app is app
    finally:
        vars(app_module).pop("app", None)
    with TestClient(app) as client:
        app.state.service.live.refresh()
        assert client.get("/health").status_code == 503
        assert client.get("/model").status_code == 401
    with pytest.raises(AttributeError, match="no attribute 'application'"):
        app_module.application  # noqa: B018


def test_importing_the_module_reads_no_environment_and_builds_no_app(tmp_path):
    code = (
        "import btc_lifecycle.service.app as m; assert 'app' not in vars(m);"
        "assert m.app is m.app; print(m.app.state.service.live.problem)"
    )
    environment = {**os.environ, "BTC_DATA_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "still being loaded" in run.stdout, run.stderr
    assert list(tmp_path.iterdir()) == []
