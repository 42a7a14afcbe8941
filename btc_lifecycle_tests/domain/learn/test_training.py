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
from btc_lifecycle.domain.learn.evaluation import score
from btc_lifecycle.domain.learn.splits import Split, SplitPolicy, split_by_time
from btc_lifecycle.domain.learn.training import (
    TrainingParameters,
    predict_up,
    train,
    varying_features,
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
    policy = SplitPolicy(validation_fraction=0.2, test_fraction=0.3, min_rows=10)
    return split_by_time(examples, policy=policy)


def auc_on_test(split: Split) -> float:
    model = train(split, feature_names=NAMES, parameters=PARAMETERS)
    probability_up = predict_up(model.booster, split.test, feature_names=NAMES)
    return score(probability_up, split.test["direction"].to_numpy()).auc


def with_rises(examples: pl.DataFrame, n: int) -> pl.DataFrame:
    is_rise = pl.int_range(pl.len()) < n
    direction = pl.when(is_rise).then(1).otherwise(-1).cast(pl.Int64)
    return examples.with_columns(direction=direction)


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


@pytest.fixture(scope="module")
def model(split):
    return train(split, feature_names=NAMES, parameters=PARAMETERS)


def test_a_planted_signal_is_found(split):
    # Two rows of three follow their signal: the best possible AUC is 2/3.
    assert auc_on_test(split) == pytest.approx(2 / 3, abs=0.06)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_permuted_labels_leave_nothing_to_find(seed):
    # 600 test rows: one standard deviation of a chance AUC is 0.024.
    assert auc_on_test(make_split(seed=seed, permuted=True)) == pytest.approx(0.5, abs=0.1)


def test_the_same_inputs_give_the_same_model_with_any_number_of_threads(split, model):
    again = train(split, feature_names=NAMES, parameters=PARAMETERS, n_threads=2)
    assert _trees(again.booster) == _trees(model.booster)


def _trees(booster: lgb.Booster) -> str:
    """Return the model's text without its parameters, among which the threads are."""
    return booster.model_to_string().partition("end of trees")[0]


def test_another_seed_draws_other_rows_and_features(split, model):
    other = train(split, feature_names=NAMES, parameters=replace(PARAMETERS, seed=8))
    assert _trees(other.booster) != _trees(model.booster)


def test_training_never_looks_at_the_test_part(split, model):
    spoilt = replace(split, test=split.test.head(0))
    again = train(spoilt, feature_names=NAMES, parameters=PARAMETERS)
    assert _trees(again.booster) == _trees(model.booster)
    assert again.trained_until == model.trained_until


def test_the_model_says_what_it_was_trained_on(split, model):
    assert model.feature_names == NAMES
    assert (model.n_train, model.n_validation) == (split.train.height, split.validation.height)
    assert model.prior_up == (split.train["direction"] == 1).mean()
    assert model.trained_from == START
    assert model.trained_until == split.validation["matures_at"].max()
    assert model.trained_until <= split.test["open_time"].min()


def test_validation_picks_the_number_of_trees(split, model):
    def validation_loss(n_trees: int) -> float:
        p = model.booster.predict(split.validation.select(NAMES).to_numpy(), num_iteration=n_trees)
        return score(p, split.validation["direction"].to_numpy()).log_loss

    assert 1 < model.best_iteration < PARAMETERS.num_boost_round
    losses = [validation_loss(i) for i in range(1, model.best_iteration + 10)]
    assert 1 + int(np.argmin(losses)) == model.best_iteration
    chosen = score(
        predict_up(model.booster, split.validation, feature_names=NAMES),
        split.validation["direction"].to_numpy(),
    )
    assert chosen.log_loss == pytest.approx(min(losses))


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
    changed = train(split, feature_names=NAMES, parameters=replace(PARAMETERS, **{name: value}))
    assert changed.booster.model_to_string() != model.booster.model_to_string()


def test_no_leaf_holds_fewer_rows_or_trees_more_leaves_than_allowed(model):
    trees = model.booster.trees_to_dataframe()
    leaves = trees[trees["split_feature"].isna()]
    assert leaves["count"].min() >= PARAMETERS.min_data_in_leaf
    assert leaves.groupby("tree_index").size().max() <= PARAMETERS.num_leaves


def test_a_model_read_back_from_its_text_predicts_the_same(split, model):
    read_back = lgb.Booster(model_str=model.booster.model_to_string())
    assert np.array_equal(
        predict_up(read_back, split.test, feature_names=NAMES),
        predict_up(model.booster, split.test, feature_names=NAMES),
    )


def test_frames_are_read_by_name_and_arrays_by_position(split, model):
    in_other_order = split.test.select(reversed(split.test.columns))
    as_array = split.test.select(NAMES).to_numpy()
    expected = predict_up(model.booster, split.test, feature_names=NAMES)
    assert expected.shape == (split.test.height,)
    assert ((expected > 0.0) & (expected < 1.0)).all()
    assert np.array_equal(predict_up(model.booster, in_other_order, feature_names=NAMES), expected)
    assert np.array_equal(predict_up(model.booster, as_array, feature_names=NAMES), expected)


def test_a_row_s_prediction_does_not_depend_on_its_neighbours(split, model):
    together = predict_up(model.booster, split.test, feature_names=NAMES)
    alone = predict_up(model.booster, split.test[17], feature_names=NAMES)
    assert alone.tolist() == [together[17]]


def test_features_in_another_order_than_the_model_s_are_refused(split, model):
    with pytest.raises(DataError, match="takes signal, noise, more_noise; it was given noise, sig"):
        predict_up(model.booster, split.test, feature_names=("noise", "signal", "more_noise"))


@pytest.mark.parametrize("shape", [(3,), (1, 2), (1, 4)])
def test_rows_of_another_width_are_refused(model, shape):
    with pytest.raises(DataError, match=r"rows of shape .* for 3 features"):
        predict_up(model.booster, np.zeros(shape), feature_names=NAMES)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_values_that_are_missing_or_infinite_are_refused(split, model, value):
    is_broken = pl.int_range(pl.len()) == 1
    broken = split.test.with_columns(
        noise=pl.when(is_broken).then(pl.lit(value, pl.Float64)).otherwise(pl.col("noise"))
    )
    with pytest.raises(DataError, match="noise of row 1 is missing or infinite"):
        predict_up(model.booster, broken, feature_names=NAMES)


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


@pytest.mark.parametrize("n_rises", [0, 20, 980, 1_000])
def test_a_direction_that_is_missing_or_rare_is_refused(split, n_rises):
    train_part = with_rises(split.train, n_rises)
    with pytest.raises(DataError, match=r"% of 985 training rows are rises; each direction needs"):
        train(replace(split, train=train_part), feature_names=NAMES, parameters=PARAMETERS)


@pytest.mark.parametrize("n_rises", [49, 931])
def test_a_direction_of_one_twentieth_is_enough_to_train_on(split, n_rises):
    enough = replace(split, train=with_rises(split.train.head(980), n_rises))
    assert train(enough, feature_names=NAMES, parameters=PARAMETERS).n_train == 980


@pytest.mark.parametrize("n_rises", [0, 400])
def test_a_validation_part_that_went_one_way_is_refused(split, n_rises):
    validation = with_rises(split.validation, n_rises)
    with pytest.raises(DataError, match="of 385 validation rows are rises"):
        train(replace(split, validation=validation), feature_names=NAMES, parameters=PARAMETERS)


def test_rows_that_cannot_fill_two_leaves_are_refused(split):
    few = replace(split, train=split.train.head(159))
    with pytest.raises(DataError, match="159 rows to train on, 160 wanted for two leaves of 40"):
        train(few, feature_names=NAMES, parameters=PARAMETERS)


def test_constant_features_are_refused_by_name(split):
    constant = replace(split, train=split.train.with_columns(noise=pl.lit(-1.0)))
    assert varying_features(constant.train, feature_names=NAMES) == ("signal", "more_noise")
    with pytest.raises(DataError, match="constant in all 985 training rows: noise; leave these"):
        train(constant, feature_names=NAMES, parameters=PARAMETERS)
