"""The jobs' bounds, and a backfill from a sandbox exchange."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration.build import build_defs
from btc_lifecycle.orchestration.jobs import JOBS, MAX_RUNTIME
from btc_lifecycle.orchestration.partitions import RANGE_TAGS
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    SmallLifecycle,
    make_exchange,
    metadata_of,
    small_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

MARKET_START = datetime(2023, 12, 31, 12, tzinfo=UTC)
NOW = datetime(2024, 2, 1, 6, 0, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> SmallLifecycle:
    """A lifecycle on two markets that began in the last hours of a year."""
    folder = tmp_path_factory.mktemp("backfill")
    settings = small_settings(folder, symbols=("BTC/USDT", "ETH/USDT"))
    return SmallLifecycle(settings=settings, instance=dg.DagsterInstance.ephemeral())


@pytest.fixture(scope="module")
def both_months(life: SmallLifecycle) -> dg.ExecuteInProcessResult:
    with make_exchange(start=MARKET_START, now=NOW, symbols=("BTCUSDT", "ETHUSDT")) as exchange:
        settings = small_settings(
            life.settings.data_dir, exchange_url=exchange.url, symbols=life.settings.ingest.symbols
        )
        months = dict(zip(RANGE_TAGS, ("2023-12-01", "2024-01-01"), strict=True))
        return run_job(build_defs(settings), life.instance, "backfill_job", tags=months)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_has_a_bound_after_which_its_pool_is_freed(job: dg.JobDefinition) -> None:
    assert 0 < int((job.tags or {})[MAX_RUNTIME]) <= 6 * 3600


def test_a_range_of_months_is_stored_by_one_run_and_nothing_beyond_it(
    life: SmallLifecycle, both_months: dg.ExecuteInProcessResult
) -> None:
    for symbol in life.settings.ingest.symbols:
        open_times = life.warehouse.open_times(CANDLES, symbol=symbol)
        assert open_times[0] == MARKET_START
        assert open_times[-1] == datetime(2024, 1, 31, 23, 59, tzinfo=UTC)
        assert len(open_times) == 12 * 60 + 31 * 1440


def test_a_backfill_records_each_month_with_the_figures_of_all_symbols(
    both_months: dg.ExecuteInProcessResult,
) -> None:
    """Once it recorded one for each symbol, and the command line, which shows one, broke on two."""
    events = both_months.asset_materializations_for_node("candle_history")
    assert [event.partition for event in events] == ["2023-12-01", "2024-01-01"]
    assert metadata_of(both_months)["candle_history"] == {
        "new_rows": 2 * (720 + 31 * 1440),
        "revised_rows": 0,
        "rejected_rows": 0,
        "dagster/row_count": 2 * (720 + 31 * 1440),
    }
