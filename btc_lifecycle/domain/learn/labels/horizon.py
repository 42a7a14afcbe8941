"""The outcome at a fixed horizon."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from btc_lifecycle.domain.learn.labels.minutes import (
    CANDLE,
    KEY,
    refuse_bad_horizon,
    refuse_bad_prices,
)
from btc_lifecycle.domain.learn.labels.volatility import forward_log_volatility


def label_by_horizon(candles: pl.DataFrame, *, horizon_min: int) -> pl.DataFrame:
    """Return LABELS for the candles whose outcome is among the candles, in their order.

    The outcome is the log of the close `horizon_min` minutes later over this close:
    ln(C[t + horizon] / C[t]). It is known at `matures_at`, when the later candle closes. Where
    that very candle is missing there is no label: a neighbour's close is another horizon's.

    Args:
        candles: Closed candles of one or more symbols, one for each symbol and open time.
        horizon_min: Minutes from this candle's close to the outcome's.

    Returns:
        One row of LABELS for each candle that has an outcome; `forward_log_volatility` as
        `forward_log_volatility` gives it.

    Raises:
        ConfigurationError: For a horizon under one minute.
        DataError: For a close that is not a positive number.
    """
    refuse_bad_horizon(horizon_min)
    refuse_bad_prices(candles, columns=["close"])
    horizon = timedelta(minutes=horizon_min)
    outcomes = candles.select(
        "symbol", pl.col("open_time") - horizon, outcome_close=pl.col("close")
    )
    forward_log_return = (pl.col("outcome_close") / pl.col("close")).log()
    return (
        candles.select(*KEY, "close", forward_log_volatility(candles)["forward_log_volatility"])
        .join(outcomes, on=KEY, how="inner", maintain_order="left")
        .select(
            *KEY,
            method=pl.lit("horizon"),
            horizon_min=pl.lit(horizon_min, pl.Int64),
            forward_log_return=forward_log_return,
            direction=forward_log_return.sign().cast(pl.Int64),
            matures_at=pl.col("open_time") + horizon + CANDLE,
            forward_log_volatility=pl.col("forward_log_volatility"),
        )
    )
