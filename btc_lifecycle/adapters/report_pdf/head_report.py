"""What a modeling report is told of a head, and how its scores are looked up and written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from btc_lifecycle.adapters.report_pdf.style import NOTHING, number

MODEL = "model"
NO_TRADE = "no trade"


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """One head of the model: how its candidate did beside its baselines, and what was decided.

    Attributes:
        title: What is predicted, such as ``Direction of the next 15 minutes``.
        version: Of the registered model, or ``not registered``.
        facts: What was trained on what, in the order to show it.
        scores: SCORES_SCHEMA of domain/learn/evaluation.
        outcome: promoted, refused, deferred or rolled back.
        verdict: The sentence that says why.
        importance: feature, gain (share of the total) and mean_abs_contribution (in units of the
            prediction: log-odds, or log volatility), one row per feature.
        n_days: UTC days that the unseen rows are of, None where nobody counted.
    """

    title: str
    version: str
    facts: Mapping[str, str]
    scores: pl.DataFrame
    outcome: str
    verdict: str
    importance: pl.DataFrame
    n_days: int | None = None


@dataclass(frozen=True, kw_only=True)
class DirectionEvidence:
    """What else is shown of the direction, from unseen rows.

    Attributes:
        calibration: mean_probability, up_share and n_rows of each bin.
        by_hour: group (a name), n_rows, auc, log_loss, log_loss_gain and accuracy.
        by_regime: The same.
        contributions: feature, value_rank and contribution in log-odds.
        cost_bp: What one trade pays, entry and exit together.
    """

    calibration: pl.DataFrame
    by_hour: pl.DataFrame
    by_regime: pl.DataFrame
    contributions: pl.DataFrame
    cost_bp: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score with its 95 % bounds; None where it is not defined, or bounded by nothing."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class ScoreKind:
    """How a score is called and written; ``scale`` is what its values are multiplied by."""

    name: str
    title: str
    decimals: int
    scale: float = 1.0
    is_signed: bool = False
    why_missing: str = "not defined"

    def write(self, value: float | None) -> str:
        """Return the value in the units of the title, a dash where there is none."""
        scaled = None if value is None else value * self.scale
        return number(scaled, decimals=self.decimals, is_signed=self.is_signed)

    def interval(self, score: Score) -> str:
        """Return the bounds, such as ``0.5240 to 0.5380``, empty without them."""
        if score.low is None or score.high is None:
            return ""
        return f"{self.write(score.low)} to {self.write(score.high)}"

    def cell(self, score: Score) -> str:
        """Return value and bounds in brackets, or why there are none."""
        if score.value is None:
            return f"{NOTHING} ({self.why_missing if score.n_rows else 'not scored'})"
        if score.low is None or score.high is None:
            return f"{self.write(score.value)} (no interval)"
        return f"{self.write(score.value)} [{self.write(score.low)}, {self.write(score.high)}]"


AUC = ScoreKind(name="auc", title="AUC  ↑", decimals=4)
LOG_LOSS_GAIN = ScoreKind(
    name="log_loss_gain",
    title="model's gain, millinats",
    decimals=2,
    scale=1e3,
    is_signed=True,
)
CONFIDENT_ACCURACY = ScoreKind(
    name="confident_accuracy", title="surest tenth, %  ↑", decimals=1, scale=100
)
TRADE_SHARE = ScoreKind(name="trade_share", title="rows traded, %", decimals=1, scale=100)
GROSS_BP = ScoreKind(
    name="gross_bp",
    title="trade before cost, bp  ↑",
    decimals=2,
    is_signed=True,
    why_missing=NO_TRADE,
)
NET_BP = ScoreKind(
    name="net_bp",
    title="trade after cost, bp  ↑",
    decimals=2,
    is_signed=True,
    why_missing=NO_TRADE,
)
DIRECTION_KINDS = (
    AUC,
    ScoreKind(name="log_loss", title="log-loss, nats  ↓", decimals=4),
    LOG_LOSS_GAIN,
    ScoreKind(name="brier", title="Brier score  ↓", decimals=4),
    ScoreKind(name="accuracy", title="accuracy, %  ↑", decimals=1, scale=100),
    CONFIDENT_ACCURACY,
    ScoreKind(
        name="expected_calibration_error", title="calibration error, %  ↓", decimals=2, scale=100
    ),
    ScoreKind(name="rank_ic", title="rank correlation  ↑", decimals=3),
    TRADE_SHARE,
    GROSS_BP,
    NET_BP,
)
R_SQUARED = ScoreKind(name="r_squared", title="R², explained variance  ↑", decimals=4)
SPEARMAN = ScoreKind(name="spearman", title="rank correlation  ↑", decimals=4)
MSE_GAIN = ScoreKind(name="mse_gain", title="model's gain", decimals=4, is_signed=True)
VOLATILITY_KINDS = (
    R_SQUARED,
    ScoreKind(name="mse", title="mean squared error  ↓", decimals=4),
    MSE_GAIN,
    SPEARMAN,
)

RIVAL_TITLES = {
    MODEL: "model",
    "prior": "prior",
    "contrarian": "contrarian",
    "logistic": "logistic",
    "har": "HAR",
    "last_value": "last value",
}
RIVAL_MEANINGS = {
    "prior": "always the share of rises in the training span",
    "contrarian": "the share of rises after a move like the last one, in the training span",
    "logistic": "a logistic regression on the features of the model",
    "har": "a regression on the logs of the realized volatilities of the last 15, 60 and 240 "
    "minutes (Corsi 2009)",
    "last_value": "the realized volatility of the last hour once more",
}


def versions_of(heads: Sequence[HeadReport]) -> list[str]:
    """Return the heads' versions, each once: two may not be registered."""
    return list(dict.fromkeys(head.version for head in heads))


def facts_by_title(heads: Sequence[HeadReport]) -> dict[str, dict[str, str]]:
    """Return the facts that all heads share, then those of each; none of either is left out."""
    first = heads[0].facts.items()
    shared = dict(first) if len(heads) == 1 else {}
    if len(heads) > 1:
        shared = {
            name: fact for name, fact in first if all(h.facts.get(name) == fact for h in heads)
        }
    own = {
        f"{head.title}  ·  {head.version}": {
            name: fact for name, fact in head.facts.items() if name not in shared
        }
        for head in heads
    }
    together = heads[0].title if len(heads) == 1 else "All heads"
    return {title: facts for title, facts in {together: shared, **own}.items() if facts}


def with_group_names(groups: pl.DataFrame) -> pl.DataFrame:
    """Return scores of groups with names for groups; an hour has two digits."""
    return groups.with_columns(pl.col("group").cast(pl.String).str.zfill(2))


def filled_bins(calibration: pl.DataFrame) -> pl.DataFrame:
    """Return the bins of a calibration curve that have rows."""
    return calibration.drop_nulls().drop_nans().filter(pl.col("n_rows") > 0)


def by_importance(importance: pl.DataFrame) -> pl.DataFrame:
    """Return the features that the model may split on, largest gain first; NaN counts as null."""
    return importance.with_columns(
        pl.col("gain", "mean_abs_contribution").cast(pl.Float64).fill_nan(None)
    ).sort("gain", "feature", descending=[True, False], nulls_last=True)


def rivals_of(scores: pl.DataFrame) -> list[str]:
    """Return who was scored, the model first."""
    found = scores["rival"].unique(maintain_order=True).to_list()
    return [MODEL, *(rival for rival in found if rival != MODEL)]


def folds_of(scores: pl.DataFrame) -> list[int]:
    """Return the numbers of the folds, oldest first."""
    return scores["fold"].drop_nulls().unique().sort().to_list()


def score_of(
    scores: pl.DataFrame,
    kind: ScoreKind,
    *,
    rival: str = MODEL,
    delay_min: int = 0,
    fold: int | None = None,
) -> Score:
    """Return one score, of all folds pooled by default; without a value where nobody scored it."""
    is_fold = pl.col("fold").is_null() if fold is None else pl.col("fold") == fold
    rows = scores.filter(is_fold, rival=rival, delay_min=delay_min, score=kind.name)
    if rows.is_empty():
        return Score()
    row = rows.row(0, named=True)
    value, low, high = (_finite(row[name]) for name in ("value", "low", "high"))
    return Score(value=value, low=low, high=high, n_rows=row["n_rows"] or 0)


def score_rows(
    scores: pl.DataFrame, kinds: Sequence[ScoreKind], *, delay_min: int = 0
) -> list[tuple[str, ...]]:
    """Return the cells of a table: a row for each kind of score, a column for each rival."""
    return [
        (
            kind.title,
            *(
                f"{NOTHING} (the model itself)"
                if rival == MODEL and kind in (LOG_LOSS_GAIN, MSE_GAIN)
                else kind.cell(score_of(scores, kind, rival=rival, delay_min=delay_min))
                for rival in rivals_of(scores)
            ),
        )
        for kind in kinds
    ]


Side = Literal["above", "below", "around", "unknown"]


def side_of(score: Score, *, reference: float = 0.0) -> Side:
    """Return where the interval lies: wholly above or below the reference, or around it."""
    if score.low is None or score.high is None:
        return "unknown"
    if score.low > reference:
        return "above"
    return "below" if score.high < reference else "around"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
