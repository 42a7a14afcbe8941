"""The pages of the monitoring report: verdict, drift against its limits, live scores."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

import polars as pl

from btc_lifecycle.adapters.report_pdf.drift_charts import (
    drift_figure,
    drift_history_figure,
    live_score_figure,
)
from btc_lifecycle.adapters.report_pdf.layout import ReportPdf, Table, Tile
from btc_lifecycle.adapters.report_pdf.style import (
    NOTHING,
    Destination,
    count,
    number,
    percent,
    source_line,
    thin,
    utc,
)
from btc_lifecycle.domain.monitor.drift import ALL_SYMBOLS
from btc_lifecycle.domain.monitor.outcomes import one_per_candle

_MAX_BARS = 34
_MAX_WINDOWS = 500
_RATIO = pl.col("value") / pl.col("threshold")


def draw_monitoring_report(
    destination: Destination,
    *,
    metrics: pl.DataFrame,
    history: pl.DataFrame,
    outcomes: pl.DataFrame,
    verdict: str,
) -> None:
    """Write images and ``report.pdf`` into the destination's folder."""
    metrics, history = _in_words(metrics), _in_words(history)
    drift = metrics.filter(pl.col("metric") == "psi")
    with closing(
        ReportPdf(title="Monitoring report", subject=_subject(metrics), destination=destination)
    ) as pdf:
        pdf.title_block((_window(metrics), source_line(destination.source)))
        n_breaches = int(metrics["is_breach"].sum())
        pdf.box("Verdict", verdict, tone="warning" if n_breaches else "neutral")
        pdf.tiles(_tiles(metrics, outcomes=outcomes))
        _drift(pdf, drift=drift)
        _drift_history(pdf, history=history)
        _live_scores(pdf, history=history, outcomes=outcomes)
        _drift_table(pdf, drift)
        pdf.save()


def _in_words(metrics: pl.DataFrame) -> pl.DataFrame:
    return metrics.with_columns(pl.col("symbol").replace(ALL_SYMBOLS, "all markets"))


def _subject(metrics: pl.DataFrame) -> str:
    if metrics.is_empty():
        return "no evaluation yet"
    symbols = ", ".join(sorted(metrics["symbol"].unique()))
    versions = ", ".join(sorted(metrics["model_version"].unique()))
    return f"{symbols}  ·  model version {versions}"


def _window(metrics: pl.DataFrame) -> str:
    if metrics.is_empty():
        return "No window has been evaluated"
    start, end = metrics["window_start"].min(), metrics["window_end"].max()
    return f"Newest window {_time(start)} to {_time(end)} UTC"


def _time(value: object) -> str:
    return utc(value) if isinstance(value, datetime) else NOTHING


def _tiles(metrics: pl.DataFrame, *, outcomes: pl.DataFrame) -> tuple[Tile, ...]:
    computed = metrics.filter(pl.col("metric") == "psi", pl.col("value").is_not_null())
    n_drifted = int(computed["is_breach"].sum())
    scores = metrics.filter(pl.col("metric") == "log_loss", pl.col("value").is_not_null())
    top = computed.sort(_RATIO, descending=True, nulls_last=True).head(1)
    is_worse = scores.height > 0 and bool(scores["is_breach"].any())
    score = scores.sort("window_end").tail(1).to_dicts()
    return (
        Tile(
            label="Features drifted",
            value=f"{n_drifted} of {computed.height}" if computed.height else NOTHING,
            note="above their limit" if computed.height else "no drift metrics yet",
            tone="bad" if n_drifted else "good" if computed.height else "neutral",
        ),
        Tile(
            label="Highest PSI over its limit",
            value=number(top.select(_RATIO.first()).item(), decimals=2),
            note=top["feature"][0] if top.height else "no drift metrics yet",
            tone="bad" if n_drifted else "neutral",
        ),
        Tile(
            label="Live log-loss, nats",
            value=number(score[0]["value"] if score else None, decimals=5),
            note=f"limit {number(score[0]['threshold'], decimals=5)}" if score else "no score yet",
            tone="bad" if is_worse else "good" if score else "neutral",
        ),
        Tile(
            label="Outcomes",
            value=f"{outcomes.height:,}",
            note=f"until {_time(outcomes['matures_at'].max())}" if outcomes.height else "none yet",
        ),
    )


def _drift(pdf: ReportPdf, *, drift: pl.DataFrame) -> None:
    if drift["value"].is_null().all():
        pdf.section("Drift of features")
        pdf.box(
            "No drift metrics yet",
            "Drift is measured once a champion serves and its newest window has enough rows.",
        )
        return
    has_symbols = drift["symbol"].n_unique() > 1
    label = pl.concat_str("symbol", "feature", separator=" ") if has_symbols else pl.col("feature")
    ranked = drift.with_columns(label=label).sort(
        _RATIO, pl.col("label"), descending=[True, False], nulls_last=True
    )
    shown = ranked.head(_MAX_BARS)
    height_mm = 18 + 4.1 * shown.height
    pdf.section("Drift of features", needs_mm=height_mm + 20)
    rest = f" The {shown.height} closest to their limit of {ranked.height}."
    pdf.chart(
        drift_figure(shown, height_mm=height_mm),
        name="drift",
        caption="Population stability index of the newest window against the champion's training "
        "span; the black tick is each feature's own limit. Ordered by PSI over limit. "
        f"{_window(drift)}, up to {count(drift['n_rows'].max())} rows per feature."
        f"{rest if ranked.height > shown.height else ''}",
    )


def _drift_history(pdf: ReportPdf, *, history: pl.DataFrame) -> None:
    windows = (
        history.filter(pl.col("metric") == "psi")
        .group_by("window_end")
        .agg(
            max_ratio=_RATIO.max(),
            n_breaches=pl.col("is_breach").sum().cast(pl.Int64),
        )
        .sort("window_end")
    )
    if windows["max_ratio"].is_null().all():
        return
    pdf.section("Drift over time", needs_mm=84)
    shown = thin(windows, max_rows=_MAX_WINDOWS)
    pdf.chart(
        drift_history_figure(shown),
        name="drift_history",
        caption="Above: the highest PSI in units of its feature's limit. Below: how many features "
        f"were beyond it. By end of window, UTC; {shown.height:,} of {windows.height:,} windows.",
    )


def _live_scores(pdf: ReportPdf, *, history: pl.DataFrame, outcomes: pl.DataFrame) -> None:
    pdf.section("Live scores", needs_mm=84 if outcomes.height else 40)
    if outcomes.is_empty():
        pdf.box(
            "No outcomes yet",
            "An outcome appears once a prediction that names its symbol and open time has reached "
            "its horizon and the candles up to there are stored.",
        )
        return
    scores = history.filter(pl.col("metric") == "log_loss", pl.col("value").is_not_null()).sort(
        "window_end"
    )
    if scores.is_empty():
        pdf.box(
            "No live log-loss yet",
            f"Outcomes so far: {count(outcomes.height)}, too few for a score.",
        )
    else:
        shown = thin(scores, max_rows=_MAX_WINDOWS)
        pdf.chart(
            live_score_figure(shown),
            name="live_log_loss",
            caption="Log-loss of served predictions by end of window, UTC; "
            f"{shown.height:,} of {scores.height:,} windows, the newest rests on "
            f"n = {scores['n_rows'][-1]:,} outcomes.",
        )
    pdf.tables(_outcome_table(outcomes))


def _outcome_table(outcomes: pl.DataFrame) -> Table:
    by_version = (
        one_per_candle(outcomes)
        .group_by("symbol", "model_version")
        .agg(
            n=pl.len(),
            log_loss=pl.col("log_loss").mean(),
            accuracy=((pl.col("probability_up") > 0.5) == (pl.col("direction") == 1)).mean(),
            mean_probability=pl.col("probability_up").mean(),
            up_share=(pl.col("direction") == 1).mean(),
            last=pl.col("open_time").max(),
        )
        .sort("last", "symbol", descending=[True, False])
        .head(12)
    )
    return Table(
        title="Outcomes by market and model version, one per candle, newest first",
        header=("market", "version", "outcomes", "log-loss", "accuracy", "mean p(up)", "rises"),
        rows=[
            (
                row["symbol"],
                row["model_version"],
                f"{row['n']:,}",
                number(row["log_loss"], decimals=5),
                percent(row["accuracy"], decimals=1),
                number(row["mean_probability"], decimals=4),
                percent(row["up_share"], decimals=1),
            )
            for row in by_version.iter_rows(named=True)
        ],
        widths=(0.2, 0.12, 0.14, 0.14, 0.13, 0.14, 0.13),
    )


def _drift_table(pdf: ReportPdf, drift: pl.DataFrame) -> None:
    if drift.is_empty():
        return
    rows = [
        (
            row["symbol"],
            row["feature"],
            f"{row['n_rows']:,}",
            number(row["value"], decimals=4),
            number(row["threshold"], decimals=4),
            "breach"
            if row["is_breach"]
            else "within"
            if row["value"] is not None
            else "too few rows",
        )
        for row in drift.sort("symbol", "feature").iter_rows(named=True)
    ]
    pdf.tables(
        Table(
            title="Drift metrics of the newest window",
            header=("market", "feature", "rows", "PSI", "limit", "state"),
            rows=rows,
            widths=(0.16, 0.36, 0.12, 0.12, 0.12, 0.12),
            text_columns=frozenset({0, 1}),
        )
    )
