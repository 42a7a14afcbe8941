from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.exchange import PAGE_ROWS, Exchange
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.candles import parse_klines
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import FaultKind
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle.sandbox.transport import Answer

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=1, hours=3, seconds=20)
MINUTE = timedelta(minutes=1)
MARKET = SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))

ASKS_FOR_A_PAUSE = [FaultKind.HTTP_429, FaultKind.HTTP_418]
STILL_RIGHT = [FaultKind.UNORDERED, FaultKind.DUPLICATE]
BROKEN = [kind for kind in FaultKind if kind not in (*ASKS_FOR_A_PAUSE, *STILL_RIGHT)]


class SpoiltExchange(SandboxExchange):
    """A sandbox exchange whose answers of one path a test may replace by its own."""

    spoilt: tuple[str, Answer] | None = None
    forgets_start = False

    def get(self, target: str) -> Answer | None:
        if self.spoilt and target.startswith(self.spoilt[0]):
            return self.spoilt[1]
        return super().get(re.sub(r"startTime=\d+&", "", target) if self.forgets_start else target)


@pytest.fixture
def server() -> Iterator[SpoiltExchange]:
    with SpoiltExchange(MARKET, SandboxClock(NOW, 0)) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def exchange(server: SandboxExchange, pauses: list[float]) -> Exchange:
    return Exchange("binance", base_url=server.url, pause=pauses.append)


def add_faults(server: SandboxExchange, kind: FaultKind, *, count: int) -> None:
    with requests.Session() as session:
        session.trust_env = False
        body = {"kind": kind.value, "count": count}
        session.post(f"{server.url}/sandbox/fault", json=body).raise_for_status()


def market_rows(symbol: str, *, n: int) -> list[list[object]]:
    """Return the first minutes of the market itself, past any server."""
    block = MARKET.block(symbol, start_ms=int(START.timestamp() * 1000))
    return json.loads(b"[" + block.rows_text(0, n) + b"]")


class TestAnswers:
    def test_server_time_is_the_exchanges_and_not_this_machines(
        self, server: SandboxExchange, exchange: Exchange
    ):
        assert exchange.server_time() == NOW
        server.clock.set(now=NOW + timedelta(days=400, milliseconds=7))
        assert exchange.server_time() == NOW + timedelta(days=400, milliseconds=7)

    def test_pages_one_after_the_other_are_the_market(self, exchange: Exchange):
        start, pages = START, []
        while not pages or pages[-1].height == PAGE_ROWS:
            pages.append(exchange.klines("BTC/USDT", start=start, end=START + 1299 * MINUTE))
            start = pages[-1]["open_time"][-1] + timedelta(milliseconds=1)
        assert [page.height for page in pages] == [1000, 300]
        expected = parse_klines(market_rows("BTCUSDT", n=1300), symbol="BTC/USDT")
        assert_frame_equal(pages[0].vstack(pages[1]), expected)

    def test_both_bounds_are_inclusive(self, exchange: Exchange):
        page = exchange.klines("ETH/USDT", start=START + MINUTE, end=START + 3 * MINUTE)
        assert page["open_time"].to_list() == [START + i * MINUTE for i in (1, 2, 3)]
        assert page["symbol"].unique().to_list() == ["ETH/USDT"]

    def test_the_minute_in_progress_is_part_of_the_page(self, exchange: Exchange):
        page = exchange.klines("BTC/USDT", start=NOW - 2 * MINUTE, end=NOW)
        assert page["close_time"][-1] > NOW

    def test_a_range_without_candles_is_an_empty_page(
        self, exchange: Exchange, pauses: list[float]
    ):
        before = START - timedelta(days=30)
        assert exchange.klines("BTC/USDT", start=before, end=before + MINUTE).is_empty()
        assert pauses == []

    def test_bounds_in_another_zone_and_between_milliseconds_are_the_same_instants(
        self, exchange: Exchange
    ):
        local = (START + timedelta(microseconds=300)).astimezone(
            datetime.strptime("+0530", "%z").tzinfo
        )
        page = exchange.klines("BTC/USDT", start=local, end=START + MINUTE)
        assert page["open_time"][0] == START

    def test_the_source_is_the_sandboxs_market_once_it_answered(self, exchange: Exchange):
        assert exchange.source == "binance"
        exchange.server_time()
        assert exchange.source == "synthetic"

    def test_nothing_is_requested_before_the_first_call(self, server: SandboxExchange):
        Exchange("binance", base_url=server.url)
        Exchange("binance")
        assert requests_served(server) == 0


def requests_served(server: SandboxExchange) -> int:
    state = server.get("/sandbox/state")
    return json.loads(state.body)["requests_served"] - 1


class TestFaults:
    @pytest.mark.parametrize("kind", BROKEN)
    @pytest.mark.parametrize("count", [1, 2])
    def test_a_passing_fault_is_tried_over(
        self,
        server: SandboxExchange,
        exchange: Exchange,
        pauses: list[float],
        kind: FaultKind,
        count: int,
    ):
        add_faults(server, kind, count=count)
        page = exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE)
        expected = parse_klines(market_rows("BTCUSDT", n=10), symbol="BTC/USDT")
        assert_frame_equal(page, expected)
        assert pauses == [0.5, 1.5][:count]

    @pytest.mark.parametrize("kind", STILL_RIGHT)
    def test_a_page_in_disorder_is_right_at_once(
        self, server: SandboxExchange, exchange: Exchange, pauses: list[float], kind: FaultKind
    ):
        add_faults(server, kind, count=1)
        page = exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE)
        expected = parse_klines(market_rows("BTCUSDT", n=10), symbol="BTC/USDT")
        assert_frame_equal(page, expected)
        assert pauses == []

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            (FaultKind.HTML, "BTC/USDT: the exchange answered with '<!DOCTYPE html>"),
            (FaultKind.EMPTY, "BTC/USDT: the exchange answered with '' where a list"),
            (FaultKind.CUT, "BTC/USDT: the exchange answered with '[[17672256"),
            (FaultKind.NULL, "BTC/USDT: the exchange answered with 'null' where a list"),
            (FaultKind.OBJECT, "BTC/USDT: the exchange answered with {} where a list"),
            (FaultKind.SHORT_ROW, "BTC/USDT: kline 5 of 10 is [1767225900000, "),
            (FaultKind.WRONG_TYPE, "BTC/USDT: close of kline 5 of 10 is 'abc'"),
            (FaultKind.HTTP_403, "403 Forbidden"),
            (FaultKind.HTTP_451, "451 Unavailable For Legal Reasons"),
            (FaultKind.HTTP_500, "An unknown error occurred."),
            (FaultKind.HTTP_503, "Server is currently overloaded"),
            (FaultKind.RESET, "did not answer the request about BTC/USDT"),
        ],
    )
    def test_a_fault_that_stays_is_an_error_and_never_an_empty_page(
        self, server: SandboxExchange, exchange: Exchange, kind: FaultKind, said: str
    ):
        add_faults(server, kind, count=3)
        with pytest.raises(NeighbourUnavailableError) as refusal:
            exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE)
        assert said in refusal.value.message
        assert "ingest" in refusal.value.hint
        is_http = kind.startswith("http") or kind == FaultKind.RESET
        assert (server.url in refusal.value.message) == is_http
        assert requests_served(server) == 1 + 3

    @pytest.mark.parametrize("kind", ASKS_FOR_A_PAUSE)
    def test_an_exchange_that_asks_for_a_pause_is_not_asked_again_at_once(
        self, server: SandboxExchange, exchange: Exchange, pauses: list[float], kind: FaultKind
    ):
        add_faults(server, kind, count=1)
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause") as refusal:
            exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE)
        assert server.url in refusal.value.message
        assert refusal.value.hint == "wait 0:00:01 before the next ingest; nothing is lost"
        assert pauses == []
        assert requests_served(server) == 1 + 1
        assert exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE).height == 10

    def test_used_up_request_weight_is_told_with_the_wait_that_the_exchange_names(self):
        with SandboxExchange(
            MARKET, SandboxClock(NOW, 0), weight_limit_per_min=1, wall=lambda: 30.0
        ) as strict:
            exchange = Exchange("binance", base_url=strict.url, pause=pytest.fail)
            exchange.server_time()
            with pytest.raises(NeighbourUnavailableError) as refusal:
                exchange.server_time()
        assert refusal.value.hint.startswith("wait 0:00:31 ")

    @pytest.mark.parametrize("headers", [{}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}])
    def test_without_a_number_of_seconds_the_wait_is_a_minute(
        self, server: SpoiltExchange, exchange: Exchange, headers: dict[str, str]
    ):
        server.spoilt = ("/api/v3/time", Answer(status=429, body=b"{}", headers=headers))
        with pytest.raises(NeighbourUnavailableError) as refusal:
            exchange.server_time()
        assert refusal.value.hint.startswith("wait a minute ")

    @pytest.mark.parametrize(
        "body", [b"{}", b"null", b"[]", b'{"serverTime":"soon"}', b"<html></html>", b"", b"17"]
    )
    def test_a_time_that_is_none_is_an_error_that_names_the_address(
        self, server: SpoiltExchange, exchange: Exchange, pauses: list[float], body: bytes
    ):
        server.spoilt = ("/api/v3/time", Answer(body=body))
        with pytest.raises(NeighbourUnavailableError, match="did not answer with its time") as no:
            exchange.server_time()
        assert no.value.message.startswith(server.url)
        assert "check that the base URL is that of an exchange" in no.value.hint
        assert pauses == [0.5, 1.5]

    def test_a_page_of_another_time_is_refused(self, server: SpoiltExchange, exchange: Exchange):
        """A cache that repeats one page would have been asked for the page after it for ever."""
        server.forgets_start = True
        with pytest.raises(NeighbourUnavailableError, match="with candles of another time, 2026"):
            exchange.klines("BTC/USDT", start=NOW - 2 * MINUTE, end=NOW)

    def test_candles_against_the_rules_are_not_asked_for_again(
        self, server: SpoiltExchange, exchange: Exchange, pauses: list[float]
    ):
        (row,) = market_rows("BTCUSDT", n=1)
        row[2] = "0.01"
        server.spoilt = ("/api/v3/klines", Answer(body=json.dumps([row]).encode()))
        with pytest.raises(DataError, match="BTC/USDT: 1 of 1 candles break the rules"):
            exchange.klines("BTC/USDT", start=START, end=NOW)
        assert pauses == []


class TestRefusedRequests:
    def test_an_unknown_market_is_a_setting_to_mend(self, exchange: Exchange, pauses: list[float]):
        with pytest.raises(ConfigurationError, match="does not know the market XYZ/USDT") as error:
            exchange.klines("XYZ/USDT", start=START, end=NOW)
        assert "`symbols`" in error.value.hint
        assert pauses == []

    def test_a_request_that_makes_no_sense_to_the_exchange_is_a_setting_to_mend(
        self, server: SpoiltExchange, exchange: Exchange, pauses: list[float]
    ):
        body = b'{"code":-1120,"msg":"Invalid interval."}'
        server.spoilt = ("/api/v3/klines", Answer(status=400, body=body))
        with pytest.raises(ConfigurationError, match=r"refused the request .*Invalid interval"):
            exchange.klines("BTC/USDT", start=START, end=NOW)
        assert pauses == []

    def test_an_address_where_nobody_listens_is_named(self, pauses: list[float]):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        exchange = Exchange("binance", base_url=url, pause=pauses.append)
        for call in (
            exchange.server_time,
            lambda: exchange.klines("BTC/USDT", start=START, end=NOW),
        ):
            with pytest.raises(NeighbourUnavailableError) as refusal:
                call()
            assert refusal.value.message.startswith(f"{url} did not answer")
            assert "check the network and EXCHANGE_BASE_URL" in refusal.value.hint
        assert pauses == [0.5, 1.5] * 2
