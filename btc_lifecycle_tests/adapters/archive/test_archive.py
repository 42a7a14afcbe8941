from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.archive import Archive, ArchivePeriod, periods_within
from btc_lifecycle.adapters.http import HttpClient
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.klines import parse_pages
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle_tests.adapters.archive.fake_archive import (
    FakeArchive,
    csv_of,
    path_of,
    status,
    zipped,
)

JANUARY, FEBRUARY = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH_FILE = "BTCUSDT-1m-2024-01.zip"
DAY_FILE = "BTCUSDT-1m-2024-02-01.zip"


@pytest.fixture
def server() -> Iterator[FakeArchive]:
    with FakeArchive() as running:
        yield running


@pytest.fixture
def archive(server: FakeArchive) -> Archive:
    return Archive(server.url, pause=lambda _: None)


def the_day() -> ArchivePeriod:
    return periods_within(FEBRUARY, FEBRUARY + DAY)[0]


def serve_month_and_day(server: FakeArchive) -> dict[str, str]:
    """Publish January as a month and one day after it; return their checksums by name."""
    return {
        MONTH_FILE: server.publish_minutes(MONTH_FILE, JANUARY),
        DAY_FILE: server.publish_minutes(DAY_FILE, FEBRUARY),
    }


def files(archive: Archive, *, known: dict[str, str] | None = None, days: int = 1) -> list[str]:
    end = FEBRUARY + days * DAY
    return [
        file.name for file in archive.files("BTC/USDT", start=JANUARY, end=end, known=known or {})
    ]


class TestFiles:
    def test_whole_months_come_as_months_and_the_rest_as_days_in_time_order(
        self, server: FakeArchive, archive: Archive
    ):
        checksums = serve_month_and_day(server)
        month, day = archive.files("BTC/USDT", start=JANUARY, end=FEBRUARY + DAY, known={})
        assert {month.name: month.sha256, day.name: day.sha256} == checksums
        assert (month.period, day.period) == periods_within(JANUARY, FEBRUARY + DAY)
        assert month.klines.candles["open_time"].to_list() == [JANUARY]
        assert day.klines.candles["open_time"].to_list() == [FEBRUARY]
        assert day.klines.candles["symbol"][0] == "BTC/USDT"

    def test_a_known_file_costs_its_checksum_and_no_download(
        self, server: FakeArchive, archive: Archive
    ):
        checksums = serve_month_and_day(server)
        assert files(archive, known=checksums) == []
        assert server.names_requested() == [f"{MONTH_FILE}.CHECKSUM", f"{DAY_FILE}.CHECKSUM"]

    def test_a_file_that_was_issued_anew_is_no_longer_known(
        self, server: FakeArchive, archive: Archive
    ):
        known = serve_month_and_day(server)
        server.publish_minutes(DAY_FILE, FEBRUARY, FEBRUARY + timedelta(minutes=1))
        assert files(archive, known=known) == [DAY_FILE]

    def test_a_month_that_is_not_published_yet_comes_as_its_days(
        self, server: FakeArchive, archive: Archive
    ):
        names = [f"BTCUSDT-1m-2024-01-{day}.zip" for day in ("01", "02", "31")]
        for name, day in zip(names, (0, 1, 30), strict=True):
            server.publish_minutes(name, JANUARY + day * DAY)
        assert files(archive) == names

    def test_a_month_that_was_known_by_its_days_is_new_once_it_is_published(
        self, server: FakeArchive, archive: Archive
    ):
        name = "BTCUSDT-1m-2024-01-01.zip"
        known = {name: server.publish_minutes(name, JANUARY)}
        assert files(archive, known=known) == []
        server.publish_minutes(MONTH_FILE, JANUARY)
        assert files(archive, known=known) == [MONTH_FILE]

    def test_what_the_archive_does_not_have_is_left_out(
        self, server: FakeArchive, archive: Archive
    ):
        assert files(archive, days=2) == []
        assert len(server.requested) == 1 + 31 + 2
        assert all(path.endswith(".CHECKSUM") for path in server.requested)

    def test_nothing_is_requested_before_it_is_asked_for(
        self, server: FakeArchive, archive: Archive
    ):
        serve_month_and_day(server)
        found = archive.files("BTC/USDT", start=JANUARY, end=FEBRUARY + DAY, known={})
        assert server.requested == []
        assert [file.name for file in islice(found, 1)] == [MONTH_FILE]
        assert server.names_requested() == [f"{MONTH_FILE}.CHECKSUM", MONTH_FILE]

    def test_a_fault_in_the_middle_leaves_the_files_before_it(
        self, server: FakeArchive, archive: Archive
    ):
        serve_month_and_day(server)
        server.odd[path_of(DAY_FILE)] = [status(503)] * 4
        found = archive.files("BTC/USDT", start=JANUARY, end=FEBRUARY + DAY, known={})
        assert next(found).name == MONTH_FILE
        with pytest.raises(NeighbourUnavailableError, match=DAY_FILE):
            next(found)


class TestChecksum:
    @pytest.mark.parametrize("line", ["{} *{}", "{}  {}\r\n", "{}  {}"])
    def test_every_form_of_sha256sum_is_read(
        self, server: FakeArchive, archive: Archive, line: str
    ):
        path = f"{path_of(DAY_FILE)}.CHECKSUM"
        server.files[path] = line.format("AB" * 32, DAY_FILE).encode()
        assert archive.checksum("BTC/USDT", the_day()) == "ab" * 32

    def test_a_file_that_the_archive_does_not_have_has_none(self, archive: Archive):
        assert archive.checksum("BTC/USDT", the_day()) is None

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>Log in to the network</html>",
            b"\xff" * 80,
            b"ab" * 31 + b"  " + DAY_FILE.encode(),
            b"ab" * 32 + b"  " + MONTH_FILE.encode(),
            (b"ab" * 32 + b"  " + DAY_FILE.encode() + b"\n") * 2,
        ],
    )
    def test_anything_but_the_checksum_of_that_file_is_an_error(
        self, server: FakeArchive, archive: Archive, body: bytes
    ):
        server.files[f"{path_of(DAY_FILE)}.CHECKSUM"] = body
        with pytest.raises(NeighbourUnavailableError, match="where a SHA-256 and the name") as said:
            archive.checksum("BTC/USDT", the_day())
        assert f"{DAY_FILE}.CHECKSUM" in said.value.message

    def test_a_web_page_in_its_place_is_asked_over_once(
        self, server: FakeArchive, archive: Archive
    ):
        sha256 = server.publish_minutes(DAY_FILE, FEBRUARY)
        server.odd[f"{path_of(DAY_FILE)}.CHECKSUM"] = [status(200, b"<html>")]
        assert archive.checksum("BTC/USDT", the_day()) == sha256


class TestFetch:
    def test_a_file_issued_anew_since_its_checksum_was_read_is_fetched_again(
        self, server: FakeArchive, archive: Archive
    ):
        new = server.publish_minutes(DAY_FILE, FEBRUARY)
        file = archive.fetch("BTC/USDT", the_day(), sha256="ab" * 32)
        assert file.sha256 == new
        assert server.names_requested() == [DAY_FILE, f"{DAY_FILE}.CHECKSUM", DAY_FILE]

    def test_an_older_copy_on_the_way_is_fetched_again(self, server: FakeArchive, archive: Archive):
        sha256 = server.publish_minutes(DAY_FILE, FEBRUARY)
        server.odd[path_of(DAY_FILE)] = [status(200, b"older")]
        assert archive.fetch("BTC/USDT", the_day(), sha256=sha256).sha256 == sha256

    def test_a_file_that_differs_from_its_checksum_twice_is_refused_with_both(
        self, server: FakeArchive, archive: Archive
    ):
        sha256 = server.publish(DAY_FILE, b"spoilt")
        server.files[f"{path_of(DAY_FILE)}.CHECKSUM"] = f"{'cd' * 32}  {DAY_FILE}\n".encode()
        with pytest.raises(DataError, match=f"SHA-256 {sha256} where .* says {'cd' * 32}") as said:
            archive.fetch("BTC/USDT", the_day(), sha256="ab" * 32)
        assert f"{server.url}{path_of(DAY_FILE)}" in said.value.message
        assert server.names_requested() == [DAY_FILE, f"{DAY_FILE}.CHECKSUM", DAY_FILE]

    def test_a_file_whose_checksum_is_withdrawn_must_still_match_the_old_one(
        self, server: FakeArchive, archive: Archive
    ):
        server.files[path_of(DAY_FILE)] = b"spoilt"
        with pytest.raises(DataError, match=f"says {'ab' * 32}"):
            archive.fetch("BTC/USDT", the_day(), sha256="ab" * 32)

    def test_a_checksum_without_its_file_is_a_file_being_replaced(
        self, server: FakeArchive, archive: Archive
    ):
        with pytest.raises(NeighbourUnavailableError, match="missing though its checksum is there"):
            archive.fetch("BTC/USDT", the_day(), sha256="ab" * 32)

    def test_a_file_that_holds_another_day_is_refused_though_its_checksum_is_right(
        self, server: FakeArchive, archive: Archive
    ):
        csv = csv_of(FEBRUARY + DAY)
        sha256 = server.publish(DAY_FILE, zipped({"BTCUSDT-1m-2024-02-01.csv": csv}))
        with pytest.raises(DataError, match="1 of 1 candles lie outside 2024-02-01"):
            archive.fetch("BTC/USDT", the_day(), sha256=sha256)


class TestSandbox:
    """The sandbox exchange's archive, which is another author's reading of the same documents."""

    @pytest.fixture
    def exchange(self) -> Iterator[SandboxExchange]:
        market = SyntheticMarket(seed=7, start=FEBRUARY - DAY, symbols=("BTCUSDT",))
        with SandboxExchange(market, SandboxClock(FEBRUARY + DAY, 0)) as running:
            yield running

    def test_its_files_hold_the_candles_that_the_exchange_itself_gives(
        self, exchange: SandboxExchange
    ):
        found = Archive(exchange.url).files(
            "BTC/USDT", start=FEBRUARY - DAY, end=FEBRUARY + 2 * DAY, known={}
        )
        before, day = found
        assert [before.name, day.name] == ["BTCUSDT-1m-2024-01-31.zip", DAY_FILE]
        assert before.klines.rejected.is_empty()
        assert before.klines.candles.height == 1440
        start_ms = int(FEBRUARY.timestamp() * 1000)
        query = f"symbol=BTCUSDT&interval=1m&limit=1000&startTime={start_ms}"
        page = HttpClient().get(f"{exchange.url}/api/v3/klines?{query}").body
        expected = parse_pages([page], symbol="BTC/USDT").candles
        assert_frame_equal(day.klines.candles.head(1000), expected)

    def test_a_known_file_of_it_is_not_downloaded(self, exchange: SandboxExchange):
        archive = Archive(exchange.url)
        (file,) = archive.files("BTC/USDT", start=FEBRUARY, end=FEBRUARY + DAY, known={})
        known = {file.name: file.sha256}
        asked = {"start": FEBRUARY, "end": FEBRUARY + DAY}
        n_requests = len(exchange.requests)
        assert list(archive.files("BTC/USDT", **asked, known=known)) == []
        assert len(exchange.requests) == n_requests + 1
