"""Ranks: how well predictions order what happened, whatever their scale."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation.losses import Bools, Floats, Ints, is_rise


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rows in the order of their values.

    Attributes:
        index: Place of each row's value among the distinct ones, from 0, shape (rows,).
        counts: Rows that share each distinct value, smallest first, shape (distinct values,).
    """

    index: Ints
    counts: Ints

    @classmethod
    def of(cls, values: Floats) -> Ranks:
        """Return the ranks of values without NaN."""
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(index=index, counts=counts)

    def centred(self) -> Floats:
        """Return each row's mid-rank minus the mean rank: exactly 0 where all values are equal."""
        mid_ranks = np.cumsum(self.counts) - (self.counts - 1) / 2.0
        return np.asarray((mid_ranks - (self.index.size + 1) / 2.0)[self.index])

    def bins(self, n_bins: int) -> Ints:
        """Return each row's bin of about equally many rows; equal values share one.

        With no more distinct values than bins, each value has a bin of its own.
        """
        if self.counts.size <= n_bins:
            return self.index
        n_below = np.cumsum(self.counts) - self.counts
        return np.asarray((n_below * n_bins // self.index.size)[self.index])


def rank_auc(probability_up: Floats, direction: Ints) -> float:
    """Return the share of (rise, fall) pairs that are ranked rightly, ties counting half.

    Raises:
        DataError: For shapes that differ, values out of range, or one direction only.
    """
    is_up = is_rise(probability_up, direction)
    refuse_one_way(is_up)
    return auc(Ranks.of(probability_up), is_up)


def refuse_one_way(is_up: Bools) -> None:
    """Raise where nothing can be ranked.

    Raises:
        DataError: For rises only, falls only, or no rows.
    """
    if is_up.all() or not is_up.any():
        raise DataError(
            f"all {is_up.size:,} rows went the same way, so nothing can be ranked",
            hint="score a longer window",
        )


def auc(ranks: Ranks, is_up: Bools) -> float:
    """Return the area under the ROC curve; NaN where all rows went the same way.

    Source: Mann and Whitney's U over the number of pairs, from mid-ranks (Hanley and McNeil
    (1982), "The Meaning and Use of the Area under a ROC Curve", Radiology 143).
    """
    n_up = int(is_up.sum())
    n_pairs = n_up * (is_up.size - n_up)
    # The sum of centred ranks of the rises is U minus half the pairs.
    return 0.5 + float(ranks.centred()[is_up].sum()) / n_pairs if n_pairs else nan


def spearman(first: Ranks, second: Ranks) -> float:
    """Return the correlation of mid-ranks; NaN where either has one value only."""
    x, y = first.centred(), second.centred()
    spread = sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else nan
