from __future__ import annotations

import hashlib
import io
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.archive import HEADER_LINE, ArchiveSettings, SandboxArchive
from btc_lifecycle.sandbox.market import DAY_MS, MINUTE_MS, as_ms
from btc_lifecycle.sandbox.synthetic import MAX_DAYS, SyntheticMarket
from btc_lifecycle_tests.reference_sandbox import all_rows

START = datetime(2024, 12, 30, 12, tzinfo=UTC)
NOW = datetime(2025, 2, 1, 0, 0, 5, tzinfo=UTC)
MARKET = SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))
ROWS = all_rows(MARKET, "BTCUSDT", until_ms=as_ms(START) + 4 * DAY_MS)


@pytest.fixture
def archive():
    return SandboxArchive(MARKET)


def path(name, *, symbol="BTCUSDT"):
    kind = "daily" if name.count("-") == 2 else "monthly"
    return f"/data/spot/{kind}/klines/{symbol}/1m/{symbol}-1m-{name}.zip"


def get(archive, name, *, now=NOW, symbol="BTCUSDT", checksum=False):
    ending = ".CHECKSUM" if checksum else ""
    return archive.get(path(name, symbol=symbol) + ending, now_ms=as_ms(now))


def lines(archive, name):
    answer = get(archive, name)
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        assert packed.namelist() == [f"BTCUSDT-1m-{name}.csv"]
        assert packed.testzip() is None
        return packed.read(packed.namelist()[0]).splitlines(keepends=True)


def expected(first, end, *, unit):
    """The lines of the market's own rows, in milliseconds (1) or microseconds (1000)."""
    return [
        ",".join(map(str, [row[0] * unit, *row[1:6], (row[6] + 1) * unit - 1, *row[7:]])).encode()
        + b"\n"
        for row in ROWS[first:end]
    ]


def test_files_before_2025_are_in_milliseconds_and_begin_with_the_market(archive):
    assert lines(archive, "2024-12-30") == expected(0, 720, unit=1)
    assert lines(archive, "2024-12") == expected(0, 2160, unit=1)


def test_files_from_2025_on_are_in_microseconds(archive):
    assert lines(archive, "2025-01-01") == expected(2160, 3600, unit=1000)


def test_a_months_file_is_that_of_its_days(archive):
    month = lines(archive, "2025-01")
    assert len(month) == 31 * 1440
    assert month[:1440] == lines(archive, "2025-01-01")
    assert month[-1440:] == lines(archive, "2025-01-31")


def test_a_checksum_is_what_sha256sum_checks(archive):
    for name in ("2024-12", "2025-01-01"):
        digest = hashlib.sha256(get(archive, name).body).hexdigest()
        answer = get(archive, name, checksum=True)
        assert answer.body == f"{digest}  BTCUSDT-1m-{name}.zip\n".encode()


def test_equal_archives_give_equal_bytes_whenever_they_are_asked(archive):
    later = NOW + timedelta(days=3)
    for name in ("2024-12-31", "2024-12-30"):
        assert get(archive, name).body == get(SandboxArchive(MARKET), name, now=later).body


def test_symbols_have_files_of_their_own(archive):
    ours, theirs = get(archive, "2024-12-30"), get(archive, "2024-12-30", symbol="ETHUSDT")
    assert (ours.status, theirs.status) == (200, 200)
    assert ours.body != theirs.body


@pytest.mark.parametrize(
    ("name", "available_at"),
    [
        ("2025-01-01", datetime(2025, 1, 2, tzinfo=UTC)),
        ("2024-12", datetime(2025, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_file_appears_on_the_day_after_its_period(archive, name, available_at):
    for checksum in (False, True):
        before = get(archive, name, now=available_at - timedelta(seconds=1), checksum=checksum)
        assert (before.status, before.content_type) == (404, "application/xml")
        assert b"<Code>NoSuchKey</Code>" in before.body
        assert get(archive, name, now=available_at, checksum=checksum).status == 200


@pytest.mark.parametrize(
    "asked",
    [
        path("2024-11"),
        path("2024-12-29"),
        path("2025-13"),
        path("2025-00"),
        path("2025-01-32"),
        path("0000-01"),
        path("9999-12"),
        path("2025-01", symbol="NOPEUSDT"),
        path("2025-01").replace("monthly", "daily"),
        path("2025-01-01").replace("daily", "monthly"),
        path("2025-01").replace("1m", "1h"),
        path("2025-01").replace("BTCUSDT-", "ETHUSDT-"),
        path("2025-01") + ".checksum",
        path("2025-01") + "/",
        "/data/",
        "/data/spot/monthly/klines/BTCUSDT/1m/",
    ],
)
def test_what_the_archive_does_not_have_is_not_found(archive, asked):
    answer = archive.get(asked, now_ms=as_ms(NOW))
    assert answer.status == 404
    assert asked.removeprefix("/").encode() in answer.body


def test_a_market_that_cannot_tell_says_so():
    archive = SandboxArchive(MARKET)
    far = START + timedelta(days=MAX_DAYS + 400)
    with pytest.raises(ConfigurationError, match="cannot reach"):
        archive.get(path(f"{far:%Y-%m-%d}"), now_ms=as_ms(far + timedelta(days=2)))


class TestReissue:
    def test_a_header_line_comes_first(self, archive):
        whole = lines(archive, "2024-12-31")
        archive.reissue(ArchiveSettings(header_line=True))
        assert lines(archive, "2024-12-31") == [HEADER_LINE, *whole]

    def test_a_file_ends_early_and_its_neighbours_are_whole(self, archive):
        archive.reissue(ArchiveSettings(cut_at=datetime(2024, 12, 31, 18, 51, tzinfo=UTC)))
        assert lines(archive, "2024-12-31") == expected(720, 720 + 18 * 60 + 51, unit=1)
        assert len(lines(archive, "2024-12-30")) == 720
        assert len(lines(archive, "2025-01-01")) == 1440
        assert len(lines(archive, "2024-12")) == 720 + 18 * 60 + 51

    def test_a_file_cut_at_its_first_minute_is_empty(self, archive):
        archive.reissue(ArchiveSettings(cut_at=datetime(2025, 1, 1, tzinfo=UTC)))
        assert lines(archive, "2025-01-01") == []
        assert len(lines(archive, "2024-12-31")) == 1440

    def test_revised_rows_differ_in_volume_alone(self, archive):
        whole = lines(archive, "2024-12-31")
        archive.reissue(ArchiveSettings(revised_rows=2))
        revised = lines(archive, "2024-12-31")
        assert revised[2:] == whole[2:]
        for old, new in zip(whole[:2], revised[:2], strict=True):
            theirs, ours = old.split(b","), new.split(b",")
            assert float(ours[5]) == pytest.approx(float(theirs[5]) + 1)
            assert (ours[:5], ours[6:]) == (theirs[:5], theirs[6:])

    def test_a_bad_checksum_is_that_of_no_file_and_the_file_is_whole(self, archive):
        good, digest = get(archive, "2024-12-31").body, get(archive, "2024-12-31", checksum=True)
        archive.reissue(ArchiveSettings(bad_checksum=True))
        assert get(archive, "2024-12-31").body == good
        assert get(archive, "2024-12-31", checksum=True).body != digest.body

    def test_back_to_ordinary_settings_the_file_is_the_first_one_again(self, archive):
        first = get(archive, "2024-12-31").body
        archive.reissue(ArchiveSettings(revised_rows=1))
        archive.reissue()
        assert archive.settings == ArchiveSettings(revised_rows=1)
        assert get(archive, "2024-12-31").body != first
        archive.reissue(ArchiveSettings())
        assert get(archive, "2024-12-31").body == first


def test_a_file_is_made_once_until_it_is_issued_anew():
    class CountingMarket(SyntheticMarket):
        n_blocks = 0

        def block(self, symbol, *, start_ms):
            self.n_blocks += 1
            return super().block(symbol, start_ms=start_ms)

    market = CountingMarket(start=START)
    archive = SandboxArchive(market)
    get(archive, "2024-12-31")
    n_blocks = market.n_blocks
    get(archive, "2024-12-31", checksum=True)
    assert market.n_blocks == n_blocks > 0
    archive.reissue()
    get(archive, "2024-12-31")
    assert market.n_blocks == 2 * n_blocks


def test_the_last_row_of_a_day_is_its_last_minute(archive):
    opened = int(lines(archive, "2024-12-31")[-1].partition(b",")[0])
    assert opened == as_ms(datetime(2025, 1, 1, tzinfo=UTC)) - MINUTE_MS
