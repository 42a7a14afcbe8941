from __future__ import annotations

import json
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


def recorded(name):
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return json.loads(path.read_text())


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
        assert answer.json()["error"].startswith("kind 'flood' is no fault; choose from html")

    def test_a_clock_that_the_market_cannot_follow_is_an_error_of_the_server(
        self, exchange, session
    ):
        session.post(f"{exchange.url}/sandbox/clock", json={"now": "2060-01-01T00:00:00Z"})
        answer = session.get(f"{exchange.url}/api/v3/klines", params=PAGE)
        assert answer.status_code == 500
        assert answer.json()["code"] == -1000
        assert "set the clock at most" in answer.json()["msg"]


class TestFaults:
    @pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind != FaultKind.RESET])
    def test_a_fault_spoils_so_many_answers_and_no_more(self, exchange, session, kind):
        url = f"{exchange.url}/api/v3/klines"
        good = session.get(url, params=PAGE).content
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": kind, "count": 2})
        answers = [session.get(url, params=PAGE) for _ in range(3)]
        assert [(a.status_code, a.content) == (200, good) for a in answers] == [False, False, True]
        assert "X-MBX-USED-WEIGHT-1M" in answers[0].headers

    def test_a_reset_is_a_reset(self, exchange, session):
        url = f"{exchange.url}/api/v3/klines"
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": "reset"})
        with pytest.raises(requests.ConnectionError, match="reset by peer"):
            session.get(url, params=PAGE)
        assert session.get(url, params=PAGE).status_code == 200

    def test_other_calls_and_refused_ones_use_up_no_fault(self, exchange, session):
        session.post(f"{exchange.url}/sandbox/fault", json={"kind": "null"})
        assert session.get(f"{exchange.url}/api/v3/ping").content == b"{}"
        assert session.get(f"{exchange.url}/api/v3/klines").status_code == 400
        assert session.get(f"{exchange.url}/api/v3/klines", params=PAGE).content == b"null"


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

    def test_an_exchange_that_never_served_can_be_closed_twice(self):
        exchange = SandboxExchange(SyntheticMarket(start=START), SandboxClock(NOW))
        exchange.close()
        exchange.close()
