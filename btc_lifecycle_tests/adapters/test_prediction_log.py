"""The prediction log on real files, its failures included."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters import prediction_log
from btc_lifecycle.adapters.prediction_log import PredictionLog, read_prediction_log

NOW = datetime(2026, 1, 31, 12, 59, tzinfo=UTC)


def record(row: int = 0, **changes: object) -> dict[str, object]:
    return {
        "prediction_id": "5f0c0f3e",
        "row": row,
        "symbol": "BTC/USDT",
        "open_time": "2026-01-31T12:00:00+00:00",
        "model_name": "bitcoin-model",
        "model_version": "3",
        "made_at": "2026-01-31T12:01:00.250000+00:00",
        "probability_up": 0.53,
        "direction": 1,
        "features": [0.1, -0.2],
        **changes,
    }


def write(folder, records, **options) -> PredictionLog:
    log = PredictionLog(folder, **options)
    log.append(records)
    log.close()
    return log


def test_records_come_back_as_they_were_appended(tmp_path):
    records = [record(0), record(1, symbol=None, open_time=None, direction=-1)]
    log = write(tmp_path / "new" / "folder", records)
    assert read_prediction_log(tmp_path / "new" / "folder") == (records, 0)
    assert log.dropped == 0


@given(
    probability=st.floats(0.0, 1.0),
    features=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    made_at=st.datetimes(timezones=st.just(UTC)),
)
def test_any_finite_record_survives_the_round_trip(
    tmp_path_factory, probability, features, made_at
):
    folder = tmp_path_factory.mktemp("log")
    written = record(probability_up=probability, features=features, made_at=made_at.isoformat())
    write(folder, [written])
    assert read_prediction_log(folder) == ([written], 0)


def test_a_folder_that_does_not_exist_holds_no_record(tmp_path):
    assert read_prediction_log(tmp_path / "none") == ([], 0)


def test_each_hour_has_a_file_of_its_own(tmp_path):
    hours = iter([NOW, NOW.replace(hour=13, minute=0)])
    log = PredictionLog(tmp_path, now=lambda: next(hours))
    for row in range(2):
        log.append([record(row)])
        assert log.flush()
    log.close()
    first, second = sorted(path.name for path in tmp_path.iterdir())
    assert first.startswith(f"predictions-20260131T12-{os.getpid()}-")
    assert second.startswith(f"predictions-20260131T13-{os.getpid()}-")
    assert [r["row"] for r in read_prediction_log(tmp_path)[0]] == [0, 1]


def test_two_logs_in_one_folder_never_share_a_file(tmp_path):
    write(tmp_path, [record(0)], now=lambda: NOW)
    write(tmp_path, [record(1)], now=lambda: NOW)
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_append_at_once_without_losing_or_mixing_lines(tmp_path):
    log = PredictionLog(tmp_path)
    threads = [
        threading.Thread(
            target=lambda t=t: [log.append([record(i, prediction_id=str(t))]) for i in range(50)]
        )
        for t in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    records, n_skipped = read_prediction_log(tmp_path)
    assert {(r["prediction_id"], r["row"]) for r in records} == {
        (str(t), i) for t in range(8) for i in range(50)
    }
    assert (len(records), n_skipped, log.dropped) == (400, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "\xff",
        json.dumps(record())[:-20],
        json.dumps(record()) + json.dumps(record()),
        json.dumps({k: v for k, v in record().items() if k != "made_at"}),
        json.dumps(record(surplus=1)),
        json.dumps(record(row="0")),
        json.dumps(record(row=-1)),
        json.dumps(record(direction=0)),
        json.dumps(record(probability_up=1.5)),
        json.dumps(record(probability_up=float("nan"))),
        json.dumps(record(features=[float("inf")])),
        json.dumps(record(made_at="2026-01-31T12:01:00")),
        json.dumps(record(made_at="yesterday")),
        json.dumps(record(open_time=1769860800)),
    ],
)
def test_a_torn_or_foreign_line_is_counted_and_the_others_are_read(tmp_path, line):
    path = tmp_path / "predictions-20260131T12-1-ab.jsonl"
    good = json.dumps(record())
    path.write_bytes(f"{good}\n{line}\n{good}\n".encode("latin-1"))
    assert read_prediction_log(tmp_path) == ([record(), record()], 1)


def test_other_files_in_the_folder_are_not_read(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert read_prediction_log(tmp_path) == ([], 0)


def test_records_beyond_the_queue_are_dropped_whole_and_counted(tmp_path):
    is_stuck = threading.Event()

    def stuck_clock() -> datetime:
        is_stuck.wait(10)
        return NOW

    n_bytes = len(json.dumps(record(0))) + 10
    log = PredictionLog(tmp_path, max_queued_bytes=3 * n_bytes, now=stuck_clock)
    log.append([record(0), record(1)])
    log.append([record(2), record(3)])
    log.append([record(4)])
    assert log.dropped == 2
    assert not log.flush(timeout_s=0.0)
    is_stuck.set()
    assert log.flush()
    log.append([record(5)])
    log.close()
    assert [r["row"] for r in read_prediction_log(tmp_path)[0]] == [0, 1, 4, 5]


def test_a_folder_that_cannot_be_written_costs_records_not_requests(tmp_path):
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    log = PredictionLog(blocked)
    log.append([record(0), record(1)])
    assert log.flush()
    assert log.dropped == 2
    blocked.unlink()
    log.append([record(2)])
    log.close()
    assert log.dropped == 2
    assert [r["row"] for r in read_prediction_log(blocked)[0]] == [2]


def test_half_a_line_of_a_failed_write_is_taken_back(tmp_path, monkeypatch):
    def write_half(handle: int, content: bytes) -> None:
        monkeypatch.undo()
        os.write(handle, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    log = PredictionLog(tmp_path, now=lambda: NOW)
    monkeypatch.setattr(prediction_log, "_write_whole", write_half)
    log.append([record(0)])
    assert log.flush()
    log.append([record(1)])
    log.close()
    assert log.dropped == 1
    assert read_prediction_log(tmp_path) == ([record(1)], 0)


def test_a_disk_that_stays_full_leaves_one_file_and_not_one_for_each_try(tmp_path, monkeypatch):
    def fail(handle: int, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    lost: list[int] = []
    log = PredictionLog(tmp_path, now=lambda: NOW, on_drop=lost.append)
    monkeypatch.setattr(prediction_log, "_write_whole", fail)
    for row in range(3):
        log.append([record(row)])
        assert log.flush()
    log.close()
    assert (log.dropped, sum(lost), len(list(tmp_path.iterdir()))) == (3, 3, 1)


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**70])
def test_a_record_that_json_cannot_hold_is_dropped_alone(tmp_path, value):
    log = write(tmp_path, [record(0), record(1, probability_up=value), record(2)])
    assert log.dropped == 1
    assert [r["row"] for r in read_prediction_log(tmp_path)[0]] == [0, 2]


def test_records_after_closing_are_dropped_and_closing_twice_is_harmless(tmp_path):
    log = write(tmp_path, [record(0)])
    log.append([record(1)])
    log.close()
    assert log.dropped == 1
    assert len(read_prediction_log(tmp_path)[0]) == 1
