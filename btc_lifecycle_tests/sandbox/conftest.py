"""A running sandbox exchange over a small synthetic market, with its clock stopped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import requests

from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import SyntheticMarket

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=2, hours=3, seconds=20)


@pytest.fixture
def exchange():
    market = SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))
    with SandboxExchange(market, SandboxClock(NOW, 0), wall=lambda: 30.0) as running:
        yield running


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        yield session
