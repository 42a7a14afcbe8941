"""Metrics: the pooled scores under flat names, as a run keeps them."""

from __future__ import annotations

import polars as pl

from btc_lifecycle.domain.learn.evaluation.scores import MODEL

_GAIN = "_gain"
# Its gain has no suffix: it is what a model of directions must beat at the very least.
_PLAINEST = "prior"


def as_metrics(scores: pl.DataFrame) -> dict[str, float]:
    """Return the scores of all folds pooled under flat names; what is null has no name.

    The model's are test_auc, test_auc_low, test_auc_high, ... and test_n_rows; a rival's are
    prior_auc, ... without bounds. How much the model gains is log_loss_gain over the prior,
    log_loss_gain_over_logistic, mse_gain_over_har and so on over others, with bounds. After a delay of one minute the same names begin with delayed_, in place of test_ for the model.

    Args:
        scores: SCORES_SCHEMA.
    """
    metrics: dict[str, float] = {}
    for row in scores.filter(pl.col("fold").is_null()).iter_rows(named=True):
        rival, score, is_delayed = row["rival"], row["score"], row["delay_min"] > 0
        name = _name(rival=rival, score=score, is_delayed=is_delayed)
        figures = {name: row["value"]}
        if rival == MODEL or score.endswith(_GAIN):
            figures |= {f"{name}_low": row["low"], f"{name}_high": row["high"]}
        if rival == MODEL:
            figures[_name(rival=MODEL, score="n_rows", is_delayed=is_delayed)] = row["n_rows"]
        metrics |= {key: float(value) for key, value in figures.items() if value is not None}
    return metrics


def _name(*, rival: str, score: str, is_delayed: bool) -> str:
    if rival == MODEL:
        return f"{'delayed' if is_delayed else 'test'}_{score}"
    if not score.endswith(_GAIN):
        name = f"{rival}_{score}"
    else:
        name = score if rival == _PLAINEST else f"{score}_over_{rival}"
    return f"delayed_{name}" if is_delayed else name
