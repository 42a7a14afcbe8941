"""Request weights per minute: what a request costs, when the exchange refuses, when it bans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BAN_AFTER_REFUSALS = 10
BAN_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What the meter says to one request.

    ``status`` is 200, 429 over the minute's limit or 418 while banned; ``used_weight`` counts the
    running minute with this request; a refused one may come back after ``retry_after_seconds``.
    """

    status: Literal[200, 418, 429]
    used_weight: int
    retry_after_seconds: int = 0
    banned_until_ms: int = 0


class WeightMeter:
    """Counts weights per minute of this machine's clock, whatever time the market runs on.

    Args:
        limit_per_min: Binance's own is 6000.
        wall: Seconds since the epoch.
    """

    def __init__(self, *, limit_per_min: int, wall: Callable[[], float] = time.time) -> None:
        self.limit_per_min = limit_per_min
        self._wall = wall
        self._lock = threading.Lock()
        self._minute = -1
        self._used = 0
        self._refusals = 0
        self._banned_until = 0.0

    @property
    def used_weight(self) -> int:
        """The weight used in the running minute."""
        with self._lock:
            self._turn_minute(self._wall())
            return self._used

    def admit(self, weight: int) -> Admission:
        """Count a request and say whether it is answered, refused or banned."""
        with self._lock:
            now = self._wall()
            self._turn_minute(now)
            self._used += weight
            if now >= self._banned_until and self._used <= self.limit_per_min:
                return Admission(status=200, used_weight=self._used)
            self._refusals += 1
            if now >= self._banned_until and self._refusals > BAN_AFTER_REFUSALS:
                self._banned_until = now + BAN_SECONDS
            return self._refuse(now)

    def _refuse(self, now: float) -> Admission:
        is_banned = now < self._banned_until
        until = self._banned_until if is_banned else 60.0 * (self._minute + 1)
        return Admission(
            status=418 if is_banned else 429,
            used_weight=self._used,
            # One second more than the whole seconds left, so that the wait is never too short.
            retry_after_seconds=int(until - now) + 1,
            banned_until_ms=int(1000 * self._banned_until),
        )

    def _turn_minute(self, now: float) -> None:
        if int(now // 60) != self._minute:
            self._minute, self._used, self._refusals = int(now // 60), 0, 0
