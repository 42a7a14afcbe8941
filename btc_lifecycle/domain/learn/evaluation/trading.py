"""Trading: what acting on the predictions would have earned, before and after costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from btc_lifecycle.domain.learn.evaluation.losses import Floats, Ints

BP = 1e4
"""Basis points of one unit of log return."""


@dataclass(frozen=True, kw_only=True)
class TradingRule:
    """Buy or sell where a probability is far enough from even, hold to the outcome, pay twice.

    Attributes:
        min_edge: How far from 0.5 a probability of a rise must lie, at least.
        taker_cost_bp: Fee and spread of one market order in basis points; entry and exit each
            pay it.
    """

    min_edge: float
    taker_cost_bp: float

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if not 0.0 <= self.min_edge < 0.5:
            raise ValueError("min_edge must be at least 0 and below 0.5")
        if not 0.0 <= self.taker_cost_bp < inf:
            raise ValueError("taker_cost_bp must not be negative")

    def sides(self, probability_up: Floats) -> Ints:
        """Return 1 for a buy, -1 for a sale and 0 for no trade; an even chance is never one."""
        buys = probability_up >= 0.5 + self.min_edge
        sales = probability_up <= 0.5 - self.min_edge
        return buys.astype(np.int64) - sales.astype(np.int64)

    def net_bp(self, gross_bp: Floats) -> Floats:
        """Return what is left of each trade's gross gain in basis points."""
        return gross_bp - 2.0 * self.taker_cost_bp
