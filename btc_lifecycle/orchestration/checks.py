"""Asset checks of the candles: what the domain finds, with a severity and some rows to look at.

They look at the days that the model learns from, in one step of one connection, and run with the
whole ingest job: at the full hour, from the command line and from the UI.
"""

import json
from collections.abc import Iterator
from datetime import datetime

import dagster as dg
import polars as pl

from btc_lifecycle.adapters.warehouse import CandleStore
from btc_lifecycle.domain.ingest.quality import (
    Finding,
    find_repeated,
    find_spikes,
    find_stale,
    find_unsound,
)
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL
from btc_lifecycle.settings import Settings

_MOST_ROWS = 10
_SEVERITIES = {
    "unique": dg.AssetCheckSeverity.ERROR,
    "sound": dg.AssetCheckSeverity.ERROR,
    "one_source": dg.AssetCheckSeverity.ERROR,
    "every_symbol": dg.AssetCheckSeverity.ERROR,
    "gaps": dg.AssetCheckSeverity.WARN,
    "fresh": dg.AssetCheckSeverity.WARN,
    "spikes": dg.AssetCheckSeverity.WARN,
}
_MEANINGS = {
    "unique": "One candle per symbol and open time.",
    "sound": "Prices and amounts keep the rules of candles.",
    "one_source": "All candles are of the source that was ingested last.",
    "every_symbol": "The newest ingest failed for no symbol.",
    "gaps": "The exchange had a candle for every minute that it was asked for.",
    "fresh": "The newest candle is close to the exchange's time.",
    "spikes": "No close leaps away from the one before; a true leap is kept and shown.",
}


@dg.multi_asset_check(
    name="candle_checks",
    specs=[
        dg.AssetCheckSpec(name, asset="candles", description=meaning)
        for name, meaning in _MEANINGS.items()
    ],
    pool=WAREHOUSE_POOL,
)
def candle_checks(
    settings: dg.ResourceParam[Settings], candle_store: dg.ResourceParam[CandleStore]
) -> Iterator[dg.AssetCheckResult]:
    """Check the candles that the model learns from."""
    window_days = settings.lifecycle.learn.window_days
    candles = candle_store.warehouse.read(candle_store.tables.candles, window_days=window_days)
    stats = json.loads(settings.ingestion_stats_path.read_text(encoding="utf-8"))
    findings = {
        "unique": find_repeated(candles),
        "sound": find_unsound(candles),
        "one_source": _one_source(candle_store, ingested=stats["source"]),
        "every_symbol": _every_symbol(stats["failures"]),
        "gaps": _gaps(candle_store, candles=candles),
        "fresh": find_stale(_newest(stats["symbols"])),
        "spikes": find_spikes(candles),
    }
    for name, finding in findings.items():
        yield _result(name, finding)


def _result(name: str, finding: Finding) -> dg.AssetCheckResult:
    rows = dg.MetadataValue.md(_table(finding.rows.head(_MOST_ROWS)))
    return dg.AssetCheckResult(
        asset_key="candles",
        check_name=name,
        passed=finding.is_passed,
        severity=_SEVERITIES[name],
        description=finding.said,
        metadata={} if finding.rows.is_empty() else {"first_rows": rows},
    )


def _one_source(store: CandleStore, *, ingested: str) -> Finding:
    stored = store.warehouse.source()
    said = f"the table's source is {stored}, the newest candles are from {ingested}"
    return Finding(is_passed=stored == ingested, said=said, rows=pl.DataFrame())


def _every_symbol(failures: dict[str, str]) -> Finding:
    rows = pl.DataFrame(list(failures.items()), schema=["symbol", "error"], orient="row")
    return Finding(is_passed=not failures, said=f"{len(failures)} symbols failed", rows=rows)


def _gaps(store: CandleStore, *, candles: pl.DataFrame) -> Finding:
    is_within = pl.col("gap_end") > pl.lit(candles["open_time"].min())
    gaps = store.warehouse.read(store.tables.gaps).filter(is_within)
    n_minutes = gaps.select((pl.col("gap_end") - pl.col("gap_start")).dt.total_minutes().sum())
    said = f"{gaps.height:,} gaps of {n_minutes.item() or 0:,} minutes in all"
    newest = gaps.sort("gap_start", descending=True)
    return Finding(is_passed=gaps.is_empty(), said=said, rows=newest)


def _newest(symbols: list[dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (
                figures["symbol"],
                datetime.fromisoformat(figures["last_open_time"]),
                datetime.fromisoformat(figures["fetched_at"]),
            )
            for figures in symbols
        ],
        schema={"symbol": pl.String, "last_open_time": UTC_TIME, "fetched_at": UTC_TIME},
        orient="row",
    )


def _table(rows: pl.DataFrame) -> str:
    lines = [rows.columns, ["---"] * rows.width, *rows.iter_rows()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


CHECKS = (candle_checks,)
