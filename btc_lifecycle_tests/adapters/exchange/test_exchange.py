from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from btc_lifecycle.adapters import http
from btc_lifecycle.adapters.exchange import BINANCE_BASE_URLS, PAGE_ROWS, Exchange, Pace, RawPage
from btc_lifecycle.adapters.http import HttpClient
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import FaultKind
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle_tests.adapters.raw_server import (
    RawServer,
    answer,
    answering,
    certificate,
    dripping,
    hang,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=1, hours=3, seconds=20)
MINUTE = timedelta(minutes=1)
MARKET = SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))

NEVER_END = [FaultKind.HANG, FaultKind.DRIP, FaultKind.DRIP_HEADERS]
TRIED_OVER = [
    *NEVER_END,
    *(FaultKind.HTML, FaultKind.EMPTY, FaultKind.CUT, FaultKind.NULL, FaultKind.OBJECT),
    *(FaultKind.GIANT, FaultKind.BAD_GZIP, FaultKind.HTTP_302, FaultKind.HTTP_500),
    *(FaultKind.HTTP_500_1001, FaultKind.HTTP_502, FaultKind.HTTP_503, FaultKind.HTTP_504),
    *(FaultKind.HTTP_520, FaultKind.RESET, FaultKind.CUT_CONNECTION, FaultKind.SHORT_ROW),
    *(FaultKind.EXTRA_FIELD, FaultKind.OTHER_TIME),
]
ASK_FOR_A_PAUSE = [
    *(FaultKind.OK_1003, FaultKind.HTTP_400_1003, FaultKind.HTTP_418, FaultKind.HTTP_429),
    *(FaultKind.HTTP_429_BARE, FaultKind.HTTP_429_DATE),
]
OF_THE_ROWS = [FaultKind.WRONG_TYPE, FaultKind.NAN, FaultKind.UNORDERED, FaultKind.HALF_PAGE]


@pytest.fixture
def server() -> Iterator[SandboxExchange]:
    with SandboxExchange(MARKET, SandboxClock(NOW, 0)) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


Build = Callable[..., Exchange]


@pytest.fixture
def build(tmp_path: Path, pauses: list[float]) -> Build:
    """Makes the exchange of one more process on the same folder."""

    def exchange(*urls: str, total: timedelta = timedelta(seconds=10)) -> Exchange:
        return Exchange(
            "binance",
            base_urls=urls,
            pace=Pace(tmp_path / "exchange"),
            http=HttpClient(total=total),
            pause=pauses.append,
        )

    return exchange


@pytest.fixture
def exchange(server: SandboxExchange, build: Build) -> Exchange:
    return build(server.url)


def add_faults(server: SandboxExchange, kind: FaultKind, **order: object) -> None:
    with requests.Session() as session:
        session.trust_env = False
        body = {"kind": kind.value, **order}
        session.post(f"{server.url}/sandbox/fault", json=body).raise_for_status()


def n_calls(server: SandboxExchange) -> int:
    return sum(request.path.startswith("/api/") for request in server.requests)


def ten_minutes(exchange: Exchange) -> RawPage | None:
    return exchange.klines("BTC/USDT", start=START, end=START + 9 * MINUTE)


def market_text(symbol: str, *, first: int, n: int) -> bytes:
    """Return rows of the market itself, past any server."""
    block = MARKET.block(symbol, start_ms=int(START.timestamp() * 1000))
    return b"[" + block.rows_text(first, first + n) + b"]"


class TestAnswers:
    def test_server_time_is_the_exchanges_and_not_this_machines(
        self, server: SandboxExchange, exchange: Exchange
    ):
        assert exchange.server_time() == NOW
        server.clock.set(now=NOW + timedelta(days=400, milliseconds=7))
        assert exchange.server_time() == NOW + timedelta(days=400, milliseconds=7)

    def test_pages_one_after_the_other_are_the_market(self, exchange: Exchange):
        end = START + 1299 * MINUTE
        first = exchange.klines("BTC/USDT", start=START, end=end)
        after = first.edges.last_open_time + timedelta(milliseconds=1)
        second = exchange.klines("BTC/USDT", start=after, end=end)
        assert [page.edges.n_rows for page in (first, second)] == [PAGE_ROWS, 300]
        assert first.body == market_text("BTCUSDT", first=0, n=1000)
        assert second.body == market_text("BTCUSDT", first=1000, n=300)

    def test_both_bounds_are_inclusive(self, exchange: Exchange):
        page = exchange.klines("ETH/USDT", start=START + MINUTE, end=START + 3 * MINUTE)
        assert page.edges.first_open_time == START + MINUTE
        assert page.edges.last_open_time == START + 3 * MINUTE
        assert page.body == market_text("ETHUSDT", first=1, n=3)

    def test_the_minute_in_progress_is_part_of_the_page(self, exchange: Exchange):
        page = exchange.klines("BTC/USDT", start=NOW - 2 * MINUTE, end=NOW)
        assert page.edges.last_open_time == NOW.replace(second=0)

    def test_a_range_without_candles_is_no_page(self, exchange: Exchange, pauses: list[float]):
        before = START - timedelta(days=30)
        assert exchange.klines("BTC/USDT", start=before, end=before + MINUTE) is None
        assert pauses == []

    def test_bounds_in_another_zone_and_between_milliseconds_are_the_same_instants(
        self, exchange: Exchange
    ):
        zone = datetime.strptime("+0530", "%z").tzinfo
        local = (START + timedelta(microseconds=300)).astimezone(zone)
        page = exchange.klines("BTC/USDT", start=local, end=START + MINUTE)
        assert page.edges.first_open_time == START

    def test_the_source_is_the_sandboxs_market_once_it_answered(self, exchange: Exchange):
        patient = exchange.patient(MINUTE)
        assert exchange.source == "binance"
        patient.server_time()
        assert (exchange.source, patient.source) == ("synthetic", "synthetic")
        assert patient.pace is exchange.pace

    def test_nothing_is_requested_before_the_first_call(
        self, server: SandboxExchange, tmp_path: Path
    ):
        Exchange("binance", base_urls=[server.url], pace=Pace(tmp_path))
        assert Exchange("binance", pace=Pace(tmp_path))._asker.bases == BINANCE_BASE_URLS
        assert n_calls(server) == 0


class TestFaults:
    @pytest.mark.parametrize("kind", TRIED_OVER)
    def test_a_passing_fault_is_tried_over(
        self, server: SandboxExchange, build: Build, pauses: list[float], kind: FaultKind
    ):
        add_faults(server, kind)
        page = ten_minutes(
            build(server.url, total=timedelta(seconds=0.7 if kind in NEVER_END else 10))
        )
        assert page.body == market_text("BTCUSDT", first=0, n=10)
        assert len(pauses) == 1
        assert 0 <= pauses[0] <= 1

    @pytest.mark.parametrize("kind", OF_THE_ROWS)
    def test_a_whole_page_is_handed_on_whatever_its_rows_say(
        self, server: SandboxExchange, exchange: Exchange, pauses: list[float], kind: FaultKind
    ):
        add_faults(server, kind)
        assert ten_minutes(exchange).body != market_text("BTCUSDT", first=0, n=10)
        assert pauses == []

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            (FaultKind.HTML, "<!DOCTYPE html>"),
            (FaultKind.NULL, "null"),
            (FaultKind.HTTP_503, "503 Service Unavailable -1008"),
            (FaultKind.HTTP_302, "302 Found"),
            (FaultKind.RESET, "/api/v3/klines?symbol=BTCUSDT"),
            (FaultKind.OTHER_TIME, "with candles of another time, 20"),
        ],
    )
    def test_a_fault_that_stays_is_an_error_and_never_an_empty_page(
        self, server: SandboxExchange, exchange: Exchange, kind: FaultKind, said: str
    ):
        add_faults(server, kind, count=9)
        with pytest.raises(NeighbourUnavailableError) as refusal:
            ten_minutes(exchange)
        assert refusal.value.message.startswith(f"{server.url} did not answer the request about ")
        assert said in refusal.value.message
        assert n_calls(server) == 5

    @pytest.mark.parametrize("script", [hang, dripping(b"HTTP/1.1 200 OK\r\n\r\n[[")])
    def test_an_exchange_that_never_finishes_is_given_up(
        self, build: Build, script: Callable, pauses: list[float]
    ):
        with RawServer(script) as server, pytest.raises(NeighbourUnavailableError) as error:
            build(server.url, total=timedelta(seconds=0.05)).server_time()
        assert "no whole answer within 0.05 s" in error.value.message
        assert len(pauses) == 4

    @pytest.mark.parametrize("body", [b"{}", b"[]", b'{"serverTime":"soon"}', b"<html></html>"])
    def test_a_time_that_is_none_is_tried_over_and_told(
        self, build: Build, pauses: list[float], body: bytes
    ):
        right = answer(b'{"serverTime":1767225600000}')
        with RawServer(answering(answer(body), right, *[answer(body)] * 5)) as server:
            exchange = build(server.url)
            assert exchange.server_time() == START
            with pytest.raises(NeighbourUnavailableError, match="did not answer with its time but"):
                exchange.server_time()
        assert len(pauses) == 1 + 4

    def test_a_self_signed_certificate_is_told_and_not_tried_over(
        self, build: Build, pauses: list[float], tmp_path: Path
    ):
        http._tls.cache_clear()
        context, _ = certificate(tmp_path)
        with (
            RawServer(answering(answer(b"never")), tls=context) as server,
            pytest.raises(NeighbourUnavailableError, match="certificate verify failed") as error,
        ):
            build(server.url).server_time()
        assert error.value.message.startswith(f"the certificate of {server.url} is not trusted")
        assert (server.n_connections, pauses) == (1, [])


class TestPauses:
    @pytest.mark.parametrize("kind", ASK_FOR_A_PAUSE)
    def test_no_process_asks_before_the_pause_has_passed(
        self, server: SandboxExchange, build: Build, pauses: list[float], kind: FaultKind
    ):
        told = {"http_418", "http_429", "http_429_date"}
        add_faults(server, kind, **({"retry_after": 90} if kind.value in told else {}))
        for _ in range(3):
            with pytest.raises(NeighbourUnavailableError, match="asks for a pause until") as error:
                ten_minutes(build(server.url))
        assert error.value.message.startswith(server.url)
        assert (n_calls(server), pauses) == (1, [])

    def test_a_pause_within_the_patience_is_waited_for(
        self, server: SandboxExchange, exchange: Exchange
    ):
        add_faults(server, FaultKind.HTTP_429, retry_after=0)
        assert ten_minutes(exchange).edges.n_rows == 10
        refused, served = list(server.requests)[-2:]
        assert (refused.status, served.status) == (429, 200)
        assert served.wall - refused.wall > 1

    def test_impatient_calls_do_not_wait(self, server: SandboxExchange, exchange: Exchange):
        add_faults(server, FaultKind.HTTP_429, retry_after=5)
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause"):
            ten_minutes(exchange.patient(timedelta(seconds=1)))

    def test_another_process_is_held_by_the_same_pause(
        self, server: SandboxExchange, exchange: Exchange, tmp_path: Path
    ):
        add_faults(server, FaultKind.HTTP_418, retry_after=120)
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause"):
            ten_minutes(exchange)
        code = (
            "import sys; from pathlib import Path;"
            "from btc_lifecycle.adapters.exchange import Exchange, Pace;"
            "pace = Pace(Path(sys.argv[1]));"
            "Exchange('binance', base_urls=[sys.argv[2]], pace=pace).server_time()"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "exchange"), server.url]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "asks for a pause until" in ended.stderr
        assert n_calls(server) == 1


class TestRefusals:
    def test_an_unknown_market_is_a_setting_to_mend(self, exchange: Exchange, pauses: list[float]):
        with pytest.raises(ConfigurationError, match="does not know the market XYZ/USDT") as error:
            exchange.klines("XYZ/USDT", start=START, end=NOW)
        assert "`symbols`" in error.value.hint
        assert pauses == []

    def test_an_address_that_is_no_exchange_is_a_setting_to_mend(self, build: Build):
        script = answering(answer(b"Not here", status="404 Not Found"))
        with (
            RawServer(script) as server,
            pytest.raises(ConfigurationError, match="404 Not Found Not here") as error,
        ):
            build(server.url).server_time()
        assert "EXCHANGE_BASE_URL" in error.value.hint

    @pytest.mark.parametrize("kind", [FaultKind.HTTP_403, FaultKind.HTTP_451])
    def test_where_one_address_refuses_this_country_the_next_serves(
        self, server: SandboxExchange, build: Build, pauses: list[float], kind: FaultKind
    ):
        with SandboxExchange(MARKET, SandboxClock(NOW, 0)) as foreign:
            add_faults(foreign, kind, count=9)
            for _ in range(3):
                assert ten_minutes(build(foreign.url, server.url)).edges.n_rows == 10
            assert (n_calls(foreign), n_calls(server), pauses) == (1, 3, [])

    def test_an_address_where_nobody_listens_is_named(self, build: Build, pauses: list[float]):
        with RawServer(hang) as closed:
            pass
        with pytest.raises(NeighbourUnavailableError) as error:
            build(closed.url).server_time()
        assert error.value.message.startswith(f"{closed.url} did not answer the request about ")
        assert "refused" in error.value.message
        assert "check the network and EXCHANGE_BASE_URL" in error.value.hint
        assert len(pauses) == 4
