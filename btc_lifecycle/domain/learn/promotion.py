"""Promotion: whether a candidate takes the champion's place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from btc_lifecycle.domain.learn.evaluation import log_losses


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A decision with the sentence that the operator reads."""

    promote: bool
    reason: str


def decide(
    *,
    candidate: npt.NDArray[np.float64],
    champion: npt.NDArray[np.float64] | None,
    prior_up: float,
    direction: npt.NDArray[np.int64],
    champion_version: str | None,
    min_rows: int,
) -> Verdict:
    """Return whether the candidate beats the prior and the champion on rows none has seen.

    Args:
        candidate: The candidate's probability of a rise for each row.
        champion: The champion's for the same rows; None where nothing serves yet.
        prior_up: Share of rises in the candidate's training part.
        direction: What happened: 1 or -1.
        champion_version: The champion's registered version.
        min_rows: Fewest rows that make a champion, the first one too: on one row, luck decides.

    Raises:
        DataError: For shapes that differ or probabilities out of range.
    """
    n_wanted = max(min_rows, 1)
    if direction.size < n_wanted:
        return Verdict(
            promote=False,
            reason=f"deferred: {direction.size:,} unseen rows of {n_wanted:,} wanted "
            f"to judge by{'' if champion is None else f', champion {champion_version} stays'}",
        )
    rivals = [("the prior", np.full(direction.shape, prior_up))]
    if champion is not None:
        rivals.append((f"champion {champion_version}", champion))
    candidate_loss = float(log_losses(candidate, direction).mean())
    rival_losses = {name: float(log_losses(p, direction).mean()) for name, p in rivals}
    return _compare(candidate_loss, rival_losses, n_rows=direction.size)


def _compare(candidate_loss: float, rival_losses: dict[str, float], *, n_rows: int) -> Verdict:
    unbeaten = {name: loss for name, loss in rival_losses.items() if not candidate_loss < loss}
    named = " and ".join(
        f"{name}'s {loss:.5f}" for name, loss in (unbeaten or rival_losses).items()
    )
    verb = "does not beat" if unbeaten else "beats"
    return Verdict(
        promote=not unbeaten,
        reason=f"log-loss {candidate_loss:.5f} on {n_rows:,} unseen rows {verb} {named}",
    )
