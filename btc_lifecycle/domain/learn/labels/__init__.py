"""Labels: what happened after a candle's close, and when that is known."""

from btc_lifecycle.domain.learn.labels.barriers import label_by_barriers
from btc_lifecycle.domain.learn.labels.horizon import label_by_horizon
from btc_lifecycle.domain.learn.labels.policy import LabelPolicy, compute_labels
from btc_lifecycle.domain.learn.labels.uniqueness import average_uniqueness
from btc_lifecycle.domain.learn.labels.volatility import (
    VOLATILITY_HORIZON_MIN,
    forward_log_volatility,
)

__all__ = [
    "VOLATILITY_HORIZON_MIN",
    "LabelPolicy",
    "average_uniqueness",
    "compute_labels",
    "forward_log_volatility",
    "label_by_barriers",
    "label_by_horizon",
]
