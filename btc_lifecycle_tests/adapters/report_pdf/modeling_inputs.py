"""What a modeling report is written from, with a different number for every score."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from btc_lifecycle.adapters.report_pdf import HeadReport, write_modeling_report
from btc_lifecycle.domain.learn.evaluation import (
    DIRECTION_RIVALS,
    GROUP_SCORES_SCHEMA,
    SCORES_SCHEMA,
    VOLATILITY_RIVALS,
)
from btc_lifecycle.domain.tables import FEATURE_COLUMNS

MADE_AT = datetime(2024, 3, 1, 0, 1, tzinfo=UTC)
FEATURES = [column.name for column in FEATURE_COLUMNS]
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
# Of each score: its first value, the step to the next rival, fold or delay, half of its interval.
_DIRECTION = {
    "auc": (0.5312, 0.0007, 0.0071),
    "log_loss": (0.6901, 0.0003, 0.0021),
    "brier": (0.2491, 0.0002, 0.0011),
    "accuracy": (0.512, 0.002, 0.0043),
    "confident_accuracy": (0.531, 0.003, 0.0121),
    "expected_calibration_error": (0.0061, 0.0003, 0.0011),
    "rank_ic": (0.021, 0.001, 0.0083),
    "gross_bp": (0.85, 0.03, 0.41),
    "net_bp": (-9.15, 0.03, 0.41),
    "trade_share": (0.124, 0.003, 0.0112),
    "log_loss_gain": (0.00143, 0.00011, 0.00083),
}
_VOLATILITY = {
    "r_squared": (0.6261, 0.0013, 0.0123),
    "mse": (0.1312, 0.0017, 0.0042),
    "spearman": (0.7801, 0.0019, 0.0081),
    "mse_gain": (0.0053, 0.0007, 0.0021),
}


def direction_scores(n_folds: int = 3) -> pl.DataFrame:
    return _scores(_DIRECTION, rivals=DIRECTION_RIVALS, delays=(0, 1), n_folds=n_folds)


def volatility_scores(n_folds: int = 3) -> pl.DataFrame:
    return _scores(_VOLATILITY, rivals=VOLATILITY_RIVALS, delays=(0,), n_folds=n_folds)


def _scores(
    ranges: dict[str, tuple[float, float, float]],
    *,
    rivals: Sequence[str],
    delays: Sequence[int],
    n_folds: int,
) -> pl.DataFrame:
    places = [
        (fold, rival, delay_min)
        for fold in (None, *range(1, n_folds + 1))
        for rival in rivals
        for delay_min in delays
    ]
    return pl.DataFrame(
        [
            {
                "fold": fold,
                "rival": rival,
                "delay_min": delay_min,
                "score": score,
                "value": (value := first + place * step),
                "low": value - half,
                "high": value + half,
                "n_rows": (43_200 if fold is None else 14_400) - 12 * delay_min,
            }
            for place, (fold, rival, delay_min) in enumerate(places)
            for score, (first, step, half) in ranges.items()
            if rival != "model" or not score.endswith("_gain")
        ],
        schema=SCORES_SCHEMA,
    )


def without_intervals(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))


def without_trades(scores: pl.DataFrame) -> pl.DataFrame:
    is_traded = pl.col("score").is_in(["gross_bp", "net_bp"])
    is_share = pl.col("score") == "trade_share"
    return scores.with_columns(
        pl.when(is_traded).then(None).when(is_share).then(0.0).otherwise(name).alias(name)
        for name in ("value", "low", "high")
    )


def importance(names: Sequence[str] = FEATURES) -> pl.DataFrame:
    gain = np.linspace(0.0, 1.0, len(names))
    return pl.DataFrame(
        {"feature": names, "gain": gain / gain.sum(), "mean_abs_contribution": 0.031 * gain}
    )


def direction(**changed) -> HeadReport:
    arguments = {
        "title": "Direction of the next 15 minutes",
        "version": "bitcoin-model 3",
        "facts": {"candles": "2022-01-01 to 2024-02-29", "SHA-256": SHA256, "leaves": "31"},
        "scores": direction_scores(),
        "outcome": "refused",
        "verdict": "Kept champion 2: its loss is lower.",
        "importance": importance(),
        "n_days": 30,
    }
    return HeadReport(**{**arguments, **changed})


def volatility(**changed) -> HeadReport:
    arguments = {
        "title": "Volatility of the next hour",
        "version": "bitcoin-volatility 2",
        "facts": {"candles": "2022-01-01 to 2024-02-29", "SHA-256": SHA256, "leaves": "63"},
        "scores": volatility_scores(),
        "outcome": "promoted",
        "verdict": "Better than each baseline.",
        "importance": importance(),
        "n_days": 30,
    }
    return HeadReport(**{**arguments, **changed})


def groups(names: Sequence[object]) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "group": names,
            "n_rows": [1800 + place for place in range(len(names))],
            "auc": [0.512 + 0.0011 * place for place in range(len(names))],
            "log_loss": [0.6912 + 0.0001 * place for place in range(len(names))],
            "log_loss_gain": [-0.00143 + 0.00017 * place for place in range(len(names))],
            "accuracy": [0.501 + 0.001 * place for place in range(len(names))],
        },
    )
    return frame if names else pl.DataFrame(schema=GROUP_SCORES_SCHEMA)


def contributions(n_rows: int = 20) -> pl.DataFrame:
    rank = np.linspace(0.0, 1.0, n_rows)
    return pl.concat(
        pl.DataFrame(
            {
                "feature": [feature] * n_rows,
                "value_rank": rank if place else [None] * n_rows,
                "contribution": (rank - 0.5) * (place + 1) / 100,
            },
            schema_overrides={"value_rank": pl.Float64},
        )
        for place, feature in enumerate(FEATURES)
    )


def calibration() -> pl.DataFrame:
    probability = np.linspace(0.42, 0.58, 5)
    n_rows = [3, 900, 22_000, 900, 4]
    return pl.DataFrame(
        {"mean_probability": probability, "up_share": probability + 0.003, "n_rows": n_rows}
    )


def modeling_report(folder: Path, **changed) -> Path:
    arguments = {
        "direction": direction(),
        "volatility": volatility(),
        "calibration": calibration(),
        "by_hour": groups([f"{hour:02d}" for hour in range(24)]),
        "by_regime": groups(["low", "middle", "high"]),
        "contributions": contributions(),
        "cost_bp": 10.0,
        "source": "binance",
        "made_at": MADE_AT,
    }
    return write_modeling_report(folder, **{**arguments, **changed})


NO_EVIDENCE = {
    "calibration": calibration().with_columns(n_rows=pl.lit(0)),
    "by_hour": groups([]),
    "by_regime": groups([]),
    "contributions": contributions().clear(),
}
"""For reports whose charts do not matter: a chart costs a quarter of a second."""


def unknown_heads() -> dict[str, HeadReport]:
    """Return heads of which nothing is known but what was decided."""
    nothing = {"importance": importance().clear(), "facts": {}}
    verdict = "refused because " * 400
    return {
        "direction": direction(
            scores=direction_scores().clear(), verdict=verdict, outcome="rolled back", **nothing
        ),
        "volatility": volatility(scores=volatility_scores().clear(), **nothing),
    }
