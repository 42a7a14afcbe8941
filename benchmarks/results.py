"""The scores of the configured models on real months, as docs/results.md: made by one command.

Nothing is chosen on the months that are reported: parameters were chosen on 2022 and 2023.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl
import typer
from measuring import read_months
from results_page import DirectionRow, LeakRow, Results, VolatilityRow

from btc_lifecycle.domain.learn.evaluation import rank_auc
from btc_lifecycle.domain.learn.features import available_features, compute_features
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.labels import VOLATILITY_HORIZON_MIN, LabelPolicy, compute_labels
from btc_lifecycle.domain.learn.walk import Recipe, walk
from btc_lifecycle.settings import ROOT, LearnSettings, LifecycleSettings, read_config

HORIZONS = (1, 5, 15, 60)
LEAK_HORIZONS = (15, 60)
_N_WORKERS = 2

_LEAK_FOLDS = 5
_LEAK_TREES = 200
# Larger trees than the lifecycle's: they remember their neighbours best.
_LEAK_PARAMETERS = {
    "objective": "binary",
    "num_leaves": 63,
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, kw_only=True)
class History:
    """Candles with their features, the months to test on, and the days to learn from before each."""

    candles: pl.DataFrame
    features: pl.DataFrame
    months: tuple[datetime, ...]
    window_days: int
    learn: LearnSettings

    def examples(self, head: Head, *, horizon_min: int) -> tuple[pl.DataFrame, Recipe]:
        """Return a head's examples and the configured recipe, with one fold for each month."""
        labels = compute_labels(self.candles, policy=LabelPolicy(horizon_min=horizon_min))
        names = available_features(self.features)
        recipe = Recipe(
            head=head,
            feature_names=names,
            horizon_min=VOLATILITY_HORIZON_MIN if head is VOLATILITY_HEAD else horizon_min,
            split=replace(self.learn.split, n_folds=1),
            parameters=self.learn.training,
        )
        return head.join(self.features, labels, feature_names=names), recipe

    def scores(self, examples: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
        """Return the scores of all tested months pooled, each predicted by a model of its past."""
        with ThreadPoolExecutor(_N_WORKERS) as executor:
            parts = executor.map(
                lambda month: self._predicted(examples, recipe, month), self.months
            )
            predicted = pl.concat(
                part.with_columns(fold=pl.lit(fold, pl.Int64)) for fold, part in enumerate(parts, 1)
            )
        rng = np.random.default_rng(self.learn.training.seed)
        scores = recipe.head.score(predicted, rule=self.learn.trading, rng=rng)
        return scores.filter(pl.col("fold").is_null())

    def _predicted(self, examples: pl.DataFrame, recipe: Recipe, month: datetime) -> pl.DataFrame:
        opens = pl.col("open_time")
        known_from, ends = month - timedelta(days=self.window_days), _next_month(month)
        window = examples.filter((opens >= known_from) & (opens < ends))
        tested_share = window.select((opens >= month).mean()).item()
        one_fold = replace(recipe, split=replace(recipe.split, test_fraction=tested_share))
        return walk(window, recipe=one_fold).predicted


def main(
    data: Annotated[Path, typer.Option(help="folder of a market's months as Parquet")] = ROOT.parent
    / "shared/data/binance_spot_1m/BTCUSDT",
    tested: Annotated[str, typer.Option(help="first month to test on")] = "2024-01",
    last: Annotated[str, typer.Option(help="last month to test on")] = "2024-12",
    window_days: Annotated[int, typer.Option(help="days to learn from before each month")] = 180,
    leak_days: Annotated[int, typer.Option(help="days before the test to show the leak on")] = 120,
    out: Annotated[Path, typer.Option(help="page to write")] = ROOT / "docs/results.md",
) -> None:
    """Walk forward through the tested months for each horizon, and write what came out."""
    first, end = (datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC) for name in (tested, last))
    months = [first]
    while months[-1] < end:
        months.append(_next_month(months[-1]))
    before = first - timedelta(days=max(window_days, leak_days) + 1)
    candles = read_months(data, first=f"{before:%Y-%m}", last=last)
    history = History(
        candles=candles,
        features=compute_features(candles),
        months=tuple(months),
        window_days=window_days,
        learn=read_config(ROOT / "config/lifecycle.json", LifecycleSettings).learn,
    )
    found = Results(
        directions=[row for horizon in HORIZONS for row in direction_rows(history, horizon)],
        volatilities=volatility_rows(history),
        leaks=[row for horizon in LEAK_HORIZONS for row in leak_rows(history, horizon, leak_days)],
        tested=f"{tested} to {last}",
        n_months=len(months),
        window_days=window_days,
        leak_days=leak_days,
        cost_bp=2 * history.learn.trading.taker_cost_bp,
    )
    out.write_text(found.page(), encoding="utf-8")
    typer.echo(f"written: {out}")


def direction_rows(history: History, horizon_min: int) -> list[DirectionRow]:
    """Return a horizon's rows: the model, its baselines, and the model on permuted labels."""
    examples, recipe = history.examples(DIRECTION_HEAD, horizon_min=horizon_min)
    scores = history.scores(examples, recipe)
    outcomes = ["direction", "forward_log_return", "delayed_log_return"]
    permuted = examples.select(outcomes).sample(fraction=1.0, shuffle=True, seed=1)
    null = history.scores(examples.with_columns(permuted.get_columns()), recipe)
    rivals = ("model", "prior", "contrarian", "logistic")
    return [
        *(DirectionRow.of(scores, horizon_min=horizon_min, rival=rival) for rival in rivals),
        replace(
            DirectionRow.of(null, horizon_min=horizon_min, rival="model"), who="permuted labels"
        ),
    ]


def volatility_rows(history: History) -> list[VolatilityRow]:
    """Return the rows of the volatility: the model, HAR and the last value."""
    examples, recipe = history.examples(VOLATILITY_HEAD, horizon_min=1)
    scores = history.scores(examples, recipe)
    return [VolatilityRow.of(scores, rival=rival) for rival in ("model", "har", "last_value")]


def leak_rows(history: History, horizon_min: int, n_days: int) -> list[LeakRow]:
    """Return the same model's scores on the same rows, by ways to choose the rows to test on."""
    examples, recipe = history.examples(DIRECTION_HEAD, horizon_min=horizon_min)
    before = examples.filter(pl.col("open_time") < history.months[0]).tail(n_days * 1440)
    rows = before.select(recipe.feature_names).to_numpy()
    is_up = (before["direction"] == 1).to_numpy()
    n = before.height
    blocks = np.arange(n) * _LEAK_FOLDS // n
    shuffled = np.random.default_rng(0).permutation(blocks)
    purge = horizon_min + 60
    ways = {
        "shuffled": [(shuffled != k, shuffled == k) for k in range(_LEAK_FOLDS)],
        "blocks": [(blocks != k, blocks == k) for k in range(_LEAK_FOLDS)],
        "blocks, purged": [
            (_away_from(blocks == k, purge), blocks == k) for k in range(_LEAK_FOLDS)
        ],
        "walk forward": [
            ((blocks < k) & _away_from(blocks == k, purge), blocks == k)
            for k in range(1, _LEAK_FOLDS)
        ],
    }
    return [
        LeakRow(horizon_min=horizon_min, way=way, **_accuracy_and_auc(rows, is_up, folds=folds))
        for way, folds in ways.items()
    ]


def _next_month(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)


def _away_from(is_test: npt.NDArray[np.bool_], n_rows: int) -> npt.NDArray[np.bool_]:
    """Return which rows lie at least this many rows away from every test row."""
    first, last = np.flatnonzero(is_test)[[0, -1]]
    position = np.arange(is_test.size)
    return (position < first - n_rows) | (position > last + n_rows)


def _accuracy_and_auc(
    rows: npt.NDArray[np.float64],
    is_up: npt.NDArray[np.bool_],
    *,
    folds: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]],
) -> dict[str, float]:
    probability, outcome = [], []
    for learns, is_test in folds:
        fitted = lgb.Dataset(rows[learns], label=is_up[learns].astype(float))
        model = lgb.train(dict(_LEAK_PARAMETERS), fitted, num_boost_round=_LEAK_TREES)
        probability.append(np.asarray(model.predict(rows[is_test])))
        outcome.append(np.where(is_up[is_test], 1, -1))
    p, direction = np.concatenate(probability), np.concatenate(outcome)
    return {
        "accuracy": float(((p >= 0.5) == (direction == 1)).mean()),
        "auc": rank_auc(p, direction),
    }


if __name__ == "__main__":
    typer.run(main)
