"""What one address of the exchange told its clients, and how much of its budget they have used.

All times are seconds since the epoch by this machine's clock, so that they outlive processes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

MINUTE_S = 60.0
LONGEST_HOLD_S = 3 * 86_400.0 + 60.0
"""Three days, the longest ban that Binance documents, and a little for margins."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Request weight for one address: a bucket that leaks evenly, never more than a minute's worth.

    Attributes:
        per_min: Weight that may be used in any minute.
        burst: Weight that may be used at once after a rest.
    """

    per_min: float
    burst: float

    @property
    def seconds_per_weight(self) -> float:
        """The pace at which a burst and all that leaks in a minute make up the minute's budget."""
        return MINUTE_S / (self.per_min - self.burst)


@dataclass(frozen=True, kw_only=True)
class PaceState:
    """What is known of one address; the state without arguments asks for no wait.

    Attributes:
        full_until: When the bucket of the budget will have leaked empty.
        used_weight: The exchange's newest count of this minute plus what was asked for since.
        used_minute: The minute of that count, since the epoch.
        not_before: No request before this time, asked for by 429 or 418.
        passed_over_until: Ask other addresses until then, this one refused to serve.
    """

    full_until: float = 0.0
    used_weight: int = 0
    used_minute: int = 0
    not_before: float = 0.0
    passed_over_until: float = 0.0

    @classmethod
    def from_json(cls, text: bytes, *, now: float) -> PaceState:
        """Return the state that was written; what cannot be so is taken for never written."""
        try:
            found = json.loads(text)
            known = {name: type(value)(found[name]) for name, value in vars(_UNKNOWN).items()}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return _UNKNOWN
        return cls(**known)._sane(now=now)

    def to_json(self) -> bytes:
        """Return the text that ``from_json`` reads."""
        return json.dumps(vars(self)).encode()

    def free_at(self, weight: int, *, budget: Budget, now: float) -> float:
        """Return when a request of this weight fits the budget; ``now`` at the earliest."""
        room_s = (budget.burst - weight) * budget.seconds_per_weight
        free_at = max(now, self.full_until - room_s)
        minute = math.floor(free_at / MINUTE_S)
        if self.used_in(minute) + weight > budget.per_min:
            return (minute + 1) * MINUTE_S
        return free_at

    def after_request(self, weight: int, *, budget: Budget, now: float) -> PaceState:
        """Return the state once a request of this weight is on its way."""
        minute = math.floor(now / MINUTE_S)
        return replace(
            self,
            full_until=max(now, self.full_until) + weight * budget.seconds_per_weight,
            used_weight=self.used_in(minute) + weight,
            used_minute=minute,
        )

    def used_in(self, minute: int) -> int:
        """Return the weight used in a minute since the epoch, as far as it is known."""
        return self.used_weight if minute == self.used_minute else 0

    def _sane(self, *, now: float) -> PaceState:
        # A clock that was set back would otherwise hold every request until the old time is reached.
        def near(moment: float, *, within_s: float) -> float:
            return moment if moment <= now + within_s else 0.0

        return replace(
            self,
            full_until=near(self.full_until, within_s=2 * MINUTE_S),
            not_before=near(self.not_before, within_s=LONGEST_HOLD_S),
            passed_over_until=near(self.passed_over_until, within_s=60 * MINUTE_S),
        )


_UNKNOWN = PaceState()
