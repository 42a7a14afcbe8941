from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from btc_lifecycle.domain.learn.evaluation import (
    SCORES_SCHEMA,
    TradingRule,
    as_metrics,
    score_direction,
    score_volatility,
)
from btc_lifecycle_tests.domain.learn.evaluation.predicted import simulated

RULE = TradingRule(min_edge=0.05, taker_cost_bp=5.0)
KEPT = {
    "test_n_rows",
    "test_auc",
    "test_log_loss",
    "test_accuracy",
    "test_brier",
    "test_expected_calibration_error",
    "prior_log_loss",
    "log_loss_gain",
    "log_loss_gain_low",
    "log_loss_gain_high",
}
"""Names that other code reads."""


def scores(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCORES_SCHEMA, orient="row")


def test_names_say_whose_score_it_is_and_whether_a_minute_late():
    metrics = as_metrics(
        scores(
            [
                (None, "model", 0, "auc", 0.6, 0.5, 0.7, 90),
                (None, "prior", 0, "auc", 0.4, 0.3, 0.45, 90),
                (None, "prior", 0, "log_loss_gain", 0.1, 0.0, 0.2, 90),
                (None, "logistic", 0, "log_loss_gain", 0.05, -0.1, 0.15, 90),
                (None, "model", 1, "auc", 0.55, 0.48, 0.62, 80),
                (None, "prior", 1, "auc", 0.41, 0.31, 0.46, 80),
                (None, "prior", 1, "log_loss_gain", 0.01, -0.02, 0.03, 80),
                (1, "model", 0, "auc", 0.9, 0.8, 1.0, 45),
            ]
        )
    )
    assert metrics == {
        "test_auc": 0.6,
        "test_auc_low": 0.5,
        "test_auc_high": 0.7,
        "test_n_rows": 90.0,
        "prior_auc": 0.4,
        "log_loss_gain": 0.1,
        "log_loss_gain_low": 0.0,
        "log_loss_gain_high": 0.2,
        "log_loss_gain_over_logistic": 0.05,
        "log_loss_gain_over_logistic_low": -0.1,
        "log_loss_gain_over_logistic_high": 0.15,
        "delayed_auc": 0.55,
        "delayed_auc_low": 0.48,
        "delayed_auc_high": 0.62,
        "delayed_n_rows": 80.0,
        "delayed_prior_auc": 0.41,
        "delayed_log_loss_gain": 0.01,
        "delayed_log_loss_gain_low": -0.02,
        "delayed_log_loss_gain_high": 0.03,
    }


def test_what_is_not_known_has_no_name():
    metrics = as_metrics(
        scores(
            [
                (None, "model", 0, "auc", 0.6, None, None, 90),
                (None, "prior", 0, "rank_ic", None, None, None, 90),
            ]
        )
    )
    assert metrics == {"test_auc": 0.6, "test_n_rows": 90.0}


def test_the_names_that_other_code_reads_are_there():
    frame = score_direction(simulated(), rule=RULE, rng=np.random.default_rng(0))
    metrics = as_metrics(frame)
    assert set(metrics) >= KEPT
    assert metrics["test_n_rows"] == 1440.0
    gain = metrics["prior_log_loss"] - metrics["test_log_loss"]
    assert metrics["log_loss_gain"] == pytest.approx(gain)
    assert metrics["log_loss_gain_low"] < gain < metrics["log_loss_gain_high"]
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())


def test_every_pooled_score_has_a_name_of_its_own():
    frame = score_direction(simulated(), rule=RULE, rng=np.random.default_rng(0))
    pooled = frame.filter(pl.col("fold").is_null())
    is_bounded = (pl.col("rival") == "model") | (pl.col("score") == "log_loss_gain")
    bounded = pooled.filter(is_bounded)
    n_figures = pooled["value"].count() + bounded["low"].count() + bounded["high"].count()
    assert len(as_metrics(frame)) == n_figures + 2


def test_volatility_has_names_of_the_same_kind():
    values = {name: pl.col("model") + shift for name, shift in (("har", 0.1), ("last_value", 0.2))}
    frame = simulated().with_columns(forward_log_volatility=pl.col("logistic"), **values)
    metrics = as_metrics(score_volatility(frame, rng=np.random.default_rng(0)))
    rivals = {
        f"{of}_{name}" for of in ("har", "last_value") for name in ("r_squared", "mse", "spearman")
    }
    bounds = ("", "_low", "_high")
    own = {f"test_{name}{end}" for name in ("r_squared", "mse", "spearman") for end in bounds}
    gains = {f"mse_gain_over_{of}{end}" for of in ("har", "last_value") for end in bounds}
    assert set(metrics) == {"test_n_rows"} | own | rivals | gains
