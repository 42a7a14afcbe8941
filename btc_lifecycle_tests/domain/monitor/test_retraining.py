"""When drift leads to retraining, what holds it back, and what the operator reads."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.monitor.retraining import (
    DriftFacts,
    RetrainingPolicy,
    decide,
    facts_from_metrics,
)
from btc_lifecycle.domain.tables import DRIFT_METRICS

NOW = datetime(2024, 3, 20, 12, tzinfo=UTC)
POLICY = RetrainingPolicy(
    min_drifted_features=2,
    max_log_loss_increase=0.02,
    min_outcomes=500,
    cooldown_hours=168,
    max_attempts=3,
)
CALM = DriftFacts(
    drifted=(),
    n_monitored=24,
    live_log_loss=0.69,
    reference_log_loss=0.68,
    n_outcomes=812,
    champion_version="7",
    last_trained_at=NOW - timedelta(days=30),
    market_now=NOW,
)
DRIFTED = replace(CALM, drifted=("log_return_1m", "rsi_14m"))


def test_calm_markets_and_scores_do_not_retrain():
    verdict = decide(CALM, policy=POLICY)

    assert not verdict.retrain
    assert verdict.reason == (
        "0 of 24 features drifted (2 needed); live log-loss 0.6900 over 812 outcomes, "
        "+0.0100 from the test's 0.6800 (limit +0.0200)"
    )


def test_enough_drifted_features_retrain():
    verdict = decide(DRIFTED, policy=POLICY)

    assert verdict.retrain
    assert verdict.reason == (
        "2 of 24 features drifted (2 needed): log_return_1m, rsi_14m; live log-loss 0.6900 over "
        "812 outcomes, +0.0100 from the test's 0.6800 (limit +0.0200)"
    )


def test_one_drifted_feature_fewer_does_not():
    assert not decide(replace(DRIFTED, drifted=("rsi_14m",)), policy=POLICY).retrain


def test_a_live_score_beyond_the_limit_retrains_without_any_drift():
    verdict = decide(replace(CALM, live_log_loss=0.705), policy=POLICY)

    assert verdict.retrain
    assert "+0.0250 from the test's 0.6800 (limit +0.0200)" in verdict.reason


def test_a_live_score_at_the_limit_does_not():
    at_limit = replace(CALM, live_log_loss=0.75, reference_log_loss=0.5)

    assert not decide(at_limit, policy=replace(POLICY, max_log_loss_increase=0.25)).retrain


@pytest.mark.parametrize(("n_outcomes", "retrain"), [(499, False), (500, True)])
def test_a_live_score_counts_from_enough_outcomes_on(n_outcomes, retrain):
    verdict = decide(replace(CALM, live_log_loss=0.8, n_outcomes=n_outcomes), policy=POLICY)

    assert verdict.retrain is retrain
    assert ("499 outcomes, 500 needed for a live log-loss" in verdict.reason) is not retrain


def test_without_live_score_only_drift_counts():
    unscored = replace(DRIFTED, live_log_loss=None, n_outcomes=12)

    assert decide(unscored, policy=POLICY).retrain
    assert not decide(replace(unscored, drifted=()), policy=POLICY).retrain
    assert "12 outcomes, 500 needed" in decide(unscored, policy=POLICY).reason


def test_without_test_score_the_live_score_is_told_but_does_not_count():
    verdict = decide(replace(CALM, live_log_loss=2.0, reference_log_loss=None), policy=POLICY)

    assert not verdict.retrain
    assert "no test log-loss of version 7 to hold against it" in verdict.reason


def test_features_that_could_not_be_judged_are_not_called_calm():
    verdict = decide(replace(CALM, n_monitored=0), policy=POLICY)

    assert not verdict.retrain
    assert verdict.reason.startswith("no feature could be judged for version 7; ")


def test_without_champion_nothing_retrains():
    verdict = decide(replace(DRIFTED, champion_version=None, live_log_loss=9.0), policy=POLICY)

    assert not verdict.retrain
    assert verdict.reason == "no champion serves, so nothing can have drifted"


def test_a_cooldown_outranks_drift_and_loss_and_names_its_end_in_utc():
    tokyo = timezone(timedelta(hours=9))
    last_trained_at = (NOW - timedelta(hours=167)).astimezone(tokyo)
    facts = replace(DRIFTED, live_log_loss=9.0, last_trained_at=last_trained_at)

    verdict = decide(facts, policy=POLICY)

    assert not verdict.retrain
    assert verdict.reason.startswith("cooling down until 2024-03-20 13:00 UTC; 2 of 24 features")


def test_the_cooldown_is_over_at_its_end():
    facts = replace(DRIFTED, last_trained_at=NOW - timedelta(hours=168))

    assert decide(facts, policy=POLICY).retrain


def test_a_champion_without_candidates_has_no_cooldown():
    assert decide(replace(DRIFTED, last_trained_at=None), policy=POLICY).retrain


@pytest.mark.parametrize(("n_attempts", "retrain"), [(2, True), (3, False), (4, False)])
def test_attempts_that_did_not_help_end_at_their_limit(n_attempts, retrain):
    verdict = decide(replace(DRIFTED, n_attempts=n_attempts), policy=POLICY)

    assert verdict.retrain is retrain
    told = f"{n_attempts} retrainings did not replace version 7 (limit 3)" in verdict.reason
    assert told is not retrain
    assert "2 of 24 features drifted" in verdict.reason


def test_spent_attempts_are_not_told_while_nothing_asks_for_more():
    spent = replace(CALM, n_attempts=3, n_failures=3)

    assert "retraining" not in decide(spent, policy=POLICY).reason


@pytest.mark.parametrize(("n_failures", "retrain"), [(2, True), (3, False), (4, False)])
def test_failed_runs_end_at_the_same_limit_with_their_own_sentence(n_failures, retrain):
    verdict = decide(replace(DRIFTED, n_attempts=2, n_failures=n_failures), policy=POLICY)

    assert verdict.retrain is retrain
    told = verdict.reason.startswith(
        f"{n_failures} retraining runs for version 7 failed since a training last succeeded "
        "(limit 3), look at them in the UI and train by hand; 2 of 24 features drifted"
    )
    assert told is not retrain


_times = st.timedeltas(timedelta(0), timedelta(days=360)).map(lambda after: NOW + after)
_facts = st.builds(
    DriftFacts,
    drifted=st.lists(st.sampled_from("abcdef"), unique=True).map(tuple),
    n_monitored=st.integers(0, 6),
    live_log_loss=st.none() | st.floats(0.4, 1.0),
    reference_log_loss=st.none() | st.floats(0.4, 1.0),
    n_outcomes=st.integers(0, 1000),
    champion_version=st.none() | st.just("7"),
    last_trained_at=st.none() | _times,
    market_now=_times,
    n_attempts=st.integers(0, 4),
    n_failures=st.integers(0, 4),
)


@given(_facts, st.sampled_from("ghij"), st.floats(0, 1), st.integers(0, 500), st.integers(0, 9999))
def test_more_reason_to_retrain_never_turns_yes_into_no(
    facts, feature, further_loss, more_outcomes, more_hours
):
    worse = replace(
        facts,
        drifted=(*facts.drifted, feature),
        n_monitored=facts.n_monitored + 1,
        live_log_loss=facts.live_log_loss and facts.live_log_loss + further_loss,
        n_outcomes=facts.n_outcomes + more_outcomes,
        market_now=facts.market_now + timedelta(hours=more_hours),
    )

    assert decide(worse, policy=POLICY).retrain >= decide(facts, policy=POLICY).retrain


@given(_facts)
def test_a_verdict_is_that_of_the_plain_rules(facts):
    n_days = 0 if facts.last_trained_at is None else 7
    is_cool = facts.market_now - (facts.last_trained_at or facts.market_now) >= timedelta(n_days)
    has_scores = None not in {facts.live_log_loss, facts.reference_log_loss}
    has_lost = (
        has_scores
        and facts.n_outcomes >= 500
        and facts.live_log_loss > facts.reference_log_loss + 0.02
    )
    asked_for = len(facts.drifted) >= 2 or has_lost
    may_go_on = facts.n_attempts < 3 and facts.n_failures < 3
    allowed = facts.champion_version is not None and is_cool and may_go_on

    assert decide(facts, policy=POLICY).retrain == (asked_for and allowed)


def make_metrics(*rows, window_end=NOW):
    """Rows of (symbol, version, metric, feature, n_rows, value, is_breach)."""
    names = ["symbol", "model_version", "metric", "feature", "n_rows", "value", "is_breach"]
    window = {
        "window_start": window_end - timedelta(hours=72),
        "window_end": window_end,
        "threshold": 0.2,
    }
    return pl.DataFrame(
        [dict(zip(names, row, strict=True)) | window for row in rows], schema=DRIFT_METRICS.schema
    )


METRICS = make_metrics(
    ("BTC/USDT", "7", "psi", "rsi_14m", 4000, 0.9, True),
    ("BTC/USDT", "7", "psi", "log_return_1m", 4000, 0.1, False),
    ("BTC/USDT", "7", "psi", "taker_imbalance_1m", 0, None, False),
    ("ETH/USDT", "7", "psi", "rsi_14m", 4000, 0.8, True),
    ("ETH/USDT", "7", "psi", "log_return_1m", 4000, 0.7, True),
    ("*", "7", "log_loss", "", 812, 0.71, True),
    ("BTC/USDT", "6", "psi", "body_ratio_1m", 4000, 0.9, True),
    ("*", "6", "log_loss", "", 900, 0.9, True),
)


def facts_of(metrics, *, champion_version="7"):
    return facts_from_metrics(
        metrics,
        champion_version=champion_version,
        reference_log_loss=0.68,
        last_trained_at=NOW - timedelta(days=9),
        market_now=NOW,
        n_attempts=1,
        n_failures=2,
    )


def test_facts_are_those_of_the_champion_s_metrics_each_feature_once():
    assert facts_of(METRICS) == DriftFacts(
        drifted=("log_return_1m", "rsi_14m"),
        n_monitored=2,
        live_log_loss=0.71,
        reference_log_loss=0.68,
        n_outcomes=812,
        champion_version="7",
        last_trained_at=NOW - timedelta(days=9),
        market_now=NOW,
        n_attempts=1,
        n_failures=2,
    )


def test_a_score_that_rests_on_too_few_outcomes_is_no_score_but_counted():
    facts = facts_of(make_metrics(("*", "7", "log_loss", "", 12, None, False)))

    assert (facts.live_log_loss, facts.n_outcomes) == (None, 12)


@pytest.mark.parametrize("champion_version", ["8", None])
def test_metrics_of_other_versions_say_nothing_about_the_champion(champion_version):
    facts = facts_of(METRICS, champion_version=champion_version)

    assert (facts.drifted, facts.n_monitored) == ((), 0)
    assert (facts.live_log_loss, facts.n_outcomes) == (None, 0)


def test_no_metrics_are_facts_without_drift():
    assert facts_of(DRIFT_METRICS.schema.to_frame()).drifted == ()


def test_metrics_of_two_evaluations_are_refused():
    earlier = make_metrics(
        ("BTC/USDT", "7", "psi", "rsi_14m", 4000, 0.9, True), window_end=NOW - timedelta(hours=1)
    )

    with pytest.raises(DataError, match=r"2 windows, ending from 2024-03-20 11:00 to .* 12:00 UTC"):
        facts_of(pl.concat([METRICS, earlier]))


@given(_facts)
def test_facts_survive_json_unchanged(facts):
    document = facts.to_json()

    assert DriftFacts.from_json(json.loads(json.dumps(document, allow_nan=False))) == facts
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == 1


def test_times_of_another_offset_come_back_in_utc():
    document = CALM.to_json() | {"market_now": "2024-03-20T21:00:00+09:00"}

    market_now = DriftFacts.from_json(document).market_now

    assert (market_now, market_now.tzinfo) == (NOW, UTC)


def test_another_format_is_refused():
    with pytest.raises(DataError, match="drift facts has format 2, this code reads 1"):
        DriftFacts.from_json(CALM.to_json() | {"format": 2})


def test_facts_from_before_failures_were_counted_are_read_without_any():
    document = replace(CALM, n_failures=2).to_json()
    del document["n_failures"]

    assert DriftFacts.from_json(document) == CALM


@pytest.mark.parametrize(
    "key", [field.name for field in fields(DriftFacts) if field.name != "n_failures"]
)
def test_facts_without_a_part_are_refused(key):
    document = CALM.to_json()
    del document[key]

    with pytest.raises(DataError, match=f"damaged: KeyError.*{key}"):
        DriftFacts.from_json(document)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"market_now": "2024-03-20T12:00:00"}, "without offset"),
        ({"market_now": "soon"}, "ValueError"),
        ({"market_now": None}, "TypeError"),
        ({"last_trained_at": "2024-03-20T12:00:00"}, "without offset"),
        ({"live_log_loss": math.nan}, "not a finite number"),
        ({"live_log_loss": "0.7"}, "not a finite number"),
        ({"reference_log_loss": True}, "not a finite number"),
        ({"drifted": None}, "TypeError"),
    ],
)
def test_damaged_facts_are_refused(changes, what):
    with pytest.raises(DataError, match=f"drift facts are damaged: .*{what}"):
        DriftFacts.from_json(CALM.to_json() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_drifted_features": 0},
        {"min_outcomes": 0},
        {"max_attempts": 0},
        {"cooldown_hours": -1},
        {"max_log_loss_increase": -0.01},
        {"max_log_loss_increase": math.inf},
    ],
)
def test_a_policy_out_of_range_is_refused_where_settings_are_read(changes):
    document = {field.name: getattr(POLICY, field.name) for field in fields(POLICY)} | changes

    with pytest.raises(ValidationError, match="must be at least"):
        TypeAdapter(RetrainingPolicy).validate_python(document)
