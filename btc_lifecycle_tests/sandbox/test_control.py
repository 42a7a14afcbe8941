from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.archive import ArchiveSettings, SandboxArchive
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.control import Control
from btc_lifecycle.sandbox.faults import Fault, FaultKind, FaultPath, FaultQueue
from btc_lifecycle.sandbox.market import MINUTE_MS, as_ms
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.revisions import RevisedMarket
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket

START = datetime(2026, 1, 1, tzinfo=UTC)
NOON = START + timedelta(days=1, hours=12)
REVISION = {"symbol": "BTCUSDT", "open_time": "2026-01-01T00:00:00Z", "volume_factor": 2}


class Sandbox:
    """A control with the parts that it moves."""

    def __init__(self, market):
        self.market, self.history = market, RevisedMarket(market)
        self.clock, self.faults = SandboxClock(NOON, 0), FaultQueue()
        self.archive = SandboxArchive(self.history)
        self.control = Control(
            market=market,
            history=self.history,
            clock=self.clock,
            faults=self.faults,
            archive=self.archive,
        )

    def apply(self, action, wanted):
        self.control.apply(action, body=json.dumps(wanted).encode())

    def archived(self):
        """The file of the first day."""
        path = "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01-01.zip"
        return self.archive.get(path, now_ms=as_ms(NOON)).body


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


def test_faults_can_wait_for_other_calls_and_tell_a_delay(sandbox):
    sandbox.apply("fault", {"kind": "not_a_time", "path": "time"})
    sandbox.apply("fault", {"kind": "http_429", "path": "archive", "retry_after": 40})
    sandbox.apply("fault", {"kind": "http_429_date", "retry_after": 0})
    assert sandbox.control.state()["pending_faults"] == [
        "http_429_date",
        "time:not_a_time",
        "archive:http_429",
    ]
    assert sandbox.faults.pop(FaultPath.ARCHIVE) == Fault(
        kind=FaultKind.HTTP_429, retry_after_seconds=40
    )


def test_archive_files_are_issued_anew_by_what_is_named_alone(sandbox):
    sandbox.apply("archive", {"header_line": True, "cut_at": "2026-01-05T00:00:00Z"})
    assert sandbox.control.state()["archive"] == {
        "header_line": True,
        "cut_at": "2026-01-05T00:00:00+00:00",
        "revised_rows": 0,
        "bad_checksum": False,
    }
    sandbox.apply("archive", {"bad_checksum": True, "revised_rows": 3, "cut_at": None})
    assert sandbox.archive.settings == ArchiveSettings(bad_checksum=True, revised_rows=3)
    sandbox.apply("archive", {})
    assert sandbox.archive.settings == ArchiveSettings()


def test_a_revised_minute_is_in_the_state_and_in_the_archive(sandbox):
    wanted = {"symbol": "BTCUSDT", "open_time": "2026-01-01T00:05:00+00:00", "volume_factor": 2}
    before = sandbox.archived()
    sandbox.apply("revise", wanted)
    assert sandbox.control.state()["revisions"] == [wanted]
    row = sandbox.history.block("BTCUSDT", start_ms=as_ms(START)).kline(5)
    made = sandbox.market.block("BTCUSDT", start_ms=as_ms(START)).kline(5)
    assert row.open_ms == as_ms(START) + 5 * MINUTE_MS
    assert row.volume == 2 * made.volume
    assert sandbox.archived() != before


def test_a_regime_that_changes_the_past_is_in_the_archive(sandbox):
    before = sandbox.archived()
    sandbox.apply("regime", {"starts_at": START.isoformat(), "volume_factor": 2})
    assert sandbox.archived() != before


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
        ("fault", {"kind": "flood"}, "kind 'flood' is unknown here; choose from html, empty, cut"),
        ("fault", {"kind": ["html"]}, "kind \\['html'\\] is unknown here"),
        ("fault", {}, "kind None is unknown here"),
        ("fault", {"kind": "nan", "path": "time"}, "kind 'nan' is unknown here"),
        ("fault", {"kind": "html", "path": "ping"}, "choose from klines, time, archive"),
        ("fault", {"kind": "html", "count": 0}, "count is 0; give an integer 1 to 10000"),
        ("fault", {"kind": "html", "count": 1.5}, "count is 1.5"),
        ("fault", {"kind": "html", "count": True}, "count is True"),
        ("fault", {"kind": "http_429", "retry_after": -1}, "retry_after is -1"),
        (
            "fault",
            {"kind": "http_429_bare", "retry_after": 1},
            "http_429_bare tells no retry_after",
        ),
        ("archive", {"header": True}, "unknown key"),
        ("archive", {"header_line": 1}, "header_line is 1; give true or false"),
        ("archive", {"bad_checksum": None}, "bad_checksum is None"),
        ("archive", {"cut_at": "2026-01-01T00:00:00"}, "has no zone"),
        ("archive", {"revised_rows": "all"}, "revised_rows is 'all'"),
        ("revise", {"minute": 1}, "unknown key"),
        ("revise", {"symbol": "BTCUSDT", "volume_factor": 2}, "open_time or volume_factor"),
        ("revise", {"symbol": "BTCUSDT", "open_time": "2026-01-01T00:00Z"}, "is missing"),
        ("revise", {**REVISION, "symbol": "XUSDT"}, "symbol 'XUSDT' is unknown here"),
        ("revise", {**REVISION, "open_time": "2026-01-01T00:00:30Z"}, "no minute that opens at"),
        ("revise", {**REVISION, "volume_factor": -1}, "volume_factor is -1"),
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
