from __future__ import annotations

import hashlib
from datetime import timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.learn.examples import (
    hash_examples,
    join_examples,
    join_volatility_examples,
)
from btc_lifecycle.domain.learn.features import compute_features
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.example_builders import NAMES, make_examples

MINUTE = timedelta(minutes=1)


def test_examples_have_every_feature_a_direction_and_a_matured_label():
    # rsi_14m is there from minute 14 on; the last five minutes have no label at this horizon.
    examples = make_examples(60)
    assert examples.columns == [
        "symbol",
        "open_time",
        "matures_at",
        "direction",
        "forward_log_return",
        "delayed_log_return",
        *NAMES,
    ]
    assert examples["open_time"].dt.minute().to_list() == list(range(14, 55))
    assert examples.drop("delayed_log_return").null_count().sum_horizontal().item() == 0


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


def test_the_delayed_return_is_that_of_the_next_minute_s_label():
    candles = pl.concat([make_candles(60), make_candles(60, seed=1, symbol="ETH/USDT")])
    labels = label_by_horizon(candles, horizon_min=5)
    by_key = {(row["symbol"], row["open_time"]): row for row in labels.iter_rows(named=True)}
    examples = join_examples(
        pl.concat(compute_features(c) for c in candles.partition_by("symbol")),
        labels,
        feature_names=NAMES,
    )
    assert examples.height == 82
    for row in examples.iter_rows(named=True):
        later = by_key.get((row["symbol"], row["open_time"] + MINUTE))
        assert row["delayed_log_return"] == (later["forward_log_return"] if later else None)


def test_a_delayed_outcome_may_be_no_move_at_all():
    """The next minute's label without a move is no example, but still somebody's late outcome."""
    candles = make_candles(60).with_columns(
        close=pl.when(pl.int_range(pl.len()).is_in([31, 36])).then(1.0).otherwise(pl.col("close"))
    )
    examples = join_examples(
        compute_features(candles), label_by_horizon(candles, horizon_min=5), feature_names=NAMES
    )
    at = pl.col("open_time") == candles["open_time"][30]
    assert examples.filter(at)["delayed_log_return"].to_list() == [0.0]


def test_volatility_examples_are_known_when_the_hour_is_over():
    candles = make_candles(200)
    labels = label_by_horizon(candles, horizon_min=5)
    examples = join_volatility_examples(compute_features(candles), labels, feature_names=NAMES)
    assert examples.columns == [
        "symbol",
        "open_time",
        "matures_at",
        "forward_log_volatility",
        *NAMES,
    ]
    assert examples["open_time"].to_list() == candles["open_time"][14:140].to_list()
    assert (examples["matures_at"] - examples["open_time"]).unique().to_list() == [61 * MINUTE]
    assert examples.null_count().sum_horizontal().item() == 0
    of_labels = labels.filter(pl.col("open_time").is_in(examples["open_time"].to_list()))
    assert examples["forward_log_volatility"].equals(of_labels["forward_log_volatility"])


@pytest.mark.parametrize("column", ["delayed_log_return", "rsi_14m"])
def test_where_nulls_are_shows_in_the_hash(column):
    examples = make_examples(60).with_columns(pl.lit(0.0).alias(column))
    is_first = pl.int_range(pl.len()) == 0
    holed = examples.with_columns(pl.when(~is_first).then(pl.col(column)).alias(column))
    assert hash_examples(holed) != hash_examples(examples)


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
