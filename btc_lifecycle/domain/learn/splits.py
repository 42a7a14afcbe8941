"""Splits: a walk forward through time, in which nothing learns from what it is scored on.

A label looks ahead, so the last labels before a cut are known only after it. They are purged, and
an embargo widens the gap: what a market did just before a cut is still felt just after it.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapter 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError


@dataclass(frozen=True, kw_only=True)
class SplitPolicy:
    """How examples are cut into folds, and how many of them there must be.

    Attributes:
        test_fraction: Share of the examples, the newest, that the folds' test parts tile.
        validation_fraction: Share of the examples before a test part, the newest, that say when
            to stop; the rest is trained on.
        n_folds: How many test parts there are; each has a model of its own, trained on all before.
        embargo_min: Minutes that must lie between the last outcome of a part and the next part.
        min_rows: Fewest examples.
        min_days: Fewest UTC days with examples.
    """

    validation_fraction: float
    test_fraction: float
    n_folds: int = 5
    embargo_min: int = 0
    min_rows: int
    min_days: int = 1

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.min_rows < 1 or self.min_days < 1 or self.n_folds < 1:
            raise ValueError("min_rows, min_days and n_folds must be at least 1")
        if self.embargo_min < 0:
            raise ValueError("embargo_min must not be negative")
        if not (0.0 < self.validation_fraction < 1.0 and 0.0 < self.test_fraction < 1.0):
            raise ConfigurationError(
                f"a split with {self.validation_fraction} for validation and "
                f"{self.test_fraction} for test leaves a part empty",
                hint="set validation_fraction and test_fraction above 0 and below 1",
            )


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A part of time that one model is tested on; numbered from 1, the newest last and open-ended."""

    number: int
    test_start: datetime
    test_end: datetime | None


@dataclass(frozen=True, kw_only=True)
class Split:
    """Three frames of examples, each wholly before the next."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame


def walk_forward(examples: pl.DataFrame, *, policy: SplitPolicy) -> list[Fold]:
    """Return the folds, oldest first, whose test parts tile the newest examples.

    Each fold's model learns from all before its test part. The last one has learnt from the newest
    data: it is the one to keep.

    Raises:
        DataError: For fewer rows or days than the policy wants, or too few to fill every test part.
    """
    n_days = examples["open_time"].dt.date().n_unique()
    if examples.height < policy.min_rows or n_days < policy.min_days:
        raise DataError(
            f"{examples.height:,} examples of {n_days:,} days with every feature and a matured "
            f"label; {policy.min_rows:,} of {policy.min_days:,} days are wanted",
            hint="ingest more history, or lower learn.split.min_rows and min_days",
        )
    open_times = examples["open_time"].sort()
    shares = (policy.test_fraction * (1 - i / policy.n_folds) for i in range(policy.n_folds))
    starts = [open_times[int(examples.height * (1.0 - share))] for share in shares]
    if len(set(starts)) < policy.n_folds:
        raise DataError(
            f"{examples.height:,} examples leave some of {policy.n_folds} test parts empty",
            hint="ingest more history, or lower learn.split.n_folds",
        )
    return [
        Fold(number=number, test_start=start, test_end=end)
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], None], strict=True), 1)
    ]


def cut(examples: pl.DataFrame, fold: Fold, *, policy: SplitPolicy) -> Split:
    """Return a fold's parts: to train on, to stop early by, and to test on.

    A row learns for a part only if its label matures `embargo_min` or more before the next part's
    first open time.

    Raises:
        DataError: Where nothing is left to train or to validate on.
    """
    opens, matures = pl.col("open_time"), pl.col("matures_at")
    embargo = timedelta(minutes=policy.embargo_min)
    before = examples.filter(matures + embargo <= fold.test_start)
    train = validation = before.clear()
    if not before.is_empty():
        n_train = int(before.height * (1.0 - policy.validation_fraction))
        validation_start = before["open_time"].sort()[n_train]
        train = before.filter(matures + embargo <= validation_start)
        validation = before.filter(opens >= validation_start)
    if train.is_empty() or validation.is_empty():
        raise DataError(
            f"fold {fold.number}: {before.height:,} examples before its test part leave "
            f"{train.height:,} to train on and {validation.height:,} to validate on before labels "
            "overlap",
            hint="ingest more history, or lower learn.split.test_fraction",
        )
    is_test = opens >= fold.test_start
    if fold.test_end is not None:
        is_test &= opens < fold.test_end
    return Split(train=train, validation=validation, test=examples.filter(is_test))
