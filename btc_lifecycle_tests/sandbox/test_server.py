from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import ccxt
import pytest
import requests

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import FaultKind
from btc_lifecycle.sandbox.market import MINUTE_MS, as_ms
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle.sandbox.weights import BAN_AFTER_REFUSALS
from btc_lifecycle_tests.sandbox.conftest import NOW, START

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "binance_rest"
PAGE = {"symbol": "BTCUSDT", "interval": "1m"}
OLDEST = {**PAGE, "startTime": as_ms(START), "limit": 1}
FILE = "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m"
UNREADABLE = {
    FaultKind.NOT_A_TIME,
    FaultKind.RESET,
    FaultKind.HANG,
    FaultKind.DRIP,
    FaultKind.DRIP_HEADERS,
    FaultKind.CUT_CONNECTION,
    FaultKind.BAD_GZIP,
}


def recorded(name):
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return json.loads(path.read_text())


def wait_for_requests(exchange, n_requests):
    """A client that gave up may be ahead of the server, and the next fault would be another's."""
    while len(exchange.requests) < n_requests:
        time.sleep(0.001)


def limited(weight_limit_per_min):
    return SandboxExchange(
        SyntheticMarket(seed=7, start=START),
        SandboxClock(NOW, 0),
        weight_limit_per_min=weight_limit_per_min,
        wall=lambda: 30.0,
    )


@pytest.fixture
def binance(exchange):
    client = ccxt.binance(
        {
            "urls": {"api": {"public": f"{exchange.url}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}},
        }
    )
    yield client
    client.session.close()


class TestCcxt:
    def test_markets_load_with_tick_and_lot_sizes(self, binance):
        markets = binance.load_markets()
        assert sorted(markets) == ["BTC/USDT", "ETH/USDT"]
        assert markets["BTC/USDT"]["active"]
        assert markets["BTC/USDT"]["precision"]["price"] == 0.01
        assert markets["BTC/USDT"]["precision"]["amount"] == 0.00001

    def test_the_unified_call_reads_the_same_candles_as_the_raw_one(self, binance):
        since = as_ms(START)
        unified = binance.fetch_ohlcv("BTC/USDT", "1m", since=since, limit=3)
        raw = binance.publicGetKlines({**PAGE, "startTime": since, "limit": 3})
        assert unified == [[int(row[0]), *(float(field) for field in row[1:6])] for row in raw]
        assert [len(row) for row in raw] == [12, 12, 12]

    def test_time_and_exchange_info_are_read(self, binance):
        assert binance.fetch_time() == as_ms(NOW)
        assert len(binance.publicGetExchangeInfo({"symbol": "BTCUSDT"})["symbols"]) == 1

    def test_an_unknown_symbol_and_a_used_up_weight_raise_ccxts_errors(self, binance):
        with pytest.raises(ccxt.BadSymbol, match="-1121"):
            binance.publicGetKlines({**PAGE, "symbol": "NOPEUSDT"})
        for _ in range(300):
            requests.get(f"{binance.urls['api']['public']}/exchangeInfo", timeout=10)
        with pytest.raises(ccxt.DDoSProtection, match="429"):
            binance.publicGetTime()


class TestFormat:
    @pytest.mark.real_data
    @pytest.mark.parametrize(
        "name", ["klines_BTCUSDT_1m_unclosed_last.json", "klines_BTCUSDT_15m_2024-12-30.json"]
    )
    def test_rows_have_the_recorded_fields_and_writing(self, exchange, session, name):
        def writing(row):
            texts = [field for field in row if isinstance(field, str)]
            decimals = [len(text.partition(".")[2]) for text in texts]
            return [type(field) for field in row], decimals

        theirs = recorded(name)
        ours = session.get(f"{exchange.url}/api/v3/klines", params=PAGE).json()
        assert {str(writing(row)) for row in ours} == {str(writing(row)) for row in theirs}

    @pytest.mark.real_data
    def test_error_bodies_are_the_recorded_ones(self, session):
        with limited(2) as exchange:
            url = f"{exchange.url}/api/v3/klines"
            ours = [session.get(url, params={**PAGE, "symbol": "NOPEUSDT"})]
            ours += [session.get(url, params=PAGE) for _ in range(BAN_AFTER_REFUSALS + 1)]
        by_status = {answer.status_code: answer.json() for answer in ours}
        for theirs in recorded("error_bodies.json"):
            mine, body = by_status[theirs["http_status"]], theirs["body"]
            assert mine["code"] == body["code"]
            words = [word for word in body["msg"].split() if not word[0].isdigit()]
            assert [word for word in mine["msg"].split() if not word[0].isdigit()] == words

    @pytest.mark.real_data
    def test_headers_that_clients_read_are_there(self, exchange, session):
        theirs = recorded("time_200_real_headers.json")
        ours = session.get(f"{exchange.url}/api/v3/time")
        for name in ("Content-Type", "Content-Length", "Connection"):
            assert ours.headers[name] == theirs["headers"][name]
        assert ours.headers["x-mbx-used-weight-1m"] == "1"
        assert ours.json().keys() == theirs["body"].keys()

    def test_every_answer_says_which_market_it_comes_from(self, exchange, session):
        paths = ("/api/v3/ping", "/api/v3/klines", "/nowhere", "/sandbox/state")
        answers = [session.get(exchange.url + path) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 400, 404, 200]
        assert {answer.headers["X-Sandbox-Market"] for answer in answers} == {"synthetic"}

    def test_unknown_paths_are_404_without_a_body(self, exchange, session):
        answer = session.get(f"{exchange.url}/api/v3/nope")
        assert (answer.status_code, answer.content) == (404, b"")
        assert session.post(f"{exchange.url}/api/v3/klines").status_code == 404


class TestWeights:
    def test_each_call_costs_its_weight(self, exchange, session):
        used = []
        for path in ("ping", "time", "exchangeInfo", "klines"):
            answer = session.get(f"{exchange.url}/api/v3/{path}", params={})
            assert answer.headers["X-MBX-USED-WEIGHT"] == answer.headers["X-MBX-USED-WEIGHT-1M"]
            used.append(int(answer.headers["X-MBX-USED-WEIGHT-1M"]))
        assert used == [1, 2, 22, 24]

    def test_over_the_limit_is_429_until_the_minute_ends_then_418(self, session):
        with limited(4) as exchange:
            url = f"{exchange.url}/api/v3/klines"
            answers = [session.get(url, params=PAGE) for _ in range(BAN_AFTER_REFUSALS + 3)]
        statuses = [answer.status_code for answer in answers]
        assert statuses == [200, 200, *[429] * BAN_AFTER_REFUSALS, 418]
        assert answers[2].headers["Retry-After"] == "31"
        assert answers[-1].headers["Retry-After"] == "121"

    def test_the_sandboxs_own_calls_are_free(self, session):
        with limited(1) as exchange:
            session.get(f"{exchange.url}/api/v3/klines", params=PAGE)
            assert session.get(f"{exchange.url}/sandbox/state").status_code == 200


class TestControl:
    def test_the_clock_moves_the_market(self, exchange, session):
        later = NOW + timedelta(days=1)
        answer = session.post(f"{exchange.url}/sandbox/clock", json={"now": later.isoformat()})
        assert answer.json()["now"] == later.isoformat()
        newest = session.get(f"{exchange.url}/api/v3/klines", params=PAGE).json()[-1]
        assert newest[0] == as_ms(later) - as_ms(later) % MINUTE_MS
        assert session.get(f"{exchange.url}/api/v3/time").json() == {"serverTime": as_ms(later)}

    def test_a_regime_from_now_on_leaves_the_served_candles_alone(self, exchange, session):
        page = {**PAGE, "limit": 1000}
        before = session.get(f"{exchange.url}/api/v3/klines", params=page).json()
        answer = session.post(f"{exchange.url}/sandbox/regime", json={"volume_factor": 50})
        assert answer.json()["regimes"][0]["volume_factor"] == 50
        assert session.get(f"{exchange.url}/api/v3/klines", params=page).json() == before
        exchange.clock.set(now=NOW + timedelta(minutes=100))
        after = session.get(f"{exchange.url}/api/v3/klines", params={**PAGE, "limit": 90}).json()
        volumes = [sum(float(row[5]) for row in rows) for rows in (before[-90:], after)]
        assert volumes[1] > 10 * volumes[0]

    def test_the_state_counts_requests(self, exchange, session):
        session.get(f"{exchange.url}/api/v3/ping")
        state = session.get(f"{exchange.url}/sandbox/state").json()
        assert (state["requests_served"], state["used_weight_1m"]) == (2, 1)
        assert state["symbols"] == ["BTCUSDT", "ETHUSDT"]

    def test_a_bad_body_is_400_with_a_message(self, exchange, session):
        answer = session.post(f"{exchange.url}/sandbox/fault", json={"kind": "flood"})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("kind 'flood' is unknown here; choose from html")

    def test_a_clock_that_the_market_cannot_follow_is_an_error_of_the_server(
        self, exchange, session
    ):
        session.post(f"{exchange.url}/sandbox/clock", json={"now": "2060-01-01T00:00:00Z"})
        answer = session.get(f"{exchange.url}/api/v3/klines", params=PAGE)
        assert answer.status_code == 500
        assert answer.json()["code"] == -1000
        assert "set the clock at most" in answer.json()["msg"]


class TestFaults:
    @pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in UNREADABLE])
    def test_a_fault_spoils_so_many_answers_and_no_more(self, exchange, session, kind):
        url = f"{exchange.url}/api/v3/klines"
        page = {**PAGE, "startTime": as_ms(START), "limit": 10}

        def ask():
            return session.get(url, params=page, allow_redirects=False)

        good = ask().content
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": kind, "count": 2})
        answers = [ask() for _ in range(3)]
        assert [(a.status_code, a.content) == (200, good) for a in answers] == [False, False, True]
        assert "X-MBX-USED-WEIGHT-1M" in answers[0].headers

    @pytest.mark.parametrize(
        ("kind", "timeout", "said"),
        [
            ("reset", 10, "reset by peer"),
            ("hang", 0.05, "timed out"),
            ("drip_headers", 0.05, "timed out"),
            ("drip", 0.05, "timed out"),
            ("cut_connection", 10, "IncompleteRead"),
            ("bad_gzip", 10, "gzip"),
        ],
    )
    def test_an_answer_that_cannot_be_read_is_followed_by_a_good_one(
        self, exchange, session, kind, timeout, said
    ):
        url = f"{exchange.url}/api/v3/klines"
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": kind})
        with pytest.raises(requests.RequestException, match=said):
            session.get(url, params=PAGE, timeout=timeout)
        wait_for_requests(exchange, 2)
        assert session.get(url, params=PAGE).status_code == 200

    def test_other_calls_and_refused_ones_use_up_no_fault(self, exchange, session):
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": "null"})
        assert session.get(f"{exchange.url}/api/v3/ping").content == b"{}"
        assert session.get(f"{exchange.url}/api/v3/klines").status_code == 400
        assert session.get(f"{exchange.url}/api/v3/klines", params=PAGE).content == b"null"

    def test_the_time_and_the_archive_fail_on_their_own(self, exchange, session):
        for path, kind in (("time", "not_a_time"), ("archive", "http_502")):
            session.post(f"{exchange.url}/sandbox/fault", json={"kind": kind, "path": path})
        assert session.get(f"{exchange.url}/api/v3/klines", params=PAGE).json()[0][0] > 0
        assert session.get(f"{exchange.url}{FILE}-2026-01-09.zip").status_code == 404
        assert session.get(f"{exchange.url}{FILE}-2026-01-01.zip").status_code == 502
        assert session.get(f"{exchange.url}{FILE}-2026-01-01.zip").status_code == 200
        times = [session.get(f"{exchange.url}/api/v3/time").json() for _ in range(2)]
        assert times == [{}, {"serverTime": as_ms(NOW)}]


class TestTimeUnit:
    def test_klines_and_time_come_in_microseconds_on_request(self, exchange, session):
        url, headers = f"{exchange.url}/api/v3", {"X-MBX-TIME-UNIT": "microsecond"}
        asked = {**PAGE, "startTime": 1000 * as_ms(START), "limit": 1}
        row = session.get(f"{url}/klines", params=asked, headers=headers).json()[0]
        assert (row[0], row[6]) == (1000 * as_ms(START), 1000 * as_ms(START) + 59_999_999)
        assert session.get(f"{url}/time", headers=headers).json()["serverTime"] == 1000 * as_ms(NOW)
        assert session.get(f"{url}/time").json()["serverTime"] == as_ms(NOW)

    def test_an_archive_file_is_no_matter_of_the_header(self, exchange, session):
        url = f"{exchange.url}{FILE}-2026-01-01.zip"
        asked = session.get(url, headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
        assert asked.content == session.get(url).content


class TestArchive:
    def test_a_file_fits_its_checksum_and_costs_no_weight(self, exchange, session):
        file = session.get(f"{exchange.url}{FILE}-2026-01-02.zip")
        checksum = session.get(f"{exchange.url}{FILE}-2026-01-02.zip.CHECKSUM")
        assert checksum.text.split() == [
            hashlib.sha256(file.content).hexdigest(),
            "BTCUSDT-1m-2026-01-02.zip",
        ]
        assert session.get(f"{exchange.url}/sandbox/state").json()["used_weight_1m"] == 0
        assert file.headers["X-Sandbox-Market"] == "synthetic"

    def test_orders_change_files_and_klines(self, exchange, session):
        def told():
            file = session.get(f"{exchange.url}{FILE}-2026-01-01.zip").content
            page = session.get(f"{exchange.url}/api/v3/klines", params=OLDEST).json()
            return file, float(page[0][5])

        first = told()
        session.post(f"{exchange.url}/sandbox/archive", json={"header_line": True})
        second = told()
        order = {"symbol": "BTCUSDT", "open_time": START.isoformat(), "volume_factor": 0.5}
        state = session.post(f"{exchange.url}/sandbox/revise", json=order).json()
        third = told()
        assert (state["archive"]["header_line"], state["revisions"]) == (True, [order])
        assert len({first[0], second[0], third[0]}) == 3
        assert (first[1], third[1]) == (second[1], pytest.approx(first[1] / 2))

    def test_a_market_that_cannot_tell_is_an_error_of_the_server(self, exchange, session):
        session.post(f"{exchange.url}/sandbox/clock", json={"now": "2060-01-01T00:00:00Z"})
        answer = session.get(f"{exchange.url}{FILE}-2059-01-01.zip")
        assert answer.status_code == 500
        assert "set the clock at most" in answer.text


class TestRecords:
    def test_every_request_is_recorded_with_its_time_path_and_status(self, session):
        walls = iter(range(1000))
        with SandboxExchange(
            SyntheticMarket(start=START), SandboxClock(NOW, 0), wall=lambda: next(walls)
        ) as exchange:
            session.get(f"{exchange.url}/api/v3/klines", params=PAGE)
            session.get(f"{exchange.url}/nowhere?a=1")
            for kind, timeout in (("reset", 10), ("hang", 0.05), ("http_451", 10)):
                session.post(f"{exchange.url}/sandbox/fault", json={"kind": kind})
                n_before = len(exchange.requests)
                with suppress(requests.RequestException):
                    session.get(f"{exchange.url}/api/v3/klines", params=PAGE, timeout=timeout)
                wait_for_requests(exchange, n_before + 1)
        assert [(record.path, record.status) for record in exchange.requests] == [
            ("/api/v3/klines", 200),
            ("/nowhere", 404),
            ("/sandbox/fault", 200),
            ("/api/v3/klines", 0),
            ("/sandbox/fault", 200),
            ("/api/v3/klines", 0),
            ("/sandbox/fault", 200),
            ("/api/v3/klines", 451),
        ]
        came_at = [record.wall for record in exchange.requests]
        assert came_at == sorted(set(came_at))


class TestLife:
    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::1", "example.com", ""])  # noqa: S104
    def test_hosts_that_others_reach_are_refused(self, host):
        with pytest.raises(ConfigurationError, match="does not listen on"):
            SandboxExchange(SyntheticMarket(start=START), SandboxClock(NOW), host=host)

    def test_localhost_by_name_is_served(self, session):
        market = SyntheticMarket(start=START)
        with SandboxExchange(market, SandboxClock(NOW), host="localhost") as exchange:
            assert session.get(f"{exchange.url}/api/v3/ping").status_code == 200

    def test_a_port_in_use_is_refused(self, exchange):
        port = int(exchange.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="cannot listen on"):
            SandboxExchange(SyntheticMarket(start=START), SandboxClock(NOW), port=port)

    def test_a_closed_exchange_answers_nobody_kept_alive_or_new(self, exchange, session):
        assert session.get(f"{exchange.url}/api/v3/ping").status_code == 200
        exchange.close()
        for client in (session, requests):
            with pytest.raises(requests.ConnectionError):
                client.get(f"{exchange.url}/api/v3/ping", timeout=5)

    @pytest.mark.parametrize("kind", ["hang", "drip", "drip_headers"])
    def test_closing_ends_answers_that_would_take_minutes(self, exchange, kind):
        before = set(threading.enumerate())
        with socket.create_connection(("127.0.0.1", int(exchange.url[17:])), timeout=10) as client:
            body = json.dumps({"kind": kind, "path": "time"})
            ask = f"POST /sandbox/fault HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            client.sendall(f"{ask}GET /api/v3/time HTTP/1.1\r\n\r\n".encode())
            wait_for_requests(exchange, 2)
            exchange.close()
            for thread in set(threading.enumerate()) - before:
                thread.join(5)
                assert not thread.is_alive()

    def test_an_exchange_that_never_served_can_be_closed_twice(self):
        exchange = SandboxExchange(SyntheticMarket(start=START), SandboxClock(NOW))
        exchange.close()
        exchange.close()
