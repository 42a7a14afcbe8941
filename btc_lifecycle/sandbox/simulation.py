"""One day of a made-up market: minutes from a state, a scale and random numbers.

One-minute log returns are ``volatility * (effect of lagged order flow + shocks)``. The logarithm of
volatility is a first-order autoregression around a daily and weekly season; order flow is another
one, shows in the taker volumes through noise, and weakly moves the minutes after it. That is what a
model can learn here; a factor can weaken it or turn it round.

Random numbers are drawn in fixed shapes, whatever the factors say, and every recursion runs forward
in time: a factor never changes a minute before its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from btc_lifecycle.sandbox.market import DAY_MS, MINUTE_MS

Floats = npt.NDArray[np.float64]
Columns = list[npt.NDArray[np.generic]]

DAY_MIN = 1440
TICK = 0.01

_VOLATILITY_PERSISTENCE, _VOLATILITY_SPREAD = 0.995, 0.35
_FLOW_PERSISTENCE = 0.97
_VOLUME_PERSISTENCE, _VOLUME_SPREAD = 0.9, 0.45
_FLOW_EFFECT = 0.09
_FLOW_SHOCK_SHARE = 0.4
_FLOW_VISIBILITY, _FLOW_NOISE = 0.25, 0.30
_JUMPS_PER_DAY, _JUMP_SIZE = 2.0, 6.0
_BUSIEST_MINUTE = 14 * 60 + 30
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0.


@dataclass(frozen=True, kw_only=True)
class SymbolScale:
    """A symbol's level: first price, one-minute volatility, volume per minute, trades per unit."""

    price: float
    volatility: float
    volume: float
    trades_per_unit: float


SCALES = {
    "BTCUSDT": SymbolScale(price=60_000.0, volatility=4.5e-4, volume=14.0, trades_per_unit=45.0),
    "ETHUSDT": SymbolScale(price=3_000.0, volatility=6.0e-4, volume=200.0, trades_per_unit=4.0),
}


@dataclass(frozen=True, kw_only=True)
class State:
    """What a day hands over to the next: the recursions' last values."""

    log_close: float
    log_volatility: float = 0.0
    flow: float = 0.0
    log_volume: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The regimes' factors per minute, each of shape (n,)."""

    volatility: Floats
    volume: Floats
    flow_effect: Floats


def simulate_day(
    open_ms: npt.NDArray[np.int64],
    *,
    scale: SymbolScale,
    before: State,
    factors: Factors,
    rng: np.random.Generator,
) -> tuple[Columns, State]:
    """Return a day's columns and the state at its end.

    Args:
        open_ms: Shape (n,), milliseconds since the epoch, one minute apart.
        scale: The symbol's level.
        before: What the day before left.
        factors: The regimes' factors.
        rng: The day's own random numbers; always drawn from in the same shapes.

    Returns:
        The nine columns after the open time in Kline's order, each of shape (n,), and the state.
    """
    normal = rng.standard_normal((8, len(open_ms)))
    uniform = rng.random((2, len(open_ms)))
    season = _season(open_ms)

    log_volatility = _autoregression(
        _VOLATILITY_SPREAD * normal[0], before.log_volatility, persistence=_VOLATILITY_PERSISTENCE
    )
    flow = _autoregression(normal[1], before.flow, persistence=_FLOW_PERSISTENCE)
    log_volume = _autoregression(
        _VOLUME_SPREAD * normal[2], before.log_volume, persistence=_VOLUME_PERSISTENCE
    )
    volatility = scale.volatility * np.exp(season + log_volatility) * factors.volatility
    shocks = _FLOW_SHOCK_SHARE * normal[3] + math.sqrt(1 - _FLOW_SHOCK_SHARE**2) * normal[4]
    shocks += np.where(uniform[0] < _JUMPS_PER_DAY / DAY_MIN, _JUMP_SIZE * normal[5], 0.0)
    flow_before = np.concatenate(([before.flow], flow[:-1]))
    # Two thirds: over a day the square of busyness has the mean 3/2.
    flow_effect = _FLOW_EFFECT * _busyness(open_ms) ** 2 * (2 / 3) * factors.flow_effect
    log_return = volatility * (flow_effect * flow_before + shocks)
    log_close = before.log_close + np.cumsum(log_return)

    log_closes = np.concatenate(([before.log_close], log_close))
    prices = _prices(log_closes, volatility=volatility, reach=normal[6:8], spread=uniform[1])
    volume = (
        scale.volume
        * factors.volume
        * np.exp(1.3 * season + 0.6 * log_volatility + log_volume + 0.25 * (np.abs(shocks) - 0.8))
    )
    visible_flow = np.tanh(_FLOW_VISIBILITY * flow + _FLOW_NOISE * normal[3])
    state = State(
        log_close=float(log_close[-1]),
        log_volatility=float(log_volatility[-1]),
        flow=float(flow[-1]),
        log_volume=float(log_volume[-1]),
    )
    amounts = _amounts(
        volume, prices=prices, visible_flow=visible_flow, trades_per_unit=scale.trades_per_unit
    )
    return [*prices, *amounts], state


def _season(open_ms: npt.NDArray[np.int64]) -> Floats:
    """Return the log factor of the time of day and week on volatility: busy at 14:30 UTC."""
    is_weekend = (open_ms // DAY_MS + _EPOCH_WEEKDAY) % 7 >= 5
    season: Floats = 0.3 * (_busyness(open_ms) - 1.0) - np.where(is_weekend, 0.3, 0.0)
    return season


def _busyness(open_ms: npt.NDArray[np.int64]) -> Floats:
    """Return 2 at 14:30 UTC and 0 twelve hours later: flow moves prices when America trades.

    That makes the effect of flow one that no weighted sum of features tells.
    """
    minute_of_day = (open_ms // MINUTE_MS) % DAY_MIN
    busyness: Floats = 1.0 + np.cos(2 * np.pi * (minute_of_day - _BUSIEST_MINUTE) / DAY_MIN)
    return busyness


def _autoregression(shocks: Floats, last: float, *, persistence: float) -> Floats:
    """Return x[t] = persistence * x[t-1] + scaled shocks, with the shocks' own spread."""
    scaled = (math.sqrt(1 - persistence**2) * shocks).tolist()
    values = accumulate(scaled, lambda x, shock: persistence * x + shock, initial=last)
    return np.array(list(values)[1:])


def _prices(
    log_closes: Floats, *, volatility: Floats, reach: Floats, spread: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return open, high, low and close on the tick grid; ``log_closes`` begins one minute before."""
    closes = np.maximum(np.round(np.exp(log_closes), 2), 2 * TICK)
    close = closes[1:]
    ticks_from_close = np.where(spread < 0.2, -1, np.where(spread > 0.8, 1, 0))
    open_ = np.round(closes[:-1] + TICK * ticks_from_close, 2)
    above, below = np.exp(0.4 * volatility * np.abs(reach))
    high = np.round(np.maximum(open_, close) * above, 2)
    low = np.maximum(np.round(np.minimum(open_, close) / below, 2), TICK)
    return open_, high, low, close


def _amounts(
    volume: Floats,
    *,
    prices: tuple[Floats, Floats, Floats, Floats],
    visible_flow: Floats,
    trades_per_unit: float,
) -> Columns:
    """Return volume, quote volume, trades, taker-buy base and quote; flow lies within -1..1."""
    base = np.maximum(np.round(volume, 5), 1e-5)
    mean_price = sum(prices) / 4
    trades = np.maximum(1, np.round(base * trades_per_unit)).astype(np.int64)
    taker_buy_base = np.round(base * (0.5 + 0.5 * visible_flow), 5)
    return [base, base * mean_price, trades, taker_buy_base, taker_buy_base * mean_price]
