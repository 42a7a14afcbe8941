"""The checks on a small store, sound and then spoilt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from btc_lifecycle.adapters.warehouse import CandleBatch, CandleStore, Warehouse
from btc_lifecycle.domain.errors import DataError, LifecycleError
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.tables import CANDLE_QUARANTINE, CandleTables
from btc_lifecycle.orchestration.checks import CHECKED, check_candles
from btc_lifecycle.orchestration.ingestion import Ingestion, IngestionStats
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)
N_MINUTES = 100
NOW = START + N_MINUTES * MINUTE
NAMES = {"unique", "sound", "one_source", "every_symbol", "gaps", "fresh", "spikes"}


@pytest.fixture
def store(tmp_path: Path) -> CandleStore:
    store = CandleStore(Warehouse(tmp_path / "x.duckdb"), CandleTables.named())
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


FIGURES = IngestionStats(
    symbol="BTC/USDT",
    interval="1m",
    new_rows=1,
    revised_rows=0,
    rejected_rows=0,
    total_rows=N_MINUTES,
    first_open_time=START,
    last_open_time=NOW - MINUTE,
    missing_minutes=0,
    gaps=0,
    fetched_at=NOW,
    source="synthetic",
)


def checked(
    store: CandleStore, *, failures: dict[str, LifecycleError] | None = None, **figures: object
) -> dict[str, dg.AssetCheckResult]:
    ingestion = Ingestion(
        stats=(replace(FIGURES, **figures),), failures=failures or {}, asked_at=NOW
    )
    return {result.check_name: result for result in check_candles(store, ingestion)}


def spoil(store: CandleStore, values: str, *, at: datetime) -> None:
    """Change a stored candle behind the store's back."""
    with store.warehouse.connect() as connection:
        connection.execute(
            f"UPDATE candles SET {values} WHERE open_time = ?",  # noqa: S608  # our own words
            [at.replace(tzinfo=None)],
        )


def failing(store: CandleStore, **changed: Any) -> dict[str, dg.AssetCheckResult]:
    return {name: found for name, found in checked(store, **changed).items() if not found.passed}


def test_sound_candles_pass_every_check(store: CandleStore):
    found = checked(store)
    assert set(found) == NAMES
    assert all(result.passed and not result.metadata for result in found.values())


def test_an_unsound_candle_is_an_error_and_is_shown(store: CandleStore):
    spoil(store, "high = 1", at=START + MINUTE)
    found = failing(store)["sound"]
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description == "1 of 100 candles break a rule of prices and amounts"
    assert "the high is not the highest price" in found.metadata["first_rows"].value


def test_a_gap_is_a_warning_with_its_minutes(tmp_path: Path):
    store = CandleStore(Warehouse(tmp_path / "gappy.duckdb"), CandleTables.named())
    keep(store, make_candles(N_MINUTES).filter(~pl.int_range(pl.len()).is_between(40, 44)))
    (name, found) = next(iter(failing(store).items()))
    assert name == "gaps"
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "1 gaps of 5 minutes in all"
    assert "2024-01-01 00:40:00+00:00" in found.metadata["first_rows"].value


@pytest.mark.parametrize(
    ("changed", "name", "said"),
    [
        ({"source": "binance"}, "one_source", "the table's source is synthetic, the newest"),
        (
            {"failures": {"ETH/USDT": DataError("gone", hint="look")}},
            "every_symbol",
            "1 symbols failed",
        ),
        ({"fetched_at": NOW + timedelta(hours=1)}, "fresh", "1 of 1 symbols lie"),
    ],
)
def test_what_the_ingest_said_is_checked(
    store: CandleStore, changed: dict[str, Any], name: str, said: str
):
    found = failing(store, **changed)
    assert set(found) == {name}
    assert found[name].description.startswith(said)


def test_what_is_older_than_the_checks_look_back_is_let_be(store: CandleStore):
    spoil(store, "high = 1", at=START)
    assert set(failing(store)) == {"sound"}
    later = NOW - MINUTE + CHECKED
    keep(store, make_candles(1, start=later))
    assert "sound" not in failing(store, last_open_time=later, fetched_at=later + MINUTE)


def test_a_leap_is_a_warning(store: CandleStore):
    spoil(store, "high = 9e5, close = 9e5", at=NOW - MINUTE)
    found = failing(store)
    assert set(found) == {"spikes"}
    assert found["spikes"].severity is dg.AssetCheckSeverity.WARN
