"""What the assets of all phases share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.orchestration.assets.common import by_symbol, report_folder
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.orchestration.small_lifecycle import small_settings


def test_a_report_lies_in_a_folder_named_by_kind_and_utc_time(tmp_path: Path) -> None:
    made_at = datetime(2024, 3, 1, 23, 5, 9, tzinfo=UTC)
    folder = report_folder(small_settings(tmp_path), "modeling", made_at=made_at)
    assert folder == tmp_path / "reports" / "modeling" / "20240301T230509Z"


def test_each_symbol_is_computed_for_itself() -> None:
    both = pl.concat([make_candles(3, symbol="BTC/USDT"), make_candles(2, symbol="ETH/USDT")])
    numbered = by_symbol(both, lambda one: one.select("symbol", n=pl.len()))
    assert numbered.rows() == [("BTC/USDT", 3)] * 3 + [("ETH/USDT", 2)] * 2


def test_no_candles_are_an_error_that_says_what_to_do() -> None:
    none = make_candles(1).clear()
    with pytest.raises(NothingToServeError, match=r"no candles yet; run \./task ingest"):
        by_symbol(none, lambda one: one)


def test_reports_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    """Two ingests at once wrote to one folder, and the second failed."""
    made_at = datetime(2024, 1, 31, 23, 59, 59, tzinfo=UTC)
    settings = small_settings(tmp_path)
    names = [report_folder(settings, "ingestion", made_at=made_at).name for _ in range(3)]
    assert names == ["20240131T235959Z", "20240201T000000Z", "20240201T000001Z"]
