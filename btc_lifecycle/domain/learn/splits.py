"""Splits: examples of features with matured labels, cut by time without any overlap.

A label looks `horizon_min` minutes ahead, so the last labels before a cut are known only after
it. They are purged: no part learns from an outcome that a later part is scored on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError

_KEY = ["symbol", "open_time"]


@dataclass(frozen=True, kw_only=True)
class SplitPolicy:
    """How examples are cut: the shares of the newest ones, and how many there must be at least."""

    validation_fraction: float
    test_fraction: float
    min_rows: int

    def __post_init__(self) -> None:
        if self.min_rows < 1:
            # ValueError, since the settings turn it into a message that names the file and the key.
            raise ValueError("min_rows must be at least 1")
        if not (
            self.validation_fraction > 0.0
            and self.test_fraction > 0.0
            and self.validation_fraction + self.test_fraction < 1.0
        ):
            raise ConfigurationError(
                f"a split with {self.validation_fraction} for validation and "
                f"{self.test_fraction} for test leaves a part empty",
                hint="set validation_fraction and test_fraction above 0 with a sum below 1",
            )


@dataclass(frozen=True, kw_only=True)
class Split:
    """Three frames of examples, each wholly before the next."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame


def join_examples(
    features: pl.DataFrame, labels: pl.DataFrame, *, feature_names: Sequence[str]
) -> pl.DataFrame:
    """Return the rows that have a rise or a fall and every feature, in the order of time.

    Rows without a change of price are left out: they are neither class, and rare on this market.

    Returns:
        Columns symbol, open_time, matures_at, direction (1 or -1), forward_log_return, then the
        features in the order given; nothing is null.
    """
    return (
        features.select(*_KEY, *feature_names)
        .drop_nulls()
        .join(labels.filter(pl.col("direction") != 0), on=_KEY, how="inner")
        .select(*_KEY, "matures_at", "direction", "forward_log_return", *feature_names)
        .sort("open_time", "symbol")
    )


def split_by_time(examples: pl.DataFrame, *, policy: SplitPolicy) -> Split:
    """Return training, validation and test examples, oldest to newest, with nothing shared.

    The cuts are the open times at which the policy's shares of rows remain. A row belongs to a
    part only if its label matures no later than the next part's first open time.

    Raises:
        DataError: For fewer rows than the policy wants, or too few to fill three parts.
    """
    if examples.height < policy.min_rows:
        raise DataError(
            f"{examples.height:,} examples with every feature and a matured label, "
            f"{policy.min_rows:,} wanted",
            hint="ingest more history or lower learn.min_rows",
        )
    open_times = examples["open_time"].sort()
    later_fraction = policy.validation_fraction + policy.test_fraction
    validation_start = open_times[int(examples.height * (1.0 - later_fraction))]
    test_start = open_times[int(examples.height * (1.0 - policy.test_fraction))]
    opens, matures = pl.col("open_time"), pl.col("matures_at")
    split = Split(
        train=examples.filter(matures <= validation_start),
        validation=examples.filter((opens >= validation_start) & (matures <= test_start)),
        test=examples.filter(opens >= test_start),
    )
    if split.train.is_empty() or split.validation.is_empty():
        raise DataError(
            f"{examples.height:,} examples leave {split.train.height:,} to train on and "
            f"{split.validation.height:,} to validate on before labels overlap",
            hint="ingest more history",
        )
    return split


def hash_examples(examples: pl.DataFrame) -> str:
    """Return the SHA-256 of names, types and values in their order, as 64 hexadecimal digits.

    The digest is over the values' own bytes, which no library version formats differently.
    """
    digest = hashlib.sha256()
    for column in examples.iter_columns():
        digest.update(f"{column.name}:{column.dtype}:{len(column)}\n".encode())
        if column.dtype == pl.String:
            digest.update("\n".join(column.to_list()).encode())
        else:
            digest.update(column.to_physical().to_numpy().tobytes())
    return digest.hexdigest()
