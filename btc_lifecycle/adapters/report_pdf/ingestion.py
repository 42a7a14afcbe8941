"""The pages of the ingestion report: market, returns, seasonality, data quality."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import datetime

import polars as pl

from btc_lifecycle.adapters.report_pdf.candle_charts import (
    bucket_minutes,
    missing_figure,
    price_figure,
    returns_figure,
    seasons_figure,
)
from btc_lifecycle.adapters.report_pdf.candle_tables import (
    data_table,
    gaps_table,
    market_tiles,
    moments_table,
    moves_table,
    price_table,
    quality_tiles,
    quantiles_table,
    returns_table,
    volume_table,
)
from btc_lifecycle.adapters.report_pdf.layout import ReportPdf
from btc_lifecycle.adapters.report_pdf.style import (
    NOTHING,
    Destination,
    count,
    duration,
    source_line,
    utc,
)
from btc_lifecycle.domain.ingest.summary import CandleSummary


def draw_ingestion_report(
    destination: Destination,
    *,
    candles: pl.DataFrame,
    summary: CandleSummary,
    stats: Mapping[str, object],
) -> None:
    """Write images and ``report.pdf`` into the destination's folder."""
    subject = f"{summary.symbol}  ·  {stats.get('interval', '1m')} candles"
    with closing(
        ReportPdf(title="Ingestion report", subject=subject, destination=destination)
    ) as pdf:
        length = duration(summary.coverage.n_expected_min)
        fetched_at = _time(stats.get("fetched_at"))
        pdf.title_block(
            (
                f"{_span(summary)}  ({length})",
                f"{source_line(destination.source)}; fetched at {fetched_at} UTC",
            )
        )
        _market(pdf, candles=candles, summary=summary, stats=stats)
        pdf.add_page()
        _returns(pdf, candles=candles, summary=summary)
        pdf.add_page()
        _seasons(pdf, summary=summary)
        _quality(pdf, summary=summary)
        pdf.save()


def _span(summary: CandleSummary) -> str:
    coverage = summary.coverage
    return f"{utc(coverage.first_open_time)} to {utc(coverage.last_open_time)} UTC"


def _time(value: object) -> str:
    """Return a time as text, whether it came as such or in ISO 8601 from a JSON file."""
    time = datetime.fromisoformat(value) if isinstance(value, str) and value else value
    return utc(time) if isinstance(time, datetime) else NOTHING


def _market(
    pdf: ReportPdf, *, candles: pl.DataFrame, summary: CandleSummary, stats: Mapping[str, object]
) -> None:
    pdf.tiles(market_tiles(summary))
    bucket = duration(bucket_minutes(summary.coverage.n_expected_min))
    gaps = "; shaded: longest gaps" if summary.coverage.n_gaps else ""
    pdf.chart(
        price_figure(candles, summary=summary),
        name="price",
        caption=f"Close, range and volume per {bucket}{gaps}. {_span(summary)}, "
        f"n = {count(summary.coverage.n_rows)} one-minute candles.",
    )
    pdf.tables(data_table(summary, stats=stats), price_table(summary))
    pdf.tables(volume_table(summary), returns_table(summary))


def _returns(pdf: ReportPdf, *, candles: pl.DataFrame, summary: CandleSummary) -> None:
    returns = summary.returns
    pdf.section("One-minute returns")
    if returns.std_bps:
        pdf.chart(
            returns_figure(candles, summary=summary),
            name="returns",
            caption=f"Log returns of consecutive minutes; none spans a gap. {_span(summary)}, "
            f"n = {count(returns.n_returns)}. Curve: normal density of the same mean and standard "
            "deviation; where the bars stand above it, such moves come more often than a normal "
            "market would have them.",
        )
    else:
        pdf.box(
            "No spread to draw",
            f"One-minute returns in {_span(summary)}: {count(returns.n_returns)}, "
            "too few or all equal, so there is no distribution to show.",
        )
    pdf.tables(moments_table(summary), quantiles_table(summary))
    pdf.tables(
        moves_table("Largest moves up", moves=returns.largest_up),
        moves_table("Largest moves down", moves=returns.largest_down),
    )


def _seasons(pdf: ReportPdf, *, summary: CandleSummary) -> None:
    pdf.section("Seasonality by hour and weekday")
    pdf.chart(
        seasons_figure(summary),
        name="seasonality",
        caption="Above: median absolute one-minute log return. Below: mean volume per minute. "
        f"{_span(summary)}, n = {count(summary.coverage.n_rows)} candles; hours and days in UTC.",
    )


def _quality(pdf: ReportPdf, *, summary: CandleSummary) -> None:
    coverage = summary.coverage
    pdf.section("Data quality", needs_mm=110)
    pdf.tiles(quality_tiles(summary))
    if coverage.n_missing_min == 0:
        pdf.box(
            "No minute is missing",
            f"Every minute of {_span(summary)} has its candle (n = {count(coverage.n_rows)}).",
            tone="good",
        )
        return
    pdf.chart(
        missing_figure(summary),
        name="missing_minutes",
        caption=f"Minutes without a candle per UTC day, logarithmic scale. {_span(summary)}, "
        f"n = {count(coverage.n_missing_min)} missing of {count(coverage.n_expected_min)} minutes. "
        "Missing minutes are reported and never filled.",
    )
    pdf.tables(gaps_table(summary))
