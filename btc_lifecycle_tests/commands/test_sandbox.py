"""Sandbox exchanges from the words of the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btc_lifecycle.commands.sandbox import make_exchange, make_market, parse_time
from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle_tests.builders import make_candles

START = datetime(2024, 1, 1, tzinfo=UTC)


def test_a_synthetic_market_trades_both_symbols_from_its_start() -> None:
    market = make_market("synthetic", data=None, seed=3, start=START)
    assert market.symbols == ("BTCUSDT", "ETHUSDT")
    assert market.label == "synthetic"
    described = market.describe()
    assert (described["seed"], described["start"]) == (3, START.isoformat())


def test_a_replay_takes_the_folders_symbols(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT" / "2024-01.parquet"
    path.parent.mkdir()
    make_candles(3).drop("symbol").write_parquet(path)
    market = make_market("replay", data=tmp_path, seed=7, start=START)
    assert (market.symbols, market.label) == (("BTCUSDT",), "replay")


def test_an_unknown_market_is_refused_even_with_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="market 'bear' is unknown; use synthetic"):
        make_market("bear", data=tmp_path, seed=7, start=START)


def test_a_replay_without_a_folder_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no data; name a folder with --data"):
        make_market("replay", data=None, seed=7, start=START)
    with pytest.raises(ConfigurationError, match="no recorded candles"):
        make_market("replay", data=tmp_path, seed=7, start=START)


def test_an_exchange_keeps_the_asked_for_time_and_speed() -> None:
    market = make_market("synthetic", data=None, seed=7, start=START)
    exchange = make_exchange(market, now=START + timedelta(days=1), speed=0, port=0)
    try:
        assert exchange.clock.now() == START + timedelta(days=1)
        assert exchange.clock.speed == 0
        assert exchange.url.startswith("http://127.0.0.1:")
    finally:
        exchange.close()


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T00:00:30Z",
        "2024-03-01T00:00:30",
        "2024-03-01T01:00:30+01:00",
        "2024-03-01 00:00:30",
    ],
)
def test_times_are_utc_whatever_their_form(text: str) -> None:
    time = parse_time(text)
    assert time == datetime(2024, 3, 1, 0, 0, 30, tzinfo=UTC)
    assert time.tzinfo is UTC


@pytest.mark.parametrize("text", ["", "noon", "2024-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time; write it as 2024-03-01T00:00:30Z"):
        parse_time(text)
