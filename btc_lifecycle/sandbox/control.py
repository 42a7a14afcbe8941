"""The sandbox's own calls: GET ``/sandbox/state``, and POST of a JSON object to ``/sandbox/...``.

- ``clock`` {"now": ISO time or null, "speed": number or null}: null leaves that one as it is.
- ``regime`` {"starts_at": ISO time or null, "volatility_factor", "volume_factor",
  "flow_effect_factor": numbers or null}: how a synthetic market behaves from then, or from now, on.
- ``fault`` {"kind", "count": 1, "path": "klines" (or "time", "archive"), "retry_after": 1}: lets so
  many answers of the path fail, each in turn; kinds are in faults.py, ``retry_after`` is in seconds
  and goes with http_429, http_429_date and http_418. Refused requests use up no fault.
- ``archive`` {"header_line": false, "cut_at": null or ISO time, "revised_rows": 0,
  "bad_checksum": false}: how files of the archive are made from now on; what is not named goes back
  to the value shown here. Files already made are made anew.
- ``revise`` {"symbol", "open_time": ISO time, "volume_factor": number}: scales the amounts of one
  minute from now on, in klines and in the archive.

A state is the answer to each; a bad body is answered with 400 and {"error": message}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.archive import ArchiveSettings, SandboxArchive
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.faults import TELL_A_DELAY, Fault, FaultKind, FaultPath, FaultQueue
from btc_lifecycle.sandbox.market import Market, as_ms
from btc_lifecycle.sandbox.revisions import RevisedMarket
from btc_lifecycle.sandbox.spoiling import kinds_of
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket

MAX_FAULTS = 10_000
MAX_RETRY_AFTER_SECONDS = 3 * 86_400
MAX_REVISED_ROWS = 50_000
ACTIONS = ("clock", "regime", "fault", "archive", "revise")

_FACTORS = ("volatility_factor", "volume_factor", "flow_effect_factor")


class Control:
    """Answers to the control calls; bad bodies raise ConfigurationError with a clear message.

    Args:
        market: What is traded, for its regimes.
        history: The same market as it is told.
        clock: The exchange's time.
        faults: The faults to come.
        archive: The files of ``history``.
    """

    def __init__(
        self,
        *,
        market: Market,
        history: RevisedMarket,
        clock: SandboxClock,
        faults: FaultQueue,
        archive: SandboxArchive,
    ) -> None:
        self._market, self._history, self._clock = market, history, clock
        self._faults, self._archive = faults, archive

    def state(self) -> dict[str, object]:
        """Return what the sandbox is doing now, as JSON values."""
        archive = asdict(self._archive.settings)
        cut_at = self._archive.settings.cut_at
        return {
            "market": self._market.label,
            "now": self._clock.now().isoformat(),
            "speed": self._clock.speed,
            "symbols": list(self._market.symbols),
            "pending_faults": self._faults.pending(),
            "archive": archive | {"cut_at": cut_at.isoformat() if cut_at else None},
            **self._history.describe(),
        }

    def apply(self, action: str, *, body: bytes) -> None:
        """Do what a POST to ``/sandbox/<action>`` asks; action is one of ACTIONS.

        Raises:
            ConfigurationError: When the body is not what the action takes.
        """
        actions = {
            "clock": self._set_clock,
            "regime": self._add_regime,
            "fault": self._add_faults,
            "archive": self._set_archive,
            "revise": self._revise,
        }
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
        self._archive.reissue()

    def _add_faults(self, wanted: Mapping[str, object]) -> None:
        _refuse_unknown_keys(wanted, known=("kind", "count", "path", "retry_after"))
        path = _choice(wanted.get("path", FaultPath.KLINES), name="path", known=tuple(FaultPath))
        name = _choice(wanted.get("kind"), name="kind", known=kinds_of(FaultPath(path)))
        kind = FaultKind(name)
        if "retry_after" in wanted and kind not in TELL_A_DELAY:
            raise ConfigurationError(
                f"{kind} tells no retry_after", hint=f"use {', '.join(sorted(TELL_A_DELAY))}"
            )
        delay = _integer(wanted, "retry_after", default=1, low=0, high=MAX_RETRY_AFTER_SECONDS)
        count = _integer(wanted, "count", default=1, low=1, high=MAX_FAULTS)
        fault = Fault(kind=kind, retry_after_seconds=delay)
        self._faults.add(fault, count=count, path=FaultPath(path))

    def _set_archive(self, wanted: Mapping[str, object]) -> None:
        known = ("header_line", "cut_at", "revised_rows", "bad_checksum")
        _refuse_unknown_keys(wanted, known=known)
        settings = ArchiveSettings(
            header_line=_flag(wanted, "header_line"),
            cut_at=_time(wanted, "cut_at"),
            revised_rows=_integer(wanted, "revised_rows", default=0, low=0, high=MAX_REVISED_ROWS),
            bad_checksum=_flag(wanted, "bad_checksum"),
        )
        self._archive.reissue(settings)

    def _revise(self, wanted: Mapping[str, object]) -> None:
        _refuse_unknown_keys(wanted, known=("symbol", "open_time", "volume_factor"))
        open_time, factor = _time(wanted, "open_time"), _number(wanted, "volume_factor")
        if open_time is None or factor is None:
            raise ConfigurationError(
                "open_time or volume_factor is missing", hint="give symbol and both"
            )
        symbol = _choice(wanted.get("symbol"), name="symbol", known=self._market.symbols)
        self._history.revise(symbol, open_ms=as_ms(open_time), volume_factor=factor)
        self._archive.reissue()


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


def _choice(value: object, *, name: str, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(
            f"{name} {value!r} is unknown here", hint=f"choose from {', '.join(known)}"
        )
    return value


def _integer(wanted: Mapping[str, object], name: str, *, default: int, low: int, high: int) -> int:
    value = wanted.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(f"{name} is {value!r}", hint=f"give an integer {low} to {high}")
    return value


def _flag(wanted: Mapping[str, object], name: str) -> bool:
    value = wanted.get(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}", hint="give true or false")
    return value


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
        time = datetime.fromisoformat(str(value))
        as_ms(time)
    except ValueError as error:
        raise ConfigurationError(
            f"{name} is {value!r}",
            hint="give an ISO time such as 2026-01-31T12:00:00+00:00 or null",
        ) from error
    return time
