"""What the prediction log's objects become, and which of them are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.monitor.predictions import predictions_frame
from btc_lifecycle.domain.tables import PREDICTIONS

MADE_AT = datetime(2024, 3, 5, 12, 0, 30, 250_000, tzinfo=UTC)
RECORD = {
    "prediction_id": "a1",
    "row": 0,
    "symbol": "BTC/USDT",
    "open_time": "2024-03-05T11:59:00+00:00",
    "model_name": "bitcoin-model",
    "model_version": "7",
    "made_at": MADE_AT.isoformat(),
    "probability_up": 0.75,
    "direction": 1,
    "features": [0.5, -1.25],
}


def test_a_record_becomes_the_row_of_its_answer():
    frame = predictions_frame([RECORD | {"row": 3}])

    assert frame.schema == PREDICTIONS.schema
    assert frame.row(0, named=True) == {
        "prediction_id": "a1:3",
        "symbol": "BTC/USDT",
        "open_time": datetime(2024, 3, 5, 11, 59, tzinfo=UTC),
        "model_version": "7",
        "made_at": MADE_AT,
        "probability_up": 0.75,
        "direction": 1,
    }


def test_a_row_without_symbol_and_open_time_keeps_them_missing():
    frame = predictions_frame([RECORD | {"symbol": None, "open_time": None}])

    assert frame.select("symbol", "open_time").row(0) == (None, None)


def test_no_records_make_an_empty_table():
    assert_frame_equal(predictions_frame([]), PREDICTIONS.schema.to_frame())


def test_times_in_other_offsets_are_the_same_instants_in_utc():
    tokyo = timezone(timedelta(hours=9))
    frame = predictions_frame([RECORD | {"made_at": MADE_AT.astimezone(tokyo).isoformat()}])

    assert frame["made_at"].item() == MADE_AT


def test_the_letter_z_is_an_offset():
    frame = predictions_frame([RECORD | {"made_at": "2024-03-05T12:00:30.250Z"}])

    assert frame["made_at"].item() == MADE_AT


def test_a_row_that_comes_again_counts_as_its_first_copy_says():
    again = RECORD | {"probability_up": 0.1, "direction": -1}

    frame = predictions_frame([RECORD, again, RECORD | {"row": 1}, again])

    assert frame["prediction_id"].to_list() == ["a1:0", "a1:1"]
    assert frame["probability_up"].to_list() == [0.75, 0.75]


def test_rows_are_ordered_by_time_and_then_by_number_not_by_text():
    late = (MADE_AT + timedelta(seconds=1)).isoformat()
    records = [RECORD | {"prediction_id": "a0", "made_at": late}]
    records += [RECORD | {"row": row} for row in (10, 2, 0)]

    ids = predictions_frame(records)["prediction_id"].to_list()

    assert ids == ["a1:0", "a1:2", "a1:10", "a0:0"]


times = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "prediction_id": st.text("ab", min_size=1, max_size=2),
                "row": st.integers(0, 2),
                "symbol": st.none() | st.just("BTC/USDT"),
                "open_time": st.none() | times,
                "model_version": st.sampled_from(["1", "2"]),
                "made_at": times,
                "probability_up": st.floats(0, 1),
                "direction": st.sampled_from([1, -1]),
            }
        ),
        max_size=8,
        unique_by=lambda record: (record["prediction_id"], record["row"]),
    ),
    st.randoms(use_true_random=False),
)
def test_a_log_read_twice_in_any_order_gives_each_row_once_unchanged(records, random):
    shuffled = records * 2
    random.shuffle(shuffled)

    frame = predictions_frame(shuffled)

    assert_frame_equal(frame, predictions_frame(records))
    expected = {
        f"{r['prediction_id']}:{r['row']}": (
            r["symbol"],
            r["open_time"] and datetime.fromisoformat(r["open_time"]),
            datetime.fromisoformat(r["made_at"]),
            r["probability_up"],
        )
        for r in records
    }
    columns = ["prediction_id", "symbol", "open_time", "made_at", "probability_up"]
    assert {row[0]: row[1:] for row in frame.select(columns).iter_rows()} == expected
    assert frame["made_at"].is_sorted()


def test_keys_that_are_not_of_a_record_are_ignored():
    frame = predictions_frame([RECORD | {"latency_ms": 3}])

    assert frame.width == len(PREDICTIONS.columns)


@pytest.mark.parametrize("key", sorted(RECORD.keys() - {"model_name", "features"}))
def test_a_record_without_a_key_is_refused_by_name(key):
    record = {name: value for name, value in RECORD.items() if name != key}

    with pytest.raises(DataError, match=f"record 1 .*{key} must be present, was missing"):
        predictions_frame([RECORD | {"prediction_id": "b"}, record])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("prediction_id", "", "a text"),
        ("prediction_id", 7, "a text"),
        ("row", -1, "a whole number from 0"),
        ("row", True, "a whole number from 0"),
        ("row", 0.0, "a whole number from 0"),
        ("symbol", 5, "a text"),
        ("model_version", None, "a text"),
        ("made_at", "2024-03-05T12:00:30", "a time with its offset from UTC"),
        ("made_at", "yesterday", "a time in ISO 8601"),
        ("made_at", None, "a text"),
        ("made_at", "0001-01-01T00:00:00+09:00", "a time in ISO 8601"),
        ("open_time", "2024-03-05T11:59:00", "a time with its offset from UTC"),
        ("probability_up", "0.5", "a number"),
        ("probability_up", True, "a number"),
        ("probability_up", 1.0001, "a probability from 0 to 1"),
        ("probability_up", -0.0001, "a probability from 0 to 1"),
        ("probability_up", float("nan"), "a probability from 0 to 1"),
        ("direction", 0, "1 or -1"),
        ("direction", True, "1 or -1"),
        ("direction", 1.0, "1 or -1"),
        ("direction", [1], "1 or -1"),
    ],
)
def test_a_value_that_no_answer_can_have_is_refused(key, value, wanted):
    with pytest.raises(DataError, match=f"{key} must be {wanted}, was"):
        predictions_frame([RECORD | {key: value}])


def test_whole_numbers_are_probabilities_too():
    frame = predictions_frame([RECORD | {"probability_up": 1}])

    assert frame["probability_up"].dtype == pl.Float64
    assert frame["probability_up"].item() == 1.0
