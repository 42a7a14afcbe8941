from __future__ import annotations

import polars as pl
import pytest

from btc_lifecycle.adapters.report_pdf.findings import (
    cost_finding,
    delay_finding,
    direction_findings,
    volatility_findings,
)
from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    direction,
    direction_scores,
    volatility,
    without_intervals,
    without_trades,
)


def with_score(score: str, value: float | None, low: float | None, high: float | None):
    """Return the scores with one score set, for all rivals, folds and delays."""
    is_it = pl.col("score") == score
    return direction_scores().with_columns(
        pl.when(is_it).then(pl.lit(number, pl.Float64)).otherwise(name).alias(name)
        for name, number in (("value", value), ("low", low), ("high", high))
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0001, 0.003, "the interval lies above 0."),
        (0.0, 0.003, "the interval includes 0: chance may explain the difference."),
        (-0.001, 0.003, "the interval includes 0: chance may explain the difference."),
        (-0.003, -0.001, "the interval lies below 0: the model is the worse of the two."),
        (None, None, "there is no interval: chance may explain the difference."),
        (float("-inf"), float("inf"), "there is no interval: chance may explain the difference."),
    ],
)
def test_a_gain_is_said_with_what_its_interval_allows(low, high, said: str):
    head = direction(scores=with_score("log_loss_gain", 0.002, low, high))
    over_prior = direction_findings(head, cost_bp=10.0)[0]
    assert over_prior.startswith("Gain over the prior: +2.00 millinats of log-loss per row (")
    assert over_prior.endswith(said)
    assert delay_finding(head).endswith(said)


@pytest.mark.parametrize(
    ("net", "low", "high", "said"),
    [
        (-9.0, -9.5, -8.5, "it loses money on these rows."),
        (-0.2, -0.9, 0.5, "it loses money on these rows, which chance may explain."),
        (0.4, -0.1, 0.9, "it earns money on these rows, which chance may explain."),
        (0.4, None, None, "it earns money on these rows, which chance may explain."),
        (2.0, 1.0, 3.0, "it earns money on these rows."),
        (0.0, -1.0, 1.0, "it breaks even."),
    ],
)
def test_what_a_trade_is_left_with_after_its_cost_is_said_plainly(net, low, high, said: str):
    sentence = cost_finding(direction(scores=with_score("net_bp", net, low, high)), cost_bp=12.5)
    assert sentence.startswith("A trade costs 12.50 bp, entry and exit together. On 12.4 % of rows")
    assert sentence.endswith(said)


def test_a_rule_that_never_traded_is_not_said_to_have_lost():
    sentence = cost_finding(direction(scores=without_trades(direction_scores())), cost_bp=10.0)
    assert sentence.endswith("What it makes after that is unknown: no trade was made.")


def test_acting_late_is_compared_with_acting_at_once():
    late = direction_scores().filter(pl.col("fold").is_null(), delay_min=1)
    auc = late.filter(rival="model", score="auc")["value"].item()
    gain = late.filter(rival="prior", score="log_loss_gain").row(0, named=True)
    value, low, high = (f"{1000 * gain[name]:+.2f}" for name in ("value", "low", "high"))
    assert delay_finding(direction()) == (
        f"One minute late: AUC {auc:.4f} instead of 0.5312; gain over the prior {value} millinats "
        f"(95 % interval {low} to {high}); the interval lies above 0."
    )


def test_folds_with_a_gain_are_counted():
    is_third = (pl.col("fold") == 3) & (pl.col("score").is_in(["log_loss_gain"]))
    scores = direction_scores().with_columns(
        value=pl.when(is_third).then(-0.001).otherwise("value")
    )
    findings = direction_findings(direction(scores=scores), cost_bp=10.0)
    assert "Over time: the gain over the prior is above 0 in 2 of 3 folds." in findings
    alone = direction(scores=without_intervals(direction_scores(1)))
    said = direction_findings(alone, cost_bp=10.0)
    assert "Over time: the gain over the prior is above 0 in 1 of 1 fold." in said


def test_each_rival_of_the_volatility_has_its_sentence():
    assert [finding.partition(":")[0] for finding in volatility_findings(volatility())] == [
        "Gain over HAR",
        "Gain over the last value",
        "Over time",
    ]


def test_a_rival_without_a_gain_is_said_to_be_unscored():
    scores = direction_scores().filter(
        ~((pl.col("rival") == "logistic") & (pl.col("score") == "log_loss_gain"))
    )
    findings = direction_findings(direction(scores=scores), cost_bp=10.0)
    assert "Gain over the logistic: not scored." in findings
