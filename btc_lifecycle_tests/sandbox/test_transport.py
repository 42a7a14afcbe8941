from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime

import pytest

from btc_lifecycle.sandbox.transport import MAX_BODY_BYTES, LoopbackServer


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


class BrokenApplication:
    """An application with a bug."""

    def get(self, target):
        raise RuntimeError("a bug in the application")

    def common_headers(self):
        return {}


def test_a_bug_in_the_application_is_seen_and_not_taken_for_a_client_hanging_up(capfd):
    server = LoopbackServer(("127.0.0.1", 0), BrokenApplication())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert exchanged(url, b"GET / HTTP/1.1\r\n\r\n") == b""
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "RuntimeError: a bug in the application" in capfd.readouterr().err
