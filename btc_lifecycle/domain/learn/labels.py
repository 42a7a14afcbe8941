"""Labels: what happened after a candle's close, and when that is known."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError

_CANDLE = timedelta(minutes=1)


def label_by_horizon(candles: pl.DataFrame, *, horizon_min: int) -> pl.DataFrame:
    """Return LABELS for the candles whose outcome is among the candles, in their order.

    The outcome is the log of the close `horizon_min` minutes later over this close:
    ln(C[t + horizon] / C[t]). It is known at `matures_at`, when the later candle closes. Where
    that very candle is missing there is no label: a neighbour's close is another horizon's.

    Args:
        candles: Closed candles of one or more symbols, one for each symbol and open time.
        horizon_min: Minutes from this candle's close to the outcome's.

    Raises:
        ConfigurationError: For a horizon under one minute.
        DataError: For a close that is not a positive number.
    """
    if horizon_min < 1:
        raise ConfigurationError(
            f"a label's horizon is {horizon_min} minutes", hint="set horizon_min to 1 or more"
        )
    _refuse_bad_closes(candles)
    horizon = timedelta(minutes=horizon_min)
    outcomes = candles.select(
        "symbol", pl.col("open_time") - horizon, outcome_close=pl.col("close")
    )
    forward_log_return = (pl.col("outcome_close") / pl.col("close")).log()
    return candles.join(
        outcomes, on=["symbol", "open_time"], how="inner", maintain_order="left"
    ).select(
        "symbol",
        "open_time",
        horizon_min=pl.lit(horizon_min, pl.Int64),
        forward_log_return=forward_log_return,
        direction=forward_log_return.sign().cast(pl.Int64),
        matures_at=pl.col("open_time") + horizon + _CANDLE,
    )


def _refuse_bad_closes(candles: pl.DataFrame) -> None:
    close = pl.col("close")
    bad = candles.filter((close.is_finite() & (close > 0.0)).not_())
    if bad.height:
        raise DataError(
            f"{bad['symbol'][0]}: {bad.height} closes are not positive numbers, "
            f"first at {bad['open_time'][0]:%Y-%m-%d %H:%M} UTC",
            hint="ingest those candles again",
        )
