from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import DAY_MS, MINUTE_MS, as_ms
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle.sandbox.revisions import MAX_REVISIONS, RevisedMarket
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket
from btc_lifecycle_tests.reference_sandbox import all_rows, broken_rules
from btc_lifecycle_tests.sandbox.conftest import START

START_MS = as_ms(START)
UNTIL_MS = START_MS + 2 * DAY_MS - MINUTE_MS


@pytest.fixture
def market():
    return SyntheticMarket(seed=7, start=START, symbols=("BTCUSDT", "ETHUSDT"))


@pytest.fixture
def history(market):
    return RevisedMarket(market)


def test_without_corrections_it_is_the_market_itself(market, history):
    assert (history.label, history.symbols) == (market.label, market.symbols)
    starts = history.block_starts("BTCUSDT", until_ms=UNTIL_MS)
    assert starts == market.block_starts("BTCUSDT", until_ms=UNTIL_MS)
    assert history.block("BTCUSDT", start_ms=START_MS) is market.block("BTCUSDT", start_ms=START_MS)
    assert history.describe() == market.describe() | {"revisions": []}


def test_a_corrected_minute_has_other_amounts_and_every_other_row_stays(market, history):
    before = all_rows(market, "BTCUSDT", until_ms=UNTIL_MS)
    for i in (0, 1439, 1500):
        history.revise("BTCUSDT", open_ms=START_MS + i * MINUTE_MS, volume_factor=1.5)
    after = all_rows(history, "BTCUSDT", until_ms=UNTIL_MS)
    assert [i for i in range(2880) if before[i] != after[i]] == [0, 1439, 1500]
    for old, new in zip(before, after, strict=True):
        assert not broken_rules(new)
        assert [old[i] for i in (0, 1, 2, 3, 4, 6, 8)] == [new[i] for i in (0, 1, 2, 3, 4, 6, 8)]
    for i in (5, 7, 9, 10):
        assert float(after[1500][i]) == pytest.approx(1.5 * float(before[1500][i]), abs=1e-7)
    assert all_rows(market, "BTCUSDT", until_ms=UNTIL_MS) == before
    assert all_rows(history, "ETHUSDT", until_ms=UNTIL_MS) == all_rows(
        market, "ETHUSDT", until_ms=UNTIL_MS
    )


def test_a_second_correction_replaces_the_first(market, history):
    for factor in (0.5, 2.0, 1.0):
        history.revise("BTCUSDT", open_ms=START_MS, volume_factor=factor)
    assert all_rows(history, "BTCUSDT", until_ms=START_MS) == all_rows(
        market, "BTCUSDT", until_ms=START_MS
    )
    assert history.describe()["revisions"] == [
        {"symbol": "BTCUSDT", "open_time": START.isoformat(), "volume_factor": 1.0}
    ]


def test_a_correction_outlives_a_change_of_the_market_beneath(market, history):
    history.revise("BTCUSDT", open_ms=START_MS, volume_factor=0.0)
    market.add_regime(Regime(starts_at=START, volume_factor=3))
    first, second = all_rows(history, "BTCUSDT", until_ms=START_MS + MINUTE_MS)
    assert [float(first[i]) for i in (5, 7, 9, 10)] == [0, 0, 0, 0]
    assert second == all_rows(market, "BTCUSDT", until_ms=START_MS + MINUTE_MS)[1]


def test_a_recording_is_corrected_too(tmp_path):
    minutes = [START + timedelta(minutes=i) for i in (0, 1, 3)]
    frame = pl.DataFrame({"open_time": minutes, **dict.fromkeys(("open", "high", "low"), 2.0)})
    frame = frame.with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC")), close=2.0, volume=10.0
    )
    (tmp_path / "BTCUSDT").mkdir()
    frame.write_parquet(tmp_path / "BTCUSDT" / "2026-01.parquet")
    history = RevisedMarket(ReplayMarket(tmp_path))
    history.revise("BTCUSDT", open_ms=START_MS + 3 * MINUTE_MS, volume_factor=0.5)
    volumes = [row[5] for row in all_rows(history, "BTCUSDT", until_ms=UNTIL_MS)]
    assert volumes == ["10.00000000", "10.00000000", "5.00000000"]
    with pytest.raises(ConfigurationError, match="no minute that opens at 2026-01-01T00:02"):
        history.revise("BTCUSDT", open_ms=START_MS + 2 * MINUTE_MS, volume_factor=0.5)


@pytest.mark.parametrize(
    ("symbol", "open_time"),
    [
        ("NOPEUSDT", START),
        ("BTCUSDT", START + timedelta(seconds=1)),
        ("BTCUSDT", START - timedelta(minutes=1)),
        ("BTCUSDT", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_minutes_that_the_market_does_not_have_are_refused(history, symbol, open_time):
    with pytest.raises(ConfigurationError, match="no minute that opens at"):
        history.revise(symbol, open_ms=as_ms(open_time), volume_factor=2)


@pytest.mark.parametrize("factor", [-0.1, 1000.1, float("nan"), float("inf")])
def test_factors_beyond_reason_are_refused(history, factor):
    with pytest.raises(ConfigurationError, match="volume_factor is"):
        history.revise("BTCUSDT", open_ms=START_MS, volume_factor=factor)


def test_corrections_have_a_bound(history):
    for i in range(MAX_REVISIONS):
        history.revise("BTCUSDT", open_ms=START_MS + i * MINUTE_MS, volume_factor=2)
    history.revise("BTCUSDT", open_ms=START_MS, volume_factor=3)
    with pytest.raises(ConfigurationError, match="1000 minutes are revised already"):
        history.revise("ETHUSDT", open_ms=START_MS, volume_factor=2)
