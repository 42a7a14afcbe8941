"""The pages of the modeling report: decisions, scores beside baselines, time, features, facts."""

from __future__ import annotations

from contextlib import closing

import polars as pl

from btc_lifecycle.adapters.report_pdf.feature_charts import contributions_figure
from btc_lifecycle.adapters.report_pdf.findings import direction_findings, volatility_findings
from btc_lifecycle.adapters.report_pdf.head_pages import (
    MAX_FEATURES,
    bullets,
    decision_box,
    draw_folds,
    draw_importance,
    draw_rivals,
    facts_table,
    fold_panel,
    rows_tile,
    score_table,
    score_tile,
)
from btc_lifecycle.adapters.report_pdf.head_report import (
    AUC,
    CONFIDENT_ACCURACY,
    DIRECTION_KINDS,
    LOG_LOSS_GAIN,
    MSE_GAIN,
    NET_BP,
    R_SQUARED,
    SPEARMAN,
    VOLATILITY_KINDS,
    DirectionEvidence,
    HeadReport,
    facts_by_title,
    filled_bins,
    rivals_of,
    versions_of,
)
from btc_lifecycle.adapters.report_pdf.layout import ReportPdf
from btc_lifecycle.adapters.report_pdf.score_charts import calibration_figure, groups_figure
from btc_lifecycle.adapters.report_pdf.style import Destination, count, source_line

_HOW_TO_READ = (
    "All scores are of rows that the scored model never saw. In brackets: 95 % intervals from "
    "resampled UTC days; rows of one day have none. ↑ higher is better, ↓ lower is better. "
    "A gain is the rival's loss minus the model's on the same rows, so that above 0 the model is "
    "better; 1 millinat is 0.001 nats. AUC: how often a rise gets a higher probability than a fall; "
    "0.5 by knowing nothing. Surest tenth: the accuracy on rows whose probabilities lie furthest from one half. "
    "Rank correlation: of probability and log return (Spearman). A trade: buy or sell where the "
    "probability is far enough from one half, hold to the outcome."
)


def draw_modeling_report(
    destination: Destination,
    *,
    direction: HeadReport,
    volatility: HeadReport | None,
    evidence: DirectionEvidence,
) -> None:
    """Write images and ``report.pdf`` into the destination's folder."""
    heads = [direction] if volatility is None else [direction, volatility]
    subject = "  ·  ".join(versions_of(heads))
    with closing(
        ReportPdf(title="Modeling report", subject=subject, destination=destination)
    ) as pdf:
        pdf.title_block((source_line(destination.source),))
        for head in heads:
            decision_box(pdf, head)
        _direction(pdf, direction, evidence=evidence)
        _time_and_calibration(pdf, direction, evidence=evidence)
        _features(pdf, direction, contributions=evidence.contributions)
        _groups(pdf, by_hour=evidence.by_hour, by_regime=evidence.by_regime)
        if volatility is not None:
            _volatility(pdf, volatility)
        for title, facts in facts_by_title(heads).items():
            pdf.tables(facts_table(f"Facts  ·  {title}", facts))
        pdf.save()


def _direction(pdf: ReportPdf, head: HeadReport, *, evidence: DirectionEvidence) -> None:
    pdf.tiles(
        (
            score_tile(head, AUC, label="AUC, direction", reference=0.5),
            score_tile(head, LOG_LOSS_GAIN, label="Gain over prior, millinats", rival="prior"),
            score_tile(
                head,
                CONFIDENT_ACCURACY,
                label="Accuracy of surest tenth",
                unit=" %",
                reference=0.5,
            ),
            score_tile(head, NET_BP, label="Per trade after cost", unit=" bp"),
            rows_tile(head, AUC),
        )
    )
    findings = direction_findings(head, cost_bp=evidence.cost_bp)
    pdf.box("What the scores say", bullets(findings))
    pdf.tables(score_table(head, DIRECTION_KINDS, title=f"{head.title}, all folds"))
    late = "The same for who acts one minute late"
    pdf.tables(score_table(head, DIRECTION_KINDS, title=late, delay_min=1))
    draw_rivals(pdf, head)
    pdf.box("How to read the scores", _HOW_TO_READ)


def _time_and_calibration(pdf: ReportPdf, head: HeadReport, *, evidence: DirectionEvidence) -> None:
    panels = (
        fold_panel(
            head,
            LOG_LOSS_GAIN,
            title="Log-loss gain over the prior",
            rivals=("prior",),
            y_label="millinats per row",
            reference=0.0,
        ),
        fold_panel(head, AUC, title="AUC", reference=0.5),
    )
    draw_folds(pdf, head, panels, name="folds")
    pdf.section("Calibration", needs_mm=92)
    bins = filled_bins(evidence.calibration)
    if bins.is_empty():
        pdf.box("No calibration", "No unseen row was scored, so there is no bin to draw.")
        return
    pdf.chart(
        calibration_figure(bins),
        name="calibration",
        caption=f"n = {bins['n_rows'].sum():,} unseen rows, by predicted probability. On the "
        "dashed line a predicted 0.55 comes true in 55 of 100 rows. Bins with less than 1 % of rows "
        "may lie outside the frame. The intervals (Wilson) take rows as independent, which "
        "overlapping outcomes are not: true ones are wider.",
    )


def _features(pdf: ReportPdf, head: HeadReport, *, contributions: pl.DataFrame) -> None:
    draw_importance(pdf, head, name="importance", unit="log-odds")
    points = contributions.filter(pl.col("contribution").is_finite())
    ranked = (
        points.group_by("feature")
        .agg(size=pl.col("contribution").abs().mean(), n_rows=pl.len())
        .filter(pl.col("size") > 0)
        .sort("size", "feature", descending=[True, False])
    )
    if ranked.is_empty():
        pdf.section("Contributions to predictions")
        pdf.box("No contributions", "No feature moved the prediction of any row looked at.")
        return
    shown = ranked.head(MAX_FEATURES)
    height_mm = 14 + 4.6 * shown.height
    pdf.section("Contributions to predictions", needs_mm=height_mm + 20)
    pdf.chart(
        contributions_figure(points, features=shown["feature"].to_list(), height_mm=height_mm),
        name="contributions",
        caption=f"SHAP values of n = {count(shown['n_rows'].max())} unseen rows, one point each, "
        f"{shown.height} of {ranked.height} features that move predictions, the largest mean "
        "first. Black: the feature's value is missing. Where one colour lies on one side, high "
        "values of the feature push the probability that way.",
    )


def _groups(pdf: ReportPdf, *, by_hour: pl.DataFrame, by_regime: pl.DataFrame) -> None:
    pdf.section("When is it good?", needs_mm=118)
    if by_hour.is_empty() and by_regime.is_empty():
        pdf.box("No groups", "No unseen row was scored by hour or by volatility.")
        return
    n_rows = max(frame["n_rows"].sum() for frame in (by_hour, by_regime))
    pdf.chart(
        groups_figure(by_hour, by_regime),
        name="groups",
        caption=f"n = {n_rows:,} unseen rows. Volatility: thirds of the last hour's, known "
        "before the outcome. A dash: not defined, as all rows of the group went the same way. "
        "These are single figures without intervals: of so many, a few differ by chance.",
    )


def _volatility(pdf: ReportPdf, head: HeadReport) -> None:
    pdf.add_page()
    pdf.section(head.title)
    pdf.tiles(
        (
            score_tile(head, R_SQUARED, label="R²"),
            score_tile(head, MSE_GAIN, label="Gain over HAR, squared error", rival="har"),
            score_tile(head, SPEARMAN, label="Rank correlation"),
            rows_tile(head, R_SQUARED),
        )
    )
    pdf.box("What the scores say", bullets(volatility_findings(head)))
    pdf.tables(score_table(head, VOLATILITY_KINDS, title="Log volatility, all folds"))
    draw_rivals(pdf, head)
    panels = (
        fold_panel(head, R_SQUARED, title="R²", rivals=rivals_of(head.scores)),
        fold_panel(
            head,
            MSE_GAIN,
            title="Gain over HAR",
            rivals=("har",),
            y_label="mean squared error",
            reference=0.0,
        ),
    )
    draw_folds(pdf, head, panels, name="volatility_folds")
    draw_importance(pdf, head, name="volatility_importance", unit="log volatility")
