from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.promotion import decide

DIRECTION = np.tile([1, -1], 50)


def sure(share: float) -> np.ndarray:
    """Return probabilities that give what happened this share on every row."""
    return np.where(DIRECTION == 1, share, 1.0 - share)


def verdict(candidate: float, champion: float | None, /, **changes):
    arguments = {
        "candidate": sure(candidate),
        "champion": None if champion is None else sure(champion),
        "prior_up": 0.5,
        "direction": DIRECTION,
        "champion_version": None if champion is None else "3",
        "min_rows": 100,
    }
    return decide(**(arguments | changes))


@pytest.mark.parametrize(
    ("candidate", "champion", "promote", "reason"),
    [
        (
            0.55,
            0.52,
            True,
            "log-loss 0.59784 on 100 unseen rows beats the prior's 0.69315 and champion 3's 0.65393",
        ),
        (0.55, None, True, "log-loss 0.59784 on 100 unseen rows beats the prior's 0.69315"),
        (
            0.52,
            0.55,
            False,
            "log-loss 0.65393 on 100 unseen rows does not beat champion 3's 0.59784",
        ),
        (
            0.48,
            0.45,
            False,
            "log-loss 0.73397 on 100 unseen rows does not beat the prior's 0.69315",
        ),
        (
            0.45,
            0.48,
            False,
            (
                "log-loss 0.79851 on 100 unseen rows does not beat the prior's 0.69315 "
                "and champion 3's 0.73397"
            ),
        ),
        (0.5, None, False, "log-loss 0.69315 on 100 unseen rows does not beat the prior's 0.69315"),
        (
            0.55,
            0.55,
            False,
            "log-loss 0.59784 on 100 unseen rows does not beat champion 3's 0.59784",
        ),
    ],
)
def test_the_verdict_says_the_figures_it_rests_on(candidate, champion, promote, reason):
    decision = verdict(candidate, champion)
    assert (decision.promote, decision.reason) == (promote, reason)


def test_rows_too_few_for_a_fair_comparison_defer_the_promotion():
    decision = verdict(0.9, 0.5, min_rows=101)
    assert not decision.promote
    assert decision.reason == (
        "deferred: 100 unseen rows of 101 wanted to judge by, champion 3 stays"
    )


def test_the_first_champion_needs_as_many_rows_as_a_later_one():
    """One unseen row that came out right was enough to become the first champion."""
    assert verdict(0.9, None, min_rows=100).promote
    one_row = {"candidate": np.array([0.9]), "direction": np.array([1])}
    for changes in ({"min_rows": 101}, one_row):
        assert not verdict(0.9, None, **changes).promote
    reason = verdict(0.9, None, **one_row).reason
    assert reason == "deferred: 1 unseen rows of 100 wanted to judge by"


def test_no_rows_never_unseat_a_champion_even_where_none_are_wanted():
    empty = np.array([])
    decision = verdict(
        0.9, 0.5, candidate=empty, champion=empty, direction=empty.astype(np.int64), min_rows=0
    )
    assert decision.reason.startswith("deferred: 0 unseen rows of 1 wanted")


shares = st.floats(0.01, 0.99)


@settings(max_examples=60, deadline=None)
@given(candidate=shares, champion=st.none() | shares, better_by=st.floats(0.0, 0.5))
def test_a_better_candidate_is_never_refused_where_a_worse_one_is_promoted(
    candidate, champion, better_by
):
    better = min(candidate + better_by, 0.99)
    assert verdict(better, champion).promote >= verdict(candidate, champion).promote


@settings(max_examples=60, deadline=None)
@given(
    candidate=shares, champion=shares, better_by=st.floats(0.0, 0.5), min_rows=st.integers(0, 200)
)
def test_a_better_champion_or_a_stricter_gate_never_promotes_more(
    candidate, champion, better_by, min_rows
):
    decision = verdict(candidate, champion, min_rows=100)
    stronger = min(champion + better_by, 0.99)
    assert verdict(candidate, stronger).promote <= decision.promote
    assert verdict(candidate, champion, min_rows=max(min_rows, 100)).promote <= decision.promote
    assert decision.promote <= verdict(candidate, None).promote


def test_one_row_of_false_certainty_outweighs_many_small_gains():
    candidate = sure(0.55)
    candidate[0] = 0.0
    assert not verdict(0.55, None, candidate=candidate).promote


def test_the_prior_is_the_share_of_rises_in_training():
    only_rises = np.ones(100, dtype=np.int64)
    candidate = np.full(100, 0.6)
    assert verdict(0.5, None, candidate=candidate, direction=only_rises, prior_up=0.55).promote
    assert not verdict(0.5, None, candidate=candidate, direction=only_rises, prior_up=0.65).promote


@pytest.mark.parametrize("champion", [np.full(99, 0.5), np.full(100, np.nan)])
def test_probabilities_that_cannot_be_compared_are_refused(champion):
    with pytest.raises(DataError, match="probabilities"):
        verdict(0.55, 0.5, champion=champion)
