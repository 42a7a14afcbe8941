from __future__ import annotations

import hashlib
import math
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.features import compute_features
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle.domain.learn.splits import (
    SplitPolicy,
    hash_examples,
    join_examples,
    split_by_time,
)
from btc_lifecycle_tests.builders import make_candles

NAMES = ("log_return_5m", "rsi_14m")
POLICY = SplitPolicy(validation_fraction=0.2, test_fraction=0.2, min_rows=10)
MINUTE = timedelta(minutes=1)


def make_examples(n: int, *, horizon_min: int = 5, symbols=("BTC/USDT",)) -> pl.DataFrame:
    candles = [make_candles(n, seed=i, symbol=symbol) for i, symbol in enumerate(symbols)]
    return join_examples(
        pl.concat(compute_features(of_symbol) for of_symbol in candles),
        label_by_horizon(pl.concat(candles), horizon_min=horizon_min),
        feature_names=NAMES,
    )


def test_examples_have_every_feature_a_direction_and_a_matured_label():
    # rsi_14m is there from minute 14 on; the last five minutes have no label at this horizon.
    examples = make_examples(60)
    assert examples.columns == [
        "symbol",
        "open_time",
        "matures_at",
        "direction",
        "forward_log_return",
        *NAMES,
    ]
    assert examples["open_time"].dt.minute().to_list() == list(range(14, 55))
    assert examples.null_count().sum_horizontal().item() == 0


def test_an_example_carries_its_own_features_and_label():
    candles = make_candles(60)
    features, labels = compute_features(candles), label_by_horizon(candles, horizon_min=5)
    examples = join_examples(features, labels, feature_names=NAMES)
    at = pl.col("open_time") == candles["open_time"][33]
    assert examples.filter(at).select(NAMES).row(0) == features.filter(at).select(NAMES).row(0)
    outcome = ["direction", "matures_at", "forward_log_return"]
    assert examples.filter(at).select(outcome).row(0) == labels.filter(at).select(outcome).row(0)


def test_rows_without_a_change_of_price_are_left_out():
    candles = make_candles(60).with_columns(
        close=pl.when(pl.int_range(pl.len()).is_in([30, 35])).then(1.0).otherwise(pl.col("close"))
    )
    examples = join_examples(
        compute_features(candles), label_by_horizon(candles, horizon_min=5), feature_names=NAMES
    )
    assert set(examples["direction"]) == {1, -1}
    assert candles["open_time"][30] not in examples["open_time"].to_list()
    assert examples.height == 40


def test_examples_of_several_symbols_come_in_the_order_of_time():
    examples = make_examples(60, symbols=("BTC/USDT", "ETH/USDT"))
    keys = list(examples.select("open_time", "symbol").iter_rows())
    assert keys == sorted(keys)
    assert len(keys) == 82


def test_a_split_by_hand():
    # 41 examples of minutes 14 to 54: validation starts at the row 24, test at the row 32, and
    # a label takes 6 minutes from open to maturity.
    split = split_by_time(make_examples(60), policy=POLICY)
    minutes = [
        part["open_time"].dt.minute().to_list()
        for part in (split.train, split.validation, split.test)
    ]
    assert minutes == [list(range(14, 33)), list(range(38, 41)), list(range(46, 55))]


@settings(max_examples=25, deadline=None)
@given(
    horizon_min=st.integers(1, 30),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
    symbols=st.sampled_from([("BTC/USDT",), ("BTC/USDT", "ETH/USDT")]),
)
def test_no_label_matures_after_the_next_part_starts(horizon_min, validation, test, symbols):
    examples = make_examples(400, horizon_min=horizon_min, symbols=symbols)
    policy = SplitPolicy(validation_fraction=validation, test_fraction=test, min_rows=10)
    split = split_by_time(examples, policy=policy)
    assert split.train["matures_at"].max() <= split.validation["open_time"].min()
    assert split.validation["matures_at"].max() <= split.test["open_time"].min()
    parts = pl.concat([split.train, split.validation, split.test])
    n_purged = examples.height - parts.height
    assert parts.join(examples, on=["symbol", "open_time"], how="semi").height == parts.height
    assert 0 <= n_purged <= 2 * len(symbols) * (horizon_min + 1)
    assert split.test.height == pytest.approx(test * examples.height, abs=len(symbols))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_the_split_does_not_depend_on_the_order_of_rows(seed):
    examples = make_examples(120)
    in_other_order = examples.sample(fraction=1.0, shuffle=True, seed=seed)
    shuffled = split_by_time(in_other_order, policy=POLICY)
    split = split_by_time(examples, policy=POLICY)
    for name in ("train", "validation", "test"):
        assert_frame_equal(
            getattr(shuffled, name), getattr(split, name), check_row_order=False, check_exact=True
        )


def test_too_few_examples_are_refused():
    policy = SplitPolicy(validation_fraction=0.2, test_fraction=0.2, min_rows=5_000)
    with pytest.raises(DataError, match=r"41 examples .* 5,000 wanted; ingest more history"):
        split_by_time(make_examples(60), policy=policy)


@pytest.mark.parametrize("n", [0, 3])
def test_examples_that_cannot_fill_three_parts_are_refused(n):
    policy = SplitPolicy(validation_fraction=0.2, test_fraction=0.2, min_rows=1)
    with pytest.raises(DataError, match=f"{n} examples"):
        split_by_time(make_examples(60).head(n), policy=policy)


def test_labels_that_leave_nothing_to_validate_on_are_refused():
    policy = SplitPolicy(validation_fraction=0.1, test_fraction=0.1, min_rows=10)
    with pytest.raises(DataError, match="41 examples leave 27 to train on and 0 to validate on"):
        split_by_time(make_examples(60), policy=policy)


@pytest.mark.parametrize(
    ("validation", "test"), [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (math.nan, 0.2)]
)
def test_fractions_that_leave_a_part_empty_are_refused(validation, test):
    with pytest.raises(ConfigurationError, match="leaves a part empty; set validation_fraction"):
        SplitPolicy(validation_fraction=validation, test_fraction=test, min_rows=10)


def test_a_policy_that_wants_no_rows_is_refused():
    with pytest.raises(ValueError, match="min_rows must be at least 1"):
        SplitPolicy(validation_fraction=0.2, test_fraction=0.2, min_rows=0)


def test_the_hash_is_that_of_names_types_and_bytes():
    frame = pl.DataFrame({"symbol": ["A", "B"], "x": [1.0, 2.0]})
    spelled = b"symbol:String:2\nA\nBx:Float64:2\n" + frame["x"].to_numpy().tobytes()
    assert hash_examples(frame) == hashlib.sha256(spelled).hexdigest()


def test_equal_examples_hash_equally_and_any_change_shows():
    examples = make_examples(60)
    changed = [
        examples.head(40),
        examples.reverse(),
        examples.rename({"rsi_14m": "rsi_15m"}),
        examples.with_columns(pl.col("matures_at") + MINUTE),
        examples.with_columns(symbol=pl.lit("ETH/USDT")),
        examples.with_columns(pl.col("rsi_14m") + 1e-15),
        examples.with_columns(pl.col("direction").cast(pl.Int32)),
    ]
    digests = {hash_examples(frame) for frame in [examples, *changed]}
    assert hash_examples(make_examples(60)) == hash_examples(examples)
    assert len(digests) == 1 + len(changed)
