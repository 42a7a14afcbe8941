"""What a modeling report draws in the same way for each head: decision, scores, folds, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import polars as pl

from btc_lifecycle.adapters.report_pdf.feature_charts import importance_figure
from btc_lifecycle.adapters.report_pdf.head_report import (
    RIVAL_MEANINGS,
    RIVAL_TITLES,
    HeadReport,
    ScoreKind,
    by_importance,
    folds_of,
    rivals_of,
    score_of,
    score_rows,
    side_of,
)
from btc_lifecycle.adapters.report_pdf.layout import ReportPdf, Table, Tile, Tone
from btc_lifecycle.adapters.report_pdf.score_charts import FoldPanel, folds_figure
from btc_lifecycle.adapters.report_pdf.style import NOTHING, count

MAX_FEATURES = 20
_FACT_CHARACTERS = 88
_TONES: dict[str, Tone] = {"promoted": "good", "refused": "warning", "rolled back": "bad"}
_SIDE_TONES: dict[str, Tone] = {"above": "good", "below": "bad"}


def decision_box(pdf: ReportPdf, head: HeadReport) -> None:
    """Draw what was decided of a head, and why."""
    tone = _TONES.get(head.outcome, "neutral")
    pdf.box(f"{head.title}: {head.outcome}  ·  {head.version}", head.verdict, tone=tone)


def score_tile(
    head: HeadReport,
    kind: ScoreKind,
    *,
    label: str,
    unit: str = "",
    rival: str = "model",
    reference: float = 0.0,
) -> Tile:
    """Return a score with its interval, good or bad where that leaves out the reference."""
    score = score_of(head.scores, kind, rival=rival)
    if score.value is None:
        why = kind.why_missing if score.n_rows else "not scored"
        return Tile(label=label, value=NOTHING, note=why)
    return Tile(
        label=label,
        value=f"{kind.write(score.value)}{unit}",
        note=kind.interval(score) or "no interval",
        tone=_SIDE_TONES.get(side_of(score, reference=reference), "warning"),
    )


def rows_tile(head: HeadReport, kind: ScoreKind) -> Tile:
    """Return how many unseen rows, days and folds there are."""
    n_folds = len(folds_of(head.scores))
    n_rows = score_of(head.scores, kind).n_rows
    days = [] if head.n_days is None else [_plural(head.n_days, "day")]
    return Tile(
        label="Unseen rows",
        value=count(n_rows) if n_rows else NOTHING,
        note=", ".join([*days, _plural(n_folds, "fold")]),
    )


def score_table(
    head: HeadReport, kinds: Sequence[ScoreKind], *, title: str, delay_min: int = 0
) -> Table:
    """Return the model's scores beside each rival's, with intervals."""
    rivals = rivals_of(head.scores)
    n_rows = max(
        score_of(head.scores, kind, rival=rival, delay_min=delay_min).n_rows
        for kind in kinds
        for rival in rivals
    )
    label_share = 0.2
    return Table(
        title=f"{title}, {count(n_rows)} rows" if n_rows else title,
        header=("score", *(RIVAL_TITLES.get(rival, rival) for rival in rivals)),
        rows=score_rows(head.scores, kinds, delay_min=delay_min),
        widths=(label_share, *[(1 - label_share) / len(rivals)] * len(rivals)),
    )


def draw_rivals(pdf: ReportPdf, head: HeadReport) -> None:
    """Draw who the model is compared with, if anybody."""
    rivals = [rival for rival in rivals_of(head.scores) if rival in RIVAL_MEANINGS]
    if rivals:
        pdf.tables(
            Table(
                title="Who the model is compared with",
                rows=[(RIVAL_TITLES[rival], RIVAL_MEANINGS[rival]) for rival in rivals],
                widths=(0.12, 0.88),
                text_columns=frozenset({0, 1}),
            )
        )


def fold_panel(
    head: HeadReport,
    kind: ScoreKind,
    *,
    title: str,
    rivals: Sequence[str] = ("model",),
    y_label: str = "",
    reference: float | None = None,
) -> FoldPanel:
    """Return a score of each fold, and of all, for some rivals."""
    folds = [*folds_of(head.scores), None]
    return FoldPanel(
        title=title,
        y_label=y_label,
        scale=kind.scale,
        reference=reference,
        series={
            RIVAL_TITLES.get(rival, rival): [
                score_of(head.scores, kind, rival=rival, fold=fold) for fold in folds
            ]
            for rival in rivals
        },
    )


def draw_folds(pdf: ReportPdf, head: HeadReport, panels: Sequence[FoldPanel], *, name: str) -> None:
    """Draw whether scores hold over time."""
    folds = folds_of(head.scores)
    pdf.section("Does it hold over time?", needs_mm=85)
    if not folds:
        pdf.box("No fold was scored", "Scores of single folds are missing from this evaluation.")
        return
    n_rows = head.scores.filter(pl.col("fold").is_not_null(), delay_min=0)["n_rows"].drop_nulls()
    low, high = (count(bound) for bound in (n_rows.min(), n_rows.max()))
    rows = low if low == high else f"{low} to {high}"
    alone = " With one fold nothing can be said of time." if len(folds) == 1 else ""
    pdf.chart(
        folds_figure(panels, folds=folds),
        name=name,
        caption=f"{_plural(len(folds), 'fold')}, each with a model of its own that never saw the "
        f"fold's rows, n = {rows} per fold; at the right all folds pooled. Bars: 95 % intervals "
        "from resampled days, none where a fold is of one day. The dark line, if any, is what "
        f"knowing nothing scores.{alone}",
    )


def draw_importance(pdf: ReportPdf, head: HeadReport, *, name: str, unit: str) -> None:
    """Draw what the trees split on, and what moves their predictions."""
    features = by_importance(head.importance)
    n_all = features.height
    if not features["gain"].sum():
        pdf.section("Importance of features")
        is_known = features["gain"].is_not_null().any()
        heading = "No feature gained anything" if is_known else "No gain is known"
        why = "The model splits on no feature: it is a constant."
        pdf.box(heading, why if is_known else "Nobody looked what the model splits on.")
        return
    shown = features.head(MAX_FEATURES)
    height_mm = 18 + 4.1 * shown.height
    pdf.section("Importance of features", needs_mm=height_mm + 20)
    unused = features.filter(pl.col("gain").fill_null(0.0) == 0.0).height
    rest = f" The {shown.height} largest gains of {n_all} features." if n_all > shown.height else ""
    pdf.chart(
        importance_figure(shown, height_mm=height_mm, unit=unit),
        name=name,
        caption="Gain: share of the total reduction in training loss by splits on each feature. "
        "Contribution: mean absolute SHAP value on unseen rows, what the feature moves a "
        f"prediction by, up or down.{rest} Unused: {unused} of {n_all}.",
    )


def facts_table(title: str, facts: Mapping[str, str]) -> Table:
    """Return a table of facts; a long one runs on in further rows."""
    rows = []
    for name, fact in facts.items():
        lines = wrap(fact, _FACT_CHARACTERS) or [NOTHING]
        rows += [(name if number == 0 else "", line) for number, line in enumerate(lines)]
    return Table(
        title=title,
        rows=rows,
        widths=(0.22, 0.78),
        text_columns=frozenset({0, 1}),
    )


def bullets(sentences: Sequence[str]) -> str:
    """Return the text of a box that says one thing after the other."""
    return "\n".join(f"•  {sentence}" for sentence in sentences)


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"
