from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from btc_lifecycle.sandbox import transport
from btc_lifecycle.sandbox.transport import MAX_BODY_BYTES, Answer, Delivery, LoopbackServer


def exchanged(url, request):
    """Everything that the server sends back for raw bytes until it closes the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def test_several_requests_share_one_connection(exchange):
    ask = b"GET /api/v3/ping HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /api/v3/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = exchanged(exchange.url, ask + ask + last)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert received.count(b"Connection: keep-alive") == 2
    assert received.count(b"\r\n\r\n{}") == 3


def test_head_and_body_arrive_in_one_piece(exchange):
    host, port = exchange.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /api/v3/time HTTP/1.1\r\nHost: x\r\n\r\n")
        first_piece = connection.recv(65_536)
    assert first_piece.endswith(b"}")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"DELETE /api/v3/ping HTTP/1.1\r\n\r\n", b"501"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /sandbox/clock HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"413"),
        (
            f"POST /sandbox/clock HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode(),
            b"413",
        ),
    ],
)
def test_requests_that_reach_no_call_get_a_status_and_are_hung_up_on(
    exchange, request_bytes, status
):
    received = exchanged(exchange.url, request_bytes)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert b"X-Sandbox-Market: synthetic" in received
    assert b"Connection: close" in received


def test_a_client_that_hangs_up_at_once_leaves_the_server_well(exchange, session, capfd):
    host, port = exchange.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"GET /api/v3/ping HTTP/1.1\r\n\r\n" * 50)
    assert session.get(f"{exchange.url}/api/v3/ping").status_code == 200
    assert capfd.readouterr().err == ""


def test_the_date_is_the_markets(exchange, session):
    exchange.clock.set(now=datetime(2026, 1, 3, 4, 5, 6, tzinfo=UTC))
    answer = session.get(f"{exchange.url}/api/v3/ping")
    assert answer.headers["Date"] == "Sat, 03 Jan 2026 04:05:06 GMT"


class OneAnswer:
    """An application that gives one answer to everything, or breaks when there is none."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = threading.Event()

    def respond(self, request):
        self.asked.set()
        if self.answer is None:
            raise RuntimeError("a bug in the application")
        return self.answer

    def common_headers(self):
        return {}


@contextmanager
def serving(answer):
    """The address of a server with one answer, ended with all its connections."""
    server = LoopbackServer(("127.0.0.1", 0), OneAnswer(answer))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.cut_connections()


@pytest.fixture
def quick_drips(monkeypatch):
    monkeypatch.setattr(transport, "DRIP_SECONDS", 0.001)
    monkeypatch.setattr(transport, "HANG_SECONDS", 0.05)


ASK = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("delivery", [Delivery.DRIPPED_BODY, Delivery.DRIPPED_HEAD])
def test_a_dripped_answer_is_whole_in_the_end_and_the_last_one(quick_drips, delivery):
    with serving(Answer(body=b"[1,2]", delivery=delivery)) as (_, url):
        received = exchanged(url, ASK + ASK)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\n[1,2]")
    assert received.count(b"HTTP/1.1") == 1


def test_half_an_answer_announces_the_whole_and_hangs_up():
    with serving(Answer(body=b"[1,2]", delivery=Delivery.HALF)) as (_, url):
        received = exchanged(url, ASK)
    assert b"Content-Length: 5\r\n" in received
    assert received.endswith(b"\r\n\r\n[1")


def test_a_hanging_answer_ends_without_a_byte(quick_drips):
    with serving(Answer(body=b"[]", delivery=Delivery.NEVER)) as (_, url):
        assert exchanged(url, ASK) == b""


@pytest.mark.parametrize("delivery", [Delivery.NEVER, Delivery.DRIPPED_HEAD])
@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)])
def test_a_client_that_says_more_is_not_heard_and_ends_the_wait_by_leaving(delivery, linger, capfd):
    with serving(Answer(body=b"[]", delivery=delivery)) as (server, _):
        before = set(threading.enumerate())
        client = socket.create_connection(server.server_address, timeout=10)
        client.sendall(ASK)
        assert server.application.asked.wait(10)
        client.sendall(ASK)
        if linger:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(5)
            assert not thread.is_alive()
    assert capfd.readouterr().err == ""


def test_a_status_that_no_standard_knows_has_no_phrase():
    with serving(Answer(status=520, body=b"")) as (_, url):
        assert exchanged(url, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 520 \r\n"
        )


def test_a_bug_in_the_application_is_seen_and_not_taken_for_a_client_hanging_up(capfd):
    with serving(None) as (_, url):
        assert exchanged(url, ASK) == b""
    assert "RuntimeError: a bug in the application" in capfd.readouterr().err
