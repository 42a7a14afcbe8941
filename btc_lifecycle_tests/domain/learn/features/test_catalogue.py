"""Each feature is what its entry says: it reads these columns of these candles, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_series_equal

from btc_lifecycle.domain.learn.features import FEATURE_NAMES, WARMUP_MIN, compute_features
from btc_lifecycle.domain.learn.features.formulas import FORMULAS
from btc_lifecycle.domain.tables import CANDLES, FEATURE_COLUMNS
from btc_lifecycle.domain.tables.features import CATALOGUE
from btc_lifecycle_tests.builders import make_candles

HISTORY = make_candles(500)
WHOLE = compute_features(HISTORY)
COLUMNS = tuple(name for name in CANDLES.schema.names() if name not in CANDLES.key)
LAST = HISTORY.height - 1

by_entry = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)


def changed(columns: Iterable[str], *, first: int = 0, end: int = LAST + 1) -> pl.DataFrame:
    """Return the candles with some columns wild in some rows, each in its own way."""
    is_changed = pl.int_range(pl.len()).is_between(first, end - 1)
    rng = np.random.default_rng(5)
    wild = {name: HISTORY[name] * rng.uniform(2.0, 9.0, HISTORY.height) for name in columns}
    return HISTORY.with_columns(
        pl.when(is_changed).then(values.cast(CANDLES.schema[name])).otherwise(name).alias(name)
        for name, values in wild.items()
    )


def shifted(minutes: int) -> pl.DataFrame:
    return HISTORY.with_columns(pl.col("open_time") + timedelta(minutes=minutes))


def test_every_entry_has_its_formula_and_its_column():
    assert tuple(FORMULAS) == FEATURE_NAMES
    assert tuple(column.name for column in FEATURE_COLUMNS) == FEATURE_NAMES
    assert len(set(FEATURE_NAMES)) == 35


def test_no_feature_looks_back_further_than_four_hours():
    assert max(entry.window_min for entry in CATALOGUE) == WARMUP_MIN == 240


@by_entry
def test_an_entry_says_what_it_is(entry):
    assert entry.meaning
    assert entry.formula
    assert "|" not in entry.meaning + entry.formula + entry.source
    assert set(entry.inputs) <= {*COLUMNS, "open_time"}
    is_nullable = {column.name: column.is_nullable for column in CANDLES.columns}
    assert entry.is_optional == any(is_nullable[name] for name in entry.inputs)


@by_entry
def test_a_feature_reads_its_inputs_and_nothing_else(entry):
    others = [name for name in COLUMNS if name not in entry.inputs]
    assert_series_equal(compute_features(changed(others))[entry.name], WHOLE[entry.name])
    for name in entry.inputs:
        frame = shifted(7) if name == "open_time" else changed([name])
        assert compute_features(frame)[entry.name][LAST] != WHOLE[entry.name][LAST], name
    if "open_time" not in entry.inputs:
        assert_series_equal(compute_features(shifted(7))[entry.name], WHOLE[entry.name])


@by_entry
def test_a_feature_looks_back_as_far_as_its_entry_says_and_no_further(entry):
    first = LAST - entry.window_min
    before = compute_features(changed(COLUMNS, end=first))
    assert before[entry.name][LAST] == pytest.approx(WHOLE[entry.name][LAST], rel=1e-12)
    if entry.inputs != ("open_time",):
        at_first = compute_features(changed(entry.inputs, first=first, end=first + 1))
        assert at_first[entry.name][LAST] != WHOLE[entry.name][LAST]


@by_entry
def test_the_warm_up_is_as_long_as_the_entry_says(entry):
    is_missing = WHOLE[entry.name].is_null()
    assert is_missing.to_list() == [True] * entry.window_min + [False] * (500 - entry.window_min)
