"""What was asked for and what was missing: stretches of time, and gaps that are asked for again.

A gap is a minute that the exchange was asked for and had no candle of. A minute that nobody asked for
is no gap, however many candles lie on both sides of it. Nothing is ever filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

RETRY_AFTER = (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1))
"""When a gap is asked for again: after it was found, then after the try before; then no more."""

_MINUTE = timedelta(minutes=1)
_EPOCH = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True, kw_only=True, order=True)
class Stretch:
    """Whole minutes from ``start`` to ``end``, exclusive; aware UTC."""

    start: datetime
    end: datetime

    @property
    def n_minutes(self) -> int:
        """How many minutes it has."""
        return (self.end - self.start) // _MINUTE

    def overlaps(self, other: Stretch) -> bool:
        """Return whether both have a minute in common."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, kw_only=True)
class TrackedGap:
    """A gap with its story: when it was found, how often it was asked for since, when next."""

    stretch: Stretch
    first_seen_at: datetime
    tries: int
    next_try_at: datetime | None


def floor_minute(time: datetime) -> datetime:
    """Return the full minute that a time lies in."""
    return time - (time - _EPOCH) % _MINUTE


def ceil_minute(time: datetime) -> datetime:
    """Return the first full minute that is not before a time."""
    return floor_minute(time - timedelta(microseconds=1)) + _MINUTE


def merged(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Return the same minutes as few stretches in order; those that touch become one."""
    result: list[Stretch] = []
    for stretch in sorted(stretches):
        if result and stretch.start <= result[-1].end:
            result[-1] = replace(result[-1], end=max(result[-1].end, stretch.end))
        elif stretch.start < stretch.end:
            result.append(stretch)
    return tuple(result)


def without(stretch: Stretch, removed: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Return what is left of a stretch when others are taken out of it."""
    left, start = [], stretch.start
    for hole in merged(removed):
        if hole.overlaps(stretch):
            left.append(Stretch(start=start, end=max(start, hole.start)))
            start = max(start, hole.end)
    left.append(Stretch(start=start, end=max(start, stretch.end)))
    return merged(left)


def common(stretch: Stretch, others: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Return the parts of a stretch that lie in others too."""
    return merged(
        Stretch(start=max(stretch.start, other.start), end=min(stretch.end, other.end))
        for other in others
        if other.overlaps(stretch)
    )


def missing_within(open_times: pl.Series, *, stretch: Stretch) -> tuple[Stretch, ...]:
    """Return the minutes of a stretch in which no candle opened.

    Args:
        open_times: Aware UTC; a candle off the minute grid stands for the minute that it
            opened in, and those outside the stretch for none.
        stretch: Where to look.
    """
    opened = open_times.dt.epoch("us").to_numpy() // (_MINUTE // timedelta(microseconds=1))
    # They come in order but for odd callers, and a stable sort of what is sorted is one pass.
    opened = np.sort(opened, kind="stable")
    start, end = (_minute_number(time) for time in (stretch.start, stretch.end))
    inside = opened[(opened >= start) & (opened < end)]
    bounded = np.concatenate([[start - 1], inside, [end]])
    before = np.flatnonzero(np.diff(bounded) > 1)
    return tuple(
        Stretch(start=_minute_time(int(first) + 1), end=_minute_time(int(last)))
        for first, last in zip(bounded[before], bounded[before + 1], strict=True)
    )


def track_gaps(
    known: Sequence[TrackedGap],
    *,
    missing: Sequence[Stretch],
    asked: Sequence[Stretch],
    now: datetime,
) -> tuple[TrackedGap, ...]:
    """Return the gaps after the exchange was asked once more, in order.

    Within ``asked`` only what is still missing stays. A known gap whose time had come has been tried
    once more; asked for before its time, as the newest minutes are all the time, it has not.

    Args:
        known: Gaps before.
        missing: Minutes of ``asked`` that have no candle.
        asked: What the exchange was asked for.
        now: The exchange's time.
    """
    known_stretches = [gap.stretch for gap in known]
    outside = [replace(gap, stretch=rest) for gap in known for rest in without(gap.stretch, asked)]
    still_missing = [
        _asked_again(gap, now=now, stretch=part)
        for gap in known
        for part in common(gap.stretch, missing)
    ]
    new = [
        TrackedGap(stretch=part, first_seen_at=now, tries=0, next_try_at=now + RETRY_AFTER[0])
        for stretch in missing
        for part in without(stretch, known_stretches)
    ]
    return _joined(sorted([*outside, *still_missing, *new], key=lambda gap: gap.stretch))


def _asked_again(gap: TrackedGap, *, stretch: Stretch, now: datetime) -> TrackedGap:
    if gap.next_try_at is None or now < gap.next_try_at:
        return replace(gap, stretch=stretch)
    tries = gap.tries + 1
    next_try_at = now + RETRY_AFTER[tries] if tries < len(RETRY_AFTER) else None
    return replace(gap, stretch=stretch, tries=tries, next_try_at=next_try_at)


def _joined(gaps: Iterable[TrackedGap]) -> tuple[TrackedGap, ...]:
    """Return gaps in order with those as one that touch and are asked for together."""
    result: list[TrackedGap] = []
    for gap in gaps:
        if result and _belong_together(result[-1], gap):
            start, end = result[-1].stretch.start, gap.stretch.end
            result[-1] = replace(result[-1], stretch=Stretch(start=start, end=end))
        else:
            result.append(gap)
    return tuple(result)


def _belong_together(first: TrackedGap, second: TrackedGap) -> bool:
    return replace(first, stretch=second.stretch) == second and (
        first.stretch.end == second.stretch.start
    )


def _minute_number(time: datetime) -> int:
    return (time - _EPOCH) // _MINUTE


def _minute_time(number: int) -> datetime:
    return _EPOCH + number * _MINUTE
