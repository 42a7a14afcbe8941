"""Predicted frames that the tests of scores share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from btc_lifecycle.domain.tables import UTC_TIME

START = datetime(2024, 1, 1, tzinfo=UTC)
_MEANT_FOR = {
    "open_time": UTC_TIME,
    "fold": pl.Int64,
    "direction": pl.Int64,
    "delayed_log_return": pl.Float64,
}


def predicted_frame(columns: Mapping[str, Sequence[object]]) -> pl.DataFrame:
    return pl.DataFrame(dict(columns), schema_overrides=_MEANT_FOR)


def simulated(
    n_days: int = 30, *, per_day: int = 48, skill: float = 0.0, n_folds: int = 3, seed: int = 0
) -> pl.DataFrame:
    """Return rows whose model knows the direction with a skill from 0, nothing, to 1, all.

    A day's returns share a drift. The delayed return is the return plus a little noise.
    """
    rng = np.random.default_rng(seed)
    n = n_days * per_day
    minutes = np.arange(n) * (1440 // per_day)
    drift = np.repeat(rng.normal(0.0, 2e-4, n_days), per_day)
    log_return = drift + rng.normal(0.0, 1e-3, n)
    direction = np.where(log_return > 0.0, 1, -1)
    noise = rng.uniform(-0.2, 0.2, n)
    return predicted_frame(
        {
            "symbol": ["BTC/USDT"] * n,
            "open_time": [START + timedelta(minutes=int(m)) for m in minutes],
            "fold": np.arange(n) * n_folds // n + 1,
            "direction": direction,
            "forward_log_return": log_return,
            "delayed_log_return": log_return + rng.normal(0.0, 1e-5, n),
            "model": 0.5 + (1.0 - skill) * noise + skill * 0.3 * direction,
            "prior": np.full(n, 0.52),
            "contrarian": rng.choice([0.49, 0.51], n),
            "logistic": 0.5 + rng.uniform(-0.1, 0.1, n),
            "realized_volatility_60m": rng.uniform(1e-4, 1e-3, n),
        }
    )
