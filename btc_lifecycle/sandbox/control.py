"""The sandbox's own calls: read its state, move its clock, change its regime, ask for faults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import FaultKind, FaultQueue
from btc_lifecycle.sandbox.market import Market
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket

MAX_FAULTS = 10_000
_FACTORS = ("volatility_factor", "volume_factor", "flow_effect_factor")


class Control:
    """Answers to the control calls; bad bodies raise ConfigurationError with a clear message."""

    def __init__(self, *, market: Market, clock: SandboxClock, faults: FaultQueue) -> None:
        self._market, self._clock, self._faults = market, clock, faults

    def state(self) -> dict[str, object]:
        """Return what the sandbox is doing now, as JSON values."""
        return {
            "market": self._market.label,
            "now": self._clock.now().isoformat(),
            "speed": self._clock.speed,
            "symbols": list(self._market.symbols),
            "pending_faults": self._faults.pending(),
            **self._market.describe(),
        }

    def apply(self, action: str, *, body: bytes) -> None:
        """Do what a POST to ``/sandbox/<action>`` asks; action is one of clock, regime, fault.

        Raises:
            ConfigurationError: When the body is not what the action takes.
        """
        actions = {"clock": self._set_clock, "regime": self._add_regime, "fault": self._add_faults}
        actions[action](_parse(body))

    def _set_clock(self, wanted: Mapping[str, object]) -> None:
        _refuse_unknown_keys(wanted, known=("now", "speed"))
        self._clock.set(now=_time(wanted, "now"), speed=_number(wanted, "speed"))

    def _add_regime(self, wanted: Mapping[str, object]) -> None:
        _refuse_unknown_keys(wanted, known=("starts_at", *_FACTORS))
        if not isinstance(self._market, SyntheticMarket):
            raise ConfigurationError(
                "a replayed market has no regimes", hint="start the sandbox with a synthetic market"
            )
        factors = {name: _number(wanted, name) for name in _FACTORS}
        given = {name: factor for name, factor in factors.items() if factor is not None}
        starts_at = _time(wanted, "starts_at") or self._clock.now()
        self._market.add_regime(Regime(starts_at=starts_at, **given))

    def _add_faults(self, wanted: Mapping[str, object]) -> None:
        _refuse_unknown_keys(wanted, known=("kind", "count"))
        kind, count = wanted.get("kind"), wanted.get("count", 1)
        if not isinstance(kind, str) or kind not in list(FaultKind):
            raise ConfigurationError(
                f"kind {kind!r} is no fault", hint=f"choose from {', '.join(FaultKind)}"
            )
        if type(count) is not int or not 1 <= count <= MAX_FAULTS:
            raise ConfigurationError(
                f"count {count!r} is no number of faults", hint=f"give an integer 1 to {MAX_FAULTS}"
            )
        self._faults.add(FaultKind(kind), count=count)


def _parse(body: bytes) -> Mapping[str, object]:
    try:
        wanted = json.loads(body)
    except ValueError as error:
        raise ConfigurationError(
            f"the body is not JSON ({error})", hint="send a JSON object"
        ) from error
    if not isinstance(wanted, dict):
        raise ConfigurationError(
            f"the body is a JSON {type(wanted).__name__}", hint="send a JSON object"
        )
    return wanted


def _refuse_unknown_keys(wanted: Mapping[str, object], *, known: tuple[str, ...]) -> None:
    if unknown := sorted(set(wanted) - set(known)):
        raise ConfigurationError(
            f"unknown key(s) {', '.join(unknown)}", hint=f"known are {', '.join(known)}"
        )


def _number(wanted: Mapping[str, object], name: str) -> float | None:
    value = wanted.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} is {value!r}", hint="give a number or null")
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigurationError(f"{name} is too large", hint="give a smaller number") from error


def _time(wanted: Mapping[str, object], name: str) -> datetime | None:
    value = wanted.get(name)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigurationError(
            f"{name} is {value!r}",
            hint="give an ISO time such as 2026-01-31T12:00:00+00:00 or null",
        ) from error
