"""Predictions joined with what happened: the live score of a model version."""

from __future__ import annotations

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import log_losses
from btc_lifecycle.domain.tables import LABELS, OUTCOMES


def join_outcomes(predictions: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return what became of every prediction whose label has matured.

    Args:
        predictions: ``PREDICTIONS.schema``; rows without symbol or open time have no outcome.
        labels: ``LABELS.schema`` of one horizon, matured labels only. A label of direction 0 is
            neither a hit nor a miss and has no outcome.

    Returns:
        ``OUTCOMES.schema`` sorted by symbol, open time and prediction id, one row per prediction;
        ``direction`` is what happened, ``log_loss`` is -ln of the probability that was given to it.

    Raises:
        DataError: If two labels claim the same candle, since its predictions would count twice, or
            if a probability is none.
    """
    _require_one_label_per_candle(labels)
    joined = predictions.drop("direction").join(
        labels.filter(pl.col("direction") != 0), on=list(LABELS.key), how="inner"
    )
    # The same loss as in the champion's test, or the two could not be compared.
    log_loss = log_losses(joined["probability_up"].to_numpy(), joined["direction"].to_numpy())
    return (
        joined.with_columns(log_loss=log_loss)
        .select(OUTCOMES.schema.names())
        .sort("symbol", "open_time", "prediction_id")
    )


def one_per_candle(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Return one outcome per symbol, open time and model version: the rows that count for scores.

    A client that asks a hundred times for the same candle must not weigh a hundred times. The
    smallest prediction id stays: a choice that knows nothing of the outcome.

    Args:
        outcomes: ``OUTCOMES.schema`` in any order.

    Returns:
        The same columns, sorted by symbol, open time and model version.
    """
    key = ["symbol", "open_time", "model_version"]
    return outcomes.sort(*key, "prediction_id").unique(key, keep="first", maintain_order=True)


def _require_one_label_per_candle(labels: pl.DataFrame) -> None:
    repeated = labels.filter(labels.select(LABELS.key).is_duplicated())
    if not repeated.is_empty():
        symbol, open_time = repeated.sort(LABELS.key).select(LABELS.key).row(0)
        raise DataError(
            f"{symbol}: {repeated.height} labels share their candle, first at "
            f"{open_time:%Y-%m-%d %H:%M} UTC",
            hint="load the labels of one horizon, each once",
        )
