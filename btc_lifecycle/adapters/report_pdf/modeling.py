"""The pages of the modeling report: decision, scores beside the baseline, calibration, importance."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import polars as pl

from btc_lifecycle.adapters.report_pdf.layout import ReportPdf, Table, Tile
from btc_lifecycle.adapters.report_pdf.model_charts import (
    calibration_figure,
    gain_figure,
    importance_figure,
)
from btc_lifecycle.adapters.report_pdf.style import Destination, number, percent, source_line

_MAX_FEATURES = 24
# Score in metric names, how to call it, which way is better.
_SCORES = (
    ("log_loss", "log-loss, nats", "lower"),
    ("brier", "Brier score", "lower"),
    ("auc", "area under the ROC curve", "higher"),
    ("accuracy", "accuracy", "higher"),
    ("expected_calibration_error", "expected calibration error", "lower"),
)
_ROWS = "test_n_rows"


def draw_modeling_report(
    destination: Destination,
    *,
    title_facts: Mapping[str, str],
    metrics: Mapping[str, float],
    calibration: pl.DataFrame,
    importance: pl.DataFrame,
    verdict: str,
    was_promoted: bool,
) -> None:
    """Write images and ``report.pdf`` into the destination's folder."""
    subject = "  ·  ".join(f"{name} {value}" for name, value in list(title_facts.items())[:2])
    with closing(
        ReportPdf(title="Modeling report", subject=subject or "candidate", destination=destination)
    ) as pdf:
        pdf.title_block((source_line(destination.source),))
        pdf.box(
            "Promoted to champion" if was_promoted else "Not promoted",
            verdict,
            tone="good" if was_promoted else "warning",
        )
        pdf.tiles(_tiles(metrics))
        _score_tables(pdf, metrics=metrics)
        if title_facts:
            pdf.tables(
                Table(
                    title="Candidate",
                    rows=list(title_facts.items()),
                    widths=(0.25, 0.75),
                    text_columns=frozenset({0, 1}),
                )
            )
        _further_figures(pdf, metrics)
        pdf.add_page()
        _calibration(pdf, calibration=calibration)
        _importance(pdf, importance=importance)
        pdf.save()


def _gain(metrics: Mapping[str, float]) -> float | None:
    """Return by how many nats per row the candidate's log-loss is below the prior's."""
    if "test_log_loss" not in metrics or "prior_log_loss" not in metrics:
        return None
    return metrics["prior_log_loss"] - metrics["test_log_loss"]


def _interval(metrics: Mapping[str, float]) -> tuple[float, float] | None:
    if "log_loss_gain_low" not in metrics or "log_loss_gain_high" not in metrics:
        return None
    return metrics["log_loss_gain_low"], metrics["log_loss_gain_high"]


def _tiles(metrics: Mapping[str, float]) -> tuple[Tile, ...]:
    gain, interval = _gain(metrics), _interval(metrics)
    # A gain whose interval reaches down to 0 may be chance.
    is_better = interval[0] > 0 if interval else gain is not None and gain > 0
    n_rows = metrics.get(_ROWS)
    prior_accuracy = percent(metrics.get("prior_accuracy"), decimals=1)
    return (
        Tile(
            label="Log-loss on unseen rows",
            value=number(metrics.get("test_log_loss"), decimals=5),
            note=f"prior {number(metrics.get('prior_log_loss'), decimals=5)}",
        ),
        Tile(
            label="Gain over the prior, nats",
            value=number(gain, decimals=5, is_signed=True),
            note=_interval_text(interval) if interval else "no interval",
            tone="good" if is_better else "warning",
        ),
        Tile(
            label="Area under the ROC curve",
            value=number(metrics.get("test_auc"), decimals=4),
            note="0.5 tells nothing apart",
        ),
        Tile(
            label="Accuracy",
            value=percent(metrics.get("test_accuracy"), decimals=1),
            note=f"prior {prior_accuracy}",
        ),
        Tile(label="Unseen rows", value=number(n_rows, decimals=0), note="after the training span"),
    )


def _interval_text(interval: tuple[float, float]) -> str:
    low, high = (number(bound, decimals=5, is_signed=True) for bound in interval)
    return f"{low} to {high}"


def _score_tables(pdf: ReportPdf, *, metrics: Mapping[str, float]) -> None:
    rows = []
    for name, title, better in _SCORES:
        model, prior = metrics.get(f"test_{name}"), metrics.get(f"prior_{name}")
        difference = None if model is None or prior is None else model - prior
        cells = (number(model, decimals=5), number(prior, decimals=5))
        rows.append((title, *cells, number(difference, decimals=5, is_signed=True), better))
    pdf.tables(
        Table(
            title="Scores on unseen rows",
            header=("score", "candidate", "prior probability", "difference", "better is"),
            rows=rows,
            widths=(0.34, 0.17, 0.19, 0.16, 0.14),
        )
    )
    gain, interval = _gain(metrics), _interval(metrics)
    if gain is None or interval is None:
        return
    low, high = interval
    pdf.chart(
        gain_figure(gain=gain, low=low, high=high),
        name="log_loss_gain",
        caption="Mean log-loss of always answering the training span's share of rises, minus the "
        f"candidate's: {number(gain, decimals=5, is_signed=True)} nats per row, interval "
        f"{_interval_text(interval)}, n = {number(metrics.get(_ROWS), decimals=0)} unseen rows. "
        "An interval that holds 0 means that chance may explain the difference.",
    )


def _further_figures(pdf: ReportPdf, metrics: Mapping[str, float]) -> None:
    shown = {f"{side}_{name}" for side in ("test", "prior") for name, _, _ in _SCORES}
    shown |= {_ROWS, "prior_n_rows", "log_loss_gain", "log_loss_gain_low", "log_loss_gain_high"}
    rest = [
        (name.replace("_", " "), number(value, decimals=0 if float(value).is_integer() else 5))
        for name, value in sorted(metrics.items())
        if name not in shown
    ]
    if rest:
        pdf.tables(Table(title="Further figures", rows=rest))


def _calibration(pdf: ReportPdf, *, calibration: pl.DataFrame) -> None:
    pdf.section("Calibration on unseen rows")
    bins = calibration.drop_nulls().drop_nans().filter(pl.col("n_rows") > 0)
    if bins.is_empty():
        pdf.box("No calibration yet", "No unseen row was scored, so there is no bin to draw.")
        return
    pdf.chart(
        calibration_figure(bins),
        name="calibration",
        caption=f"n = {bins['n_rows'].sum():,} unseen rows, by predicted "
        "probability. On the dashed line a predicted 0.55 comes true in 55 of 100 rows.",
    )


def _importance(pdf: ReportPdf, *, importance: pl.DataFrame) -> None:
    pdf.section("Feature importance")
    total = importance["gain"].sum() if importance.height else 0
    if not total:
        pdf.box("No feature gained anything", "The model splits on no feature: it is a constant.")
        return
    shares = importance.with_columns(gain_share=pl.col("gain") / total).sort(
        "gain_share", "feature", descending=[True, False]
    )
    shown = shares.head(_MAX_FEATURES)
    height_mm = 16 + 4.0 * shown.height
    figure = importance_figure(shown, height_mm=height_mm)
    rest = (
        f" The {shown.height} largest of {shares.height}." if shares.height > shown.height else ""
    )
    unused = shares.filter(pl.col("gain") == 0).height
    pdf.chart(
        figure,
        name="importance",
        caption="Share of the total reduction in training loss by splits on each feature (gain)."
        f"{rest} {unused or 'None'} of {shares.height} features unused.",
    )
