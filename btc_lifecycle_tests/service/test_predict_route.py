"""Bodies on their way in: whole, in parts, too large, too slow, cut off."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.service.metrics import Metrics
from btc_lifecycle.service.predict_route import Predict
from btc_lifecycle.service.predicting import Scorer
from btc_lifecycle.settings import ServeSettings

ROW = [0.4, -1.0, 0.6]
BODY = json.dumps({"features": ROW}).encode()
JSON = [(b"content-type", b"application/json")]


@pytest.fixture
def predict(client, tmp_path):
    """The application of the running service's model, with limits and a log of the test's own."""

    def make(*, scorer: Scorer | None = None, **limits: object) -> Predict:
        class Nothing:
            def collect(self):
                return []

        return Predict(
            scorer or client.app.state.service.scorer,
            log=PredictionLog(tmp_path),
            metrics=Metrics(Nothing()),
            limits=ServeSettings(**limits),
        )

    return make


def answer(predict: Predict, *parts: object, headers=JSON) -> tuple[int, dict[str, object]]:
    """Return status and content of the answer to a body that comes in parts; None never comes."""
    sent = []
    waiting = list(parts)

    async def receive():
        part = waiting.pop(0)
        if part is None:
            await asyncio.Event().wait()
        if isinstance(part, bytes):
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}
        return part

    async def send(message):
        sent.append(message)

    asyncio.run(predict({"type": "http", "headers": headers}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    "parts",
    [
        [BODY],
        [BODY[:5], BODY[5:]],
        [b"", BODY, b""],
        [BODY[i : i + 1] for i in range(len(BODY))],
    ],
)
def test_a_body_may_come_in_any_parts(predict, parts):
    status, content = answer(predict(), *parts)
    assert (status, len(content["predictions"])) == (200, 1)


def test_a_large_body_is_scored_as_a_small_one_is(predict):
    rows = [[number / 7, -number, 0.5] for number in range(1000)]
    _, content = answer(predict(), json.dumps({"features": rows}).encode())
    _, last = answer(predict(), json.dumps({"features": rows[-1]}).encode())
    assert content["predictions"][-1] == last["predictions"][0]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"application/json ; charset=utf-8")],
        [(b"content-type", b"APPLICATION/JSON")],
    ],
)
def test_json_is_known_by_its_type_whatever_follows_it(predict, headers):
    assert answer(predict(), BODY, headers=headers)[0] == 200


def test_what_announces_too_much_is_refused_before_it_is_read(predict):
    headers = [*JSON, (b"content-length", b"1025")]
    status, content = answer(predict(max_body_bytes=1024), None, headers=headers)
    assert (status, content["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("announced", [b"-1", b"1e9", b"\xb2", b""])
def test_what_announces_nonsense_is_read_as_far_as_allowed(predict, announced):
    headers = [*JSON, (b"content-length", announced)]
    status, _ = answer(predict(max_body_bytes=1024), BODY + b" " * 1024, headers=headers)
    assert status == 413
    assert answer(predict(max_body_bytes=1024), BODY, headers=headers)[0] == 200


def test_the_limit_counts_all_parts_together(predict):
    at_limit = BODY + b" " * (1024 - len(BODY))
    assert answer(predict(max_body_bytes=1024), at_limit[:600], at_limit[600:])[0] == 200
    assert answer(predict(max_body_bytes=1024), at_limit[:600], at_limit[600:], b" ")[0] == 413


@pytest.mark.parametrize("before", [[], [BODY[:10]]])
def test_a_body_that_does_not_come_in_time_is_given_up(predict, before):
    status, content = answer(predict(body_timeout_s=0.02), *before, None)
    assert (status, content["error"]["code"]) == (400, "body_incomplete")


@pytest.mark.parametrize("before", [[], [BODY[:10]]])
def test_a_client_that_left_in_the_middle_is_no_fault(predict, before):
    status, content = answer(predict(), *before, {"type": "http.disconnect"})
    assert (status, content["error"]["code"]) == (400, "body_incomplete")


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -0.1, float("inf")])
def test_what_is_no_probability_is_neither_answered_nor_logged(client, predict, tmp_path, wrong):
    """Many a writer of JSON makes null of what is no number."""
    service = client.app.state.service
    trees = SimpleNamespace(predict=lambda rows: np.full(len(rows), wrong))
    broken = SimpleNamespace(model=replace(service.live.model, trees=trees), problem=None)
    scorer = Scorer(broken, volatility=service.volatility)
    status, content = answer(predict(scorer=scorer), BODY)
    assert (status, content["error"]["code"]) == (503, "bad_model")
    assert "no number from 0 to 1" in content["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_gives_a_request_up_is_not_taken_for_a_slow_client(predict):
    async def story() -> list[object]:
        sent: list[object] = []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "headers": JSON}
        task = asyncio.create_task(predict(body_timeout_s=30.0)(scope, receive, send))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sent

    assert asyncio.run(story()) == []
