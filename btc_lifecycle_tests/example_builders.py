"""Examples of random candles, as the learning stage joins them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from btc_lifecycle.domain.learn.examples import join_examples
from btc_lifecycle.domain.learn.features import compute_features
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle_tests.builders import make_candles

NAMES = ("log_return_5m", "rsi_14m")


def make_examples(
    n: int, *, horizon_min: int = 5, symbols: Sequence[str] = ("BTC/USDT",)
) -> pl.DataFrame:
    """Return the examples of n minutes of each symbol; 19 fewer where the horizon is 5."""
    candles = [make_candles(n, seed=i, symbol=symbol) for i, symbol in enumerate(symbols)]
    return join_examples(
        pl.concat(compute_features(of_symbol) for of_symbol in candles),
        label_by_horizon(pl.concat(candles), horizon_min=horizon_min),
        feature_names=NAMES,
    )
