"""The sandbox exchange's own time: any date, running at any speed, jumping on demand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import as_datetime, as_ms

MAX_SPEED = 100_000.0


class SandboxClock:
    """Server time: ``now`` plus ``speed`` times the monotonic seconds since it was set.

    A speed of 0 stops the clock; 60 makes a minute of market time pass in each real second.
    """

    def __init__(
        self,
        now: datetime,
        speed: float = 1.0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        _refuse_bad_speed(speed)
        self._monotonic = monotonic
        # One tuple, replaced whole, so that handler threads never see half of a change.
        self._setting = (as_ms(now), monotonic(), speed)

    @property
    def speed(self) -> float:
        """Seconds of server time per real second."""
        return self._setting[2]

    def now_ms(self) -> int:
        """Return server time in milliseconds since the epoch."""
        set_to_ms, set_at, speed = self._setting
        return set_to_ms + int(1000 * speed * (self._monotonic() - set_at))

    def now(self) -> datetime:
        """Return server time as aware UTC, cut to the millisecond."""
        return as_datetime(self.now_ms())

    def set(self, *, now: datetime | None = None, speed: float | None = None) -> None:
        """Jump to ``now``, run at ``speed`` from here on, or both; None leaves that one as it is.

        Raises:
            ConfigurationError: When ``now`` has no zone or ``speed`` is outside 0..MAX_SPEED.
        """
        new_speed = self.speed if speed is None else speed
        _refuse_bad_speed(new_speed)
        new_ms = self.now_ms() if now is None else as_ms(now)
        self._setting = (new_ms, self._monotonic(), new_speed)


def _refuse_bad_speed(speed: float) -> None:
    if not (math.isfinite(speed) and 0 <= speed <= MAX_SPEED):
        raise ConfigurationError(
            f"the sandbox clock cannot run at speed {speed}",
            hint=f"give a number from 0 (stopped) to {MAX_SPEED:.0f}",
        )
