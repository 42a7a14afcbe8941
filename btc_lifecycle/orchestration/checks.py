"""Asset checks of the candles: what the domain finds, with a severity and some rows to look at.

They look at the newest days and run in the step that stores candles, each minute: Dagster shows the
checks of the newest materialization only.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from btc_lifecycle.adapters.warehouse import CandleStore
from btc_lifecycle.domain.errors import LifecycleError
from btc_lifecycle.domain.ingest.quality import (
    Finding,
    find_repeated,
    find_spikes,
    find_stale,
    find_unsound,
)
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle.orchestration.ingestion import Ingestion, IngestionStats

CHECKED = timedelta(days=7)
"""How far back the checks look: what is older was looked at when it was new."""

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


CANDLE_CHECKS = [
    dg.AssetCheckSpec(name, asset="candles", description=meaning)
    for name, meaning in _MEANINGS.items()
]


def check_candles(store: CandleStore, ingestion: Ingestion) -> list[dg.AssetCheckResult]:
    """Return the results of all checks after an ingest."""
    newest = max(figures.last_open_time for figures in ingestion.stats)
    start = newest - CHECKED
    candles = store.warehouse.read(store.tables.candles, start=start)
    findings = {
        "unique": find_repeated(candles),
        "sound": find_unsound(candles),
        "one_source": _one_source(store, ingested=ingestion.stats[0].source),
        "every_symbol": _every_symbol(ingestion.failures),
        "gaps": _gaps(store, start=start),
        "fresh": find_stale(_newest(ingestion.stats)),
        "spikes": find_spikes(candles),
    }
    return [_result(name, finding) for name, finding in findings.items()]


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


def _every_symbol(failures: Mapping[str, LifecycleError]) -> Finding:
    told = [(symbol, str(error)) for symbol, error in failures.items()]
    rows = pl.DataFrame(told, schema=["symbol", "error"], orient="row")
    return Finding(is_passed=not failures, said=f"{len(failures)} symbols failed", rows=rows)


def _gaps(store: CandleStore, *, start: datetime) -> Finding:
    gaps = store.warehouse.read(store.tables.gaps).filter(pl.col("gap_end") > start)
    n_minutes = gaps.select((pl.col("gap_end") - pl.col("gap_start")).dt.total_minutes().sum())
    said = f"{gaps.height:,} gaps of {n_minutes.item() or 0:,} minutes in all"
    newest = gaps.sort("gap_start", descending=True)
    return Finding(is_passed=gaps.is_empty(), said=said, rows=newest)


def _newest(stats: Sequence[IngestionStats]) -> pl.DataFrame:
    return pl.DataFrame(
        [(figures.symbol, figures.last_open_time, figures.fetched_at) for figures in stats],
        schema={"symbol": pl.String, "last_open_time": UTC_TIME, "fetched_at": UTC_TIME},
        orient="row",
    )


def _table(rows: pl.DataFrame) -> str:
    lines = [rows.columns, ["---"] * rows.width, *rows.iter_rows()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
