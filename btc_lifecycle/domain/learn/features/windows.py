"""Windows over one value per minute, each made of its later and its earlier half.

A running sum that adds the newest value and takes off the oldest keeps rounding remains of values
that have left: a window without volume would not sum to zero, and a row would depend on the length
of the history before it. Halves cost one addition per value and doubling, and keep neither.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]
"""One value per candle, oldest first; NaN where it is not known."""


class Moments(NamedTuple):
    """The mean of each window, and the sum of squared deviations from it."""

    mean: Values
    squares: Values


def with_lagged(combine: np.ufunc, values: Values, earlier: Values, *, minutes: int) -> Values:
    """Return each value combined with what was so many minutes before; NaN before the first one."""
    result = np.empty_like(values)
    result[:minutes] = np.nan
    combine(values[minutes:], earlier[:-minutes], out=result[minutes:])
    return result


class Windows:
    """Sums, extremes and moments of the last `minutes` values, its own included.

    NaN where a window starts before the first value, or has a NaN in it. What windows of several
    lengths share is computed once.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._folds: dict[tuple[np.ufunc, int], Values] = {}

    def sum(self, minutes: int) -> Values:
        """Return each window's sum."""
        return self._fold(np.add, minutes)

    def mean(self, minutes: int) -> Values:
        """Return each window's mean."""
        return self.sum(minutes) / minutes

    def highest(self, minutes: int) -> Values:
        """Return each window's highest value."""
        return self._fold(np.maximum, minutes)

    def lowest(self, minutes: int) -> Values:
        """Return each window's lowest value."""
        return self._fold(np.minimum, minutes)

    def moments(self, minutes: int) -> Moments:
        """Return each window's mean and squares; a constant window deviates by exactly 0.

        Source: Chan, Golub and LeVeque (1983), "Algorithms for Computing the Sample Variance", The
        American Statistician 37, the pairwise update.
        """
        if minutes == 1:
            return Moments(self._values, self._values * 0.0)
        n = minutes // 2
        half = self.moments(n)
        step = with_lagged(np.subtract, half.mean, half.mean, minutes=n)
        mean = half.mean - step / 2.0
        squares = with_lagged(np.add, half.squares, half.squares, minutes=n) + step**2 * (n / 2.0)
        if minutes % 2:
            step = with_lagged(np.subtract, mean, self._values, minutes=minutes - 1)
            mean = mean - step / minutes
            squares = squares + step**2 * ((minutes - 1) / minutes)
        return Moments(mean, squares)

    def _fold(self, combine: np.ufunc, minutes: int) -> Values:
        if minutes == 1:
            return self._values
        if (combine, minutes) not in self._folds:
            n = minutes // 2
            half = self._fold(combine, n)
            whole = with_lagged(combine, half, half, minutes=n)
            if minutes % 2:
                whole = with_lagged(combine, whole, self._values, minutes=minutes - 1)
            self._folds[combine, minutes] = whole
        return self._folds[combine, minutes]
