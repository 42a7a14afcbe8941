from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import BatchCounts, CandleStore
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration import fetching
from btc_lifecycle.orchestration.fetching import Fetch
from btc_lifecycle_tests.memory_warehouse import MemoryWarehouse
from btc_lifecycle_tests.orchestration.fake_exchange import (
    BTC,
    MINUTE,
    FakeExchange,
    Rows,
    candles_of,
    minutes,
    without_high,
)
from btc_lifecycle_tests.reference_ingest import count_missing_minutes

START = datetime(2024, 3, 1, tzinfo=UTC)
TICK = timedelta(milliseconds=1)
NOW = START + 5000 * MINUTE
OFF_GRID = timedelta(seconds=20, milliseconds=799)


@pytest.fixture
def store() -> CandleStore:
    return CandleStore(MemoryWarehouse(), CandleTables.named())


@pytest.fixture
def exchange() -> FakeExchange:
    return FakeExchange(minutes(START, 2500), now=NOW)


def minute(number: int) -> datetime:
    return START + number * MINUTE


def fetched(
    exchange: FakeExchange, store: CandleStore, *, n: int = 2500, told: list[int] | None = None
) -> list[BatchCounts]:
    """Fetch the first so many minutes."""
    fetch = Fetch(
        exchange=exchange,
        store=store,
        symbol=BTC,
        now=exchange.now,
        told=None if told is None else told.append,
    )
    return list(fetch.stretch(Stretch(start=START, end=minute(n))))


def is_whole(store: CandleStore, exchange: FakeExchange, *, n: int = 2500) -> bool:
    """Hold the table to the exchange's first minutes, and its story to no gap."""
    truth = {time: price for time, price in exchange.prices[BTC].items() if time < minute(n)}
    assert_frame_equal(store.warehouse.read(CANDLES), candles_of(truth))
    held = store.holdings(BTC)
    assert held.fetched == (Stretch(start=START, end=minute(n)),)
    return held.gaps == () and held.n_missing_min == 0


def spoiled(*numbers: int):
    """Return an oddity that breaks these rows of a page."""
    return lambda rows: [
        without_high(row) if number in numbers else row for number, row in enumerate(rows)
    ]


def nothing(rows: Rows) -> Rows:
    return []


class TestPages:
    def test_they_follow_each_other_without_overlap_until_the_stretch_is_over(
        self, exchange: FakeExchange, store: CandleStore
    ):
        assert fetched(exchange, store) == [BatchCounts(n_new=2500, n_revised=0, n_rejected=0)]
        assert is_whole(store, exchange)
        assert exchange.asked == [
            (START, minute(2500) - TICK),
            (minute(999) + TICK, minute(2500) - TICK),
            (minute(1999) + TICK, minute(2500) - TICK),
        ]

    def test_nothing_is_asked_for_that_has_not_closed(
        self, exchange: FakeExchange, store: CandleStore
    ):
        exchange.now = minute(10) + timedelta(seconds=59)
        fetched(exchange, store)
        assert exchange.asked == [(START, minute(10) - TICK)]
        assert is_whole(store, exchange, n=10)
        exchange.now = START
        assert fetched(exchange, store) == []

    def test_a_candle_off_the_grid_that_is_not_over_is_left_for_later(self, store: CandleStore):
        prices = {START + number * MINUTE + OFF_GRID: 100 + number for number in range(10)}
        exchange = FakeExchange(prices, now=minute(10) + timedelta(seconds=20))
        assert fetched(exchange, store, n=10)[0].n_new == 9
        exchange.now = minute(10) + timedelta(seconds=21)
        assert fetched(exchange, store, n=10)[0].n_new == 1
        assert is_whole(store, exchange, n=10)

    def test_half_pages_are_asked_on_from_where_they_end(
        self, exchange: FakeExchange, store: CandleStore
    ):
        exchange.cut = lambda rows: rows[: (len(rows) + 1) // 2]
        fetched(exchange, store)
        assert is_whole(store, exchange)

    @pytest.mark.parametrize("first", [0, 200])
    def test_an_empty_answer_is_believed_only_when_it_comes_twice(
        self, exchange: FakeExchange, store: CandleStore, first: int
    ):
        exchange.odd = [*([lambda rows: rows[:first]] if first else []), nothing]
        fetched(exchange, store, n=900)
        assert len(exchange.asked) == 2 + (first > 0)
        assert is_whole(store, exchange, n=900)

    def test_two_empty_answers_end_a_stretch_and_leave_a_gap(
        self, exchange: FakeExchange, store: CandleStore
    ):
        fetched(exchange, store, n=10)
        exchange.odd = [lambda rows: rows[:5], nothing, nothing]
        later = Stretch(start=minute(100), end=minute(200))
        before = Stretch(start=minute(50), end=minute(100))
        fetch = Fetch(exchange=exchange, store=store, symbol=BTC, now=NOW)
        list(fetch.stretch(later))
        assert store.holdings(BTC).gaps == ()
        exchange.odd = [lambda rows: rows[:5], nothing, nothing]
        list(fetch.stretch(before))
        (gap,) = store.holdings(BTC).gaps
        assert gap.stretch == Stretch(start=minute(55), end=minute(100))

    def test_two_candles_of_one_minute_are_both_stored_though_a_page_ends_between_them(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        """The minute counted as asked for, and its second candle was never asked for again."""
        monkeypatch.setattr(fetching, "BATCH_ROWS", 1000)
        exchange.prices[BTC][minute(999) + OFF_GRID] = 500
        fetched(exchange, store, n=1500)
        assert is_whole(store, exchange, n=1500)

    def test_so_are_those_of_the_last_minute(self, exchange: FakeExchange, store: CandleStore):
        """2017-12-04 06:00 has two; a full page that ended between them was taken for the end."""
        exchange.prices[BTC][minute(999) + OFF_GRID] = 500
        fetched(exchange, store, n=1000)
        assert is_whole(store, exchange, n=1000)

    @settings(max_examples=7)
    @given(
        seed=st.integers(0, 10**6),
        most=st.integers(8, 90),
        holes=st.sets(st.integers(1, 148), max_size=40),
        doubled=st.sets(st.integers(1, 148), max_size=30),
        batch_rows=st.integers(40, 200),
    )
    def test_any_size_order_and_overlap_of_pages_gives_the_same_table(
        self, seed: int, most: int, holes: set[int], doubled: set[int], batch_rows: int
    ):
        rng = random.Random(seed)  # noqa: S311  # no secret

        def unruly(rows: Rows) -> Rows:
            page = rows[: rng.randint(4, most)]
            page += rng.choices(page, k=rng.randint(0, 5)) if page else []
            rng.shuffle(page)
            return page

        prices = minutes(START, 150)
        prices |= {minute(number) + OFF_GRID: 300 for number in doubled}
        prices = {
            time: price for time, price in prices.items() if (time - START) // MINUTE not in holes
        }
        store = CandleStore(MemoryWarehouse(), CandleTables.named())
        exchange = FakeExchange(prices, now=NOW)
        exchange.cut = unruly
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetching, "BATCH_ROWS", batch_rows)
            fetch = Fetch(exchange=exchange, store=store, symbol=BTC, now=NOW)
            for _ in fetch.stretch(Stretch(start=START, end=minute(150))):
                opened = store.warehouse.open_times(CANDLES, symbol=BTC)
                assert store.holdings(BTC).n_missing_min == count_missing_minutes(opened)
        assert_frame_equal(store.warehouse.read(CANDLES), candles_of(prices))
        held = store.holdings(BTC)
        assert held.fetched == (Stretch(start=START, end=minute(150)),)
        gaps = {bounds(gap.stretch) for gap in held.gaps}
        assert {number for first, end in gaps for number in range(first, end)} == holes
        assert held.n_missing_min == len(holes)


def bounds(stretch: Stretch) -> tuple[int, int]:
    return ((stretch.start - START) // MINUTE, (stretch.end - START) // MINUTE)


class TestBatches:
    def test_a_full_one_is_stored_before_more_is_asked_for(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(fetching, "BATCH_ROWS", 1500)
        exchange.odd = [
            *[exchange.cut] * 2,
            NeighbourUnavailableError("the exchange is gone", hint="wait"),
        ]
        with pytest.raises(NeighbourUnavailableError, match="the exchange is gone"):
            fetched(exchange, store)
        stored = store.holdings(BTC)
        assert stored.n_rows >= 1999
        assert is_whole(store, exchange, n=stored.n_rows)

    def test_one_claims_no_minute_that_comes_after_it(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        fetch = Fetch(exchange=exchange, store=store, symbol=BTC, now=NOW)
        newest = Stretch(start=minute(2400), end=minute(2500))
        list(fetch.stretch(newest))
        monkeypatch.setattr(fetching, "BATCH_ROWS", 1000)
        next(fetch.stretch(Stretch(start=START, end=minute(2400))))
        stored = store.holdings(BTC)
        assert stored.fetched == (Stretch(start=START, end=minute(stored.n_rows - 100)), newest)
        assert stored.gaps == ()

    def test_a_hole_before_the_last_minute_of_one_is_a_gap(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        """The last minute was left to the next batch, and what lay before it to nobody."""
        monkeypatch.setattr(fetching, "BATCH_ROWS", 990)
        for number in range(989, 999):
            del exchange.prices[BTC][minute(number)]
        exchange.cut = lambda rows: rows[:990]
        fetched(exchange, store)
        assert [bounds(gap.stretch) for gap in store.holdings(BTC).gaps] == [(989, 999)]
        assert store.holdings(BTC).fetched == (Stretch(start=START, end=minute(2500)),)

    def test_one_that_took_long_is_stored_however_small(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        class Slow:
            now_s = 0.0

            def monotonic(self) -> float:
                return self.now_s

        def page(rows: Rows) -> Rows:
            slow.now_s += 10.1
            return rows

        slow, exchange.cut = Slow(), page
        monkeypatch.setattr(fetching, "time", slow)
        assert len(fetched(exchange, store)) >= 3
        assert is_whole(store, exchange)

    def test_progress_is_told_minute_by_minute_however_pages_end(
        self, exchange: FakeExchange, store: CandleStore, monkeypatch: pytest.MonkeyPatch
    ):
        """The last minute of each page was counted again with the next one."""
        monkeypatch.setattr(fetching, "BATCH_ROWS", 2000)
        told: list[int] = []
        fetched(exchange, store, n=4000, told=told)
        assert sum(told) == 4000
        assert told[:2] == [1000, 1000]


class TestBadRows:
    def test_a_page_with_one_is_asked_for_again_and_judged_by_the_second_answer(
        self, exchange: FakeExchange, store: CandleStore
    ):
        exchange.odd = [exchange.cut, spoiled(300), exchange.cut, exchange.cut]
        assert fetched(exchange, store)[0].n_rejected == 0
        # One page of three, once more, after all three.
        assert exchange.asked[3:] == [(minute(1000), minute(1999))]
        assert is_whole(store, exchange)

    def test_rows_that_stay_bad_go_to_quarantine_and_the_page_goes_on(
        self, exchange: FakeExchange, store: CandleStore
    ):
        exchange.cut = spoiled(7, 300)
        assert fetched(exchange, store, n=900) == [
            BatchCounts(n_new=898, n_revised=0, n_rejected=2)
        ]
        kept = store.warehouse.read(CandleTables.named().quarantine)
        assert kept["reason"].to_list() == ["the high is not the highest price"] * 2
        assert kept["open_time"].sort().to_list() == [minute(7), minute(300)]
        assert [bounds(gap.stretch) for gap in store.holdings(BTC).gaps] == [
            (7, 8),
            (300, 301),
        ]

    @pytest.mark.parametrize(("n_bad", "is_refused"), [(10, False), (11, True), (30, True)])
    def test_more_than_one_in_a_hundred_refuse_the_page_and_nothing_of_it_is_stored(
        self,
        exchange: FakeExchange,
        store: CandleStore,
        monkeypatch: pytest.MonkeyPatch,
        n_bad: int,
        is_refused: bool,
    ):
        monkeypatch.setattr(fetching, "BATCH_ROWS", 1000)
        bad = spoiled(*range(100, 100 + n_bad))
        exchange.odd = [exchange.cut, bad, bad]
        if not is_refused:
            assert sum(counts.n_rejected for counts in fetched(exchange, store)) == n_bad
            return
        said = rf"BTC/USDT: {n_bad} of 1000 klines are no candles, more than 1%.*high"
        with pytest.raises(DataError, match=said):
            fetched(exchange, store)
        stored = store.holdings(BTC)
        assert stored.n_rows in {999, 1000}
        assert is_whole(store, exchange, n=stored.n_rows)
        assert store.warehouse.count(CandleTables.named().quarantine) == 0

    def test_a_second_answer_that_is_empty_leaves_the_first(
        self, exchange: FakeExchange, store: CandleStore
    ):
        exchange.odd = [spoiled(7), nothing]
        assert fetched(exchange, store, n=900)[0].n_rejected == 1
        assert store.holdings(BTC).n_rows == 899

    def test_a_second_answer_that_is_shorter_loses_no_row_of_the_first(
        self, exchange: FakeExchange, store: CandleStore
    ):
        """Half of the page was taken for a gap though the first answer had it."""
        exchange.odd = [spoiled(7), lambda rows: rows[: len(rows) // 2]]
        fetched(exchange, store, n=900)
        lost = {
            number for gap in store.holdings(BTC).gaps for number in range(*bounds(gap.stretch))
        }
        assert lost <= {7}
        assert store.holdings(BTC).last_open_time == minute(899)


def prices_at(store: CandleStore, numbers: Sequence[int]) -> list[float]:
    return [store.warehouse.read(CANDLES)["open"][number] for number in numbers]


def test_a_candle_that_two_pages_tell_otherwise_is_stored_as_the_later_one_tells_it(
    exchange: FakeExchange, store: CandleStore
):
    fetched(exchange, store, n=100)
    exchange.prices[BTC][minute(50)] = 777
    assert fetched(exchange, store, n=100)[0].n_revised == 1
    assert prices_at(store, [49, 50]) == [149.0, 777.0]
