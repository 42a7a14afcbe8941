"""Assets of the first phase: candles and the report on them.

Each reads its inputs, makes one call and reports figures; rules are in domain/ingest.
"""

import json
import warnings
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.archive import Archive
from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.warehouse import CandleStore
from btc_lifecycle.domain.ingest.gaps import Stretch
from btc_lifecycle.domain.ingest.summary import summarize
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL, report_folder
from btc_lifecycle.orchestration.checks import CANDLE_CHECKS, check_candles
from btc_lifecycle.orchestration.ingestion import (
    Ingestion,
    IngestionStats,
    Told,
    backfill,
    ingest_new,
    write_stats,
)
from btc_lifecycle.orchestration.inline_chart import line_chart
from btc_lifecycle.orchestration.partitions import MONTHS
from btc_lifecycle.settings import Settings

_CHARTED = timedelta(hours=6)

_BACKFILL_PATIENCE = timedelta(hours=1)
"""How long a backfill waits for its turn at the exchange: nobody waits for it."""


@dg.asset(
    group_name="ingest",
    pool=WAREHOUSE_POOL,
    kinds={"duckdb", "python"},
    check_specs=CANDLE_CHECKS,
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=5), fail_window=timedelta(minutes=30)
    ),
)
def candles(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    exchange: dg.ResourceParam[Exchange],
    candle_store: dg.ResourceParam[CandleStore],
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows it bare where there are checks
    """Closed one-minute candles as the exchange gave them, one row per symbol and open time."""
    ingestion = ingest_new(exchange, candle_store, settings=settings.ingest)
    write_stats(settings.ingestion_stats_path, ingestion)
    _log(context, ingestion)
    first = ingestion.stats[0]
    return dg.MaterializeResult(
        metadata={
            **_figures(ingestion),
            "missing_minutes": sum(figures.missing_minutes for figures in ingestion.stats),
            "gaps": sum(figures.gaps for figures in ingestion.stats),
            "first_open_time": dg.MetadataValue.timestamp(first.first_open_time),
            "last_open_time": dg.MetadataValue.timestamp(first.last_open_time),
            "source": first.source,
            "newest_closes": _chart(candle_store, first),
        },
        check_results=check_candles(candle_store, ingestion),
    )


with warnings.catch_warnings():
    # One run for a range of months: worth a parameter that Dagster still calls beta.
    warnings.simplefilter("ignore", dg.BetaWarning)
    _asset_of_months = dg.asset(
        group_name="ingest",
        pool=WAREHOUSE_POOL,
        kinds={"duckdb", "python"},
        partitions_def=MONTHS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )


@_asset_of_months
def candle_history(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    exchange: dg.ResourceParam[Exchange],
    candle_store: dg.ResourceParam[CandleStore],
    archive: dg.ResourceParam[Archive | None],
    told: dg.ResourceParam[Told | None],
) -> dg.MaterializeResult[None]:
    """Months of the same table, asked for once: older ones than the first ingest reached."""
    window = context.partition_time_window
    ingestion = backfill(
        exchange.patient(_BACKFILL_PATIENCE),
        candle_store,
        settings=settings.ingest,
        stretch=Stretch(start=window.start, end=window.end),
        archive=archive,
        told=told,
    )
    _log(context, ingestion)
    if ingestion.failures:
        # Months that a market lacks are not materialized; what was stored stays, the next one goes on.
        raise next(iter(ingestion.failures.values()))
    return dg.MaterializeResult(metadata=_figures(ingestion))


def _figures(ingestion: Ingestion) -> dict[str, int | str]:
    stats = ingestion.stats
    failures = {f"failed {symbol}": str(error) for symbol, error in ingestion.failures.items()}
    return {
        "new_rows": sum(figures.new_rows for figures in stats),
        "revised_rows": sum(figures.revised_rows for figures in stats),
        "rejected_rows": sum(figures.rejected_rows for figures in stats),
        "dagster/row_count": sum(figures.total_rows for figures in stats),
        **failures,
    }


def _chart(store: CandleStore, figures: IngestionStats) -> dg.MarkdownMetadataValue:
    start = figures.last_open_time - _CHARTED
    newest = store.warehouse.read(store.tables.candles, symbol=figures.symbol, start=start)
    hours = _CHARTED // timedelta(hours=1)
    return line_chart(newest["close"], title=f"{figures.symbol}, closes of the last {hours} hours")


def _log(context: dg.AssetExecutionContext, ingestion: Ingestion) -> None:
    for figures in ingestion.stats:
        context.log.info(
            "%s: %d new candles, %d in all up to %s, %d minutes missing",
            figures.symbol,
            figures.new_rows,
            figures.total_rows,
            figures.last_open_time,
            figures.missing_minutes,
        )
    for symbol, error in ingestion.failures.items():
        context.log.error("%s: %s", symbol, error)


@dg.asset(group_name="ingest", pool=WAREHOUSE_POOL, kinds={"pdf"})
def ingestion_report(
    settings: dg.ResourceParam[Settings], candles: pl.DataFrame
) -> dg.MaterializeResult[None]:
    """PDF on the newest candles of each symbol: span, quality, prices, returns, seasonality."""
    from btc_lifecycle.adapters.report_pdf import write_ingestion_report  # noqa: PLC0415

    stats = json.loads(settings.ingestion_stats_path.read_text(encoding="utf-8"))["symbols"]
    made_at = clock.now()
    folder = report_folder(settings, "ingestion", made_at=made_at)
    reports = list[Path]()
    for figures in stats:
        symbol = str(figures["symbol"])
        of_symbol = candles.filter(pl.col("symbol") == symbol)
        if of_symbol.is_empty():
            # Delisted or halted for longer than the window: nothing of it to report on.
            continue
        reports.append(
            write_ingestion_report(
                folder if not reports else folder / symbol.replace("/", ""),
                candles=of_symbol,
                summary=summarize(of_symbol),
                stats=figures,
                source=str(figures["source"]),
                made_at=made_at,
            )
        )
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.path(reports[0]), "reports": len(reports)}
    )
