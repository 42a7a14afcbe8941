"""What comes over a connection that is no request, or only a part of one, or two at once."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn

from btc_lifecycle.service import server
from btc_lifecycle.service.app import create_app
from btc_lifecycle_tests.service.conftest import service_settings
from btc_lifecycle_tests.service.serving_process import BODY, free_port

WHOLE = json.dumps(BODY).encode()
LINES = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD = LINES + b"Content-Length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)
CHUNKED = LINES + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
SHORT_S = 0.3

WHOLE_ANSWER = re.compile(rb"HTTP/1\.1 \d{3} .*?\r\n\r\n\{.*?\}(?=HTTP/1\.1 \d{3} |$)", re.DOTALL)
"""Every answer here is a JSON object."""


@pytest.fixture(scope="module")
def port(champion_uri, tmp_path_factory) -> Iterator[int]:
    """The port of a service under its own server, in a thread, that waits for nobody for long."""
    folder = tmp_path_factory.mktemp("wire")
    app = create_app(service_settings(champion_uri, folder, access_log=False, body_timeout_s=0.1))
    app.state.service.live.refresh()
    options = server.options(host="127.0.0.1", port=free_port(), workers=1)
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
    has_started = threading.Event()
    startup = running.startup

    async def told_startup(*arguments: object, **named: object) -> None:
        await startup(*arguments, **named)
        has_started.set()

    running.startup = told_startup
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "ARRIVAL_S", SHORT_S)
        thread = threading.Thread(target=running.run)
        thread.start()
        assert has_started.wait(30)
        yield options["port"]
        running.should_exit = True
        thread.join()


def sent(port: int, *parts: bytes, n_answers: int = 1) -> bytes:
    """Return what comes until there are so many whole answers, or the server hangs up."""
    content = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        for part in parts:
            connection.sendall(part)
        while len(WHOLE_ANSWER.findall(content)) < n_answers and (part := connection.recv(65_536)):
            content += part
    return content


def ask_until_cut(connection: socket.socket) -> None:
    pause = threading.Event()
    while not pause.wait(0.05):
        connection.sendall(LIVE + b"\r\n")


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


BAD = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/9.9": (GOOD.replace(b"1.1", b"9.9", 1), 400),
    "a tunnel": (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a path that is not ASCII": (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a space in a header's name": (LIVE + b"Bad Header: x\r\n\r\n", 400),
    "a nought in a header": (LIVE + b"X: a\x00b\r\n\r\n", 400),
    "a folded header": (LIVE + b"X: a\r\n b\r\n\r\n", 400),
    "newlines alone": (LIVE.replace(b"\r", b"") + b"\n", 400),
    "a chunk without length": (CHUNKED + b"zz\r\n", 400),
    "a chunk longer than told": (CHUNKED + b"5\r\n" + WHOLE + b"\r\n0\r\n\r\n", 400),
    "chunks and a length": (
        LINES + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "another coding": (LINES + b"Transfer-Encoding: gzip\r\n\r\n" + WHOLE, 400),
    "two lengths": (LINES + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "a length below zero": (LINES + b"Content-Length: -3\r\n\r\nabc", 400),
    "a length of many digits": (LINES + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc", 400),
    "a length over the limit": (LINES + b"Content-Length: 99999999999\r\n\r\nabc", 413),
    "a length longer than the body": (LINES + b"Content-Length: 99\r\n\r\n" + WHOLE, 400),
    "a length shorter than the body": (LINES + b"Content-Length: 5\r\n\r\n" + WHOLE, 400),
    "no length": (LINES + b"\r\n", 400),
    "a WebSocket": (
        LIVE.replace(b"live", b"predict") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        405,
    ),
}


@pytest.mark.parametrize(("request_", "status"), BAD.values(), ids=BAD.keys())
def test_what_is_no_request_gets_an_error_in_the_one_form_and_the_next_one_its_answer(
    port, request_, status
):
    answer = sent(port, request_)
    assert statuses(answer)[0] == status
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head)
    assert sorted(json.loads(body[: int(length)])["error"]) == ["code", "hint", "message"]
    assert statuses(sent(port, GOOD)) == [200]


@pytest.mark.parametrize(
    "part", [b"X: " + b"x" * 1_000_000, b"X: x\r\n" * 200_000], ids=["long", "many"]
)
def test_headers_without_end_are_not_kept(port, part):
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(LIVE + part[: server.MOST_HEAD_BYTES])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 431 ")
    assert statuses(sent(port, GOOD)) == [200]


@pytest.mark.parametrize(
    ("requests", "wanted"),
    [
        ((GOOD.replace(b"1.1", b"1.0", 1),), [200]),
        ((CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(WHOLE), WHOLE),), [200]),
        ((GOOD * 3,), [200, 200, 200]),
        ((LINES + b"Content-Length: 2\r\n\r\n{}" + GOOD,), [422, 200]),
        ((LINES + b"Content-Length: 5\r\n\r\n" + WHOLE[:5] + GOOD,), [400, 200]),
        ((GOOD[:50], GOOD[50:-5], GOOD[-5:]), [200]),
        ((LIVE + b"Expect: 100-continue\r\n\r\n",), [200]),
    ],
    ids=["old", "chunked", "pipelined", "good after bad", "good after cut", "pieces", "expect"],
)
def test_unusual_ways_to_send_good_requests_are_answered(port, requests, wanted):
    assert statuses(sent(port, *requests, n_answers=len(wanted))) == wanted


@pytest.mark.parametrize("begin", [b"", GOOD], ids=["the first request", "a further one"])
def test_a_head_that_comes_a_byte_at_a_time_is_hung_up_on(port, begin):
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(begin)
        if begin:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        pause, has_hung_up = threading.Event(), False
        for byte in LIVE + b"X: " + b"x" * 300:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                has_hung_up = True
                break
            pause.wait(SHORT_S / 10)
        # Without a word: it is no bad request yet.
        with suppress(ConnectionError):
            assert connection.recv(65_536) == b""
    assert has_hung_up
    assert statuses(sent(port, GOOD)) == [200]


def test_a_connection_that_says_nothing_is_closed(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        assert connection.recv(1) == b""


def test_a_body_that_stops_halfway_is_refused_while_others_are_answered(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(GOOD[:-5])
        assert statuses(sent(port, GOOD)) == [200]
        assert b"body_incomplete" in connection.recv(65_536)


def test_a_client_that_does_not_take_its_answers_is_cut(port, monkeypatch):
    """Each held a place among the requests that are worked on, for as long as it liked."""
    monkeypatch.setattr(server, "READING_S", 0.1)
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(10.0)
        greedy.connect(("127.0.0.1", port))
        greedy.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ask_until_cut(greedy)
    assert statuses(sent(port, GOOD)) == [200]


def test_many_small_requests_in_a_row_are_no_large_head(port):
    live = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    n_requests = server.MOST_HEAD_BYTES // len(live) * 2
    answers = sent(port, live * n_requests + live[:10], live[10:], n_answers=n_requests + 1)
    assert statuses(answers) == [200] * (n_requests + 1)
