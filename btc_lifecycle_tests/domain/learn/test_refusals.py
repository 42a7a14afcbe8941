from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.refusals import (
    refuse_constant_features,
    refuse_rare_directions,
    refuse_unknown_features,
)
from btc_lifecycle.domain.learn.splits import Split

NAMES = ("momentum", "volume")


def examples(n: int = 100, *, n_rises: int | None = None) -> pl.DataFrame:
    n_rises = n // 2 if n_rises is None else n_rises
    return pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * n,
            "open_time": [
                datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(n)
            ],
            "direction": [1] * n_rises + [-1] * (n - n_rises),
            "momentum": [float(i) for i in range(n)],
            "volume": [float(i % 7) for i in range(n)],
        }
    )


def split(train: pl.DataFrame, validation: pl.DataFrame | None = None) -> Split:
    validation = train if validation is None else validation
    return Split(train=train, validation=validation, test=train.clear())


def unknown(frame: pl.DataFrame, share: float, name: str = "volume") -> pl.DataFrame:
    is_unknown = pl.int_range(pl.len()) < round(share * frame.height)
    return frame.with_columns(pl.when(~is_unknown).then(pl.col(name)).alias(name))


def test_features_that_are_known_in_half_of_the_rows_pass():
    refuse_unknown_features(unknown(examples(), 0.5), feature_names=NAMES)


def test_mostly_missing_features_are_refused_by_symbol_and_share():
    eth = unknown(examples(), 0.51).with_columns(symbol=pl.lit("ETH/USDT"))
    with pytest.raises(DataError, match=r"ETH/USDT: mostly missing .* known: volume \(49.0%\)"):
        refuse_unknown_features(pl.concat([examples(1_000), eth]), feature_names=NAMES)


def test_features_that_nobody_learns_from_may_be_missing():
    refuse_unknown_features(unknown(examples(), 1.0), feature_names=("momentum",))


def test_no_features_at_all_are_refused():
    with pytest.raises(DataError, match="no features to learn from; ingest candles first"):
        refuse_unknown_features(examples(0), feature_names=NAMES)


def test_constant_features_are_refused_by_name():
    constant = examples().with_columns(volume=pl.lit(-1.0))
    with pytest.raises(DataError, match="constant in all 100 training rows: volume; look at"):
        refuse_constant_features(split(constant), feature_names=NAMES)
    refuse_constant_features(split(constant), feature_names=("momentum",))


def test_a_feature_that_varies_in_validation_only_is_constant():
    constant = examples().with_columns(volume=pl.lit(-1.0))
    with pytest.raises(DataError, match="volume"):
        refuse_constant_features(split(constant, examples()), feature_names=NAMES)


@pytest.mark.parametrize("n_rises", [0, 4, 96, 100])
def test_one_class_or_a_class_under_a_twentieth_is_refused(n_rises):
    rare = examples(n_rises=n_rises)
    with pytest.raises(DataError, match=rf"{n_rises}.0% of 100 training rows are rises; .* 5%"):
        refuse_rare_directions(split(rare, examples()))
    with pytest.raises(DataError, match=rf"{n_rises}.0% of 100 validation rows are rises"):
        refuse_rare_directions(split(examples(), rare))


@pytest.mark.parametrize("n_rises", [5, 95])
def test_a_class_of_a_twentieth_is_enough(n_rises):
    refuse_rare_directions(split(examples(n_rises=n_rises)))


@pytest.mark.parametrize("part", ["training", "validation"])
def test_an_empty_part_has_no_rises(part):
    empty = examples().clear()
    parts = split(empty, examples()) if part == "training" else split(examples(), empty)
    with pytest.raises(DataError, match=f"0 {part} rows"):
        refuse_rare_directions(parts)
