"""Requests, from bytes to the matrix that the model sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.rows import feature_matrix, parse_predict_request

NAMES = ("a", "b")
finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.tuples(finite, finite).map(list), min_size=1, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def matrix(body: object, *, max_rows: int = 5) -> np.ndarray:
    request = parse_predict_request(json.dumps(body).encode())
    return feature_matrix(request, feature_names=NAMES, max_rows=max_rows)


@given(values=rows)
def test_the_three_forms_give_the_same_matrix(values):
    wanted = np.array(values)
    named = [{"b": b, "a": a} for a, b in values]
    assert np.array_equal(matrix({"features": values}), wanted)
    assert np.array_equal(matrix({"features": named}), wanted)
    assert np.array_equal(matrix({"features": values[0]}), wanted[:1])


@given(content=json_values | st.fixed_dictionaries({"features": json_values}))
@example(content={"features": [[10**400]]})
@example(content={"features": [{"row": None}]})
def test_whatever_json_comes_it_is_a_matrix_or_an_error_of_the_client(content):
    found: np.ndarray | ApiError
    try:
        found = matrix(content)
    except ApiError as error:
        found = error
    if isinstance(found, ApiError):
        assert found.status in {400, 422}
        assert found.message
        assert found.hint
    else:
        assert found.ndim == 2
        assert np.isfinite(found).all()


@given(body=st.binary(max_size=64))
def test_whatever_bytes_come_they_are_a_request_or_an_error_of_the_client(body):
    with pytest.raises(ApiError) as caught:
        parse_predict_request(body)
    assert caught.value.status in {400, 422}


def test_open_times_become_utc():
    body = {
        "features": [1, 2],
        "symbol": "BTC/USDT",
        "open_times": ["2026-01-31T14:00:00+02:00"],
    }
    request = parse_predict_request(json.dumps(body).encode())
    assert request.open_times == [datetime(2026, 1, 31, 12, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"features": [[1, 2]] * 6}, "6 rows came; 5 are taken at once"),
        ({"features": [[1, 2], [1]]}, "row 1 has 1 values; the model takes 2: a, b"),
        ({"features": [{"a": 1}]}, "row 0 lacks b"),
        ({"features": [{"a": 1, "b": 1, "c": 1}]}, "row 0 has unknown c"),
        ({"features": [{"a": 1, "c": 1}]}, "row 0 lacks b and has unknown c"),
        ({"features": [1, 2], "symbol": "A/B", "open_times": []}, "0 open_times came for 1 rows"),
        ({"features": [1, 2], "open_times": []}, "open_times came without a symbol"),
        ({"features": [1, 2], "x": 1}, "x: Extra inputs are not permitted"),
        ({"features": [[1, True]]}, r"features\[0\]\[1\]: Input should be a valid number"),
        ({"features": [{"row": "1"}]}, r"features\[0\].row: Input should be a valid number"),
    ],
)
def test_a_refusal_names_the_place(body, message):
    with pytest.raises(ApiError, match=message):
        matrix(body)
