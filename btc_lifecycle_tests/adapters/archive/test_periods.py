from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from btc_lifecycle.adapters.archive import ArchivePeriod, periods_within

DAY = timedelta(days=1)
MOMENTS = st.builds(
    lambda n_days, rest: datetime(2017, 1, 1, tzinfo=UTC) + n_days * DAY + rest,
    st.integers(0, 3000),
    st.sampled_from([timedelta(0), timedelta(microseconds=1), DAY - timedelta(microseconds=1)]),
)


def names(*periods: ArchivePeriod) -> list[str]:
    return [period.name for period in periods]


def test_whole_months_are_monthly_and_the_days_of_broken_ones_daily() -> None:
    periods = periods_within(datetime(2023, 12, 30, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC))
    assert [(period.folder, period.name) for period in periods] == [
        ("daily", "2023-12-30"),
        ("daily", "2023-12-31"),
        ("monthly", "2024-01"),
        ("monthly", "2024-02"),
        ("daily", "2024-03-01"),
    ]
    assert periods[3] == ArchivePeriod(
        start=datetime(2024, 2, 1, tzinfo=UTC),
        end=datetime(2024, 3, 1, tzinfo=UTC),
        name="2024-02",
        folder="monthly",
    )


def test_a_day_that_either_end_cuts_is_left_out() -> None:
    start = datetime(2017, 8, 17, 4, tzinfo=UTC)
    assert names(*periods_within(start, start + 3 * DAY)) == ["2017-08-18", "2017-08-19"]
    assert periods_within(start, start + DAY) == ()


def test_days_are_those_of_utc_whatever_the_zone_of_the_ends() -> None:
    far_east = timezone(timedelta(hours=14))
    start = datetime(2024, 1, 2, tzinfo=far_east)
    assert names(*periods_within(start, start + 2 * DAY)) == ["2024-01-02"]


def test_a_month_is_made_of_its_days() -> None:
    (month,) = periods_within(datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert len(month.days) == 29
    assert names(*month.days[::28]) == ["2024-02-01", "2024-02-29"]
    assert {day.folder for day in month.days} == {"daily"}


@given(st.tuples(MOMENTS, MOMENTS).map(sorted))
@example([datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)])
@example([datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)])
@example([datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)])
def test_periods_tile_the_whole_days_between_two_moments(ends: list[datetime]) -> None:
    start, end = ends
    days = [day for period in periods_within(start, end) for day in period.days]
    midnight = datetime(2016, 12, 31, tzinfo=UTC)
    expected = []
    while midnight + DAY <= end:
        if midnight >= start:
            expected.append((midnight, midnight + DAY))
        midnight += DAY
    assert [(day.start, day.end) for day in days] == expected


@given(st.tuples(MOMENTS, MOMENTS).map(sorted))
def test_a_day_comes_alone_only_where_its_month_is_broken(ends: list[datetime]) -> None:
    start, end = ends
    periods = periods_within(start, end)
    monthly = {period.name for period in periods if period.folder == "monthly"}
    for period in periods:
        first = period.start.replace(day=1)
        is_whole = first >= start and (first + 31 * DAY).replace(day=1) <= end
        assert is_whole == (period.folder == "monthly")
        assert period.folder == "monthly" or period.name[:7] not in monthly
