from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from btc_lifecycle.adapters import http
from btc_lifecycle.adapters.http import HttpClient, HttpError
from btc_lifecycle_tests.adapters.raw_server import (
    RawServer,
    Script,
    answer,
    answering,
    certificate,
    dripping,
    hang,
    read_request,
    reset,
)

SOON = timedelta(seconds=0.3)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def client() -> HttpClient:
    return HttpClient(total=timedelta(seconds=5), max_bytes=1000)


@pytest.fixture
def fresh_tls_context() -> Iterator[None]:
    http._tls.cache_clear()
    yield
    http._tls.cache_clear()


def failure(script: Script, *, client: HttpClient | None = None) -> HttpError:
    """Return how a GET fails against a server with this script."""
    with RawServer(script) as server, pytest.raises(HttpError) as error:
        (client or HttpClient(total=SOON, max_bytes=1000)).get(f"{server.url}/page?q=1")
    assert error.value.message.startswith(f"{server.url}/page?q=1: ")
    return error.value


def refused(client: HttpClient, url: str) -> HttpError:
    with pytest.raises(HttpError) as error:
        client.get(url)
    return error.value


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let every name have an address for each of these ports of this machine."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


class TestAnswers:
    def test_an_answer_has_its_status_reason_body_and_headers_in_lower_case(
        self, client: HttpClient
    ):
        said = answer(b"body", status="418 I'm a teapot", headers="X-MBX-Used: 7\r\n")
        with RawServer(answering(said)) as server:
            got = client.get(server.url)
        assert (got.status, got.reason, got.body) == (418, "I'm a teapot", b"body")
        assert got.headers == {"content-length": "4", "x-mbx-used": "7"}

    def test_path_query_and_headers_arrive_as_given(self, client: HttpClient):
        seen: list[bytes] = []

        def script(connection: socket.socket) -> None:
            seen.append(read_request(connection))
            connection.sendall(answer(b""))

        with RawServer(script) as server:
            client.get(f"{server.url}/a/b?x=1&y=%20#part", headers={"X-One": "two"})
        head = seen[0].decode().split("\r\n")
        assert head[0] == "GET /a/b?x=1&y=%20 HTTP/1.1"
        assert {"X-One: two", "Accept-Encoding: gzip"} <= set(head)
        assert f"Host: {server.url.removeprefix('http://')}" in head

    def test_a_redirect_is_an_answer_and_is_not_followed(self, client: HttpClient):
        said = answer(b"", status="302 Found", headers="Location: http://127.0.0.1:9/\r\n")
        with RawServer(answering(said)) as server:
            assert client.get(server.url).status == 302
            assert server.n_connections == 1

    def test_compressed_and_chunked_bodies_come_decoded(self, client: HttpClient):
        packed = answer(gzip.compress(b"a" * 900), headers="Content-Encoding: gzip\r\n")
        chunked = CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        with RawServer(answering(packed, chunked)) as server:
            assert client.get(server.url).body == b"a" * 900
            assert client.get(server.url).body == b"abcde"
            assert server.n_connections == 1

    def test_a_body_without_length_ends_with_the_connection(self, client: HttpClient):
        with RawServer(answering(b"HTTP/1.1 200 OK\r\n\r\nall")) as server:
            assert client.get(server.url).body == b"all"
            assert client.get(server.url).body == b"all"
            assert server.n_connections == 2

    def test_proxies_of_the_environment_are_not_used(
        self, client: HttpClient, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with RawServer(answering(answer(b"straight"))) as server:
            assert client.get(server.url).body == b"straight"


class TestKeptConnections:
    def test_a_connection_is_used_again(self, client: HttpClient):
        with RawServer(answering(*[answer(b"%d" % i) for i in range(5)])) as server:
            assert [client.get(server.url).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            assert server.n_connections == 1

    def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew(self, client: HttpClient):
        with RawServer(answering(answer(b"one"))) as server:
            assert [client.get(server.url).body for _ in range(3)] == [b"one"] * 3
            assert server.n_connections == 3

    def test_a_connection_that_is_closed_as_the_request_arrives_is_opened_anew_once(
        self, client: HttpClient
    ):
        def script(connection: socket.socket) -> None:
            answering(answer(b"one"))(connection)
            read_request(connection)

        with RawServer(script) as server:
            assert [client.get(server.url).body for _ in range(3)] == [b"one"] * 3
            assert server.n_connections == 3

    def test_an_answer_that_has_begun_is_not_asked_for_again(self, client: HttpClient):
        def script(connection: socket.socket) -> None:
            answering(answer(b"one"))(connection)
            read_request(connection)
            connection.sendall(b"HTTP/1.1 2")
            reset(connection)

        with RawServer(script) as server:
            client.get(server.url)
            with pytest.raises(HttpError):
                client.get(server.url)
            assert server.n_connections == 1

    def test_bytes_after_an_answer_are_never_taken_for_the_next_one(self, client: HttpClient):
        forged = answer(b"true") + answer(b"forged")
        with RawServer(answering(forged, answer(b"true"))) as server:
            assert [client.get(server.url).body for _ in range(2)] == [b"true", b"true"]

    def test_many_threads_share_a_client(self, client: HttpClient):
        bodies: list[bytes] = []
        with RawServer(answering(*[answer(b"x")] * 20)) as server:
            threads = [
                threading.Thread(
                    target=lambda: bodies.extend(client.get(server.url).body for _ in range(10))
                )
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert bodies == [b"x"] * 40


class TestBounds:
    @pytest.mark.parametrize(
        "script",
        [
            hang,
            dripping(b""),
            dripping(b"HTTP/1.1 200 OK\r\nX-Long: "),
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            dripping(b"HTTP/1.1 200 OK\r\n\r\n"),
            dripping(CHUNKED + b"ff\r\n"),
        ],
        ids=["hang", "status line", "header", "body", "endless body", "chunk"],
    )
    def test_the_total_time_ends_whatever_drips(self, script: Script):
        error = failure(script)
        assert error.kind == "timeout"
        assert "no whole answer within 0.3 s" in error.message

    def test_endless_interim_answers_end_with_the_total_time(self):
        def script(connection: socket.socket) -> None:
            read_request(connection)
            while True:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

        assert failure(script).kind == "timeout"

    def test_the_deadline_of_a_kept_connection_is_that_of_its_newest_request(self):
        def script(connection: socket.socket) -> None:
            answering(answer(b"one"))(connection)
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")(connection)

        client = HttpClient()
        with RawServer(script) as server:
            assert client.get(server.url).body == b"one"
            client.total = SOON
            with pytest.raises(HttpError, match="no whole answer within"):
                client.get(server.url)

    def test_a_name_look_up_that_hangs_ends_with_the_total_time(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        released = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(5) and [])
        with pytest.raises(HttpError, match="no whole answer within"):
            HttpClient(total=timedelta(seconds=0.05)).get("http://exchange.example/")
        released.set()

    @pytest.mark.parametrize(
        "said",
        [
            answer(b"x" * 1001),
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
            CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
            answer(gzip.compress(b"x" * 10**6), headers="Content-Encoding: gzip\r\n"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        ],
        ids=["length", "no length", "chunked", "bomb", "announced"],
    )
    def test_a_body_beyond_the_cap_is_refused(self, said: bytes, client: HttpClient):
        error = failure(answering(said), client=client)
        assert (error.kind, error.message.rpartition(": ")[2]) == (
            "too_large",
            "the body is longer than 1000 bytes",
        )

    def test_a_body_of_just_the_cap_is_taken(self, client: HttpClient):
        with RawServer(answering(answer(b"x" * 1000))) as server:
            assert len(client.get(server.url).body) == 1000


class TestFailures:
    def test_an_address_where_nobody_listens_refuses(self, client: HttpClient):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert refused(client, url).kind == "refused"

    def test_the_next_address_of_a_name_is_tried_when_one_refuses(
        self, client: HttpClient, monkeypatch: pytest.MonkeyPatch
    ):
        with RawServer(answering(answer(b"second"))) as server, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            resolve_to(monkeypatch, free.getsockname()[1], server.port)
            assert client.get("http://exchange.example/").body == b"second"

    def test_an_address_that_is_silent_leaves_time_for_the_next_one(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        """An IPv6 address that leads nowhere once took all the time there was."""
        with (
            RawServer(answering(answer(b"second"))) as server,
            socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
            ExitStack() as queue,
        ):
            for _ in range(4):
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())
            resolve_to(monkeypatch, silent.getsockname()[1], server.port)
            client = HttpClient(total=timedelta(seconds=1))
            assert client.get("http://exchange.example/").body == b"second"

    @pytest.mark.parametrize(
        ("outcome", "said"),
        [(socket.gaierror("Name or service not known"), "Name or service"), ([], "has no address")],
    )
    def test_a_name_without_address_is_a_failure_of_names(
        self,
        client: HttpClient,
        monkeypatch: pytest.MonkeyPatch,
        outcome: Exception | list[object],
        said: str,
    ):
        def look_up(*_: object, **__: object) -> object:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(HttpError, match=said) as error:
            client.get("http://exchange.example/")
        assert error.value.kind == "dns"

    @pytest.mark.parametrize(
        ("script", "kind"),
        [
            (read_request, "reset"),
            (reset, "reset"),
            (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "cut"),
            (answering(CHUNKED + b"ff\r\nhalf"), "cut"),
            (answering(b"SSH-2.0-OpenSSH_9.6\r\n"), "protocol"),
            (
                answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
                "protocol",
            ),
            (answering(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), "protocol"),
            (answering(answer(b"plain", headers="Content-Encoding: gzip\r\n")), "protocol"),
        ],
        ids=["closed", "reset", "cut", "cut chunk", "no HTTP", "two lengths", "headers", "no gzip"],
    )
    def test_each_way_to_fail_has_its_kind(self, client: HttpClient, script: Script, kind: str):
        assert failure(script, client=client).kind == kind

    @pytest.mark.parametrize(
        "url", ["ftp://127.0.0.1/", "127.0.0.1/x", "http:///x", "http://[::1/", "http://h:99999/"]
    )
    def test_an_address_that_is_none_is_refused(self, client: HttpClient, url: str):
        assert refused(client, url).kind == "protocol"


@pytest.mark.usefixtures("fresh_tls_context")
class TestTls:
    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, client: HttpClient, tmp_path: Path
    ):
        context, _ = certificate(tmp_path)
        with RawServer(answering(answer(b"never")), tls=context) as server:
            error = refused(client, server.url)
        assert error.kind == "tls"
        assert "certificate verify failed" in error.message

    def test_a_trusted_server_is_read_within_the_same_bounds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        context, pem = certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        client = HttpClient()

        def script(connection: socket.socket) -> None:
            answering(answer(b"one"), answer(b"two"))(connection)
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")(connection)

        with RawServer(script, tls=context) as server:
            assert [client.get(server.url).body for _ in range(2)] == [b"one", b"two"]
            assert server.n_connections == 1
            client.total = SOON
            with pytest.raises(HttpError, match=r"no whole answer within 0.3 s"):
                client.get(server.url)

    def test_a_certificate_for_another_name_is_refused(
        self, client: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        context, pem = certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        with RawServer(answering(answer(b"never")), tls=context) as server:
            error = refused(client, server.url.replace("127.0.0.1", "localhost"))
        assert error.kind == "tls"

    def test_a_peer_that_does_not_speak_tls_is_not_trusted(self, client: HttpClient):
        def greeting(connection: socket.socket) -> None:
            connection.sendall(b"220 mail.example ESMTP\r\n")

        with RawServer(greeting) as server, pytest.raises(HttpError) as error:
            client.get(server.url.replace("http:", "https:"))
        assert error.value.kind == "tls"

    def test_a_handshake_that_hangs_ends_with_the_total_time(self):
        with RawServer(hang) as server, pytest.raises(HttpError) as error:
            HttpClient(total=SOON).get(server.url.replace("http:", "https:"))
        assert error.value.kind == "timeout"
