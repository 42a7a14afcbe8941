from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.promotion import Losses, PromotionPolicy, Verdict, decide

N_DAYS, ROWS_A_DAY = 8, 50
DAY = np.repeat(np.arange(N_DAYS), ROWS_A_DAY)
POLICY = PromotionPolicy(min_rows=100, min_days=2, min_confidence=0.5, max_loss_increase=0.001)
NOISE = np.random.default_rng(3).normal(scale=0.02, size=DAY.size)
PRIOR = np.full(DAY.size, 0.6931)


def better(than: np.ndarray, by: float) -> np.ndarray:
    """Return losses that are lower by this on each day's mean, and vary otherwise."""
    wanted = NOISE - np.repeat(NOISE.reshape(N_DAYS, -1).mean(axis=1), ROWS_A_DAY)
    return than - by + wanted


CANDIDATE = better(PRIOR, 0.002)


def verdict(**changes) -> Verdict:
    """Return the verdict on a candidate that beats its baselines, with no champion."""
    policy = changes.pop("policy", POLICY)
    arguments = {
        "candidate": CANDIDATE,
        "baselines": {"prior": PRIOR, "logistic": better(PRIOR, 0.001)},
        "champion": None,
        "day": DAY,
    }
    losses = Losses(**(arguments | changes))
    version = None if losses.champion is None else "3"
    return decide(losses, policy=policy, champion_version=version, rng=np.random.default_rng(0))


def test_the_first_candidate_that_beats_every_baseline_is_promoted():
    decision = verdict()
    assert decision.outcome == "promoted"
    assert decision.reason == (
        "mean loss 0.69110 on 400 unseen rows of 8 days beats prior by +0.00200 (in 100% of "
        "resamples), logistic by +0.00100 (in 100% of resamples)"
    )


@pytest.mark.parametrize("unbeaten", ["prior", "logistic"])
def test_one_baseline_that_is_as_good_is_enough_to_refuse(unbeaten):
    baselines = {"prior": PRIOR, "logistic": PRIOR, unbeaten: CANDIDATE}
    decision = verdict(baselines=baselines)
    assert decision.outcome == "refused"
    assert f"does not beat {unbeaten} by +0.00000" in decision.reason


def test_a_gain_of_one_day_does_not_convince_where_confidence_is_wanted():
    """Better on one day of eight by far and worse on the others: the mean alone would promote."""
    lucky = PRIOR + 0.001 - 0.02 * (DAY == 5)
    assert verdict(candidate=lucky, baselines={"prior": PRIOR}).outcome == "promoted"
    strict = replace(POLICY, min_confidence=0.9)
    decision = verdict(candidate=lucky, baselines={"prior": PRIOR}, policy=strict)
    assert decision.outcome == "refused"
    assert verdict(policy=strict).outcome == "promoted"


@pytest.mark.parametrize(
    ("by", "outcome"),
    [(0.001, "promoted"), (0.0, "promoted"), (-0.0006, "promoted"), (-0.0008, "refused")],
)
def test_the_champion_stays_where_the_candidate_is_worse_beyond_the_margin(by, outcome):
    # The margin is 0.1 % of the champion's loss, so 0.0007 here.
    champion = better(CANDIDATE, -by)
    decision = verdict(champion=champion)
    assert decision.outcome == outcome
    assert f"champion 3 by {by:+.5f} (with 95 % above" in decision.reason
    assert decision.reason.endswith("champion 3 stays") == (outcome == "refused")


def test_a_champion_that_is_better_on_some_days_only_leaves_doubt_and_stays():
    """Equal in the mean, but by luck: the bound says that the candidate may be worse."""
    sways = np.where(DAY % 2 == 0, 0.01, -0.01)
    decision = verdict(champion=CANDIDATE + sways)
    assert decision.outcome == "refused"
    assert "a margin of -0.00069 is wanted; champion 3 stays" in decision.reason
    wide = replace(POLICY, max_loss_increase=0.05)
    assert verdict(champion=CANDIDATE + sways, policy=wide).outcome == "promoted"


def test_a_candidate_that_predicts_as_the_champion_does_not_take_its_place():
    decision = verdict(champion=CANDIDATE.copy())
    assert decision.outcome == "refused"
    assert decision.reason.endswith("is that of champion 3; champion 3 stays")


@pytest.mark.parametrize(
    "policy", [replace(POLICY, min_rows=401), replace(POLICY, min_days=9)], ids=["rows", "days"]
)
@pytest.mark.parametrize("champion", [None, PRIOR], ids=["first", "second"])
def test_too_few_rows_or_days_defer_the_promotion(policy, champion):
    decision = verdict(policy=policy, champion=champion)
    assert decision.outcome == "deferred"
    assert decision.reason.startswith("400 unseen rows of 8 days to judge by, ")
    assert decision.reason.endswith("champion 3 stays") == (champion is not None)


def test_as_many_rows_and_days_as_wanted_are_enough():
    assert verdict(policy=replace(POLICY, min_rows=400, min_days=8)).outcome == "promoted"


def test_no_rows_never_unseat_a_champion():
    empty = np.array([])
    decision = verdict(
        candidate=empty, baselines={"prior": empty}, champion=empty, day=empty.astype(np.int64)
    )
    assert decision.outcome == "deferred"


def test_one_row_of_false_certainty_outweighs_many_small_gains():
    candidate = CANDIDATE.copy()
    candidate[0] = 34.5
    assert verdict(candidate=candidate).outcome == "refused"


def test_losses_of_squared_errors_are_judged_alike():
    champion = better(np.full(DAY.size, 0.25), 0.0)
    worse = verdict(
        candidate=champion + 0.01, baselines={"har": champion + 0.02}, champion=champion
    )
    assert worse.outcome == "refused"


@settings(max_examples=40, deadline=None)
@given(
    by=st.floats(-0.01, 0.01),
    over_champion=st.floats(-0.01, 0.01),
    more=st.floats(0.0, 0.01),
)
def test_a_better_candidate_is_never_refused_where_a_worse_one_is_promoted(by, over_champion, more):
    candidate = better(PRIOR, by)
    champion = better(candidate, -over_champion)
    if verdict(candidate=candidate, champion=champion).outcome == "promoted":
        assert verdict(candidate=candidate - more, champion=champion).outcome == "promoted"


@settings(max_examples=40, deadline=None)
@given(
    by=st.floats(-0.01, 0.01),
    confidence=st.floats(0.5, 0.99),
    increase=st.floats(0.0, 0.1),
)
def test_a_stricter_gate_never_promotes_more(by, confidence, increase):
    champion = better(CANDIDATE, -by)
    strict = PromotionPolicy(
        min_rows=200, min_days=3, min_confidence=confidence, max_loss_increase=increase
    )
    loose = PromotionPolicy(
        min_rows=100, min_days=2, min_confidence=0.5, max_loss_increase=increase + 0.01
    )
    if verdict(champion=champion, policy=strict).outcome == "promoted":
        assert verdict(champion=champion, policy=loose).outcome == "promoted"


@pytest.mark.parametrize(
    "changes",
    [
        {"champion": PRIOR[:-1]},
        {"baselines": {"prior": PRIOR[:-1]}},
        {"day": DAY[:-1]},
    ],
)
def test_losses_of_other_rows_are_refused(changes):
    with pytest.raises(DataError, match="not of the same rows"):
        verdict(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_rows", 0),
        ("min_days", 1),
        ("min_confidence", 0.49),
        ("min_confidence", 1.0),
        ("max_loss_increase", -0.1),
        ("max_loss_increase", 1.0),
        ("max_loss_increase", float("nan")),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(POLICY, **{name: value})
