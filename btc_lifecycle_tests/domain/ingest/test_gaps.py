from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.ingest.gaps import (
    Stretch,
    TrackedGap,
    ceil_minute,
    common,
    floor_minute,
    merged,
    missing_within,
    track_gaps,
    without,
)
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle_tests.reference_ingest import as_stretches, minutes_of, slow_missing

REAL = Path(__file__).parents[4] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"
START = datetime(2024, 3, 10, 6, 30, tzinfo=UTC)  # half an hour before New York changes its clocks
MINUTE, HOUR, DAY, WEEK = (timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days", "weeks"))
TICK = timedelta(microseconds=1)


def at(minute: float) -> datetime:
    return START + timedelta(microseconds=round(minute * 60_000_000))


def stretch(start: int, end: int) -> Stretch:
    return Stretch(start=at(start), end=at(end))


def gap(
    start: int, end: int, *, tries: int = 0, seen: datetime = START, due: datetime | None = None
) -> TrackedGap:
    return TrackedGap(stretch=stretch(start, end), first_seen_at=seen, tries=tries, next_try_at=due)


def opened_at(minutes: Iterable[float]) -> pl.Series:
    return pl.Series([at(minute) for minute in minutes], dtype=UTC_TIME)


minute_numbers = st.integers(0, 60)
stretches = st.builds(
    lambda start, n: stretch(start, start + n), minute_numbers, st.integers(0, 20)
)
many_stretches = st.lists(stretches, max_size=6)


class TestMinutes:
    def test_a_stretch_counts_its_minutes_without_its_end(self):
        assert stretch(0, 90).n_minutes == 90
        assert stretch(5, 5).n_minutes == 0

    def test_stretches_that_touch_have_no_minute_in_common(self):
        assert stretch(0, 2).overlaps(stretch(1, 3))
        assert not stretch(0, 2).overlaps(stretch(2, 3))
        assert not stretch(2, 3).overlaps(stretch(0, 2))

    @given(one=stretches, other=stretches)
    def test_stretches_overlap_when_they_share_a_minute(self, one: Stretch, other: Stretch):
        if one.n_minutes and other.n_minutes:
            assert one.overlaps(other) == bool(minutes_of([one]) & minutes_of([other]))

    @pytest.mark.parametrize(
        ("time", "floor", "ceil"),
        [
            (at(1), at(1), at(1)),
            (at(1) + TICK, at(1), at(2)),
            (at(1) - TICK, at(0), at(1)),
        ],
    )
    def test_floor_and_ceil_are_the_full_minutes_around_a_time(self, time, floor, ceil):
        assert floor_minute(time) == floor
        assert ceil_minute(time) == ceil

    @given(time=st.datetimes(datetime(2017, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
    def test_a_time_lies_between_its_floor_and_its_ceil(self, time):
        time = time.replace(tzinfo=UTC)
        floor, ceil = floor_minute(time), ceil_minute(time)
        assert floor == time.replace(second=0, microsecond=0)
        assert ceil - floor == (timedelta(0) if time == floor else MINUTE)


class TestSetAlgebra:
    def test_stretches_that_touch_or_overlap_become_one(self):
        given_ = [stretch(7, 9), stretch(0, 2), stretch(2, 4), stretch(3, 5), stretch(8, 8)]
        assert merged(given_) == (stretch(0, 5), stretch(7, 9))

    def test_a_hole_in_the_middle_leaves_both_ends(self):
        left = without(stretch(0, 10), [stretch(6, 7), stretch(2, 4), stretch(9, 20)])
        assert left == (stretch(0, 2), stretch(4, 6), stretch(7, 9))
        assert without(stretch(0, 10), [stretch(-5, 20)]) == ()
        assert without(stretch(0, 10), []) == (stretch(0, 10),)

    def test_common_parts_are_cut_to_the_stretch(self):
        others = [stretch(-3, 1), stretch(4, 6), stretch(6, 7), stretch(9, 30), stretch(40, 41)]
        assert common(stretch(0, 10), others) == (stretch(0, 1), stretch(4, 7), stretch(9, 10))

    @given(given_=many_stretches)
    def test_merging_keeps_every_minute_in_as_few_stretches_as_can_be(self, given_):
        assert merged(given_) == as_stretches(minutes_of(given_))

    @given(whole=stretches, removed=many_stretches)
    def test_without_is_the_difference_of_minutes(self, whole, removed):
        assert without(whole, removed) == as_stretches(minutes_of([whole]) - minutes_of(removed))

    @given(whole=stretches, others=many_stretches)
    def test_common_is_the_intersection_of_minutes(self, whole, others):
        assert common(whole, others) == as_stretches(minutes_of([whole]) & minutes_of(others))


class TestMissing:
    @pytest.mark.parametrize(
        ("opened", "missing"),
        [
            ([], [(0, 5)]),
            ([0, 1, 2, 3, 4], []),
            ([1, 3], [(0, 1), (2, 3), (4, 5)]),
            ([-2, -1, 5, 6], [(0, 5)]),
            # 20.799 s after the full minute, as in December 2017, and back on the grid within it.
            ([0.34665, 1.34665, 4], [(2, 4)]),
            ([0, 0.34665, 4.99999], [(1, 4)]),
        ],
    )
    def test_minutes_in_which_no_candle_opened_are_missing(self, opened, missing):
        found = missing_within(opened_at(opened), stretch=stretch(0, 5))
        assert found == tuple(stretch(*bounds) for bounds in missing)

    def test_no_minute_of_nothing_is_missing(self):
        assert missing_within(opened_at([1]), stretch=stretch(3, 3)) == ()

    @given(opened=st.lists(st.floats(-5, 70, allow_nan=False), max_size=40), where=stretches)
    def test_it_is_what_counting_minute_by_minute_finds(self, opened, where):
        times = opened_at(sorted(opened))
        expected = as_stretches(slow_missing(times.to_list(), stretch=where))
        assert missing_within(times, stretch=where) == expected

    @pytest.mark.real_data
    @pytest.mark.parametrize(
        ("month", "outages"),
        [
            # Candles 20.799 s after the full minute up to the first outage.
            ("2017-12", {"2017-12-18 10:01": 13, "2017-12-18 12:30": 64}),
            ("2021-04", {"2021-04-20 02:00": 150, "2021-04-25 04:01": 284}),
            ("2021-08", {"2021-08-13 02:00": 270}),
            ("2023-03", {"2023-03-24 12:40": 80}),
        ],
    )
    def test_the_outages_of_the_real_series_are_found(self, month: str, outages: dict[str, int]):
        path = REAL / f"{month}.parquet"
        if not path.exists():
            pytest.skip(f"no real candles at {path}")
        times = pl.read_parquet(path)["open_time"]
        first, last = floor_minute(times[0]), floor_minute(times[-1])
        found = missing_within(times, stretch=Stretch(start=first, end=last + MINUTE))
        assert {f"{gap.start:%Y-%m-%d %H:%M}": gap.n_minutes for gap in found} == outages


class TestTracking:
    def test_a_new_gap_is_asked_for_again_after_an_hour(self):
        now = at(100)
        (found,) = track_gaps((), missing=[stretch(3, 5)], asked=[stretch(0, 10)], now=now)
        assert found == gap(3, 5, tries=0, seen=now, due=now + HOUR)

    def test_a_gap_is_tried_after_an_hour_a_day_and_a_week_and_then_no_more(self):
        where, now = stretch(3, 5), at(100)
        gaps = track_gaps((), missing=[where], asked=[where], now=now)
        for tries, wait in enumerate((HOUR, DAY, WEEK)):
            (known,) = gaps
            assert (known.tries, known.next_try_at) == (tries, now + wait)
            too_early = now + wait - TICK
            assert track_gaps(gaps, missing=[where], asked=[where], now=too_early) == gaps
            now += wait
            gaps = track_gaps(gaps, missing=[where], asked=[where], now=now)
        given_up = (gap(3, 5, tries=3, seen=at(100), due=None),)
        assert gaps == given_up
        assert track_gaps(gaps, missing=[where], asked=[where], now=now + WEEK) == given_up

    def test_a_gap_that_was_filled_is_gone_and_one_filled_in_part_is_cut(self):
        known, now = (gap(0, 10, tries=1, due=at(20)), gap(30, 31, due=at(20))), at(20)
        left = track_gaps(known, missing=[stretch(7, 9)], asked=[stretch(0, 40)], now=now)
        assert left == (gap(7, 9, tries=2, due=now + WEEK),)

    def test_what_was_not_asked_for_keeps_its_story(self):
        known, now = (gap(0, 10, tries=2, due=at(20)), gap(30, 31, tries=3)), at(50)
        after = track_gaps(known, missing=[stretch(4, 6)], asked=[stretch(4, 8)], now=now)
        assert after == (
            gap(0, 4, tries=2, due=at(20)),
            gap(4, 6, tries=3, due=None),
            gap(8, 10, tries=2, due=at(20)),
            gap(30, 31, tries=3),
        )

    def test_minutes_beside_a_gap_that_was_given_up_are_asked_for_again(self):
        """As part of it nobody would ever ask for them again."""
        known, now = (gap(0, 10, tries=3, due=None),), at(50)
        after = track_gaps(known, missing=[stretch(5, 20)], asked=[stretch(5, 20)], now=now)
        assert after == (known[0], gap(10, 20, tries=0, seen=now, due=now + HOUR))

    def test_a_gap_asked_for_in_two_parts_at_once_stays_one(self):
        known, now = (gap(0, 10, due=at(20)),), at(20)
        for half in (stretch(0, 5), stretch(5, 10)):
            known = track_gaps(known, missing=[half], asked=[half], now=now)
        assert known == (gap(0, 10, tries=1, due=now + DAY),)

    @given(
        world=st.sets(minute_numbers, max_size=40),
        asks=st.lists(
            st.tuples(many_stretches, st.sampled_from([TICK, HOUR, DAY, WEEK])), max_size=8
        ),
    )
    def test_gaps_are_the_minutes_that_were_asked_for_and_are_not_there(self, world, asks):
        """Each minute's story is that of a minute tracked alone, whatever was asked with it."""
        gaps, stories, asked_ever, now = (), {}, set(), START
        for asked, wait in asks:
            now += wait
            minutes = minutes_of(asked)
            missing = minutes - {at(minute) for minute in world}
            before = dict(stories)
            asked_ever |= minutes
            stories = slow_stories(stories, missing=missing, asked=minutes, now=now)
            gaps = track_gaps(gaps, missing=as_stretches(missing), asked=asked, now=now)
            assert told(gaps) == stories
            assert set(stories) == asked_ever - {at(minute) for minute in world}
            assert all(stories[minute][1] >= before[minute][1] for minute in before)
            assert [part.stretch for part in gaps] == sorted(part.stretch for part in gaps)

    @given(known=many_stretches, asked=many_stretches)
    def test_neighbours_with_the_same_story_are_one_gap(self, known, asked):
        gaps = tuple(
            TrackedGap(stretch=part, first_seen_at=START, tries=0, next_try_at=START)
            for part in merged(known)
        )
        assert track_gaps(gaps, missing=(), asked=(), now=START) == gaps
        after = track_gaps(gaps, missing=merged(asked), asked=asked, now=START)
        for first, second in pairwise(after):
            if first.stretch.end == second.stretch.start:
                assert replace(first, stretch=second.stretch) != second


def told(gaps: Iterable[TrackedGap]) -> dict[datetime, tuple]:
    """Return each minute's story; no minute may have two."""
    pairs = [
        (minute, (part.first_seen_at, part.tries, part.next_try_at))
        for part in gaps
        for minute in minutes_of([part.stretch])
    ]
    assert len({minute for minute, _ in pairs}) == len(pairs)
    return dict(pairs)


def slow_stories(
    stories: dict[datetime, tuple], *, missing: set[datetime], asked: set[datetime], now: datetime
) -> dict[datetime, tuple]:
    kept = {minute: story for minute, story in stories.items() if minute not in asked}
    for minute in missing:
        seen, tries, due = stories.get(minute, (now, -1, now))
        if due is not None and due <= now:
            tries, wait = tries + 1, [HOUR, DAY, WEEK, None][tries + 1]
            due = wait and now + wait
        kept[minute] = (seen, tries, due)
    return kept
