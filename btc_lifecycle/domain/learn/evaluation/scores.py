"""Scores: the model beside its rivals, fold by fold and over all folds, as one long frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import estimates
from btc_lifecycle.domain.learn.evaluation.days import N_RESAMPLES, ResampledDays, utc_days
from btc_lifecycle.domain.learn.evaluation.estimates import Estimate
from btc_lifecycle.domain.learn.evaluation.losses import (
    Bools,
    Floats,
    Ints,
    is_rise,
    log_losses,
    squared_errors,
)
from btc_lifecycle.domain.learn.evaluation.ranks import Ranks, refuse_one_way
from btc_lifecycle.domain.learn.evaluation.trading import BP, TradingRule

MODEL = "model"
DIRECTION_RIVALS = (MODEL, "prior", "contrarian", "logistic")
VOLATILITY_RIVALS = (MODEL, "har", "last_value")
SCORES_SCHEMA = pl.Schema(
    {
        "fold": pl.Int64(),
        "rival": pl.String(),
        "delay_min": pl.Int64(),
        "score": pl.String(),
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "n_rows": pl.Int64(),
    }
)
"""One score of one rival; `fold` is null for all folds pooled, `n_rows` counts the scored rows,
`low` and `high` are the 95 % bounds from resampled UTC days. Log-loss is in nats, `_bp` in basis
points, all else a share or a correlation. Null is what is not defined, or bounded by nothing."""

_RETURN_BY_DELAY_MIN = {0: "forward_log_return", 1: "delayed_log_return"}


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What happened to some rows: whether each rose, its log return, and the draws of its days."""

    direction: Ints
    log_return: Floats
    return_ranks: Ranks
    days: ResampledDays


def score_direction(
    predicted: pl.DataFrame,
    *,
    rule: TradingRule,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> pl.DataFrame:
    """Return how well each rival's probabilities of a rise foretold the rows' directions.

    After a delay of one minute the outcome is that of somebody who acts a minute late: the sign of
    delayed_log_return, rows without it or without a change left out.

    Args:
        predicted: open_time, fold, direction (1 or -1), forward_log_return, delayed_log_return
            (may be null), and a probability of a rise in a column for each of DIRECTION_RIVALS.
        rule: Says what is traded, and at what cost.
        rng: Draws the days of the bounds; all rivals and scores of a fold share the draws.
        n_resamples: How often days are drawn.

    Returns:
        SCORES_SCHEMA, all folds first. Every rival has auc, log_loss, brier, accuracy,
        confident_accuracy (of the tenth furthest from 0.5, with all rows as far as its last one),
        expected_calibration_error, rank_ic (Spearman's correlation with the log return),
        gross_bp and net_bp (log return of a mean trade before and after costs) and trade_share;
        all but the model have log_loss_gain, their mean log-loss minus the model's.

    Raises:
        DataError: For probabilities out of range, a direction that is neither 1 nor -1, one
            direction only, a return that is not finite, or a row without a fold.
    """
    _refuse_unscorable_directions(predicted)
    scored: list[dict[str, object]] = []
    for fold, rows, days in _folds(predicted, rng=rng, n_resamples=n_resamples):
        for delay_min in _RETURN_BY_DELAY_MIN:
            known, outcome = _outcome(rows, delay_min=delay_min, days=days)
            losses = {r: log_losses(_values(known, r), outcome.direction) for r in DIRECTION_RIVALS}
            for rival in DIRECTION_RIVALS:
                found = _direction_scores(_values(known, rival), losses[rival], outcome, rule=rule)
                if rival != MODEL:
                    gains = losses[rival] - losses[MODEL]
                    found["log_loss_gain"] = estimates.mean(gains, days=outcome.days)
                place = {"fold": fold, "rival": rival, "delay_min": delay_min}
                scored += _records(found, **place, n_rows=known.height)
    return pl.DataFrame(scored, schema=SCORES_SCHEMA)


def score_volatility(
    predicted: pl.DataFrame, *, rng: np.random.Generator, n_resamples: int = N_RESAMPLES
) -> pl.DataFrame:
    """Return how well each rival foretold the log volatility.

    Args:
        predicted: open_time, fold, forward_log_volatility, and a predicted log volatility in a
            column for each of VOLATILITY_RIVALS.
        rng: Draws the days of the bounds; all rivals and scores of a fold share the draws.
        n_resamples: How often days are drawn.

    Returns:
        SCORES_SCHEMA at delay 0, all folds first. Every rival has r_squared (against the mean of
        the scored outcomes), mse and spearman; all but the model have mse_gain, their mean
        squared error minus the model's.

    Raises:
        DataError: For no rows, a value that is missing or infinite, or a row without a fold.
    """
    _refuse_no_rows_or_fold(predicted)
    scored: list[dict[str, object]] = []
    for fold, rows, days in _folds(predicted, rng=rng, n_resamples=n_resamples):
        outcome = _values(rows, "forward_log_volatility")
        outcome_ranks = Ranks.of(outcome)
        errors = {r: squared_errors(_values(rows, r), outcome) for r in VOLATILITY_RIVALS}
        for rival in VOLATILITY_RIVALS:
            values = _values(rows, rival)
            found = {
                "r_squared": estimates.r_squared(values, outcome, days=days),
                "mse": estimates.mean(errors[rival], days=days),
                "spearman": estimates.spearman(Ranks.of(values), outcome_ranks, days=days),
            }
            if rival != MODEL:
                found["mse_gain"] = estimates.mean(errors[rival] - errors[MODEL], days=days)
            place = {"fold": fold, "rival": rival, "delay_min": 0}
            scored += _records(found, **place, n_rows=rows.height)
    return pl.DataFrame(scored, schema=SCORES_SCHEMA)


def _direction_scores(
    probability_up: Floats, losses: Floats, outcome: _Outcome, *, rule: TradingRule
) -> dict[str, Estimate]:
    days, is_up = outcome.days, outcome.direction == 1
    ranks = Ranks.of(probability_up)
    is_hit = ((probability_up >= 0.5) == is_up).astype(np.float64)
    is_confident = _most_confident_tenth(probability_up)
    sides = rule.sides(probability_up)
    is_trade = sides != 0
    gross_bp = (sides * outcome.log_return * BP)[is_trade]
    trade_days = days.where(is_trade)
    return {
        "auc": estimates.auc(ranks, is_up, days=days),
        "log_loss": estimates.mean(losses, days=days),
        "brier": estimates.mean((probability_up - is_up) ** 2, days=days),
        "accuracy": estimates.mean(is_hit, days=days),
        "confident_accuracy": estimates.mean(is_hit[is_confident], days=days.where(is_confident)),
        "expected_calibration_error": estimates.calibration_error(probability_up, is_up, days=days),
        "rank_ic": estimates.spearman(ranks, outcome.return_ranks, days=days),
        "gross_bp": estimates.mean(gross_bp, days=trade_days),
        "net_bp": estimates.mean(rule.net_bp(gross_bp), days=trade_days),
        "trade_share": estimates.mean(is_trade.astype(np.float64), days=days),
    }


def _most_confident_tenth(probability_up: Floats) -> Bools:
    """Return the rows at least as far from 0.5 as the last of the tenth that is furthest."""
    if probability_up.size == 0:
        return np.zeros(0, dtype=np.bool_)
    confidence = np.abs(probability_up - 0.5)
    n_others = probability_up.size - -(-probability_up.size // 10)
    return np.asarray(confidence >= np.partition(confidence, n_others)[n_others])


def _outcome(
    rows: pl.DataFrame, *, delay_min: int, days: ResampledDays
) -> tuple[pl.DataFrame, _Outcome]:
    """Return the rows whose outcome after the delay is known, and that outcome."""
    column = _RETURN_BY_DELAY_MIN[delay_min]
    if delay_min:
        is_known = rows.select((pl.col(column) != 0.0).fill_null(value=False)).to_series()
        rows, days = rows.filter(is_known), days.where(is_known.to_numpy())
    log_return = _values(rows, column)
    direction = np.sign(log_return).astype(np.int64) if delay_min else rows["direction"].to_numpy()
    return rows, _Outcome(
        direction=direction,
        log_return=log_return,
        return_ranks=Ranks.of(log_return),
        days=days,
    )


def _folds(
    predicted: pl.DataFrame, *, rng: np.random.Generator, n_resamples: int
) -> Iterator[tuple[int | None, pl.DataFrame, ResampledDays]]:
    """Yield all rows under None, then each fold's, with draws of their days."""
    for fold in [None, *predicted["fold"].unique().sort()]:
        rows = predicted if fold is None else predicted.filter(fold=fold)
        day = utc_days(rows["open_time"])
        yield fold, rows, ResampledDays.draw(day, rng=rng, n_resamples=n_resamples)


def _records(found: Mapping[str, Estimate], **place: object) -> list[dict[str, object]]:
    return [
        {**place, "score": score, "value": e.value, "low": e.low, "high": e.high}
        for score, e in found.items()
    ]


def _values(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].cast(pl.Float64).to_numpy()


def _refuse_unscorable_directions(predicted: pl.DataFrame) -> None:
    direction = predicted["direction"].to_numpy()
    for rival in DIRECTION_RIVALS:
        is_rise(_values(predicted, rival), direction)
    refuse_one_way(direction == 1)
    _refuse_no_rows_or_fold(predicted)
    for column in _RETURN_BY_DELAY_MIN.values():
        is_broken = ~pl.col(column).is_finite()
        if column == "forward_log_return":
            is_broken |= pl.col(column).is_null()
        n_broken = predicted.filter(is_broken).height
        if n_broken:
            raise DataError(
                f"{n_broken:,} of {predicted.height:,} values of {column} are missing or infinite",
                hint="look at the candles of their outcomes",
            )


def _refuse_no_rows_or_fold(predicted: pl.DataFrame) -> None:
    n_without = predicted["fold"].null_count()
    if predicted.is_empty() or n_without:
        raise DataError(
            f"{n_without:,} of {predicted.height:,} predicted rows belong to no fold",
            hint="score the rows of a fold's test part, at least one",
        )
