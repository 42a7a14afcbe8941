"""The model card: what a candidate is, is good for and is not, in Markdown beside its report.

Source of its sections: Mitchell et al. (2019), "Model Cards for Model Reporting", FAT*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from btc_lifecycle.adapters.report_pdf.findings import (
    cost_finding,
    delay_finding,
    direction_findings,
    volatility_findings,
)
from btc_lifecycle.adapters.report_pdf.head_report import (
    AUC,
    DIRECTION_KINDS,
    LOG_LOSS_GAIN,
    MODEL,
    MSE_GAIN,
    R_SQUARED,
    RIVAL_MEANINGS,
    RIVAL_TITLES,
    VOLATILITY_KINDS,
    DirectionEvidence,
    HeadReport,
    ScoreKind,
    by_importance,
    facts_by_title,
    filled_bins,
    folds_of,
    rivals_of,
    score_of,
    score_rows,
    versions_of,
)
from btc_lifecycle.adapters.report_pdf.style import (
    NOTHING,
    Destination,
    amount,
    badge_of,
    count,
    number,
    percent,
    source_line,
)
from btc_lifecycle.domain.tables import FEATURE_COLUMNS

MODEL_CARD_NAME = "model_card.md"

_USE = (
    "To study how a model is made, judged, served and watched, on minute candles of Bitcoin: its "
    "probabilities of a rise and the volatility that it expects may be looked at, and compared "
    "with baselines and with what happened.\n\n"
    "Not to trade: nothing here accounts for the size of an order, for a market that moves "
    "because of it, for taxes or for failures, and a score of the past is no promise. Not for "
    "other markets, horizons or intervals than those it was trained on."
)
_TRAINING = (
    "Each head is a LightGBM model of gradient-boosted trees. Time is walked forward: each fold's "
    "model is fitted to rows before the fold alone, a part of which says when to stop, and scored "
    "on the fold, which it never saw. Rows whose outcome reaches into a later part are left out. "
    "The candidate is the model of the newest fold. Parameters and versions of libraries are "
    "among the facts above."
)
_EVALUATION = (
    "All scores are of unseen rows. In brackets: 95 % intervals from resampled UTC days; rows of "
    "one day have none. ↑ higher is better, ↓ lower is better. A gain is the rival's loss minus "
    "the model's on the same rows; 1 millinat is 0.001 nats. Surest tenth: the accuracy on rows "
    "whose probabilities lie furthest from one half."
)
_LIMITS = (
    "- A market changes: what held over the span of the data need not hold after it. Drift is "
    "watched while a model serves, and says when to train again.\n"
    "- Intervals come from resampled days. They cover chance within the span, neither a market "
    "unlike it nor a choice of features and parameters by who had seen such data.\n"
    "- Scores by hour and by volatility have no intervals: of so many, a few differ by chance.\n"
    "- Rows whose price did not change have no direction and are neither learnt from nor scored.\n"
    "- The cost of a trade is one number for all minutes; spreads widen when markets move."
)


def model_card(
    destination: Destination,
    *,
    direction: HeadReport,
    volatility: HeadReport | None,
    evidence: DirectionEvidence,
) -> str:
    """Return the card of one candidate, both heads of it where there are two."""
    heads = [direction] if volatility is None else [direction, volatility]
    parts = (
        _opening(destination, heads),
        _section("Intended use and misuse", (_USE,)),
        _section("Data and span", _facts(heads)),
        _section("Features", _features(heads)),
        _section("Training", (_TRAINING,)),
        _section("Evaluation", _evaluation(direction, volatility, evidence=evidence)),
        _section("Delay and costs", _delay_and_costs(direction, cost_bp=evidence.cost_bp)),
        _section("Limits", (_LIMITS,)),
        _section("Decision", _decisions(heads)),
    )
    return "\n".join(line for part in parts for line in part)


def _opening(destination: Destination, heads: Sequence[HeadReport]) -> Iterator[str]:
    yield f"# Model card: {_plain(', '.join(versions_of(heads)))}\n"
    badge = badge_of(destination.source)
    if badge:
        yield f"**{badge}. {source_line(destination.source)}. No score below says anything about a real market.**\n"
    yield "## What it is\n"
    for head in heads:
        yield f"- {_plain(head.title)}: {_plain(head.version)}, {_plain(head.outcome)}"
    yield f"\n{source_line(destination.source)}. Made at {destination.made_at:%Y-%m-%d %H:%M:%S} UTC.\n"


def _section(title: str, paragraphs: Iterable[str]) -> Iterator[str]:
    yield f"## {title}\n"
    for paragraph in paragraphs:
        yield f"{paragraph}\n"


def _facts(heads: Sequence[HeadReport]) -> Iterator[str]:
    for title, facts in facts_by_title(heads).items():
        yield f"### {_plain(title)}"
        yield _table(("fact", "value"), facts.items(), n_text=2)


def _features(heads: Sequence[HeadReport]) -> Iterator[str]:
    meanings = {column.name: column.meaning for column in FEATURE_COLUMNS}
    yield (
        "Gain: share of the total reduction in training loss by splits on the feature. "
        "Contribution: mean absolute SHAP value on unseen rows, in log-odds of a rise or in log "
        "volatility."
    )
    for head in heads:
        yield f"### {_plain(head.title)}"
        rows = [
            (
                row["feature"],
                meanings.get(row["feature"], NOTHING),
                percent(row["gain"]),
                amount(row["mean_abs_contribution"], digits=3),
            )
            for row in by_importance(head.importance).iter_rows(named=True)
        ]
        yield _table(("feature", "meaning", "gain", "mean abs contribution"), rows, n_text=2)


def _evaluation(
    direction: HeadReport, volatility: HeadReport | None, *, evidence: DirectionEvidence
) -> Iterator[str]:
    yield _EVALUATION
    yield f"### {_plain(direction.title)}"
    yield _bullets(direction_findings(direction, cost_bp=evidence.cost_bp))
    yield _score_table(direction, DIRECTION_KINDS)
    yield _rivals(direction)
    gain = ("gain over the prior, millinats", "prior", LOG_LOSS_GAIN)
    yield _fold_table(direction, (("AUC", MODEL, AUC), gain))
    yield from _calibration(evidence.calibration)
    yield _group_table("hour, UTC", evidence.by_hour)
    yield _group_table("volatility of the last hour", evidence.by_regime)
    if volatility is None:
        return
    yield f"### {_plain(volatility.title)}"
    yield _bullets(volatility_findings(volatility))
    yield _score_table(volatility, VOLATILITY_KINDS)
    yield _rivals(volatility)
    gain = ("gain over HAR", "har", MSE_GAIN)
    yield _fold_table(volatility, (("R²", MODEL, R_SQUARED), ("R² of HAR", "har", R_SQUARED), gain))


def _delay_and_costs(direction: HeadReport, *, cost_bp: float) -> Iterator[str]:
    yield (
        "The scores above take the price of the candle's close as the price of the deal. Who acts "
        "one minute late gets the close after it, and these scores:"
    )
    yield _score_table(direction, DIRECTION_KINDS, delay_min=1)
    yield delay_finding(direction)
    yield cost_finding(direction, cost_bp=cost_bp)


def _decisions(heads: Sequence[HeadReport]) -> Iterator[str]:
    for head in heads:
        yield f"**{_plain(head.title)}: {_plain(head.outcome)}.** {_plain(head.verdict)}"


def _score_table(head: HeadReport, kinds: Sequence[ScoreKind], *, delay_min: int = 0) -> str:
    titles = (RIVAL_TITLES.get(rival, rival) for rival in rivals_of(head.scores))
    return _table(("score", *titles), score_rows(head.scores, kinds, delay_min=delay_min))


def _rivals(head: HeadReport) -> str:
    known = [rival for rival in rivals_of(head.scores) if rival in RIVAL_MEANINGS]
    return _bullets(f"{RIVAL_TITLES[rival]}: {RIVAL_MEANINGS[rival]}" for rival in known)


def _fold_table(head: HeadReport, columns: Sequence[tuple[str, str, ScoreKind]]) -> str:
    """Return scores fold by fold: for each column its title, the rival and the score."""
    rows = []
    for fold in folds_of(head.scores):
        scores = [score_of(head.scores, kind, rival=rival, fold=fold) for _, rival, kind in columns]
        cells = (kind.cell(score) for (_, _, kind), score in zip(columns, scores, strict=True))
        rows.append((str(fold), count(max(score.n_rows for score in scores)), *cells))
    return _table(("fold, oldest first", "rows", *(title for title, _, _ in columns)), rows)


def _calibration(calibration: pl.DataFrame) -> Iterator[str]:
    rows = [
        (number(mean, decimals=4), number(share, decimals=4), count(n_rows))
        for mean, share, n_rows in filled_bins(calibration)
        .select("mean_probability", "up_share", "n_rows")
        .iter_rows()
    ]
    yield _table(("mean predicted probability", "share of rises", "rows"), rows)


def _group_table(name: str, groups: pl.DataFrame) -> str:
    rows = [
        (
            row["group"],
            count(row["n_rows"]),
            number(row["auc"], decimals=4),
            number(row["log_loss"], decimals=4),
            LOG_LOSS_GAIN.write(row["log_loss_gain"]),
            percent(row["accuracy"], decimals=1),
        )
        for row in groups.iter_rows(named=True)
    ]
    header = (name, "rows", "AUC", "log-loss, nats", "gain over the prior, millinats", "accuracy")
    return _table(header, rows)


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, n_text: int = 1) -> str:
    """Return a Markdown table whose first columns are text; a sentence where it has no rows."""
    lines = [[_plain(cell).replace("|", "\\|") for cell in row] for row in rows]
    if not lines:
        return f"No rows by {header[0]}."
    rule = ["---"] * n_text + ["---:"] * (len(header) - n_text)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (list(header), rule, *lines))


def _plain(text: str) -> str:
    """Return the text on one line."""
    return " ".join(text.split())
