"""The checks on a small store, sound and then spoilt, and when a job runs them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from btc_lifecycle.adapters.warehouse import CandleBatch, CandleStore
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLE_QUARANTINE
from btc_lifecycle.orchestration.build import build_defs, open_store
from btc_lifecycle.orchestration.checks import candle_checks
from btc_lifecycle.settings import Settings
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.orchestration.small_lifecycle import small_settings

MINUTE = timedelta(minutes=1)
N_MINUTES = 100
NOW = START + N_MINUTES * MINUTE
NAMES = {"unique", "sound", "one_source", "every_symbol", "gaps", "fresh", "spikes"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path)


@pytest.fixture
def store(settings: Settings) -> CandleStore:
    write_stats(settings)
    store = open_store(settings)
    keep(store, make_candles(N_MINUTES))
    return store


def keep(store: CandleStore, candles: pl.DataFrame) -> None:
    """Store candles as what the exchange gave for the whole time."""
    store.store(
        CandleBatch(
            symbol="BTC/USDT",
            candles=candles,
            rejected=pl.DataFrame(schema=CANDLE_QUARANTINE.schema).drop("seen_at"),
            asked=Stretch(start=START, end=NOW),
            now=NOW,
            source="synthetic",
        )
    )


def write_stats(settings: Settings, **changed: object) -> None:
    figures = {
        "symbol": "BTC/USDT",
        "last_open_time": (NOW - MINUTE).isoformat(),
        "fetched_at": NOW.isoformat(),
    } | changed
    written = {"source": "synthetic", "symbols": [figures], "failures": {}} | changed
    settings.ingestion_stats_path.parent.mkdir(parents=True, exist_ok=True)
    settings.ingestion_stats_path.write_text(json.dumps(written))


def checked(settings: Settings, store: CandleStore) -> dict[str, dg.AssetCheckResult]:
    results = list(candle_checks(settings=settings, candle_store=store))
    return {result.check_name: result for result in results}


def failing(settings: Settings, store: CandleStore) -> dict[str, dg.AssetCheckResult]:
    return {name: found for name, found in checked(settings, store).items() if not found.passed}


def test_sound_candles_pass_every_check(settings: Settings, store: CandleStore):
    found = checked(settings, store)
    assert set(found) == NAMES
    assert all(result.passed and not result.metadata for result in found.values())


def test_an_unsound_candle_is_an_error_and_is_shown(settings: Settings, store: CandleStore):
    with store.warehouse.connect() as connection:
        connection.execute("UPDATE candles SET high = 1 WHERE open_time = ?", [START + MINUTE])
    found = failing(settings, store)["sound"]
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description == "1 of 100 candles break a rule of prices and amounts"
    assert "the high is not the highest price" in found.metadata["first_rows"].value


def test_a_gap_is_a_warning_with_its_minutes(settings: Settings, tmp_path: Path):
    write_stats(settings)
    store = open_store(settings)
    keep(store, make_candles(N_MINUTES).filter(~pl.int_range(pl.len()).is_between(40, 44)))
    (name, found) = next(iter(failing(settings, store).items()))
    assert name == "gaps"
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "1 gaps of 5 minutes in all"
    assert "2024-01-01 00:40:00+00:00" in found.metadata["first_rows"].value


@pytest.mark.parametrize(
    ("changed", "name", "said"),
    [
        ({"source": "binance"}, "one_source", "the table's source is synthetic, the newest"),
        ({"failures": {"ETH/USDT": "gone"}}, "every_symbol", "1 symbols failed"),
        ({"fetched_at": (NOW + timedelta(hours=1)).isoformat()}, "fresh", "1 of 1 symbols lie"),
    ],
)
def test_what_the_newest_ingest_said_is_checked(
    settings: Settings, store: CandleStore, changed: dict[str, object], name: str, said: str
):
    write_stats(settings, **changed)
    found = failing(settings, store)
    assert set(found) == {name}
    assert found[name].description.startswith(said)


def test_a_leap_is_a_warning(settings: Settings, store: CandleStore):
    with store.warehouse.connect() as connection:
        connection.execute(
            "UPDATE candles SET high = 9e5, close = 9e5 WHERE open_time = ?", [NOW - MINUTE]
        )
    found = failing(settings, store)
    assert set(found) == {"spikes"}
    assert found["spikes"].severity is dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize(("asset", "is_checked"), [("candles", False), (None, True)])
def test_the_whole_job_checks_and_the_minutes_tick_does_not(
    settings: Settings, asset: str | None, is_checked: bool
):
    """What the schedule asks for each minute, and at the full hour."""
    defs = build_defs(settings)
    job = defs.resolve_job_def("ingest_job")
    if asset is not None:
        job = job.get_subset(asset_selection={dg.AssetKey(asset)}, asset_check_selection=set())
    assert ("candle_checks" in {node.name for node in job.nodes}) is is_checked
