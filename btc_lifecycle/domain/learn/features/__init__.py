"""Features: what is known at a candle's close, from that candle and earlier ones only."""

from __future__ import annotations

from btc_lifecycle.domain.learn.features.availability import (
    MIN_KNOWN_SHARE,
    OPTIONAL_FEATURES,
    available_features,
)
from btc_lifecycle.domain.learn.features.computing import (
    FEATURE_NAMES,
    WARMUP_MIN,
    compute_features,
)

__all__ = [
    "FEATURE_NAMES",
    "MIN_KNOWN_SHARE",
    "OPTIONAL_FEATURES",
    "WARMUP_MIN",
    "available_features",
    "compute_features",
]
