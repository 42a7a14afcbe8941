"""Golden predictions: exact on their way through JSON, and refused where they are none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.registry.golden import Golden
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle_tests.model_builders import make_booster

numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def goldens(draw):
    n_rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    row = st.tuples(*[st.none() | numbers] * width)
    rows = draw(st.lists(row, min_size=n_rows, max_size=n_rows))
    predictions = draw(st.lists(numbers, min_size=n_rows, max_size=n_rows))
    return Golden(rows=tuple(rows), predictions=tuple(predictions))


@given(golden=goldens())
def test_every_bit_survives_json(golden):
    again = Golden.from_json(golden.to_json())
    assert again == golden
    assert again.difference(golden.predictions) is None


@given(golden=goldens())
def test_the_table_has_nan_where_a_feature_is_missing(golden):
    table = golden.table()
    for row, cells in zip(golden.rows, table.tolist(), strict=True):
        assert [math.isnan(cell) for cell in cells] == [cell is None for cell in row]


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[1]", b"{}", b"[" * 100_000, b'{"rows": 1, "predictions": []}',
        b'{"rows": [], "predictions": []}',
        b'{"rows": [[1.0]], "predictions": []}',
        b'{"rows": [[1.0], [2.0]], "predictions": [0.5]}',
        b'{"rows": [[1.0], [1.0, 2.0]], "predictions": [0.5, 0.5]}',
        b'{"rows": [["1"]], "predictions": [0.5]}',
        b'{"rows": [[1.0]], "predictions": ["a"]}',
        b'{"rows": [[1.0]], "predictions": [null]}',
        b'{"rows": [[1' + b"0" * 400 + b']], "predictions": [0.5]}',
        b"\xff",
    ],
    ids=range(14),
)  # fmt: skip
def test_anything_else_holds_no_golden_predictions(document):
    assert Golden.from_json(document) is None


def test_a_difference_is_told_with_its_row():
    golden = Golden(rows=((1.0,), (2.0,)), predictions=(0.5, 0.25))
    assert golden.difference([0.5, 0.25 + 1e-13]) is None
    assert golden.difference([0.5, 0.25 + 1e-11]).endswith("instead of 0.25 for golden row 1")
    assert golden.difference([0.5, math.nan]) == "nan instead of 0.25 for golden row 1"
    assert golden.difference(["0.5", 0.25]) == "'0.5' instead of 0.5 for golden row 0"
    assert golden.difference([0.5]) == "1 predictions for 2 golden rows"


def test_they_are_the_boosters_own_predictions_with_features_missing():
    rows = np.array([[0.1, np.nan, -1.0], [2.0, 0.0, 0.3]])
    golden = Golden.of(make_booster(), rows)
    assert golden.rows == ((0.1, None, -1.0), (2.0, 0.0, 0.3))
    assert list(golden.predictions) == make_booster().predict(rows).tolist()


def test_a_booster_that_predicts_no_finite_number_is_refused():
    class Overflowing:
        def num_feature(self):
            return 1

        def predict(self, rows, **options):
            return np.full(len(rows), np.inf)

    with pytest.raises(DataError, match="no finite numbers; look at the features"):
        Golden.of(Overflowing(), [[1.0]])
    assert json.loads(Golden(rows=((None,),), predictions=(1.0,)).to_json())["rows"] == [[None]]
