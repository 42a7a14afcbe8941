from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.klines import Klines, PageEdges, page_edges, parse_csv, parse_pages
from btc_lifecycle.domain.tables import CANDLES, UTC_TIME
from btc_lifecycle_tests.reference_ingest import (
    FIELDS,
    MINUTE,
    OPEN_MS,
    OPEN_TIME,
    Row,
    csv,
    in_microseconds,
    kline,
    page,
    page_rows,
    slow_klines,
    slow_time,
)

SHARED = Path(__file__).parents[4] / "shared"
RECORDED = SHARED / "fixtures" / "binance_rest"
REAL = SHARED / "data" / "binance_spot_1m" / "BTCUSDT"

HEADER = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore\n"
BOM = b"\xef\xbb\xbf"
REJECTED = {"symbol": pl.String, "kline": pl.String, "open_time": UTC_TIME, "reason": pl.String}


def edges(*rows: object) -> PageEdges | None:
    return page_edges(page(*rows), symbol="BTC/USDT")


def parse(*rows: Row) -> Klines:
    return parse_pages([page(*rows)], symbol="BTC/USDT")


def parse_file(*rows: Row) -> Klines:
    return parse_csv(csv(*rows), symbol="BTC/USDT")


def assert_same(one: Klines, other: Klines) -> None:
    assert_frame_equal(one.candles, other.candles)
    assert_frame_equal(one.rejected, other.rejected)


def assert_as_read_slowly(klines: Klines, texts: Sequence[Sequence[str]]) -> None:
    candles, rejected = slow_klines(texts, symbol="BTC/USDT")
    assert klines.candles.schema == {**CANDLES.schema, "close_time": UTC_TIME}
    assert klines.rejected.schema == REJECTED
    assert klines.candles.rows(named=True) == candles
    assert klines.rejected.rows() == rejected


millisecond_rows = st.builds(
    kline,
    # Few minutes, so that rows repeat; some off the grid, as in December 2017.
    st.integers(0, 20) | st.integers(0, 20).map(lambda minute: minute + 0.34665),
    open=st.decimals("42261.02", "42298.62", places=8).map(str),
    close=st.floats(42261.02, 42298.62),
    volume=st.sampled_from(["35.92724000", "1e3", 36, 23.18766]),
    trades=st.sampled_from([0, 1, 1327, "1327"]),
    unused=st.sampled_from(["0", None, "x", 7]),
)
sound_rows = millisecond_rows | millisecond_rows.map(in_microseconds)
spoilt_rows = st.builds(
    lambda row, field, value: [*row[:field], value, *row[field + 1 :]],
    sound_rows,
    st.integers(0, 10),
    st.sampled_from(["abc", "NaN", "inf", "", None, True, -1, 0, "1.5", 10**30, OPEN_MS // 1000]),
)
some_rows = st.lists(sound_rows | spoilt_rows, min_size=1, max_size=12)


class TestEdges:
    def test_a_page_tells_its_rows_and_its_first_and_last_open_time(self):
        assert edges(kline(0), kline(1), kline(5)) == PageEdges(
            n_rows=3, first_open_time=OPEN_TIME, last_open_time=OPEN_TIME + 5 * MINUTE
        )

    @pytest.mark.parametrize("body", [b"[]", b"[]\n", b" [] \r\n"])
    def test_an_empty_page_has_none(self, body: bytes):
        assert page_edges(body, symbol="BTC/USDT") is None

    @pytest.mark.parametrize("around", ["{}\n", "\n\n{}", " \r\n{}\t "])
    def test_whitespace_around_a_page_changes_nothing(self, around: str):
        body = around.format(page(kline(0), kline(1)).decode()).encode()
        assert page_edges(body, symbol="BTC/USDT") == edges(kline(0), kline(1))
        assert_same(parse_pages([body], symbol="BTC/USDT"), parse(kline(0), kline(1)))

    def test_the_edges_of_a_page_in_reverse_are_in_order(self):
        rows = [kline(minute) for minute in range(4)]
        assert edges(*reversed(rows)) == edges(*rows)

    def test_a_row_at_the_edge_without_a_time_leaves_it_to_its_neighbour(self):
        rows = [kline(0, open_time=0), kline(1), kline(2), kline(3, open_time="x")]
        assert edges(*rows) == PageEdges(
            n_rows=4, first_open_time=OPEN_TIME + MINUTE, last_open_time=OPEN_TIME + 2 * MINUTE
        )

    @given(rows=some_rows)
    def test_they_are_the_first_and_the_last_time_that_can_be_read(self, rows):
        bare = [str(row[0]) for row in rows if isinstance(row[0], int) and row[0] is not True]
        times = [time for text in bare if (time := slow_time(text)) is not None]
        if not times:
            with pytest.raises(NeighbourUnavailableError, match="list of klines was expected"):
                edges(*rows)
            return
        assert edges(*rows) == PageEdges(
            n_rows=len(rows),
            first_open_time=min(times[0], times[-1]),
            last_open_time=max(times[0], times[-1]),
        )

    @pytest.mark.parametrize(
        ("open_time", "expected"),
        [
            (10**12, datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)),
            (10**13 - 1, datetime(2286, 11, 20, 17, 46, 39, 999_000, tzinfo=UTC)),
            (OPEN_MS * 1000 + 1, OPEN_TIME + timedelta(microseconds=1)),
            (10**12 - 1, None),
            (10**13, None),
            (10**15 - 1, None),
            (10**16, None),
            (-OPEN_MS, None),
        ],
    )
    def test_times_have_13_digits_in_milliseconds_or_16_in_microseconds(self, open_time, expected):
        row = kline(open_time=open_time, close_time=open_time)
        assert parse(row).rejected["open_time"].to_list() == [expected]
        if expected is None:
            with pytest.raises(NeighbourUnavailableError):
                edges(row)
        else:
            assert edges(row).first_open_time == edges(row).last_open_time == expected


class TestRefusedPages:
    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"<html><body>Maintenance</body></html>", "'<html><body>Maintenance</body></html>'"),
            (b"", "''"),
            (b"null", "'null'"),
            (b"{}", "'{}'"),
            (b"7", "'7'"),
            (b"x" * 10_000, "'xxx"),
            (page({"text": "x" * 10_000})[1:-1], '\'{"text":"xxx'),
            (b'"[[]]"', "'\"[[]]\"'"),
            (b'{"code":-1003,"msg":"Too much request weight used"}', '\'{"code":-1003,"msg"'),
            (b"\x1f\x8b\x08\xff", repr("\x1f\ufffd\x08\ufffd")),
            (page(kline(0), kline(1))[:-1], "'[[1704067200000,\"42283.58"),
            (page(kline(0)) + b"x", "'[[1704067200000,\"42283.58"),
            (b"[" * 100_000, "'[[[["),
            (BOM + page(kline(0)), "'\\ufeff[[1704067200000,\"42283.58"),
            (page(kline(0, open_time="X")).replace(b'"X"', b"9" * 5000), "'[[99999999"),
            (page(kline(0), kline(1)) * 2, "'[[1704067200000,\"42283.58"),
            (page(kline(0, open_time=str(OPEN_MS))), '\'[["1704067200000","42283.58'),
            (page(kline(0, open_time=OPEN_MS // 1000)), "'[[1704067200,\"42283.58"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_what_is_no_page_is_refused_and_shown(self, body: bytes, shown: str):
        with pytest.raises(NeighbourUnavailableError) as refusal:
            page_edges(body, symbol="ETH/USDT")
        message = refusal.value.message
        assert message.startswith(f"ETH/USDT: the exchange answered with {shown}")
        assert message.endswith(" where a list of klines was expected")
        assert len(message) < 160
        assert refusal.value.hint == (
            "the page is not trusted and nothing of it was stored; run the ingest again"
        )

    @pytest.mark.parametrize(
        "row",
        [kline()[:6], kline()[:11], [*kline(), "0"], [], {}, "abcdefghijkl", 5, None],
        ids=lambda row: repr(row)[-20:],
    )
    def test_a_row_that_does_not_have_twelve_fields_is_refused_by_its_number(self, row: object):
        with pytest.raises(NeighbourUnavailableError) as refusal:
            edges(kline(0), row, kline(2))
        assert refusal.value.message == (
            f"BTC/USDT: kline 1 of 3 is {str(row)[:60]!r} where 12 fields were expected"
        )

    @given(rows=st.lists(sound_rows, max_size=3), share=st.floats(0, 1, exclude_max=True))
    def test_a_page_cut_anywhere_is_refused(self, rows, share):
        body = page(*rows)
        with pytest.raises(NeighbourUnavailableError):
            page_edges(body[: int(share * len(body))], symbol="BTC/USDT")

    @pytest.mark.parametrize("value", [["42283.58"], [], "[1]", "1]", "1,5"], ids=str)
    def test_a_field_of_several_values_is_refused(self, value: object):
        with pytest.raises(NeighbourUnavailableError):
            edges(kline(0), kline(1, open=value), kline(2))

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            ([kline(0), kline(1)[:11]], "1 of 2 klines have fewer than 12 fields"),
            ([kline(0)[:6], kline(1)[:6], kline(2)], "2 of 3 klines have fewer than 12 fields"),
            ([kline(0)[:11]], "1 of 1 klines have fewer than 12 fields"),
            ([kline(0), [*kline(1), "0"]], "a kline has more than 12 fields"),
            ([[*kline(0), "0"]], "a kline has more than 12 fields"),
            ([kline(0)[:11], [*kline(1), "0"]], "a kline has more than 12 fields"),
            ([[*kline(0), "0", "0"], kline(1)[:10]], "a kline has more than 12 fields"),
        ],
    )
    def test_short_and_long_rows_that_make_up_for_each_other_are_refused_when_read(
        self, rows: list[Row], problem: str
    ):
        for read in (parse, parse_file):
            with pytest.raises(NeighbourUnavailableError) as refusal:
                read(*rows)
            assert refusal.value.message == f"BTC/USDT: {problem}"
            assert "nothing of it was stored" in refusal.value.hint

    @given(body=st.binary(max_size=60) | st.text('[]{},"0x ', max_size=60).map(str.encode))
    def test_any_other_body_is_refused_or_empty(self, body: bytes):
        with suppress(NeighbourUnavailableError):
            assert page_edges(body, symbol="BTC/USDT") is None


class TestParsing:
    def test_a_hand_made_page_becomes_candles_in_the_tables_types(self):
        klines = parse(kline(0), kline(1, close="42290.5"))
        assert klines.candles.schema == {**CANDLES.schema, "close_time": UTC_TIME}
        assert klines.candles.row(0, named=True) == {
            "symbol": "BTC/USDT",
            "open_time": OPEN_TIME,
            "open": 42283.58,
            "high": 42298.62,
            "low": 42261.02,
            "close": 42298.61,
            "volume": 35.92724,
            "quote_volume": 1519032.4283187,
            "trades": 1327,
            "taker_buy_base": 23.18766,
            "taker_buy_quote": 980394.0149727,
            "close_time": OPEN_TIME + timedelta(seconds=59, milliseconds=999),
        }
        assert klines.candles["close"].to_list() == [42298.61, 42290.5]
        assert klines.rejected.is_empty()

    def test_of_no_rows_come_frames_without_rows(self):
        assert_as_read_slowly(parse_pages([], symbol="BTC/USDT"), [])
        assert_as_read_slowly(parse_csv(b"", symbol="BTC/USDT"), [])

    def test_of_repeated_open_times_the_last_row_is_kept(self):
        klines = parse(kline(0, close="42270"), kline(1), kline(0, close="42280"))
        assert klines.candles["close"].to_list() == [42280.0, 42298.61]

    def test_rows_that_are_no_candles_are_put_aside_as_they_came_with_the_reason(self):
        bad = [kline(1, close=None, unused="7"), kline(2, high="1"), kline(3, open_time="x")]
        rows = [kline(0), *bad, kline(4, open={"a": 1})]
        klines = parse(*rows)
        assert klines.candles["open_time"].to_list() == [OPEN_TIME]
        texts = [page(row)[2:-2].decode().replace('"', "") for row in rows]
        assert klines.rejected.rows() == [
            ("BTC/USDT", texts[1], OPEN_TIME + MINUTE, "a price is not a number"),
            ("BTC/USDT", texts[2], OPEN_TIME + 2 * MINUTE, "the high is not the highest price"),
            ("BTC/USDT", texts[3], None, "a time is not in milliseconds or microseconds"),
            ("BTC/USDT", texts[4], OPEN_TIME + 4 * MINUTE, "a price is not a number"),
        ]

    @given(rows=some_rows)
    def test_a_page_is_what_reading_row_by_row_gives(self, rows):
        assert_as_read_slowly(parse(*rows), page_rows([page(*rows)]))

    @given(pages=st.lists(st.lists(sound_rows | spoilt_rows, min_size=1, max_size=5), max_size=5))
    def test_pages_that_overlap_are_read_as_if_they_were_one(self, pages):
        """The last row of a page has no comma behind it, the others have."""
        bodies = [page(*rows) for rows in pages]
        klines = parse_pages(bodies, symbol="BTC/USDT")
        assert_as_read_slowly(klines, page_rows(bodies))
        if bodies:
            assert_same(klines, parse(*(row for rows in pages for row in rows)))

    @given(minutes=st.sets(st.integers(0, 500), min_size=1, max_size=30), data=st.data())
    def test_order_and_repeats_of_rows_do_not_change_the_candles(self, minutes, data):
        rows = [kline(minute, trades=minute + 1) for minute in minutes]
        repeated = rows + data.draw(st.lists(st.sampled_from(rows), max_size=30))
        disturbed = data.draw(st.permutations(repeated))
        assert_same(parse(*disturbed), parse(*rows))

    @given(rows=st.lists(millisecond_rows, max_size=12))
    def test_microseconds_give_the_same_candles_as_milliseconds(self, rows):
        assert_same(parse(kline(), *map(in_microseconds, rows)), parse(kline(), *rows))

    def test_the_exchanges_own_microseconds_differ_in_the_close_time_alone(self):
        finer = in_microseconds(kline())
        finer[6] = finer[0] + 59_999_999
        klines, plain = parse(finer), parse(kline())
        assert_frame_equal(klines.candles.drop("close_time"), plain.candles.drop("close_time"))
        assert klines.candles["close_time"][0] == OPEN_TIME + MINUTE - timedelta(microseconds=1)


class TestArchiveFiles:
    @given(rows=some_rows, data=st.data())
    def test_a_file_is_what_reading_line_by_line_gives(self, rows, data):
        body = data.draw(st.sampled_from([b"", HEADER])) + csv(*rows)
        end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
        klines = parse_csv(body.replace(b"\n", end), symbol="BTC/USDT")
        assert_as_read_slowly(klines, page_rows([page(*rows)]))
        assert_same(klines, parse(*rows))

    @pytest.mark.parametrize("header", [b"", HEADER, b"Open" + HEADER[4:], BOM, BOM + HEADER])
    @pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n", b" \t\n"])
    def test_header_ends_of_lines_and_whitespace_around_change_nothing(self, header, end):
        body = header + csv(kline(0), kline(1)).strip() + end
        assert_same(parse_csv(body, symbol="BTC/USDT"), parse(kline(0), kline(1)))

    def test_a_file_of_names_alone_has_no_rows(self):
        assert parse_csv(HEADER, symbol="BTC/USDT").candles.is_empty()
        assert parse_csv(HEADER.strip(), symbol="BTC/USDT").candles.is_empty()

    def test_an_empty_line_within_is_refused(self):
        body = csv(kline(0)) + b"\n" + csv(kline(1))
        with pytest.raises(NeighbourUnavailableError, match="1 of 3 klines have fewer than 12"):
            parse_csv(body, symbol="BTC/USDT")

    @pytest.mark.real_data
    @pytest.mark.parametrize("month", ["2017-12", "2023-03"])
    @pytest.mark.parametrize("per_ms", [1, 1000])
    def test_a_real_month_is_kept_to_the_last_digit(self, month: str, per_ms: int):
        """Off-grid rows of December 2017 and minutes without a trade included."""
        path = REAL / f"{month}.parquet"
        if not path.exists():
            pytest.skip(f"no real candles at {path}")
        real = pl.read_parquet(path)
        open_ms = pl.col("open_time").dt.epoch("ms")
        times = [open_ms * per_ms, ((open_ms + 59_999) * per_ms).alias("close_time")]
        zeros = [pl.lit(0).alias(name) for name in FIELDS[7:]]
        file = real.select(times[0], *FIELDS[1:6], times[1], *zeros).write_csv()
        klines = parse_csv(file.encode(), symbol="BTC/USDT")
        assert klines.rejected.is_empty()
        expected = real.select(FIELDS[:6]).cast({"open_time": UTC_TIME})
        assert_frame_equal(klines.candles.select(FIELDS[:6]), expected)


class TestMostlySound:
    @pytest.mark.parametrize(
        ("n_bad", "n_rows"), [(0, 1), (1, 1), (1, 2), (1, 1000), (2, 200), (10, 1000)]
    )
    def test_one_bad_row_or_one_in_a_hundred_leave_a_page_trusted(self, n_bad: int, n_rows: int):
        rows_with_bad(n_bad, n_rows).require_mostly_sound(symbol="BTC/USDT")

    @pytest.mark.parametrize(("n_bad", "n_rows"), [(2, 2), (2, 199), (3, 299), (11, 1000)])
    def test_more_are_refused_with_the_first_of_them(self, n_bad: int, n_rows: int):
        with pytest.raises(DataError) as refusal:
            rows_with_bad(n_bad, n_rows).require_mostly_sound(symbol="BTC/USDT")
        (text,) = page_rows([page(kline(0, close="-1"))])
        assert refusal.value.message == (
            f"BTC/USDT: {n_bad} of {n_rows} klines are no candles, more than 1%; of the first, "
            f"a price is not positive: {','.join(text)}"
        )
        assert "nothing of these klines was stored" in refusal.value.hint


def rows_with_bad(n_bad: int, n_rows: int) -> Klines:
    return parse(*(kline(i, close="-1" if i < n_bad else "42270") for i in range(n_rows)))


@pytest.mark.real_data
class TestRecordedAnswers:
    def test_minutes_are_kept_to_the_last_digit(self):
        rows = recorded("klines_BTCUSDT_1m_unclosed_last.json")
        klines = parse(*rows)
        opened = klines.candles["open_time"]
        assert edges(*rows) == PageEdges(
            n_rows=len(rows), first_open_time=opened[0], last_open_time=opened[-1]
        )
        assert_as_read_slowly(klines, page_rows([page(*rows)]))

    @pytest.mark.parametrize("name", ["15m_2024-12-30", "1h_2023-03-01", "2h_2017-11-01"])
    def test_candles_of_another_interval_are_refused(self, name: str):
        klines = parse(*recorded(f"klines_BTCUSDT_{name}.json"))
        assert klines.candles.is_empty()
        with pytest.raises(DataError, match="it does not close within a minute"):
            klines.require_mostly_sound(symbol="BTC/USDT")


def recorded(name: str) -> list[Row]:
    if not (RECORDED / name).exists():
        pytest.skip(f"no recorded answer {RECORDED / name}")
    return json.loads((RECORDED / name).read_bytes())
