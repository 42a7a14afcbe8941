"""The jobs' bounds, and a backfill from a sandbox exchange."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration.build import build_defs
from btc_lifecycle.orchestration.jobs import JOBS, MAX_RUNTIME
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
def december(life: SmallLifecycle) -> dg.ExecuteInProcessResult:
    with make_exchange(start=MARKET_START, now=NOW, symbols=("BTCUSDT", "ETHUSDT")) as exchange:
        settings = small_settings(
            life.settings.data_dir, exchange_url=exchange.url, symbols=life.settings.ingest.symbols
        )
        return run_job(build_defs(settings), life.instance, "backfill_job", partition="2023-12-01")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_has_a_bound_after_which_its_pool_is_freed(job: dg.JobDefinition) -> None:
    assert 0 < int((job.tags or {})[MAX_RUNTIME]) <= 3600


def test_a_backfill_stores_the_month_and_nothing_beyond_it(
    life: SmallLifecycle, december: dg.ExecuteInProcessResult
) -> None:
    for symbol in life.settings.ingest.symbols:
        open_times = life.warehouse.open_times(CANDLES, symbol=symbol)
        assert open_times[0] == MARKET_START
        assert open_times[-1] == datetime(2023, 12, 31, 23, 59, tzinfo=UTC)
        assert len(open_times) == 12 * 60


def test_a_backfill_records_one_materialization_of_all_symbols(
    december: dg.ExecuteInProcessResult,
) -> None:
    """Once it recorded one for each symbol, and the command line, which shows one, broke on two."""
    (event,) = december.asset_materializations_for_node("backfill_candles")
    assert event.partition == "2023-12-01"
    assert metadata_of(december)["candles"] == {"new_rows": 1440, "dagster/row_count": 1440}
