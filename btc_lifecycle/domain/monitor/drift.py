"""How far recent features and scores lie from those that the champion was trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from btc_lifecycle.domain.monitor.outcomes import one_per_candle
from btc_lifecycle.domain.monitor.reference import (
    DriftPolicy,
    FeatureReference,
    Reference,
    feature_values,
)
from btc_lifecycle.domain.tables import DRIFT_METRICS

ALL_SYMBOLS = "*"


def drift_metrics(
    recent_features: pl.DataFrame,
    reference: Reference,
    *,
    symbol: str,
    window_start: datetime,
    window_end: datetime,
    model_version: str,
    policy: DriftPolicy,
) -> pl.DataFrame:
    """Return the PSI of every monitored feature in the window ``[window_start, window_end)``.

    Args:
        recent_features: Symbol, open time and features; rows outside the window or of other
            symbols are left out, missing values too.
        reference: The model version's training features.
        symbol: The market, or ``ALL_SYMBOLS`` for all rows.
        window_start: First open time of the window.
        window_end: End of the window, exclusive.
        model_version: The version that the reference belongs to.
        policy: With fewer present values than ``min_window_rows`` a feature's value is null, which
            is no breach: too few rows say nothing.

    Returns:
        ``DRIFT_METRICS.schema`` with metric ``psi``, in the reference's order of features;
        ``n_rows`` counts the feature's present values.

    Raises:
        DataError: If a monitored feature's column is absent.
    """
    recent = _in_window(recent_features, window_start=window_start, window_end=window_end)
    if symbol != ALL_SYMBOLS:
        recent = recent.filter(symbol=symbol)
    judged = [_judge(recent, feature=feature, policy=policy) for feature in reference.features]
    return _metrics_frame(
        judged,
        symbol=symbol,
        window_start=window_start,
        window_end=window_end,
        model_version=model_version,
    )


def log_loss_metric(
    outcomes: pl.DataFrame,
    *,
    window_start: datetime,
    window_end: datetime,
    model_version: str,
    reference_log_loss: float,
    max_increase: float,
    min_outcomes: int,
) -> pl.DataFrame:
    """Return a version's live log-loss over the candles of ``[window_start, window_end)``.

    All symbols count together, as they did in the test that gave the reference.

    Args:
        outcomes: ``OUTCOMES.schema``; rows of other versions or candles are left out, and each
            candle counts once.
        window_start: First open time of the window.
        window_end: End of the window, exclusive.
        model_version: The version that is judged.
        reference_log_loss: The version's mean log-loss on its test rows, in nats.
        max_increase: How far the live mean may lie above the reference, in nats.
        min_outcomes: With fewer outcomes the value is null, which is no breach.

    Returns:
        ``DRIFT_METRICS.schema``, one row of metric ``log_loss`` with an empty feature and symbol
        ``ALL_SYMBOLS``; the threshold is reference plus increase.
    """
    in_window = _in_window(outcomes, window_start=window_start, window_end=window_end)
    log_losses = one_per_candle(in_window.filter(model_version=model_version))["log_loss"]
    n_rows = log_losses.len()
    judged: dict[str, object] = {
        "metric": "log_loss",
        "feature": "",
        "n_rows": n_rows,
        "value": log_losses.mean() if n_rows >= min_outcomes else None,
        "threshold": reference_log_loss + max_increase,
    }
    return _metrics_frame(
        [judged],
        symbol=ALL_SYMBOLS,
        window_start=window_start,
        window_end=window_end,
        model_version=model_version,
    )


def _in_window(
    frame: pl.DataFrame, *, window_start: datetime, window_end: datetime
) -> pl.DataFrame:
    return frame.filter(pl.col("open_time").is_between(window_start, window_end, closed="left"))


def _judge(
    recent: pl.DataFrame, *, feature: FeatureReference, policy: DriftPolicy
) -> dict[str, object]:
    values = feature_values(recent, name=feature.name)
    present = values[~np.isnan(values)]
    return {
        "metric": "psi",
        "feature": feature.name,
        "n_rows": present.size,
        "value": feature.psi(present) if present.size >= policy.min_window_rows else None,
        "threshold": feature.threshold,
    }


def _metrics_frame(
    judged: Sequence[dict[str, object]],
    *,
    symbol: str,
    window_start: datetime,
    window_end: datetime,
    model_version: str,
) -> pl.DataFrame:
    place = {
        "symbol": symbol,
        "window_start": window_start,
        "window_end": window_end,
        "model_version": model_version,
        "is_breach": False,
    }
    rows = pl.DataFrame([place | row for row in judged], schema=DRIFT_METRICS.schema)
    is_breach = (pl.col("value") > pl.col("threshold")).fill_null(value=False)
    return rows.with_columns(is_breach=is_breach)
