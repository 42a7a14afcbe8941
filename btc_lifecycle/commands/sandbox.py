"""Sandbox exchanges from the words of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket

if TYPE_CHECKING:
    from pathlib import Path

    from btc_lifecycle.sandbox.market import Market


def make_market(kind: str, *, data: Path | None, seed: int, start: datetime) -> Market:
    """Return a market of the named kind.

    Raises:
        ConfigurationError: If the kind is unknown, or a replay has no folder.
    """
    if kind == "synthetic":
        return SyntheticMarket(seed=seed, start=start, symbols=("BTCUSDT", "ETHUSDT"))
    if kind == "replay" and data is not None:
        return ReplayMarket(data)
    if kind == "replay":
        raise ConfigurationError("a replay has no data", hint="name a folder with --data")
    raise ConfigurationError(f"market {kind!r} is unknown", hint="use synthetic or replay")


def make_exchange(market: Market, *, now: datetime, speed: float, port: int) -> SandboxExchange:
    """Return a sandbox exchange that listens on this machine and does not serve yet."""
    return SandboxExchange(market, SandboxClock(now, speed), port=port)


def parse_time(text: str) -> datetime:
    """Return an ISO time as aware UTC; one without an offset is taken as UTC.

    Raises:
        ConfigurationError: If it is not an ISO time.
    """
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{text!r} is not a time", hint="write it as 2024-03-01T00:00:30Z"
        ) from error
