"""Examples: rows of features joined with what happened after them, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from btc_lifecycle.domain.learn.labels import VOLATILITY_HORIZON_MIN

_KEY = ["symbol", "open_time"]
_CANDLE = timedelta(minutes=1)


def join_examples(
    features: pl.DataFrame, labels: pl.DataFrame, *, feature_names: Sequence[str]
) -> pl.DataFrame:
    """Return the rows that have a rise or a fall and every feature, in the order of time.

    Rows without a change of price are left out: they are neither class, and rare on this market.

    Returns:
        Columns symbol, open_time, matures_at, direction (1 or -1), forward_log_return,
        delayed_log_return, then the features in the order given. The delayed return is that of
        the next minute's label: what somebody earns who acts a minute late. It alone may be null.
    """
    delayed = labels.select(
        "symbol",
        pl.col("open_time") - _CANDLE,
        delayed_log_return=pl.col("forward_log_return"),
    )
    outcomes = (
        labels.filter(pl.col("direction") != 0)
        .join(delayed, on=_KEY, how="left")
        .select(*_KEY, "matures_at", "direction", "forward_log_return", "delayed_log_return")
    )
    return _joined(features, outcomes, feature_names=feature_names)


def join_volatility_examples(
    features: pl.DataFrame, labels: pl.DataFrame, *, feature_names: Sequence[str]
) -> pl.DataFrame:
    """Return the rows that have every feature and a known volatility after them, by time.

    Returns:
        Columns symbol, open_time, matures_at, forward_log_volatility, then the features in the
        order given; nothing is null.
    """
    known_after = timedelta(minutes=VOLATILITY_HORIZON_MIN) + _CANDLE
    outcomes = labels.drop_nulls("forward_log_volatility").select(
        *_KEY, "forward_log_volatility", matures_at=pl.col("open_time") + known_after
    )
    return _joined(
        features,
        outcomes.select(*_KEY, "matures_at", "forward_log_volatility"),
        feature_names=feature_names,
    )


def hash_examples(examples: pl.DataFrame) -> str:
    """Return the SHA-256 of names, types and values in their order, as 64 hexadecimal digits.

    The digest is over the values' own bytes, which no library version formats differently, and
    over where nulls are.
    """
    digest = hashlib.sha256()
    for column in examples.iter_columns():
        digest.update(f"{column.name}:{column.dtype}:{len(column)}\n".encode())
        if column.dtype == pl.String:
            digest.update("\n".join(column.to_list()).encode())
        else:
            digest.update(column.to_physical().fill_null(0).to_numpy().tobytes())
        if column.null_count():
            digest.update(column.is_null().to_numpy().tobytes())
    return digest.hexdigest()


def _joined(
    features: pl.DataFrame, outcomes: pl.DataFrame, *, feature_names: Sequence[str]
) -> pl.DataFrame:
    return (
        features.select(*_KEY, *feature_names)
        .drop_nulls()
        .join(outcomes, on=_KEY, how="inner")
        .select(*outcomes.columns, *feature_names)
        .sort("open_time", "symbol")
    )
