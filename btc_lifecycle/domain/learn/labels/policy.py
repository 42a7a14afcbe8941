"""How candles are labelled, as the configuration says it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import polars as pl

from btc_lifecycle.domain.learn.labels.barriers import label_by_barriers
from btc_lifecycle.domain.learn.labels.horizon import label_by_horizon

MAX_HORIZON_MIN = 240
MAX_VOLATILITY_WINDOW_MIN = 1440
"""A day: what candles are loaded before the window that is learnt from."""


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What counts as the outcome of a candle, and how much each outcome weighs in training.

    Attributes:
        method: horizon takes the close at the horizon; triple_barrier takes whatever comes first,
            a barrier above, one below, or the horizon.
        horizon_min: Minutes from a candle's close to its outcome, at the latest with barriers.
        barrier_width: Distance of each barrier from the close, in units of the volatility that
            horizon has if it goes on as before. At 1 and 15 minutes half of Bitcoin's labels
            touch one.
        volatility_window_min: Minutes up to the close whose volatility sets the barriers.
        weighting: equal counts every label once; uniqueness counts a label by the share of its
            minutes that is its own, since labels that overlap tell partly the same.
    """

    method: Literal["horizon", "triple_barrier"] = "horizon"
    horizon_min: int
    barrier_width: float = 1.0
    volatility_window_min: int = 60
    weighting: Literal["equal", "uniqueness"] = "equal"

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if not 1 <= self.horizon_min <= MAX_HORIZON_MIN:
            raise ValueError(f"horizon_min must be 1 to {MAX_HORIZON_MIN}")
        if not (isfinite(self.barrier_width) and self.barrier_width > 0.0):
            raise ValueError("barrier_width must be above 0 and finite")
        if not 2 <= self.volatility_window_min <= MAX_VOLATILITY_WINDOW_MIN:
            raise ValueError(f"volatility_window_min must be 2 to {MAX_VOLATILITY_WINDOW_MIN}")


def compute_labels(candles: pl.DataFrame, *, policy: LabelPolicy) -> pl.DataFrame:
    """Return LABELS for the candles whose outcome is among the candles, in the candles' order.

    Args:
        candles: Closed candles of one or more symbols in any order, one for each symbol and open
            time. Sorted by symbol and time they are labelled fastest.
        policy: Its weighting is for training and changes no label.

    Raises:
        DataError: For a price that is not a positive number.
    """
    if policy.method == "horizon":
        return label_by_horizon(candles, horizon_min=policy.horizon_min)
    return label_by_barriers(
        candles,
        horizon_min=policy.horizon_min,
        barrier_width=policy.barrier_width,
        volatility_window_min=policy.volatility_window_min,
    )
