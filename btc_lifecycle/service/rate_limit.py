"""How many requests an address may make: a token bucket for each, bounded in number."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

_MOST_ADDRESSES = 10_000


class RateLimit:
    """Lets an address make so many requests at once, and as many in each minute after.

    A token bucket: it holds a minute's requests, each takes one, and time fills it evenly. Beyond
    ten thousand addresses the one that was quiet the longest is forgotten.
    """

    def __init__(self, per_minute: int, *, now: Callable[[], float] = monotonic) -> None:
        self._per_minute, self._now = per_minute, now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Return 0 and count the request, or return after how many seconds one would be let in."""
        now, rate = self._now(), self._per_minute / 60
        tokens, filled_at = self._buckets.pop(address, (float(self._per_minute), now))
        tokens = min(tokens + (now - filled_at) * rate, self._per_minute)
        is_let_in = tokens >= 1
        self._buckets[address] = (tokens - 1 if is_let_in else tokens, now)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if is_let_in else (1 - tokens) / rate
