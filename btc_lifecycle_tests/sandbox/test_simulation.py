from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_lifecycle.sandbox.market import MINUTE_MS
from btc_lifecycle.sandbox.simulation import (
    DAY_MIN,
    SCALES,
    Factors,
    State,
    _amounts,
    _autoregression,
    _season,
    simulate_day,
)

MONDAY_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC
OPEN_MS = MONDAY_MS + MINUTE_MS * np.arange(DAY_MIN, dtype=np.int64)
BEFORE = State(log_close=11.0, flow=0.5)


def constant(value):
    return np.full(DAY_MIN, float(value))


def day(*, volatility=None, flow_effect=None, before=BEFORE, seed=1):
    return simulate_day(
        OPEN_MS,
        scale=SCALES["BTCUSDT"],
        before=before,
        factors=Factors(
            volatility=constant(1) if volatility is None else volatility,
            volume=constant(1),
            flow_effect=constant(1) if flow_effect is None else flow_effect,
        ),
        rng=np.random.default_rng(seed),
    )


def test_an_autoregression_follows_its_recursion():
    """By hand: x1 = 0.6 * 1 + 0.8 * 2, x2 = 0.6 * x1 - 0.8."""
    assert _autoregression(np.array([2.0, -1.0]), 1.0, persistence=0.6) == pytest.approx(
        [2.2, 0.52]
    )


def test_volatility_is_highest_in_the_early_american_hours_and_lower_on_weekends():
    monday = _season(OPEN_MS)
    assert int(monday.argmax()) == 14 * 60 + 30
    saturday = _season(OPEN_MS + 5 * 86_400_000)
    sunday = _season(OPEN_MS + 6 * 86_400_000)
    assert monday - saturday == pytest.approx(constant(0.3))
    assert sunday == pytest.approx(saturday)


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, DAY_MIN - 1), factor=st.floats(1.5, 5.0))
def test_a_factor_changes_no_minute_before_its_own(cut, factor):
    volatility = constant(1)
    volatility[cut:] = factor
    plain, changed = day()[0], day(volatility=volatility)[0]
    for before, after in zip(plain, changed, strict=True):
        assert after[:cut].tolist() == before[:cut].tolist()
    assert changed[3][cut:].tolist() != plain[3][cut:].tolist()


def test_the_state_after_a_day_holds_its_last_close():
    columns, state = day()
    assert round(float(np.exp(state.log_close)), 2) == columns[3][-1]


def test_order_flow_moves_only_the_minutes_after_it():
    """Before the day no flow: its first minute has nothing to be moved by, its second one has."""
    first, second = constant(0), constant(0)
    first[0], second[1] = 100, 100
    still = State(log_close=11.0)
    close = [day(flow_effect=f, before=still)[0][3] for f in (constant(0), first, second)]
    assert close[1].tolist() == close[0].tolist()
    assert close[2][0] == close[0][0]
    assert (close[2][1:] != close[0][1:]).all()


def test_amounts_follow_from_volume_flow_and_mean_price():
    """By hand: mean price 100, takers buy 0.5 + 0.5 * flow of the volume, 3 trades per unit."""
    prices = tuple(np.full(3, price) for price in (99.0, 104.0, 96.0, 101.0))
    volume, quote, trades, taker_buy_base, taker_buy_quote = _amounts(
        np.array([2.0000049, 4.0, 0.0]),
        prices=prices,
        visible_flow=np.array([0.5, -1.0, 1.0]),
        trades_per_unit=3.0,
    )
    assert volume.tolist() == [2.0, 4.0, 1e-5]
    assert quote == pytest.approx([200.0, 400.0, 1e-3])
    assert trades.tolist() == [6, 12, 1]
    assert taker_buy_base.tolist() == [1.5, 0.0, 1e-5]
    assert taker_buy_quote == pytest.approx([150.0, 0.0, 1e-3])
