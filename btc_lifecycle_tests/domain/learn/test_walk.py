from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from btc_lifecycle.domain.learn.evaluation import TradingRule, mean_interval, rank_auc, utc_days
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD
from btc_lifecycle.domain.learn.splits import SplitPolicy, cut, walk_forward
from btc_lifecycle.domain.learn.training import TrainingParameters, predict, train
from btc_lifecycle.domain.learn.walk import Recipe, walk

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAMES = (
    "log_return_5m",
    "realized_volatility_15m",
    "realized_volatility_60m",
    "realized_volatility_240m",
)
SPLIT = SplitPolicy(validation_fraction=0.25, test_fraction=0.5, n_folds=3, min_rows=100)
RECIPE = Recipe(
    head=DIRECTION_HEAD,
    feature_names=NAMES,
    horizon_min=5,
    split=SPLIT,
    parameters=TrainingParameters(
        num_boost_round=30,
        early_stopping_rounds=10,
        learning_rate=0.1,
        num_leaves=4,
        min_data_in_leaf=40,
        seed=7,
    ),
)


def make_examples(n: int = 5 * 1440, *, seed: int = 0) -> pl.DataFrame:
    """Return examples of five days whose direction turns against the last return in two of three."""
    rng = np.random.default_rng(seed)
    volatility = 5e-4 * np.exp(rng.normal(scale=0.3, size=(n, 3)))
    last = rng.normal(scale=1e-3, size=n)
    direction = np.where((last < 0.0) == (rng.random(n) < 2 / 3), 1, -1)
    size = np.abs(rng.normal(scale=1e-3, size=n))
    open_time = pl.datetime_range(START, START + (n - 1) * MINUTE, "1m", eager=True)
    return pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * n,
            "open_time": open_time,
            "matures_at": open_time + 6 * MINUTE,
            "direction": direction,
            "forward_log_return": direction * size,
            "delayed_log_return": direction * size * 0.9,
            NAMES[0]: last,
            **{name: volatility[:, i] for i, name in enumerate(NAMES[1:])},
        }
    )


def volatility_examples() -> pl.DataFrame:
    outcome = pl.col("realized_volatility_60m").log() + 0.5 * (pl.col("log_return_5m") > 0)
    return (
        make_examples()
        .drop("direction", "forward_log_return", "delayed_log_return")
        .with_columns(forward_log_volatility=outcome)
    )


@pytest.fixture(scope="module")
def examples() -> pl.DataFrame:
    return make_examples()


@pytest.fixture(scope="module")
def walked(examples):
    return walk(examples, recipe=RECIPE)


def test_every_test_row_is_predicted_once_by_every_rival(examples, walked):
    folds = walk_forward(examples, policy=SPLIT)
    tests = examples.filter(pl.col("open_time") >= folds[0].test_start)
    assert walked.predicted["open_time"].equals(tests["open_time"])
    assert walked.predicted.columns == [
        *examples.columns[:6],
        "model",
        "prior",
        "contrarian",
        "logistic",
        "fold",
    ]
    assert walked.predicted.null_count().sum_horizontal().item() == 0
    starts = walked.predicted.group_by("fold").agg(pl.col("open_time").min()).sort("fold")
    assert starts["fold"].to_list() == [1, 2, 3]
    assert starts["open_time"].to_list() == [fold.test_start for fold in folds]


def test_each_fold_is_predicted_by_the_model_of_its_own_past(examples, walked):
    for fold in walk_forward(examples, policy=SPLIT):
        split = cut(examples, fold, policy=SPLIT)
        model = train(
            split,
            target=DIRECTION_HEAD.target,
            feature_names=NAMES,
            parameters=RECIPE.parameters,
        )
        expected = predict(
            model.booster, split.test, target=DIRECTION_HEAD.target, feature_names=NAMES
        )
        found = walked.predicted.filter(fold=fold.number)
        assert np.array_equal(found["model"].to_numpy(), expected)
        prior = (split.train["direction"] == 1).mean()
        assert found["prior"].unique().to_list() == [prior]


def test_the_newest_fold_s_model_baselines_and_parts_are_kept(examples, walked):
    newest = walk_forward(examples, policy=SPLIT)[-1]
    split = cut(examples, newest, policy=SPLIT)
    assert walked.split.test.equals(split.test)
    assert walked.model.trained_until == split.validation["matures_at"].max()
    assert walked.model.trained_until <= newest.test_start
    kept = walked.baselines.predict(split.test)
    of_newest = walked.predicted.filter(fold=3)
    assert all(np.array_equal(of_newest[name].to_numpy(), kept[name]) for name in kept)


def test_folds_at_the_same_time_come_to_the_same(examples, walked):
    together = walk(examples, recipe=RECIPE, n_workers=3)
    assert together.predicted.equals(walked.predicted)
    text = walked.model.booster.model_to_string()
    assert together.model.booster.model_to_string() == text


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_what_happens_from_a_fold_s_test_on_changes_no_prediction_before_it(examples, walked, fold):
    """Outcomes that are known later, and features of later rows, may be anything."""
    start = walk_forward(examples, policy=SPLIT)[fold - 1].test_start
    is_later = pl.col("open_time") >= start
    is_known_later = pl.col("matures_at") > start
    poisoned = examples.with_columns(
        direction=pl.when(is_known_later).then(-pl.col("direction")).otherwise("direction"),
        log_return_5m=pl.when(is_later).then(-9.0).otherwise("log_return_5m"),
    )
    earlier = pl.col("fold") < fold
    again = walk(poisoned, recipe=RECIPE).predicted.filter(earlier)
    names = ["open_time", "model", "prior", "contrarian", "logistic"]
    assert again.select(names).equals(walked.predicted.filter(earlier).select(names))


def test_a_planted_edge_is_found_by_all_that_can(walked):
    direction = walked.predicted["direction"].to_numpy()
    aucs = {
        name: rank_auc(walked.predicted[name].to_numpy(), direction)
        for name in ("model", "contrarian", "logistic")
    }
    assert min(aucs.values()) > 0.6
    assert max(aucs.values()) < 0.72


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", ["permuted", "shifted"])
def test_labels_that_are_not_the_rows_own_leave_chance(how, seed):
    """3,600 test rows: one standard deviation of a chance AUC is 0.01."""
    examples = make_examples(seed=seed)
    direction = examples["direction"]
    foreign = (
        direction.sample(fraction=1.0, shuffle=True, seed=seed)
        if how == "permuted"
        else pl.concat([direction[2 * 1440 :], direction[: 2 * 1440]])
    )
    predicted = walk(examples.with_columns(direction=foreign), recipe=RECIPE).predicted
    auc = rank_auc(predicted["model"].to_numpy(), predicted["direction"].to_numpy())
    assert auc == pytest.approx(0.5, abs=0.04)


def test_weights_reach_the_trees(examples, walked):
    weighed = replace(RECIPE, weigh=lambda rows: np.linspace(0.0, 1.0, rows.height))
    again = walk(examples, recipe=weighed).predicted
    assert not again["model"].equals(walked.predicted["model"])


def test_the_scores_of_a_walk_are_those_of_its_head(walked):
    scores = DIRECTION_HEAD.score(
        walked.predicted,
        rule=TradingRule(min_edge=0.02, taker_cost_bp=5.0),
        rng=np.random.default_rng(0),
    )
    losses = {
        rival: DIRECTION_HEAD.losses(walked.predicted[rival].to_numpy(), walked.predicted)
        for rival in ("model", "prior")
    }
    pooled = scores.filter(pl.col("fold").is_null(), delay_min=0)
    gain = pooled.filter(rival="prior", score="log_loss_gain").row(0, named=True)
    assert gain["value"] == pytest.approx((losses["prior"] - losses["model"]).mean())
    day = utc_days(walked.predicted["open_time"])
    low, high = mean_interval(losses["prior"] - losses["model"], day, rng=np.random.default_rng(0))
    assert (gain["low"], gain["high"]) == pytest.approx((low, high), abs=0.01)


class TestVolatility:
    def test_the_other_head_walks_the_same_way(self):
        examples = volatility_examples()
        walked = walk(examples, recipe=replace(RECIPE, head=VOLATILITY_HEAD, horizon_min=60))
        assert walked.predicted.columns == [
            "symbol",
            "open_time",
            "matures_at",
            "forward_log_volatility",
            "model",
            "har",
            "last_value",
            "fold",
        ]
        losses = {
            rival: VOLATILITY_HEAD.losses(walked.predicted[rival].to_numpy(), walked.predicted)
            for rival in ("model", "har", "last_value")
        }
        # Only trees see the sign of the last return, which makes up for half of the level.
        assert losses["model"].mean() < 0.1 * losses["har"].mean()
        assert losses["har"].mean() < losses["last_value"].mean()
