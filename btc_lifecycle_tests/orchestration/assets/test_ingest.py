"""Candles and their report, ingested from a sandbox exchange over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    LIMIT,
    NOW,
    START,
    Metadata,
    SmallLifecycle,
    make_exchange,
    small_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def test_the_first_ingest_reaches_back_as_far_as_the_limit_says(
    life: SmallLifecycle, ingested: Metadata
) -> None:
    open_times = life.warehouse.open_times(CANDLES, symbol="BTC/USDT")
    assert len(open_times) == LIMIT
    assert open_times[0] == START
    assert open_times[-1] == NOW.replace(second=0) - timedelta(minutes=1)


def test_metadata_say_what_was_stored_and_from_where(ingested: Metadata) -> None:
    made = ingested["candles"]
    assert made["new_rows"] == made["dagster/row_count"] == LIMIT
    assert made["revised_rows"] == made["missing_minutes"] == 0
    assert made["source"] == "synthetic"
    assert datetime.fromtimestamp(made["first_open_time"], tz=UTC) == START


def test_the_stats_file_has_the_public_figures(life: SmallLifecycle, ingested: Metadata) -> None:
    stats = json.loads(life.settings.ingestion_stats_path.read_text("utf-8"))
    assert stats["symbol"] == "BTC/USDT"
    assert stats["interval"] == "1m"
    assert stats["new_rows"] == stats["total_rows"] == LIMIT
    assert stats["first_open_time"] == START.isoformat()
    assert stats["fetched_at"] == NOW.isoformat()
    assert stats["missing_minutes"] == 0
    assert stats["source"] == "synthetic"


def test_the_report_is_a_pdf_with_its_images_beside_it(
    life: SmallLifecycle, ingested: Metadata
) -> None:
    report = Path(ingested["ingestion_report"]["report"])
    assert report.read_bytes().startswith(b"%PDF")
    assert report.name == "report.pdf"
    assert report.parent.parent == life.settings.report_dir / "ingestion"
    assert datetime.strptime(report.parent.name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert list(report.parent.glob("*.png"))


def test_every_symbol_is_stored_counted_and_reported_on(tmp_path: Path) -> None:
    """The next minute's ingest stores one candle of each, and makes no report."""
    with (
        make_exchange(now=START + timedelta(hours=6), symbols=("BTCUSDT", "ETHUSDT")) as exchange,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        settings = small_settings(
            tmp_path, exchange_url=exchange.url, symbols=("BTC/USDT", "ETH/USDT")
        )
        life = SmallLifecycle(settings=settings, instance=instance)
        made = life.run("ingest_job")
        n_first = made["candles"]["new_rows"]
        assert made["ingestion_report"]["reports"] == 2
        first_report = Path(made["ingestion_report"]["report"])
        assert (first_report.parent / "ETHUSDT" / "report.pdf").exists()
        exchange.clock.set(now=START + timedelta(hours=6, minutes=1))
        made = life.run("ingest_job", "candles")
    assert list(made) == ["candles"]
    assert made["candles"]["new_rows"] == 2
    assert made["candles"]["dagster/row_count"] == n_first + 2
    stats = json.loads(settings.ingestion_stats_path.read_text("utf-8"))
    assert [figures["symbol"] for figures in stats["symbols"]] == ["BTC/USDT", "ETH/USDT"]
