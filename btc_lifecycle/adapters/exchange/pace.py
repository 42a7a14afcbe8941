"""The pace of requests, shared by every process that works on one folder and kept over restarts.

Before a request its turn is awaited: the pause that the exchange asked for, an even use of our share
of its request weight, and its own count of the minute, which also sees other programs behind the
same IP address.

Source: Binance Spot API documentation, rest-api.md, "LIMITS".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from btc_lifecycle.adapters.exchange.pace_file import PaceFile
from btc_lifecycle.adapters.exchange.pace_state import MINUTE_S, Budget
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

LIMIT_PER_MIN = 6000
"""Request weight per minute and IP address (Binance, rateLimits of exchangeInfo)."""

_HEAVIEST = 2
_BURST_SHARE = 0.02
_MARGIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Leave to ask now.

    Attributes:
        at: When it was given, seconds since the epoch.
        waited_s: How long it was waited for.
        used_weight: What the exchange should have counted in this minute with this request.
    """

    at: float
    waited_s: float
    used_weight: int


class Pace:
    """When the next request may leave, for all processes on one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        weight_share: float = 0.5,
        limit_per_min: int = LIMIT_PER_MIN,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the pace; the folder is made at the first request.

        Args:
            folder: Where a small file is kept for each address.
            weight_share: Part of the exchange's limit that we may use, 0 to 1.
            limit_per_min: The exchange's limit of request weight.
            clock: Seconds since the epoch.
            pause: Called with the seconds to wait.

        Raises:
            ConfigurationError: If the share allows less than a few requests a minute.
        """
        per_min = weight_share * limit_per_min
        if per_min < 5 * _HEAVIEST:
            raise ConfigurationError(
                f"weight_share {weight_share:g} allows {per_min:g} of the exchange's request weight "
                f"of {limit_per_min} a minute, and one page costs {_HEAVIEST}",
                hint="raise weight_share; 0.5 is usual",
            )
        self.budget = Budget(per_min=per_min, burst=max(_HEAVIEST, _BURST_SHARE * per_min))
        self.limit_per_min = limit_per_min
        self.clock, self._pause = clock, pause
        self._folder, self._files = folder, dict[str, PaceFile]()

    def take_turn(self, base: str, *, weight: int, patience_s: float) -> Turn:
        """Wait until a request may leave, then count it as sent.

        Raises:
            NeighbourUnavailableError: If that would take longer than the patience.
            ConfigurationError: If the folder cannot be written.
        """
        asked_at, file = self.clock(), self._file(base)
        while True:
            with file.locked():
                now = self.clock()
                state = file.read(now=now)
                at = max(state.free_at(weight, budget=self.budget, now=now), state.not_before)
                if at <= now:
                    state = state.after_request(weight, budget=self.budget, now=now)
                    file.write(state)
                    waited_s = max(0.0, now - asked_at)
                    return Turn(at=now, waited_s=waited_s, used_weight=state.used_weight)
            if at > asked_at + patience_s:
                raise self._too_long(base, until=at, now=now, is_held=state.not_before > now)
            self._pause(at - now)

    def count(self, base: str, *, used_weight: int, turn: Turn) -> None:
        """Take over the exchange's own count of the minute in which a request left.

        Args:
            base: Address that was asked.
            used_weight: Its ``X-MBX-USED-WEIGHT-1M``.
            turn: Leave that the request had.
        """
        if used_weight == turn.used_weight:
            return
        file = self._file(base)
        with file.locked():
            state = file.read(now=self.clock())
            minute = int(turn.at // MINUTE_S)
            file.write(replace(state, used_weight=used_weight, used_minute=minute))

    def used_share(self, base: str) -> float:
        """Return the share of the exchange's limit that the running minute has used, 0 to 1."""
        now = self.clock()
        state = self._file(base).read(now=now)
        return state.used_in(int(now // MINUTE_S)) / self.limit_per_min

    def hold(self, base: str, *, seconds: float) -> None:
        """Let no request leave for this long, and a little longer; a longer hold stays."""
        file = self._file(base)
        with file.locked():
            now = self.clock()
            state = file.read(now=now)
            until = max(state.not_before, now + seconds + _MARGIN_S)
            file.write_durably(replace(state, not_before=until))

    def pass_over(self, base: str, *, seconds: float) -> None:
        """Let other addresses be asked first for this long."""
        file = self._file(base)
        with file.locked():
            now = self.clock()
            file.write(replace(file.read(now=now), passed_over_until=now + seconds))

    def is_passed_over(self, base: str) -> bool:
        """Return whether other addresses are to be asked first."""
        now = self.clock()
        return self._file(base).read(now=now).passed_over_until > now

    def _file(self, base: str) -> PaceFile:
        if base not in self._files:
            name = re.sub(r"[^A-Za-z0-9.-]+", "_", base)
            self._files[base] = PaceFile(self._folder / f"{name}.json")
        return self._files[base]

    def _too_long(
        self, base: str, *, until: float, now: float, is_held: bool
    ) -> NeighbourUnavailableError:
        wait = timedelta(seconds=round(until - now))
        if is_held:
            return NeighbourUnavailableError(
                f"{base} asks for a pause until {_moment(until, now=now)}",
                hint=f"wait {wait}, it is not asked before; the next ingest after that continues",
            )
        return NeighbourUnavailableError(
            f"our {self.budget.per_min:g} of the request weight of {base} are used up until "
            f"{_moment(until, now=now)}",
            hint=f"wait {wait}, or raise weight_share; the next ingest continues",
        )


def _moment(at: float, *, now: float) -> str:
    moment = datetime.fromtimestamp(at, tz=UTC)
    is_today = moment.date() == datetime.fromtimestamp(now, tz=UTC).date()
    return f"{moment:%H:%M:%S} UTC" if is_today else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
