from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from btc_lifecycle.domain.learn.evaluation import TradingRule, as_metrics
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.walk import walk
from btc_lifecycle_tests.domain.learn.test_walk import RECIPE, make_examples, volatility_examples

EXAMPLES = {"direction": make_examples(1440), "volatility": volatility_examples().head(1440)}
each = pytest.mark.parametrize("head", [DIRECTION_HEAD, VOLATILITY_HEAD], ids=lambda h: h.name)


@each
def test_a_perfect_prediction_loses_nothing_and_a_wrong_one_much(head: Head):
    examples = EXAMPLES[head.name]
    outcome = examples[head.target.column].to_numpy()
    perfect = (outcome == 1).astype(float) if head is DIRECTION_HEAD else outcome
    assert head.losses(perfect, examples) == pytest.approx(np.zeros(examples.height), abs=1e-9)
    wrong = 1.0 - perfect if head is DIRECTION_HEAD else perfect + 2.0
    assert (head.losses(wrong, examples) > 3.9).all()


@each
def test_baselines_come_back_from_their_numbers_as_they_were(head: Head):
    examples = EXAMPLES[head.name]
    fitted = head.fit_baselines(
        examples, feature_names=RECIPE.feature_names, horizon_min=5, weights=None
    )
    read_back = head.read_baselines(json.loads(json.dumps(fitted.to_json())))
    before, after = fitted.predict(examples), read_back.predict(examples)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@each
def test_what_is_scored_has_the_score_that_a_candidate_must_have(head: Head):
    walked = walk(EXAMPLES[head.name], recipe=replace(RECIPE, head=head))
    rule = TradingRule(min_edge=0.02, taker_cost_bp=5.0)
    metrics = as_metrics(head.score(walked.predicted, rule=rule, rng=np.random.default_rng(0)))
    losses = head.losses(walked.predicted["model"].to_numpy(), walked.predicted)
    assert metrics[head.score_to_have] == pytest.approx(losses.mean())


def test_weights_reach_the_baselines_of_the_direction():
    examples = EXAMPLES["direction"]
    rises = (examples["direction"] == 1).to_numpy().astype(float)
    fitted = DIRECTION_HEAD.fit_baselines(
        examples, feature_names=RECIPE.feature_names, horizon_min=5, weights=0.1 + rises
    )
    assert fitted.predict(examples)["prior"][0] == pytest.approx(
        1.1 * rises.mean() / (0.1 + rises.mean())
    )
