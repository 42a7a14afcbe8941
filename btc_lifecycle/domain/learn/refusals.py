"""Refusals: what must hold of examples before anything is fitted to them.

LightGBM fits one class, constant columns and a handful of rows without a word. The figures of such
a model mean nothing, so training stops here, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.features import MIN_KNOWN_SHARE
from btc_lifecycle.domain.learn.splits import Split

MIN_CLASS_SHARE = 0.05
"""A class rarer than this is a broken label or a market that did not move."""


def refuse_unknown_features(features: pl.DataFrame, *, feature_names: Sequence[str]) -> None:
    """Raise where a feature is missing in most rows of any symbol.

    Raises:
        DataError: Names the features and how much of them is known.
    """
    if features.is_empty():
        raise DataError("there are no features to learn from", hint="ingest candles first")
    known = features.group_by("symbol", maintain_order=True).agg(
        pl.col(feature_names).is_not_null().mean()
    )
    for row in known.iter_rows(named=True):
        symbol = row.pop("symbol")
        unknown = {name: share for name, share in row.items() if share < MIN_KNOWN_SHARE}
        if unknown:
            listed = ", ".join(f"{name} ({share:.1%})" for name, share in unknown.items())
            raise DataError(
                f"{symbol}: mostly missing features, with the share that is known: {listed}",
                hint="look for gaps in the candles; a window that spans a gap has no features",
            )


def refuse_constant_features(split: Split, *, feature_names: Sequence[str]) -> None:
    """Raise where a feature has one value in all rows to train on.

    Raises:
        DataError: Names the features.
    """
    named = pl.col(feature_names)
    is_constant = split.train.select(named.min() == named.max()).row(0)
    constant = [name for name, is_so in zip(feature_names, is_constant, strict=True) if is_so]
    if constant:
        raise DataError(
            f"constant in all {split.train.height:,} training rows: {', '.join(constant)}",
            hint="look at the candles they come from, or name them in learn.leave_out",
        )


def refuse_rare_directions(split: Split) -> None:
    """Raise where a direction is missing or rare among the rows to train or to stop by.

    Raises:
        DataError: Names the part and its share of rises.
    """
    for part, examples in (("training", split.train), ("validation", split.validation)):
        share = float((examples["direction"] == 1).sum()) / max(examples.height, 1)
        if not MIN_CLASS_SHARE <= share <= 1.0 - MIN_CLASS_SHARE:
            raise DataError(
                f"{share:.1%} of {examples.height:,} {part} rows are rises; each direction needs "
                f"{MIN_CLASS_SHARE:.0%}",
                hint="look at the labels, or train on a longer window",
            )
