from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from btc_lifecycle.domain.learn.evaluation import TradingRule


def test_a_probability_at_the_edge_is_traded_and_one_inside_is_not():
    rule = TradingRule(min_edge=0.05, taker_cost_bp=5.0)
    probability_up = np.array([0.55, 0.5499, 0.5, 0.4501, 0.45, 1.0, 0.0])
    assert rule.sides(probability_up).tolist() == [1, 0, 0, 0, -1, 1, -1]


def test_without_an_edge_all_but_an_even_chance_is_traded():
    rule = TradingRule(min_edge=0.0, taker_cost_bp=5.0)
    assert rule.sides(np.array([0.5001, 0.5, 0.4999])).tolist() == [1, 0, -1]


def test_entry_and_exit_each_pay():
    rule = TradingRule(min_edge=0.05, taker_cost_bp=4.5)
    assert rule.net_bp(np.array([10.0, -1.0])).tolist() == [1.0, -10.0]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("min_edge", -0.01, "must be at least 0 and below 0.5"),
        ("min_edge", 0.5, "must be at least 0 and below 0.5"),
        ("min_edge", float("nan"), "must be at least 0 and below 0.5"),
        ("taker_cost_bp", -1.0, "must not be negative"),
        ("taker_cost_bp", float("inf"), "must not be negative"),
        ("taker_cost_bp", float("nan"), "must not be negative"),
    ],
)
def test_rules_out_of_range_are_refused_where_settings_are_read(name, value, reason):
    document = {"min_edge": 0.02, "taker_cost_bp": 5.0} | {name: value}
    with pytest.raises(ValidationError, match=f"{name} {reason}"):
        TypeAdapter(TradingRule).validate_python(document)


def test_rules_at_the_ends_of_their_ranges_are_accepted():
    assert TradingRule(min_edge=0.0, taker_cost_bp=0.0).net_bp(np.array([3.0])).tolist() == [3.0]
