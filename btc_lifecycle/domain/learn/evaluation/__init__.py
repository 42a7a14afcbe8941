"""Evaluation: how good predictions are, beside those of simple rivals, with day-block bounds."""

from btc_lifecycle.domain.learn.evaluation.days import mean_interval, share_better, utc_days
from btc_lifecycle.domain.learn.evaluation.groups import (
    GROUP_SCORES_SCHEMA,
    by_group,
    scores_by_hour,
    scores_by_volatility,
)
from btc_lifecycle.domain.learn.evaluation.losses import (
    calibration_curve,
    log_losses,
    squared_errors,
)
from btc_lifecycle.domain.learn.evaluation.metrics import as_metrics
from btc_lifecycle.domain.learn.evaluation.ranks import rank_auc
from btc_lifecycle.domain.learn.evaluation.scores import (
    DIRECTION_RIVALS,
    MODEL,
    SCORES_SCHEMA,
    VOLATILITY_RIVALS,
    score_direction,
    score_volatility,
)
from btc_lifecycle.domain.learn.evaluation.trading import TradingRule

__all__ = [
    "DIRECTION_RIVALS",
    "GROUP_SCORES_SCHEMA",
    "MODEL",
    "SCORES_SCHEMA",
    "VOLATILITY_RIVALS",
    "TradingRule",
    "as_metrics",
    "by_group",
    "calibration_curve",
    "log_losses",
    "mean_interval",
    "rank_auc",
    "score_direction",
    "score_volatility",
    "scores_by_hour",
    "scores_by_volatility",
    "share_better",
    "squared_errors",
    "utc_days",
]
