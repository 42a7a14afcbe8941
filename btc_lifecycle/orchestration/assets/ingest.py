"""Assets of the first phase: candles and the report on them.

Each reads its inputs, makes one call and reports figures; rules are in domain/ingest.
"""

import json

import dagster as dg
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.ingest.summary import summarize
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL, report_folder
from btc_lifecycle.orchestration.ingestion import ingest_new, write_stats
from btc_lifecycle.settings import Settings


@dg.asset(group_name="ingest", pool=WAREHOUSE_POOL, kinds={"duckdb", "python"})
def candles(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    exchange: dg.ResourceParam[Exchange],
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.MaterializeResult[None]:
    """Closed one-minute candles as the exchange gave them, one row per symbol and open time."""
    table = CANDLES.renamed(settings.ingest.table)
    stats = [
        ingest_new(exchange, warehouse, table, symbol=symbol, settings=settings.ingest)
        for symbol in settings.ingest.symbols
    ]
    write_stats(settings.ingestion_stats_path, stats)
    for figures in stats:
        context.log.info(
            "%s: %d new candles, %d in all up to %s, %d minutes missing",
            figures.symbol,
            figures.new_rows,
            figures.total_rows,
            f"{figures.last_open_time:%Y-%m-%d %H:%M} UTC",
            figures.missing_minutes,
        )
    return dg.MaterializeResult(
        metadata={
            "new_rows": sum(figures.new_rows for figures in stats),
            "revised_rows": sum(figures.revised_rows for figures in stats),
            "dagster/row_count": sum(figures.total_rows for figures in stats),
            "missing_minutes": sum(figures.missing_minutes for figures in stats),
            "first_open_time": dg.MetadataValue.timestamp(stats[0].first_open_time),
            "last_open_time": dg.MetadataValue.timestamp(stats[0].last_open_time),
            "source": stats[0].source,
        }
    )


@dg.asset(group_name="ingest", pool=WAREHOUSE_POOL, kinds={"pdf"})
def ingestion_report(
    settings: dg.ResourceParam[Settings], candles: pl.DataFrame
) -> dg.MaterializeResult[None]:
    """PDF on the newest candles of each symbol: span, quality, prices, returns, seasonality."""
    from btc_lifecycle.adapters.report_pdf import write_ingestion_report  # noqa: PLC0415

    stats = json.loads(settings.ingestion_stats_path.read_text(encoding="utf-8"))["symbols"]
    made_at = clock.now()
    folder = report_folder(settings, "ingestion", made_at=made_at)
    reports = []
    for number, figures in enumerate(stats):
        symbol = str(figures["symbol"])
        of_symbol = candles.filter(pl.col("symbol") == symbol)
        reports.append(
            write_ingestion_report(
                folder if number == 0 else folder / symbol.replace("/", ""),
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
