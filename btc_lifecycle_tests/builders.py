"""Frames for tests: plausible candles made from a seed, in the table's schema."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from btc_lifecycle.domain.tables import CANDLES

START = datetime(2024, 1, 1, tzinfo=UTC)


def make_candles(
    n: int,
    *,
    seed: int = 0,
    start: datetime = START,
    symbol: str = "BTC/USDT",
    with_taker: bool = True,
) -> pl.DataFrame:
    """Return n consecutive one-minute candles of a random walk near 40,000 USDT.

    Without taker data the columns that only Binance's klines carry are null, as they are for
    other exchanges.
    """
    rng = np.random.default_rng(seed)
    close = 40_000.0 * np.exp(np.cumsum(rng.normal(0.0, 5e-4, n)))
    open_ = np.concatenate([[40_000.0], close[:-1]])[:n]
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 2e-4, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 2e-4, n)))
    volume = rng.lognormal(2.0, 0.8, n)
    taker_buy_base = volume * rng.beta(5.0, 5.0, n)
    typical_price = (high + low + close) / 3.0
    binance_only = {
        "quote_volume": volume * typical_price,
        "trades": rng.poisson(500.0, n),
        "taker_buy_base": taker_buy_base,
        "taker_buy_quote": taker_buy_base * typical_price,
    }
    return pl.DataFrame(
        {
            "symbol": [symbol] * n,
            "open_time": [start + timedelta(minutes=i) for i in range(n)],
            "open": open_,
            "high": high,
            "low": low,
            "close": close,
            "volume": volume,
            **(binance_only if with_taker else dict.fromkeys(binance_only, [None] * n)),
        },
        schema=CANDLES.schema,
    )
