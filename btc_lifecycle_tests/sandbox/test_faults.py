from __future__ import annotations

import json

import pytest

from btc_lifecycle.sandbox.faults import FaultKind, FaultQueue, spoil

ROWS = [[minute, "1.0", "2.0", "0.5", "1.5", "3.0", minute + 59_999] for minute in (0, 1, 2, 3)]
BODY = json.dumps(ROWS, separators=(",", ":")).encode()


def spoilt_rows(kind):
    return json.loads(spoil(BODY, kind=kind).body)


def test_faults_come_first_in_first_out_and_run_dry():
    queue = FaultQueue()
    queue.add(FaultKind.CUT, count=1)
    queue.add(FaultKind.NULL, count=2)
    assert queue.pending() == ["cut", "null", "null"]
    assert [queue.pop() for _ in range(4)] == ["cut", "null", "null", None]


def test_a_page_of_html_comes_with_200():
    spoilt = spoil(BODY, kind=FaultKind.HTML)
    assert (spoilt.status, spoilt.content_type) == (200, "text/html")
    assert spoilt.body.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize(("kind", "body"), [("empty", b""), ("null", b"null"), ("object", b"{}")])
def test_bodies_that_hold_no_rows(kind, body):
    assert spoil(BODY, kind=FaultKind(kind)).body == body


def test_a_cut_body_is_a_true_beginning_that_does_not_parse():
    cut = spoil(BODY, kind=FaultKind.CUT).body
    assert BODY.startswith(cut)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)


def test_a_short_row_has_six_fields_and_its_neighbours_are_whole():
    assert [len(row) for row in spoilt_rows(FaultKind.SHORT_ROW)] == [7, 7, 6, 7]


def test_one_price_is_no_number():
    rows = spoilt_rows(FaultKind.WRONG_TYPE)
    assert [row[4] for row in rows] == ["1.5", "1.5", "abc", "1.5"]


def test_rows_out_of_order_are_the_same_rows():
    rows = spoilt_rows(FaultKind.UNORDERED)
    assert rows != ROWS
    assert sorted(rows) == ROWS


def test_doubled_rows_come_twice_each():
    assert spoilt_rows(FaultKind.DUPLICATE)[:3] == [ROWS[0], ROWS[0], ROWS[1]]
    assert len(spoilt_rows(FaultKind.DUPLICATE)) == 2 * len(ROWS)


@pytest.mark.parametrize("status", [429, 418, 403, 451, 500, 503])
def test_a_status_fault_answers_with_that_status(status):
    spoilt = spoil(BODY, kind=FaultKind(f"http_{status}"))
    assert spoilt.status == status
    assert ("Retry-After" in spoilt.headers) == (status in {418, 429})


@pytest.mark.parametrize("kind", ["short_row", "wrong_type", "unordered", "duplicate"])
def test_an_answer_without_rows_has_nothing_to_spoil(kind):
    assert spoil(b"[]", kind=FaultKind(kind)).body == b"[]"
