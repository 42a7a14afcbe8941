"""A made-up market whose minutes follow from its seed, its start and its regimes alone.

Days are made one after the other, each from the state that the day before left, in whatever order
they are asked for. How a day is made is in simulation.py; this module keeps states and regimes.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import (
    DAY_MS,
    MINUTE_MS,
    BlockCache,
    KlineBlock,
    MarketLabel,
    as_datetime,
    as_ms,
)
from btc_lifecycle.sandbox.simulation import (
    DAY_MIN,
    SCALES,
    Columns,
    Factors,
    Floats,
    State,
    simulate_day,
)

DEFAULT_HISTORY = timedelta(days=60)
MAX_DAYS = 20 * 366

_BLOCKS_KEPT = 400


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How the market behaves from ``starts_at`` until the next regime starts.

    Factors multiply the ordinary market, they do not pile up over regimes; a negative
    ``flow_effect_factor`` turns the effect of order flow round.
    """

    starts_at: datetime
    volatility_factor: float = 1.0
    volume_factor: float = 1.0
    flow_effect_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse factors that would leave the plausible.

        Raises:
            ConfigurationError: When a factor is out of its range or ``starts_at`` has no zone.
        """
        as_ms(self.starts_at)
        bounds = {
            "volatility_factor": (0.01, 10.0),
            "volume_factor": (0.001, 1000.0),
            "flow_effect_factor": (-10.0, 10.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigurationError(
                    f"a regime cannot have {name} {value}", hint=f"give {low} to {high}"
                )


class SyntheticMarket:
    """Endless made-up minutes from ``start`` on, made day by day when first asked for.

    Args:
        seed: Any integer from 0; another seed is another market.
        start: Open time of the first minute, aware, cut to the minute; without it the market reaches
            60 days back from this machine's clock and so differs from minute to minute.
        symbols: Some of BTCUSDT and ETHUSDT; they move independently of each other.
        regimes: Regimes known from the beginning.

    Raises:
        ConfigurationError: On an unknown symbol, a negative seed or a start without a zone.
    """

    label: MarketLabel = "synthetic"

    def __init__(
        self,
        *,
        seed: int = 7,
        start: datetime | None = None,
        symbols: Sequence[str] = ("BTCUSDT",),
        regimes: Sequence[Regime] = (),
    ) -> None:
        _refuse_unknown(symbols, seed=seed)
        self.symbols = tuple(symbols)
        self.seed = seed
        asked_start_ms = as_ms(start or datetime.now(tz=UTC) - DEFAULT_HISTORY)
        self.start_ms = asked_start_ms - asked_start_ms % MINUTE_MS
        self._lock = threading.Lock()
        self._regimes = _sorted(regimes)
        self._states = {
            symbol: [State(log_close=math.log(SCALES[symbol].price))] for symbol in symbols
        }
        self._blocks = BlockCache(capacity=_BLOCKS_KEPT)

    @property
    def regimes(self) -> tuple[Regime, ...]:
        """The regimes by start."""
        return self._regimes

    def add_regime(self, regime: Regime) -> None:
        """Let ``regime`` rule from its start; minutes before that stay what they were."""
        first_changed_day = max(0, (as_ms(regime.starts_at) - self.start_ms) // DAY_MS)
        with self._lock:
            self._regimes = _sorted((*self._regimes, regime))
            self._blocks.clear()
            for states in self._states.values():
                del states[first_changed_day + 1 :]

    def block_starts(self, symbol: str, *, until_ms: int) -> range:
        """Return the starts of the days of trading up to ``until_ms``.

        Raises:
            ConfigurationError: When the clock is more than 20 years after the market's start.
        """
        if until_ms - self.start_ms > MAX_DAYS * DAY_MS:
            raise ConfigurationError(
                f"{symbol}: the synthetic market starts {as_datetime(self.start_ms):%Y-%m-%d} and "
                f"cannot reach the sandbox clock's time",
                hint=f"set the clock at most {MAX_DAYS} days after the start",
            )
        return range(self.start_ms, until_ms + 1, DAY_MS)

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        """Return the day of trading that starts at ``start_ms``."""
        day = (start_ms - self.start_ms) // DAY_MS
        with self._lock:
            return self._blocks.get((symbol, day), make=lambda: self._make_block(symbol, day))

    def describe(self) -> dict[str, object]:
        """Return seed, start and regimes as JSON values."""
        return {
            "seed": self.seed,
            "start": as_datetime(self.start_ms).isoformat(),
            "regimes": [
                asdict(regime) | {"starts_at": regime.starts_at.isoformat()}
                for regime in self._regimes
            ],
        }

    def _make_block(self, symbol: str, day: int) -> KlineBlock:
        states = self._states[symbol]
        while len(states) <= day:
            states.append(self._simulate(symbol, len(states) - 1)[2])
        open_ms, columns, _ = self._simulate(symbol, day)
        return KlineBlock(open_ms, columns=columns)

    def _simulate(self, symbol: str, day: int) -> tuple[npt.NDArray[np.int64], Columns, State]:
        open_ms = self.start_ms + day * DAY_MS + MINUTE_MS * np.arange(DAY_MIN, dtype=np.int64)
        rng = np.random.default_rng([self.seed, zlib.crc32(symbol.encode()), day])
        columns, state = simulate_day(
            open_ms,
            scale=SCALES[symbol],
            before=self._states[symbol][day],
            factors=_regime_factors(open_ms, regimes=self._regimes),
            rng=rng,
        )
        return open_ms, columns, state


def _regime_factors(open_ms: npt.NDArray[np.int64], *, regimes: Sequence[Regime]) -> Factors:
    starts_ms = [as_ms(regime.starts_at) for regime in regimes]
    ruling = np.searchsorted(starts_ms, open_ms, side="right")

    def per_minute(name: str) -> Floats:
        return np.array([1.0, *(getattr(regime, name) for regime in regimes)])[ruling]

    return Factors(
        volatility=per_minute("volatility_factor"),
        volume=per_minute("volume_factor"),
        flow_effect=per_minute("flow_effect_factor"),
    )


def _sorted(regimes: Sequence[Regime]) -> tuple[Regime, ...]:
    # The sort is stable: of two regimes with one start, the one added last rules.
    return tuple(sorted(regimes, key=lambda regime: regime.starts_at))


def _refuse_unknown(symbols: Sequence[str], *, seed: int) -> None:
    for symbol in symbols:
        if symbol not in SCALES:
            raise ConfigurationError(
                f"the synthetic market does not trade {symbol!r}",
                hint=f"choose from {', '.join(SCALES)}",
            )
    if not symbols or seed < 0:
        raise ConfigurationError(
            f"a synthetic market needs a symbol and a seed from 0, not {symbols!r} and {seed}",
            hint="give both",
        )
