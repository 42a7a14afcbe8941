from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import DAY_MS, MINUTE_MS
from btc_lifecycle.sandbox.synthetic import MAX_DAYS, Regime, SyntheticMarket
from btc_lifecycle_tests.reference_sandbox import all_rows, broken_rules

START = datetime(2026, 1, 1, tzinfo=UTC)


def market(**changes):
    return SyntheticMarket(**({"seed": 7, "start": START} | changes))


def rows_of(made, *, n_days, symbol="BTCUSDT"):
    return all_rows(made, symbol, until_ms=made.start_ms + n_days * DAY_MS - 1)


def column(rows, field):
    return np.array([float(row[field]) for row in rows])


def flow_correlation(rows, *, window_min=15):
    """Correlation of the last minutes' taker imbalance with the return of as many next minutes."""
    volume, taker_buy, close = column(rows, 5), column(rows, 9), column(rows, 4)
    ones = np.ones(window_min)
    imbalance = np.convolve(2 * taker_buy - volume, ones, "valid") / np.convolve(
        volume, ones, "valid"
    )
    log_close = np.log(close)
    forward = log_close[window_min:] - log_close[:-window_min]
    return np.corrcoef(imbalance[:-window_min], forward[window_min - 1 :])[0, 1]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_every_minute_is_there_once_and_consistent(symbol):
    rows = rows_of(market(symbols=(symbol,)), n_days=5, symbol=symbol)
    open_ms = [row[0] for row in rows]
    first = int(START.timestamp() * 1000)
    assert open_ms == list(range(first, first + 5 * DAY_MS, MINUTE_MS))
    assert [broken for row in rows for broken in broken_rules(row)] == []


def test_each_minute_opens_within_a_tick_of_the_last_close_also_over_midnight():
    rows = rows_of(market(), n_days=3)
    jump = column(rows, 1)[1:] - column(rows, 4)[:-1]
    assert np.abs(jump).max() == pytest.approx(0.01)


def test_prices_stay_plausible_over_two_months():
    close = column(rows_of(market(), n_days=60), 4)
    minute_returns = np.diff(np.log(close))
    assert 20_000 < close.min() < close.max() < 180_000
    assert 3e-4 < minute_returns.std() < 1e-3


def test_a_market_does_not_depend_on_the_order_of_its_requests():
    one, other = market(), market()
    last_first = [
        other.block("BTCUSDT", start_ms=start_ms).rows_text(0, 1440)
        for start_ms in reversed(
            other.block_starts("BTCUSDT", until_ms=other.start_ms + 3 * DAY_MS)
        )
    ]
    first_first = [
        one.block("BTCUSDT", start_ms=start_ms).rows_text(0, 1440)
        for start_ms in one.block_starts("BTCUSDT", until_ms=one.start_ms + 3 * DAY_MS)
    ]
    assert first_first == last_first[::-1]


def test_another_seed_or_symbol_is_another_market():
    both = market(symbols=("BTCUSDT", "ETHUSDT"))
    returns = np.diff(np.log(column(rows_of(both, n_days=2), 4)))
    for other in (market(seed=8), both):
        symbol = other.symbols[-1]
        other_returns = np.diff(np.log(column(rows_of(other, n_days=2, symbol=symbol), 4)))
        assert abs(np.corrcoef(returns, other_returns)[0, 1]) < 0.1


def test_the_start_is_cut_to_the_minute_and_days_run_from_there():
    made = market(start=START + timedelta(hours=5, seconds=42))
    rows = rows_of(made, n_days=1)
    assert rows[0][0] == int((START + timedelta(hours=5)).timestamp() * 1000)
    assert len(rows) == 1440


def test_without_a_start_the_market_reaches_back_sixty_days():
    made = SyntheticMarket()
    age = datetime.now(tz=UTC).timestamp() * 1000 - made.start_ms
    assert 0 <= age - 60 * DAY_MS < 10 * MINUTE_MS


def test_order_flow_weakly_predicts_the_next_minutes():
    assert 0.08 < flow_correlation(rows_of(market(), n_days=30)) < 0.3


def test_a_regime_can_turn_the_effect_of_order_flow_round():
    turned = market(regimes=[Regime(starts_at=START, flow_effect_factor=-1.0)])
    assert -0.3 < flow_correlation(rows_of(turned, n_days=30)) < -0.08


def test_a_regime_multiplies_volatility_and_volume():
    calm = rows_of(market(), n_days=3)
    wild = rows_of(
        market(regimes=[Regime(starts_at=START, volatility_factor=3.0, volume_factor=3.0)]),
        n_days=3,
    )
    spread = [np.diff(np.log(column(rows, 4))).std() for rows in (calm, wild)]
    assert spread[1] / spread[0] == pytest.approx(3.0, rel=0.01)
    assert column(wild, 5).sum() / column(calm, 5).sum() == pytest.approx(3.0, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(
    minute=st.integers(0, 3 * 1440 - 1),
    second=st.integers(0, 59),
    is_made_before=st.booleans(),
)
def test_a_regime_leaves_every_minute_before_its_start_unchanged(minute, second, is_made_before):
    plain, changed = rows_of(market(), n_days=3), market()
    if is_made_before:
        rows_of(changed, n_days=3)
    starts_at = START + timedelta(minutes=minute, seconds=second)
    changed.add_regime(
        Regime(
            starts_at=starts_at, volatility_factor=3.0, volume_factor=2.0, flow_effect_factor=-1.0
        )
    )
    rows = rows_of(changed, n_days=3)
    n_same = minute + (second > 0)
    assert rows[:n_same] == plain[:n_same]
    assert all(row != old for row, old in zip(rows[n_same:], plain[n_same:], strict=True))


def test_a_regime_added_later_is_the_same_as_one_known_from_the_beginning():
    regime = Regime(starts_at=START + timedelta(hours=30), volatility_factor=2.0)
    added = market()
    rows_of(added, n_days=3)
    added.add_regime(regime)
    assert rows_of(added, n_days=3) == rows_of(market(regimes=[regime]), n_days=3)


def test_a_regime_ends_where_the_next_one_starts():
    wild = Regime(starts_at=START, volume_factor=100.0)
    calm = Regime(starts_at=START + timedelta(days=1))
    volume = column(rows_of(market(regimes=[calm, wild]), n_days=2), 5)
    plain = column(rows_of(market(), n_days=2), 5)
    assert volume[:1440].sum() > 50 * plain[:1440].sum()
    assert volume[1440:].tolist() == plain[1440:].tolist()


def test_of_two_regimes_with_one_start_the_later_added_rules():
    made = market(regimes=[Regime(starts_at=START, volume_factor=100.0)])
    made.add_regime(Regime(starts_at=START))
    assert rows_of(made, n_days=1) == rows_of(market(), n_days=1)


def test_a_regime_before_the_market_rules_from_its_first_minute():
    early = Regime(starts_at=START - timedelta(days=9), volume_factor=100.0)
    made = market()
    made.add_regime(early)
    assert rows_of(made, n_days=1) == rows_of(
        market(regimes=[Regime(starts_at=START, volume_factor=100.0)]), n_days=1
    )


def test_the_description_names_seed_start_and_regimes():
    described = market(regimes=[Regime(starts_at=START, volume_factor=2.0)]).describe()
    assert described["seed"] == 7
    assert described["start"] == "2026-01-01T00:00:00+00:00"
    assert described["regimes"] == [
        {
            "starts_at": "2026-01-01T00:00:00+00:00",
            "volatility_factor": 1.0,
            "volume_factor": 2.0,
            "flow_effect_factor": 1.0,
        }
    ]


@pytest.mark.parametrize(
    "factors",
    [
        {"volatility_factor": 0.0},
        {"volatility_factor": 11.0},
        {"volume_factor": -1.0},
        {"flow_effect_factor": float("nan")},
    ],
)
def test_implausible_factors_are_refused(factors):
    with pytest.raises(ConfigurationError, match="a regime cannot have"):
        Regime(starts_at=START, **factors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbols": ("DOGEUSDT",)}, "does not trade"),
        ({"symbols": ()}, "needs a symbol"),
        ({"seed": -1}, "needs a symbol and a seed"),
        ({"start": datetime(2026, 1, 1)}, "has no zone"),  # noqa: DTZ001
    ],
)
def test_a_market_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        market(**changes)


def test_a_clock_decades_ahead_is_refused_instead_of_making_all_those_days():
    made = market()
    with pytest.raises(ConfigurationError, match="cannot reach the sandbox clock's time"):
        made.block_starts("BTCUSDT", until_ms=made.start_ms + (MAX_DAYS + 1) * DAY_MS)
