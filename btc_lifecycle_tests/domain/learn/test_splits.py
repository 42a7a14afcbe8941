from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.splits import Split, SplitPolicy, cut, walk_forward
from btc_lifecycle_tests.example_builders import make_examples

POLICY = SplitPolicy(validation_fraction=0.25, test_fraction=0.4, n_folds=2, min_rows=10)


def splits_of(examples: pl.DataFrame, policy: SplitPolicy) -> list[Split]:
    return [cut(examples, fold, policy=policy) for fold in walk_forward(examples, policy=policy)]


def minutes(part: pl.DataFrame) -> list[int]:
    return part["open_time"].dt.minute().to_list()


def test_a_walk_by_hand():
    # 41 examples of minutes 14 to 54; test parts begin at the rows 24 and 32, and a label takes 6
    # minutes from open to maturity.
    first, second = splits_of(make_examples(60), POLICY)
    assert minutes(first.test) == list(range(38, 46))
    assert minutes(second.test) == list(range(46, 55))
    # Before minute 38 matured what opened until 32: 19 rows, of which the newest 5 validate.
    assert minutes(first.validation) == list(range(28, 33))
    assert minutes(first.train) == list(range(14, 23))
    assert minutes(second.validation) == list(range(34, 41))
    assert minutes(second.train) == list(range(14, 29))


def test_an_embargo_widens_both_gaps():
    first, _ = splits_of(make_examples(60), replace(POLICY, embargo_min=3))
    assert minutes(first.test) == list(range(38, 46))
    # 16 rows matured 3 minutes before 38, of which 4 validate, from minute 26 on.
    assert minutes(first.validation) == list(range(26, 30))
    assert minutes(first.train) == list(range(14, 18))


def test_one_fold_is_a_split_in_three():
    (only,) = splits_of(make_examples(60), replace(POLICY, n_folds=1))
    assert minutes(only.test) == list(range(38, 55))


@settings(max_examples=25, deadline=None)
@given(
    horizon_min=st.integers(1, 30),
    validation=st.floats(0.2, 0.4),
    test=st.floats(0.1, 0.5),
    n_folds=st.integers(1, 4),
    embargo_min=st.integers(0, 10),
    symbols=st.sampled_from([("BTC/USDT",), ("BTC/USDT", "ETH/USDT")]),
)
def test_no_label_matures_after_the_next_part_starts(
    horizon_min, validation, test, n_folds, embargo_min, symbols
):
    examples = make_examples(500, horizon_min=horizon_min, symbols=symbols)
    policy = SplitPolicy(
        validation_fraction=validation,
        test_fraction=test,
        n_folds=n_folds,
        embargo_min=embargo_min,
        min_rows=10,
    )
    embargo = timedelta(minutes=embargo_min)
    splits = splits_of(examples, policy)
    for split in splits:
        assert split.train["matures_at"].max() + embargo <= split.validation["open_time"].min()
        assert split.validation["matures_at"].max() + embargo <= split.test["open_time"].min()
        learnt = pl.concat([split.train, split.validation])
        before = examples.filter(pl.col("open_time") < split.test["open_time"].min())
        n_purged = before.height - learnt.height
        assert 0 <= n_purged <= 2 * len(symbols) * (horizon_min + embargo_min + 1)
    tests = pl.concat(split.test for split in splits)
    assert_frame_equal(tests, examples.tail(tests.height))
    assert tests.height == pytest.approx(test * examples.height, abs=2 * len(symbols))
    sizes = [split.test.height for split in splits]
    assert max(sizes) - min(sizes) <= 2 * len(symbols)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_the_split_does_not_depend_on_the_order_of_rows(seed):
    examples = make_examples(120)
    in_other_order = examples.sample(fraction=1.0, shuffle=True, seed=seed)
    for shuffled, split in zip(
        splits_of(in_other_order, POLICY), splits_of(examples, POLICY), strict=True
    ):
        for name in ("train", "validation", "test"):
            assert_frame_equal(
                getattr(shuffled, name),
                getattr(split, name),
                check_row_order=False,
                check_exact=True,
            )


def test_labels_that_mature_late_by_themselves_are_purged_by_themselves():
    """With barriers a label may mature after those of later candles."""
    examples = make_examples(60)
    is_late = pl.col("open_time") == examples["open_time"][3]
    late = examples.with_columns(
        matures_at=pl.when(is_late)
        .then(pl.col("matures_at") + timedelta(minutes=20))
        .otherwise("matures_at")
    )
    first, second = splits_of(late, POLICY)
    assert 17 not in minutes(first.train)
    assert minutes(second.train) == [14, 15, 16, *range(18, 29)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_rows": 5_000}, r"41 examples of 1 days .* 5,000 of 1 days are wanted; ingest more"),
        ({"min_days": 2}, r"41 examples of 1 days .* 10 of 2 days are wanted; ingest more history"),
    ],
)
def test_too_few_examples_or_days_are_refused(changes, said):
    with pytest.raises(DataError, match=said):
        walk_forward(make_examples(60), policy=replace(POLICY, **changes))


def test_as_many_examples_and_days_as_wanted_are_enough():
    policy = replace(POLICY, min_rows=41, min_days=1)
    assert len(walk_forward(make_examples(60), policy=policy)) == 2


@pytest.mark.parametrize("n", [0, 3])
def test_examples_that_cannot_fill_the_test_parts_are_refused(n):
    policy = replace(POLICY, n_folds=5, min_rows=1, min_days=1)
    with pytest.raises(DataError, match=f"{n} examples"):
        walk_forward(make_examples(60).head(n), policy=policy)


@pytest.mark.parametrize("test_fraction", [0.7, 0.9])
def test_labels_that_leave_nothing_to_learn_from_are_refused(test_fraction):
    policy = replace(POLICY, test_fraction=test_fraction)
    with pytest.raises(DataError, match=r"fold 1: \d+ examples before its test part leave 0 to"):
        splits_of(make_examples(60), policy)


@pytest.mark.parametrize(
    ("validation", "test"), [(0.0, 0.2), (0.2, 0.0), (1.0, 0.5), (0.5, 1.0), (math.nan, 0.2)]
)
def test_fractions_that_leave_a_part_empty_are_refused(validation, test):
    with pytest.raises(ConfigurationError, match="leaves a part empty; set validation_fraction"):
        SplitPolicy(validation_fraction=validation, test_fraction=test, min_rows=10)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("min_rows", 0, "must be at least 1"),
        ("min_days", 0, "must be at least 1"),
        ("n_folds", 0, "must be at least 1"),
        ("embargo_min", -1, "must not be negative"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        replace(POLICY, **{name: value})
