"""Promotion: whether a candidate may serve, and the sentence that says why.

Candidate, champion and baselines are compared row by row on rows that none has learnt from. Days
are resampled as a whole, since the minutes of a day share their market.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import mean_interval, share_better

Outcome = Literal["promoted", "refused", "deferred"]
PROMOTED: Outcome = "promoted"
REFUSED: Outcome = "refused"
DEFERRED: Outcome = "deferred"

Floats = npt.NDArray[np.float64]

_ONE_SIDED_95 = 0.9
"""Level of the two-sided interval whose lower bound is the one-sided bound of 95 %."""


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy:
    """What a candidate must show.

    Attributes:
        min_rows: Fewest unseen rows to judge by: on a few, luck decides.
        min_days: Fewest UTC days that they must be of; one alone bounds nothing.
        min_confidence: Share of resampled days in which the mean loss must be below each baseline's.
        max_loss_increase: How much above the champion's the mean loss may be at the most, with a
            one-sided confidence of 95 %, as a share of the champion's.
    """

    min_rows: int = 500
    min_days: int = 2
    min_confidence: float = 0.5
    max_loss_increase: float = 0.001

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.min_rows < 1 or self.min_days < 2:
            raise ValueError("min_rows must be at least 1, min_days at least 2")
        if not 0.5 <= self.min_confidence < 1.0:
            raise ValueError("min_confidence must be at least 0.5 and below 1")
        if not 0.0 <= self.max_loss_increase < 1.0:
            raise ValueError("max_loss_increase must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A decision with the sentence that the operator reads."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of the same unseen rows, lower is better, each of shape (rows,).

    Attributes:
        candidate: The candidate's.
        baselines: Those of each baseline, by its name.
        champion: The champion's, None where nothing serves yet or nothing comparable.
        day: Any number that is equal for the rows of one UTC day.
    """

    candidate: Floats
    baselines: Mapping[str, Floats]
    champion: Floats | None
    day: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        rivals = [*self.baselines.values(), *([] if self.champion is None else [self.champion])]
        if any(losses.shape != self.candidate.shape for losses in (*rivals, self.day)):
            raise DataError(
                "the losses to compare are not of the same rows",
                hint="score candidate, champion and baselines on one frame",
            )


def decide(
    losses: Losses,
    *,
    policy: PromotionPolicy,
    champion_version: str | None,
    rng: np.random.Generator,
) -> Verdict:
    """Return whether the candidate beats every baseline and is not worse than the champion.

    Args:
        losses: Of rows that neither candidate nor champion has learnt from.
        policy: What it takes.
        champion_version: The champion's registered version.
        rng: Draws the resampled days.
    """
    n_rows, n_days = losses.candidate.size, np.unique(losses.day).size
    rows = f"{n_rows:,} unseen rows of {n_days:,} days"
    stays = "" if losses.champion is None else f"; champion {champion_version} stays"
    if n_rows < policy.min_rows or n_days < policy.min_days:
        wanted = f"{policy.min_rows:,} of {policy.min_days:,} days"
        return Verdict(outcome=DEFERRED, reason=f"{rows} to judge by, {wanted} wanted{stays}")
    beaten, unbeaten = _against_baselines(losses, min_confidence=policy.min_confidence, rng=rng)
    loss = f"mean loss {losses.candidate.mean():.5f} on {rows}"
    if unbeaten:
        return Verdict(outcome=REFUSED, reason=f"{loss} does not beat {unbeaten}{stays}")
    if losses.champion is None:
        return Verdict(outcome=PROMOTED, reason=f"{loss} beats {beaten}")
    if np.array_equal(losses.candidate, losses.champion):
        return Verdict(
            outcome=REFUSED, reason=f"{loss} is that of champion {champion_version}{stays}"
        )
    gain, low = _gain_over(losses.champion, losses, rng=rng)
    margin = policy.max_loss_increase * abs(float(losses.champion.mean()))
    compared = f"champion {champion_version} by {gain:+.5f} (with 95 % above {low:+.5f})"
    if low < -margin:
        reason = f"{loss} beats {compared}, a margin of {-margin:.5f} is wanted{stays}"
        return Verdict(outcome=REFUSED, reason=reason)
    return Verdict(outcome=PROMOTED, reason=f"{loss} beats {beaten} and {compared}")


def _against_baselines(
    losses: Losses, *, min_confidence: float, rng: np.random.Generator
) -> tuple[str, str]:
    """Return the baselines that are beaten and those that are not, with the gain over each."""
    beaten: list[str] = []
    unbeaten: list[str] = []
    for name, rival in losses.baselines.items():
        gain = rival - losses.candidate
        confidence = share_better(gain, losses.day, rng=rng)
        said = f"{name} by {gain.mean():+.5f} (in {confidence:.0%} of resamples)"
        (beaten if confidence >= min_confidence else unbeaten).append(said)
    return ", ".join(beaten), ", ".join(unbeaten)


def _gain_over(
    champion: Floats, losses: Losses, *, rng: np.random.Generator
) -> tuple[float, float]:
    gain = champion - losses.candidate
    low, _ = mean_interval(gain, losses.day, rng=rng, level=_ONE_SIDED_95)
    return float(gain.mean()), low
