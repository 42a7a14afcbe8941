"""What every request passes: ids, headers, keys, limits, the access log, the metrics."""

from __future__ import annotations

import asyncio
import json

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse

from btc_lifecycle.adapters.lines import Lines
from btc_lifecycle.service.front_door import FrontDoor
from btc_lifecycle.service.metrics import Metrics
from btc_lifecycle.settings import ServeSettings


class Nothing:
    def collect(self):
        return []


class Written:
    def __init__(self) -> None:
        self.content = b""

    def __call__(self, content: bytes) -> None:
        self.content += content


def door(
    app=None, *, direct=None, api_key=None, access_log=None, metrics=None, **limits: object
) -> FrontDoor:
    return FrontDoor(
        app or PlainTextResponse("in"),
        direct=direct or {},
        paths=frozenset({"/predict", "/health"}),
        metrics=metrics or Metrics(Nothing()),
        access_log=access_log,
        api_key=api_key,
        limits=ServeSettings(**limits),
    )


def client_of(app: FrontDoor, **options: object) -> TestClient:
    return TestClient(app, **options)


def test_every_answer_is_marked_the_refused_ones_too():
    answers = [client_of(door()).get("/predict"), client_of(door(api_key="k")).get("/predict")]
    assert [answer.status_code for answer in answers] == [200, 401]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-request-id"]
        assert "access-control-allow-origin" not in answer.headers


def test_a_pages_own_content_policy_is_left_alone():
    page = PlainTextResponse("page", headers={"Content-Security-Policy": "default-src 'self'"})
    answer = client_of(door(page)).get("/")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]


def test_ids_differ_unless_the_client_brings_a_sound_one():
    client = client_of(door())
    ids = {client.get("/predict").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    brought = client.get("/predict", headers={"X-Request-ID": "job-7.a_b"})
    assert brought.headers["x-request-id"] == "job-7.a_b"
    for unsound in ("a b", "x" * 65, "", 'a"b', b"\xff"):
        answer = client.get("/predict", headers={"X-Request-ID": unsound})
        assert answer.headers["x-request-id"] != unsound


@pytest.mark.parametrize(
    "path", ["/", "/live", "/health", "/docs", "/openapi.json", "/v2/health/live"]
)
def test_probes_and_pages_ask_for_no_key(path):
    assert client_of(door(api_key="s3cret")).get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/predict", "/metrics", "/overview", "/nothing", "//live", "/live/"]
)
def test_everything_else_asks_for_it(path):
    client = client_of(door(api_key="s3cret"))
    assert client.get(f"http://testserver{path}").status_code == 401
    assert (
        client.get(f"http://testserver{path}", headers={"X-API-Key": "s3cret"}).status_code == 200
    )


def test_a_page_of_another_site_whose_name_leads_here_is_not_answered_without_a_key():
    """Its own name stands in the Host header, however it came to lead to this machine."""
    client = client_of(door(), client=("127.0.0.1", 50_000), base_url="http://rebound.example")
    assert client.get("/predict").status_code == 401
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/predict", headers={"Host": host}).status_code == 200
    for host in ("localhost.example", "127.0.0.1.example", "localhost:8000@x"):
        assert client.get("/predict", headers={"Host": host}).status_code == 401


@pytest.mark.parametrize("passed_on", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("address", ["127.0.0.1", "testclient", "x"])
def test_whoever_was_passed_on_is_not_this_machine(address, passed_on):
    """Such a header made its sender a client without address, or of any address that it named."""
    client = client_of(door(), client=(address, 50_000), base_url="http://localhost")
    assert client.get("/predict").status_code == 200
    for said in ("127.0.0.1", "x", "for=127.0.0.1", ""):
        assert client.get("/predict", headers={passed_on: said}).status_code == 401


def test_probes_and_pages_take_nobody_s_place():
    async def story() -> int:
        is_over = asyncio.Event()

        async def unread(scope, receive, send):
            if scope["path"] == "/docs/files/large.js":
                await is_over.wait()
            await PlainTextResponse("in")(scope, receive, send)

        app = door(unread, max_concurrent_requests=1)
        waiting = [asyncio.create_task(status_of(app, "/docs/files/large.js")) for _ in range(3)]
        await asyncio.sleep(0)
        status = await status_of(app, "/predict")
        is_over.set()
        await asyncio.gather(*waiting)
        return status

    assert asyncio.run(story()) == 200


def test_a_client_that_leaves_in_the_middle_of_its_answer_is_no_fault():
    async def story() -> None:
        async def send(message):
            if message["type"] == "http.response.body":
                raise RuntimeError("the handler is closed")

        scope = {"type": "http", "method": "GET", "path": "/predict", "headers": []}
        await door(metrics=metrics)(scope, None, send)

    metrics = Metrics(Nothing())
    asyncio.run(story())
    assert 'path="/predict",status="499"} 1.0' in metrics.text().decode()


def test_one_request_too_many_at_once_is_told_to_come_again_and_probes_are_answered():
    async def story() -> list[int]:
        is_over = asyncio.Event()

        async def slow(scope, receive, send):
            if scope["path"] == "/predict":
                await is_over.wait()
            await PlainTextResponse("in")(scope, receive, send)

        app = door(slow, max_concurrent_requests=2)
        waiting = [asyncio.create_task(status_of(app, "/predict")) for _ in range(2)]
        await asyncio.sleep(0)
        statuses = [await status_of(app, "/predict"), await status_of(app, "/health")]
        is_over.set()
        statuses += [await task for task in waiting]
        return [*statuses, await status_of(app, "/predict")]

    assert asyncio.run(story()) == [503, 200, 200, 200, 200]


def test_an_address_that_asks_too_often_is_told_when_to_come_again():
    client = client_of(door(requests_per_minute=2))
    assert [client.get("/predict").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.get("/predict")
    assert 1 <= int(answer.headers["retry-after"]) <= 31
    assert answer.json()["error"]["code"] == "too_many_requests"
    assert client.get("/health").status_code == 200


def test_wrong_keys_count_against_the_limit_too():
    client = client_of(door(requests_per_minute=2, api_key="s3cret"))
    assert [client.get("/predict").status_code for _ in range(3)] == [401, 401, 429]


def test_each_request_leaves_a_line_of_json_in_the_access_log():
    written = Written()
    log = Lines(written, max_bytes=10_000)
    client = client_of(door(access_log=log))
    client.get("/predict?key=s3cret", headers={"X-Request-ID": "one"})
    client.get("/no%0Awhere/%ED%9F%BF%E2%80%A8" + "x" * 500)
    log.close()
    first, second = [json.loads(line) for line in written.content.splitlines()]
    assert sorted(first) == [
        "client", "duration_ms", "method", "path", "request_id", "status", "time",
    ]  # fmt: skip
    assert (first["path"], first["status"], first["request_id"]) == ("/predict", 200, "one")
    assert len(second["path"]) == 200
    assert b"s3cret" not in written.content


def test_what_clients_make_up_adds_no_names_to_the_metrics():
    metrics = Metrics(Nothing())
    client = client_of(door(metrics=metrics))
    for number in range(5):
        client.request(f"BREW{number}", f"/made/up/{number}")
    client.get("/predict")
    client.get("/v2/models/bitcoin-model/ready")
    text = metrics.text().decode()
    assert 'btc_http_requests_total{method="GET",path="/v2/",status="200"} 1.0' in text
    assert 'btc_http_requests_total{method="other",path="other",status="200"} 5.0' in text
    assert 'btc_http_requests_total{method="GET",path="/predict",status="200"} 1.0' in text
    assert "BREW" not in text


def test_a_fault_and_a_client_that_left_are_counted_as_such():
    async def fault(scope, receive, send):
        raise RuntimeError("a bug")

    assert client_of(door(fault), raise_server_exceptions=False).get("/predict").json() == {
        "error": {
            "code": "internal_error",
            "message": "the service failed",
            "hint": "nothing is wrong with the request; the service's log says more",
        }
    }

    async def no_answer(scope, receive, send):
        return

    metrics = Metrics(Nothing())
    with pytest.raises(RuntimeError):
        asyncio.run(status_of(door(fault, metrics=metrics), "/predict"))
    asyncio.run(status_of(door(no_answer, metrics=metrics), "/predict"))
    text = metrics.text().decode()
    assert 'path="/predict",status="500"} 1.0' in text
    assert 'path="/predict",status="499"} 1.0' in text


def test_what_is_no_http_passes_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(door(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


async def status_of(app: FrontDoor, path: str) -> int:
    """Return the status of a GET without a client between, 0 where no answer comes."""
    status = 0

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return status
