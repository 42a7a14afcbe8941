from __future__ import annotations

import socket

import pytest

from btc_lifecycle.adapters.exchange.client import Client
from btc_lifecycle.adapters.http import HttpClient, HttpError
from btc_lifecycle_tests.adapters.raw_server import RawServer, answer, answering, read_request

PARAMETERS = {"symbol": "BTCUSDT", "interval": "1m", "startTime": 5, "endTime": 7, "limit": 1000}
ODD_BODIES = [b"[[1]]", b"[]", b"{}", b"null", b"", b"<html>", b'{"code":-1121,"msg":"x"}', b"\xff"]


@pytest.fixture
def client() -> Client:
    return Client("binance", http=HttpClient())


def test_calls_have_the_paths_and_parameters_of_the_exchange(client: Client) -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while head := read_request(connection):
            seen.append(head.split(b"\r\n")[0])
            connection.sendall(answer(b"{}"))

    with RawServer(script) as server:
        client.server_time(server.url)
        client.klines(server.url, parameters=PARAMETERS)
    query = b"symbol=BTCUSDT&interval=1m&startTime=5&endTime=7&limit=1000"
    assert seen == [
        b"GET /api/v3/time HTTP/1.1",
        b"GET /api/v3/klines?" + query + b" HTTP/1.1",
    ]


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "418 I'm a teapot", "503 Busy"])
def test_every_answer_comes_as_it_was_sent(client: Client, status: str) -> None:
    """ccxt parses bodies and raises by status; nothing of that happens here."""
    with RawServer(answering(*[answer(body, status=status) for body in ODD_BODIES])) as server:
        got = [client.klines(server.url, parameters=PARAMETERS) for _ in ODD_BODIES]
    assert [each.body for each in got] == ODD_BODIES
    assert {each.status for each in got} == {int(status[:3])}


def test_headers_are_those_of_the_newest_answer(client: Client) -> None:
    told = [answer(b"", headers=f"X-Told: {n}\r\n") for n in range(2)]
    assert client.newest_headers == {}
    with RawServer(answering(*told)) as server:
        for n in range(2):
            client.server_time(server.url)
            assert client.newest_headers["x-told"] == str(n)


def test_no_answer_is_the_error_of_http(client: Client) -> None:
    with RawServer(lambda connection: None) as server, pytest.raises(HttpError):
        client.server_time(server.url)


def test_one_client_asks_several_addresses(client: Client) -> None:
    with (
        RawServer(answering(answer(b"1"), answer(b"2"))) as one,
        RawServer(answering(answer(b"3"))) as two,
    ):
        bodies = [client.server_time(url).body for url in (one.url, two.url, one.url)]
    assert bodies == [b"1", b"3", b"2"]
