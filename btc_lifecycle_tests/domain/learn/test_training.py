from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import log_losses, rank_auc
from btc_lifecycle.domain.learn.splits import Split, SplitPolicy, cut, walk_forward
from btc_lifecycle.domain.learn.training import (
    DIRECTION,
    VOLATILITY,
    TrainingParameters,
    contributions,
    predict,
    train,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("signal", "noise", "more_noise")
PARAMETERS = TrainingParameters(
    num_boost_round=60,
    early_stopping_rounds=10,
    learning_rate=0.1,
    num_leaves=4,
    min_data_in_leaf=40,
    seed=7,
)


def make_split(n: int = 2_000, *, seed: int = 0, permuted: bool = False) -> Split:
    """Return examples whose direction follows their signal two times in three, or not at all."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, len(NAMES)))
    follows = rng.random(n) < 2 / 3
    direction = np.where((values[:, 0] > 0.0) == follows, 1, -1)
    open_time = pl.datetime_range(
        START, START + timedelta(minutes=n - 1), "1m", time_unit="us", eager=True
    )
    examples = pl.DataFrame(
        {
            "open_time": open_time,
            "matures_at": open_time + timedelta(minutes=16),
            "direction": rng.permutation(direction) if permuted else direction,
            **{name: values[:, i] for i, name in enumerate(NAMES)},
        }
    )
    policy = SplitPolicy(validation_fraction=0.2779, test_fraction=0.3, n_folds=1, min_rows=10)
    (fold,) = walk_forward(examples, policy=policy)
    return cut(examples, fold, policy=policy)


def auc_on_test(split: Split) -> float:
    model = train(split, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)
    probability_up = predict(model.booster, split.test, target=DIRECTION, feature_names=NAMES)
    return rank_auc(probability_up, split.test["direction"].to_numpy())


def with_rises(examples: pl.DataFrame, n: int) -> pl.DataFrame:
    is_rise = pl.int_range(pl.len()) < n
    direction = pl.when(is_rise).then(1).otherwise(-1).cast(pl.Int64)
    return examples.with_columns(direction=direction)


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


@pytest.fixture(scope="module")
def model(split):
    return train(split, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)


def test_a_planted_signal_is_found(split):
    # Two rows of three follow their signal: the best possible AUC is 2/3.
    assert auc_on_test(split) == pytest.approx(2 / 3, abs=0.06)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_permuted_labels_leave_nothing_to_find(seed):
    # 600 test rows: one standard deviation of a chance AUC is 0.024.
    assert auc_on_test(make_split(seed=seed, permuted=True)) == pytest.approx(0.5, abs=0.1)


def test_the_same_inputs_give_the_same_text(split, model):
    again = train(split, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)
    assert again.booster.model_to_string() == model.booster.model_to_string()


def _trees(booster: lgb.Booster) -> str:
    """Return the model's text without its parameters, among which the seed is."""
    return booster.model_to_string().partition("end of trees")[0]


def test_another_seed_draws_other_rows_and_features(split, model):
    other = train(
        split, target=DIRECTION, feature_names=NAMES, parameters=replace(PARAMETERS, seed=8)
    )
    assert _trees(other.booster) != _trees(model.booster)


def test_training_never_looks_at_the_test_part(split, model):
    spoilt = replace(split, test=split.test.head(0))
    again = train(spoilt, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)
    assert _trees(again.booster) == _trees(model.booster)
    assert again.trained_until == model.trained_until


def test_the_model_says_what_it_was_trained_on(split, model):
    assert model.feature_names == NAMES
    assert (model.n_train, model.n_validation) == (split.train.height, split.validation.height)
    assert model.trained_from == START
    assert model.trained_until == split.validation["matures_at"].max()
    assert model.trained_until <= split.test["open_time"].min()


def test_validation_picks_the_number_of_trees(split, model):
    direction = split.validation["direction"].to_numpy()

    def validation_loss(n_trees: int) -> float:
        p = model.booster.predict(split.validation.select(NAMES).to_numpy(), num_iteration=n_trees)
        return float(log_losses(p, direction).mean())

    assert 1 < model.best_iteration < PARAMETERS.num_boost_round
    losses = [validation_loss(i) for i in range(1, model.best_iteration + 10)]
    assert 1 + int(np.argmin(losses)) == model.best_iteration
    chosen = predict(model.booster, split.validation, target=DIRECTION, feature_names=NAMES)
    assert log_losses(chosen, direction).mean() == pytest.approx(min(losses))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_boost_round", 3),
        ("learning_rate", 0.05),
        ("num_leaves", 2),
        ("min_data_in_leaf", 200),
        ("early_stopping_rounds", 1),
    ],
)
def test_every_parameter_reaches_the_trees(split, model, name, value):
    changed = train(
        split,
        target=DIRECTION,
        feature_names=NAMES,
        parameters=replace(PARAMETERS, **{name: value}),
    )
    assert changed.booster.model_to_string() != model.booster.model_to_string()


def test_no_leaf_holds_fewer_rows_or_trees_more_leaves_than_allowed(model):
    trees = model.booster.trees_to_dataframe()
    leaves = trees[trees["split_feature"].isna()]
    assert leaves["count"].min() >= PARAMETERS.min_data_in_leaf
    assert leaves.groupby("tree_index").size().max() <= PARAMETERS.num_leaves


def test_a_model_read_back_from_its_text_predicts_the_same(split, model):
    read_back = lgb.Booster(model_str=model.booster.model_to_string())
    assert np.array_equal(
        predict(read_back, split.test, target=DIRECTION, feature_names=NAMES),
        predict(model.booster, split.test, target=DIRECTION, feature_names=NAMES),
    )


def test_frames_are_read_by_name_and_arrays_by_position(split, model):
    in_other_order = split.test.select(reversed(split.test.columns))
    as_array = split.test.select(NAMES).to_numpy()
    expected = predict(model.booster, split.test, target=DIRECTION, feature_names=NAMES)
    assert expected.shape == (split.test.height,)
    assert ((expected > 0.0) & (expected < 1.0)).all()
    assert np.array_equal(
        predict(model.booster, in_other_order, target=DIRECTION, feature_names=NAMES), expected
    )
    assert np.array_equal(
        predict(model.booster, as_array, target=DIRECTION, feature_names=NAMES), expected
    )


def test_a_row_s_prediction_does_not_depend_on_its_neighbours(split, model):
    together = predict(model.booster, split.test, target=DIRECTION, feature_names=NAMES)
    alone = predict(model.booster, split.test[17], target=DIRECTION, feature_names=NAMES)
    assert alone.tolist() == [together[17]]


def test_features_in_another_order_than_the_model_s_are_refused(split, model):
    with pytest.raises(DataError, match="takes signal, noise, more_noise; it was given noise, sig"):
        predict(
            model.booster,
            split.test,
            target=DIRECTION,
            feature_names=("noise", "signal", "more_noise"),
        )


@pytest.mark.parametrize("shape", [(3,), (1, 2), (1, 4)])
def test_rows_of_another_width_are_refused(model, shape):
    with pytest.raises(DataError, match=r"rows of shape .* for 3 features"):
        predict(model.booster, np.zeros(shape), target=DIRECTION, feature_names=NAMES)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_values_that_are_missing_or_infinite_are_refused(split, model, value):
    is_broken = pl.int_range(pl.len()) == 1
    broken = split.test.with_columns(
        noise=pl.when(is_broken).then(pl.lit(value, pl.Float64)).otherwise(pl.col("noise"))
    )
    with pytest.raises(DataError, match="noise of row 1 is missing or infinite"):
        predict(model.booster, broken, target=DIRECTION, feature_names=NAMES)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("num_boost_round", 0, "must be at least 1"),
        ("early_stopping_rounds", 0, "must be at least 1"),
        ("min_data_in_leaf", 0, "must be at least 1"),
        ("learning_rate", 0.0, "must be above 0 and at most 1"),
        ("learning_rate", 1.01, "must be above 0 and at most 1"),
        ("learning_rate", float("nan"), "must be above 0 and at most 1"),
        ("num_leaves", 1, "must be at least 2"),
    ],
)
def test_parameters_out_of_range_are_refused_where_settings_are_read(name, value, reason):
    document = asdict(PARAMETERS) | {name: value}
    with pytest.raises(ValidationError, match=f"{name}.* {reason}"):
        TypeAdapter(TrainingParameters).validate_python(document)


def test_parameters_at_the_ends_of_their_ranges_are_accepted():
    ends = {"num_boost_round": 1, "early_stopping_rounds": 1, "min_data_in_leaf": 1}
    replace(PARAMETERS, learning_rate=1.0, num_leaves=2, **ends)


def test_a_direction_that_is_rare_is_refused(split):
    one_way = replace(split, validation=with_rises(split.validation, 0))
    with pytest.raises(DataError, match="of 385 validation rows are rises"):
        train(one_way, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)


def test_rows_that_cannot_fill_two_leaves_are_refused(split):
    few = replace(split, train=split.train.head(159))
    with pytest.raises(DataError, match="159 rows to train on, 160 wanted for two leaves of 40"):
        train(few, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)


def test_constant_features_are_refused_by_name(split):
    constant = replace(split, train=split.train.with_columns(noise=pl.lit(-1.0)))
    with pytest.raises(DataError, match="constant in all 985 training rows: noise; look at"):
        train(constant, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS)


def test_rows_that_weigh_nothing_teach_nothing(split, model):
    """Half of the rows say the opposite; with no weight they might as well not be there."""
    n = split.train.height
    opposite = split.train.with_columns(-pl.col("direction"))
    doubled = replace(split, train=pl.concat([split.train, opposite]))

    first_half = (np.arange(2 * n) < n).astype(float)

    def auc(weights: np.ndarray | None) -> float:
        fitted = train(
            doubled, target=DIRECTION, feature_names=NAMES, parameters=PARAMETERS, weights=weights
        )
        p = predict(fitted.booster, split.test, target=DIRECTION, feature_names=NAMES)
        return rank_auc(p, split.test["direction"].to_numpy())

    assert auc(first_half) == pytest.approx(auc_on_test(split), abs=0.03)
    assert auc(None) == pytest.approx(0.5, abs=0.05)


def test_contributions_and_the_mean_sum_to_the_prediction(split, model):
    added = contributions(model.booster, split.test, feature_names=NAMES)
    assert added.shape == (split.test.height, len(NAMES))
    p = predict(model.booster, split.test, target=DIRECTION, feature_names=NAMES)
    rest = np.log(p / (1 - p)) - added.sum(axis=1)
    assert rest == pytest.approx(np.full(rest.shape, rest[0]), abs=1e-9)
    assert np.abs(added).mean(axis=0).argmax() == NAMES.index("signal")


class TestVolatility:
    """The other head: values around an anchor instead of directions."""

    names = ("signal", "realized_volatility_60m")

    def make_split(self, *, level: float = 1.0) -> Split:
        """Return a split whose volatility doubles with the signal, at another level in the test."""
        split = make_split()
        rng = np.random.default_rng(5)

        def spread(rows: pl.DataFrame, level: float) -> pl.DataFrame:
            last = 5e-4 * level * np.exp(rng.normal(scale=0.1, size=rows.height))
            rises = (rows["signal"] > 0.0).to_numpy()
            return rows.with_columns(
                pl.Series("realized_volatility_60m", last),
                pl.Series("forward_log_volatility", np.log(last) + np.log(2.0) * rises),
            )

        return Split(
            train=spread(split.train, 1.0),
            validation=spread(split.validation, 1.0),
            test=spread(split.test, level),
        )

    def test_a_level_far_from_training_is_followed(self):
        split = self.make_split(level=10.0)
        model = train(split, target=VOLATILITY, feature_names=self.names, parameters=PARAMETERS)
        predicted = predict(model.booster, split.test, target=VOLATILITY, feature_names=self.names)
        error = predicted - split.test["forward_log_volatility"].to_numpy()
        assert np.abs(error).mean() < 0.02

    def test_an_hour_without_a_move_has_a_finite_prediction(self):
        split = self.make_split()
        model = train(split, target=VOLATILITY, feature_names=self.names, parameters=PARAMETERS)
        still = np.array([[1.0, 0.0]])
        predicted = predict(model.booster, still, target=VOLATILITY, feature_names=self.names)
        assert np.isfinite(predicted).all()

    def test_its_anchor_cannot_be_left_out(self):
        with pytest.raises(DataError, match="not learnt without realized_volatility_60m; take it"):
            train(
                self.make_split(),
                target=VOLATILITY,
                feature_names=("signal", "noise"),
                parameters=PARAMETERS,
            )
