"""The page of results: tables, and sentences that hold whatever the numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import polars as pl

_NONE = "none"
_RIVALS = {"har": "HAR", "last_value": "last value"}


@dataclass(frozen=True, kw_only=True)
class DirectionRow:
    """A line of the directions' table, each score with its 95 % interval."""

    horizon: str
    who: str
    accuracy: str
    auc: str
    auc_late: str
    log_loss: str
    gain: str
    surest: str
    gross: str
    net: str

    @classmethod
    def of(cls, scores: pl.DataFrame, *, horizon_min: int, rival: str) -> Self:
        """Return the line of one rival."""

        def said(score: str, *, decimals: int = 4, delay_min: int = 0) -> str:
            return _cell(scores, rival=rival, score=score, decimals=decimals, delay_min=delay_min)

        return cls(
            horizon=f"{horizon_min} min",
            who=rival,
            accuracy=said("accuracy"),
            auc=said("auc"),
            auc_late=said("auc", delay_min=1),
            log_loss=said("log_loss", decimals=5),
            gain=_NONE if rival == "model" else said("log_loss_gain", decimals=5),
            surest=said("confident_accuracy"),
            gross=said("gross_bp", decimals=2),
            net=said("net_bp", decimals=2),
        )


@dataclass(frozen=True, kw_only=True)
class VolatilityRow:
    """A line of the volatility's table."""

    who: str
    r_squared: str
    mse: str
    gain: str
    spearman: str

    @classmethod
    def of(cls, scores: pl.DataFrame, *, rival: str) -> Self:
        """Return the line of one rival."""

        def said(score: str) -> str:
            return _cell(scores, rival=rival, score=score, decimals=4, delay_min=0)

        return cls(
            who=_RIVALS.get(rival, rival),
            r_squared=said("r_squared"),
            mse=said("mse"),
            gain=_NONE if rival == "model" else said("mse_gain"),
            spearman=said("spearman"),
        )


@dataclass(frozen=True, kw_only=True)
class LeakRow:
    """What one way of choosing test rows says of one and the same model."""

    horizon_min: int
    way: str
    accuracy: float
    auc: float


_DIRECTION_TITLES = (
    "horizon",
    "",
    "accuracy",
    "AUC",
    "AUC a minute late",
    "log-loss, nats",
    "model's gain over it",
    "accuracy, surest tenth",
    "bp per trade before costs",
    "bp after costs",
)
_VOLATILITY_TITLES = ("", "R²", "squared error", "model's gain over it", "rank correlation")


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that the page tells."""

    directions: Sequence[DirectionRow]
    volatilities: Sequence[VolatilityRow]
    leaks: Sequence[LeakRow]
    tested: str
    n_months: int
    window_days: int
    leak_days: int
    cost_bp: float

    def page(self) -> str:
        """Return the page in Markdown."""
        leaks = [
            (f"{row.horizon_min} min", row.way, f"{row.accuracy:.4f}", f"{row.auc:.4f}")
            for row in self.leaks
        ]
        return f"""# Results on real months

Made by `.venv/bin/python benchmarks/results.py` from BTC/USDT's one-minute candles on Binance spot. Each
of the {self.n_months} months {self.tested} is predicted by models of `config/lifecycle.json` that learnt from
the {self.window_days} days before it, purged and embargoed as configured. Nothing was chosen on these months:
the parameters come from 2022 and 2023. Brackets hold 95 % intervals from whole UTC days drawn with
replacement. Minutes at whose horizon the price was the same are left out; candles of this source have no
taker volumes and no trade counts.

## Direction

A rise or a fall within the horizon. *A minute late* is the same prediction held against what somebody gets
who acts one minute later: what is lost is the bounce between bid and ask, which nobody can earn. The rule
trades where the probability is at least 0.02 from one half, and pays {self.cost_bp:g} basis points for entry
and exit together. *Permuted labels* is the model trained and tested on outcomes dealt out at random.

{_table(_DIRECTION_TITLES, [_values(row) for row in self.directions])}

## Volatility

The logarithm of the root mean squared one-minute return of the next hour. HAR is a regression on the
logarithms of the last 15, 60 and 240 minutes' volatility (Corsi 2009); the last value says that the next
hour will be as the last.

{_table(_VOLATILITY_TITLES, [_values(row) for row in self.volatilities])}

## Why folds are never shuffled

One model ({self.leak_days} days before the tested months, 200 trees of 63 leaves) and four ways to choose the
rows that it is tested on. A row's features and outcome overlap with those of its neighbours, so a shuffled
fold asks about minutes whose outcome stands in the training rows beside them. The higher figures are the
leak, not skill.

{_table(("horizon", "rows to test on", "accuracy", "AUC"), leaks)}
"""


def _values(row: DirectionRow | VolatilityRow) -> tuple[str, ...]:
    return tuple(getattr(row, field.name) for field in fields(row))


def _cell(scores: pl.DataFrame, *, rival: str, score: str, decimals: int, delay_min: int) -> str:
    found = scores.filter(rival=rival, score=score, delay_min=delay_min)
    if found.is_empty() or found["value"][0] is None:
        return _NONE
    value, low, high = found.select("value", "low", "high").row(0)
    if low is None:
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
