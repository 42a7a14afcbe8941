from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.control import Control
from btc_lifecycle.sandbox.faults import FaultQueue
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket

START = datetime(2026, 1, 1, tzinfo=UTC)
NOON = START + timedelta(days=1, hours=12)


class Sandbox:
    """A control with the parts that it moves."""

    def __init__(self, market):
        self.market, self.clock, self.faults = market, SandboxClock(NOON, 0), FaultQueue()
        self.control = Control(market=market, clock=self.clock, faults=self.faults)

    def apply(self, action, wanted):
        self.control.apply(action, body=json.dumps(wanted).encode())


@pytest.fixture
def sandbox():
    return Sandbox(SyntheticMarket(start=START))


def test_the_clock_jumps_and_changes_its_speed(sandbox):
    sandbox.apply("clock", {"now": "2026-02-01T00:00:00+02:00", "speed": 60})
    assert sandbox.clock.now() - datetime(2026, 1, 31, 22, tzinfo=UTC) < timedelta(hours=1)
    assert sandbox.clock.speed == 60


def test_null_leaves_the_clock_as_it_is(sandbox):
    sandbox.apply("clock", {"now": None, "speed": None})
    assert (sandbox.clock.now(), sandbox.clock.speed) == (NOON, 0)


def test_a_regime_without_a_start_starts_now_and_without_factors_is_ordinary(sandbox):
    sandbox.apply("regime", {"starts_at": None, "volatility_factor": 3})
    assert sandbox.market.regimes == (Regime(starts_at=NOON, volatility_factor=3.0),)


def test_a_regime_starts_when_asked(sandbox):
    sandbox.apply("regime", {"starts_at": "2026-01-05T00:00:00Z", "flow_effect_factor": -1})
    starts_at = datetime(2026, 1, 5, tzinfo=UTC)
    assert sandbox.market.regimes == (Regime(starts_at=starts_at, flow_effect_factor=-1.0),)


def test_faults_wait_in_the_state(sandbox):
    sandbox.apply("fault", {"kind": "cut", "count": 2})
    sandbox.apply("fault", {"kind": "html"})
    state = sandbox.control.state()
    assert state["pending_faults"] == ["cut", "cut", "html"]
    assert (state["market"], state["seed"], state["symbols"]) == ("synthetic", 7, ["BTCUSDT"])
    assert (state["now"], state["speed"]) == (NOON.isoformat(), 0)


def test_a_replayed_market_takes_no_regime(tmp_path):
    folder = tmp_path / "BTCUSDT"
    folder.mkdir()
    names = ("open", "high", "low", "close", "volume")
    pl.DataFrame({"open_time": [START], **dict.fromkeys(names, 1.0)}).with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC"))
    ).write_parquet(folder / "2026-01.parquet")
    with pytest.raises(ConfigurationError, match="a replayed market has no regimes"):
        Sandbox(ReplayMarket(folder)).apply("regime", {})


@pytest.mark.parametrize(
    ("action", "wanted", "message"),
    [
        ("clock", [], "the body is a JSON list"),
        ("clock", {"later": 1}, "unknown key\\(s\\) later; known are now, speed"),
        ("clock", {"now": "yesterday"}, "now is 'yesterday'"),
        ("clock", {"now": "2026-01-01T00:00:00"}, "has no zone"),
        ("clock", {"speed": "fast"}, "speed is 'fast'"),
        ("clock", {"speed": True}, "speed is True"),
        ("clock", {"speed": 10**400}, "speed is too large"),
        ("clock", {"speed": -1}, "cannot run at speed"),
        ("regime", {"volatility_factor": 0}, "a regime cannot have volatility_factor"),
        ("regime", {"factor": 2}, "unknown key"),
        ("fault", {"kind": "flood"}, "kind 'flood' is no fault; choose from html, empty, cut"),
        ("fault", {"kind": ["html"]}, "is no fault"),
        ("fault", {}, "kind None is no fault"),
        ("fault", {"kind": "html", "count": 0}, "count 0 is no number of faults"),
        ("fault", {"kind": "html", "count": 1.5}, "count 1.5 is no number of faults"),
        ("fault", {"kind": "html", "count": True}, "count True is no number of faults"),
    ],
)
def test_a_bad_body_is_refused_with_what_to_send_instead(sandbox, action, wanted, message):
    before = sandbox.control.state()
    with pytest.raises(ConfigurationError, match=message):
        sandbox.apply(action, wanted)
    assert sandbox.control.state() == before


def test_a_body_that_is_no_json_is_refused(sandbox):
    with pytest.raises(ConfigurationError, match="the body is not JSON"):
        sandbox.control.apply("clock", body=b"\xff{")
