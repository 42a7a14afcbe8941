from __future__ import annotations

import polars as pl
import pytest

from btc_lifecycle.adapters.report_pdf.head_report import (
    AUC,
    LOG_LOSS_GAIN,
    NET_BP,
    Score,
    by_importance,
    facts_by_title,
    score_of,
    side_of,
    versions_of,
    with_group_names,
)
from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    direction,
    direction_scores,
    groups,
    importance,
    volatility,
)


@pytest.mark.parametrize(
    ("kind", "score", "written"),
    [
        (AUC, Score(value=0.53124, low=0.52, high=0.54, n_rows=9), "0.5312 [0.5200, 0.5400]"),
        (AUC, Score(value=0.53124, n_rows=9), "0.5312 (no interval)"),
        (AUC, Score(n_rows=9), "\N{EN DASH} (not defined)"),
        (NET_BP, Score(n_rows=9), "\N{EN DASH} (no trade)"),
        (NET_BP, Score(), "\N{EN DASH} (not scored)"),
        (LOG_LOSS_GAIN, Score(value=0.0019, low=-0.0002, high=0.004, n_rows=9),
         "+1.90 [\N{MINUS SIGN}0.20, +4.00]"),
    ],
)  # fmt: skip
def test_a_score_is_written_with_its_bounds_or_with_the_reason_that_it_has_none(
    kind, score: Score, written: str
):
    assert kind.cell(score) == written


def test_a_score_is_found_by_rival_delay_and_fold():
    # The order of rows must not matter: evaluation happens to put all folds first.
    scores = direction_scores().reverse()
    for fold, rival, delay_min in ((None, "model", 0), (2, "prior", 1), (3, "logistic", 0)):
        found = score_of(scores, AUC, rival=rival, delay_min=delay_min, fold=fold)
        is_fold = scores["fold"].is_null() if fold is None else scores["fold"] == fold
        row = scores.filter(is_fold, rival=rival, delay_min=delay_min, score="auc").row(
            0, named=True
        )
        assert found == Score(**{name: row[name] for name in ("value", "low", "high", "n_rows")})
    assert score_of(scores, AUC, rival="nobody") == Score()


def test_an_infinite_bound_bounds_nothing():
    scores = direction_scores().with_columns(low=float("-inf"), high=float("nan"))
    found = score_of(scores, AUC)
    assert (found.low, found.high) == (None, None)
    assert side_of(found) == "unknown"


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(0.51, 0.55, "above"), (0.5, 0.55, "around"), (0.4, 0.5, "around"), (0.4, 0.49, "below")],
)
def test_an_interval_that_touches_the_reference_is_around_it(low, high, side: str):
    assert side_of(Score(value=0.5, low=low, high=high), reference=0.5) == side


def test_facts_of_one_head_stand_under_its_title_and_empty_ones_nowhere():
    assert list(facts_by_title([direction()])) == ["Direction of the next 15 minutes"]
    assert facts_by_title([direction(facts={})]) == {}
    assert facts_by_title([direction(facts={"a": "1"}), volatility(facts={"a": "1"})]) == {
        "All heads": {"a": "1"}
    }


def test_versions_are_named_once():
    heads = [direction(version="not registered"), volatility(version="not registered")]
    assert versions_of(heads) == ["not registered"]
    assert versions_of([direction(), volatility()]) == ["bitcoin-model 3", "bitcoin-volatility 2"]


def test_hours_have_two_digits_whether_they_come_as_numbers_or_text():
    for hours in ([0, 23], ["00", "23"]):
        assert with_group_names(groups(hours))["group"].to_list() == ["00", "23"]
    assert with_group_names(groups(["low", "high"]))["group"].to_list() == ["low", "high"]


def test_features_are_ordered_by_gain_and_unknown_gains_come_last():
    features = importance(["a", "b", "c", "d"]).with_columns(
        gain=pl.Series([0.2, float("nan"), 0.6, 0.2])
    )
    assert by_importance(features)["feature"].to_list() == ["c", "a", "d", "b"]
