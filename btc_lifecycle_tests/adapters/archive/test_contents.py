from __future__ import annotations

import struct
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.archive import ArchivePeriod, periods_within
from btc_lifecycle.adapters.archive.contents import MAX_CSV_BYTES, read_klines
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.klines import Klines
from btc_lifecycle_tests.adapters.archive.fake_archive import csv_of, zipped

START = datetime(2025, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAME = "BTCUSDT-1m-2025-01-01.csv"
CSV = csv_of(START, START + MINUTE)
HEADER = b"open_time,open,high,low,close,volume,close_time,a,b,c,d,ignore\n"


def day() -> ArchivePeriod:
    return periods_within(START, START + timedelta(days=1))[0]


def read(body: bytes) -> Klines:
    return read_klines(body, csv_name=NAME, symbol="BTC/USDT", period=day())


def test_the_rows_of_the_one_file_are_candles() -> None:
    klines = read(zipped({NAME: CSV}))
    assert klines.candles["open_time"].to_list() == [START, START + MINUTE]
    assert klines.candles["symbol"].unique().to_list() == ["BTC/USDT"]
    assert klines.candles["close"].to_list() == [100.5, 101.5]
    assert klines.candles.select("volume", "quote_volume", "trades").row(0) == (1.5, 150.75, 10)
    assert klines.candles.select("taker_buy_base", "taker_buy_quote").row(0) == (0.5, 50.25)
    assert klines.rejected.is_empty()


@pytest.mark.parametrize(
    "csv",
    [
        HEADER + CSV,
        CSV.rstrip(),
        CSV.replace(b"\n", b"\r\n"),
        csv_of(START) + csv_of(START + MINUTE, in_microseconds=True),
        csv_of(START, START + MINUTE, in_microseconds=True),
    ],
    ids=["header", "no last line end", "line ends of Windows", "mixed units", "microseconds"],
)
def test_every_form_that_files_came_in_holds_the_same_candles(csv: bytes) -> None:
    candles = read(zipped({NAME: csv})).candles
    assert candles.drop("close_time").equals(read(zipped({NAME: CSV})).candles.drop("close_time"))


def test_a_stored_file_is_read_as_a_packed_one() -> None:
    assert read(zipped({NAME: CSV}, method=zipfile.ZIP_STORED)).candles.height == 2


def test_a_file_without_rows_holds_no_candle() -> None:
    assert read(zipped({NAME: b""})).candles.is_empty()


def test_the_first_and_last_minute_of_the_period_belong_to_it() -> None:
    ends = csv_of(START, day().end - MINUTE)
    assert read(zipped({NAME: ends})).candles.height == 2


@pytest.mark.parametrize("stray", [START - MINUTE, START + timedelta(days=1)])
def test_candles_of_another_time_are_refused_with_their_number(stray: datetime) -> None:
    csv = csv_of(*sorted([START, stray]))
    with pytest.raises(DataError, match="1 of 2 candles lie outside 2025-01-01, first") as refusal:
        read(zipped({NAME: csv}))
    assert f"{stray:%Y-%m-%d %H:%M:%S} UTC" in refusal.value.message
    assert refusal.value.message.startswith(f"{NAME} of the archive matches its checksum, but")


@pytest.mark.parametrize("row", [b"1735689600000,1,2,1\n", CSV[:-1] + b",7\n"])
def test_rows_that_are_not_whole_are_refused_for_good(row: bytes) -> None:
    with pytest.raises(DataError, match=r"BTC/USDT: .* fields") as refusal:
        read(zipped({NAME: CSV + row}))
    assert refusal.value.hint == 'nothing of it was stored; set `backfill_from` to "exchange"'


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"BTCUSDT-1m-2025-01-02.csv": CSV},
        {f"../{NAME}": CSV},
        {f"{NAME}/": b""},
        {NAME: CSV, "README": b"hello"},
    ],
    ids=["none", "another day", "another folder", "a folder", "two"],
)
def test_a_zip_of_anything_but_the_one_file_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="its zip holds not that file alone but") as refusal:
        read(zipped(files))
    assert str(list(files)) in refusal.value.message


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zipped({NAME: bytes(MAX_CSV_BYTES + 1)})
    assert len(bomb) < 100_000
    with pytest.raises(DataError, match="unpacks to more than 32 MB"):
        read(bomb)


def test_a_bomb_that_names_a_small_size_is_refused() -> None:
    """The size in the zip's own directory is what a bomb lies about."""
    bomb = bytearray(zipped({NAME: bytes(2**20)}))
    directory = bomb.rfind(b"PK\x01\x02")
    struct.pack_into("<I", bomb, directory + 24, 100)
    with pytest.raises(DataError, match="its zip cannot be unpacked: Bad CRC-32"):
        read(bytes(bomb))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_by_a_method_that_the_archive_never_used_is_refused(method: int) -> None:
    with pytest.raises(DataError, match=f"packed by method {method}"):
        read(zipped({NAME: CSV}, method=method))


def test_an_encrypted_zip_is_refused() -> None:
    body = bytearray(zipped({NAME: CSV}))
    body[6] |= 1
    body[body.rfind(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match=r"its zip cannot be unpacked: .*encrypted"):
        read(bytes(body))


@pytest.mark.parametrize("body", [b"", b"<html>", zipped({NAME: CSV})[:-30], CSV])
def test_what_is_no_whole_zip_is_refused(body: bytes) -> None:
    with pytest.raises(DataError, match="its zip cannot be unpacked"):
        read(body)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_zip_is_refused_or_still_holds_the_same_rows(changes: list) -> None:
    body = bytearray(zipped({NAME: CSV}))
    for place, byte in changes:
        body[place % len(body)] = byte
    with suppress(DataError):
        assert read(bytes(body)).candles.equals(read(zipped({NAME: CSV})).candles)
