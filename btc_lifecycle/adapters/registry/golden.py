"""What a model predicted for a few rows when it was logged, and must predict wherever it is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from btc_lifecycle.domain.errors import DataError

if TYPE_CHECKING:
    from lightgbm import Booster
    from numpy.typing import ArrayLike

TOLERANCE = 1e-12
"""Largest difference, relative or absolute: other machines may round an exponential otherwise."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Rows of features in the model's order, None where one is missing, and a number for each."""

    rows: tuple[tuple[float | None, ...], ...]
    predictions: tuple[float, ...]

    @classmethod
    def of(cls, booster: Booster, rows: ArrayLike) -> Self:
        """Return what a booster predicts for rows, array (n, features), NaN where one is missing.

        Raises:
            DataError: If there is no row, or one of another width, or a number is infinite.
        """
        table = np.asarray(rows, dtype=np.float64)
        width = booster.num_feature()
        if table.ndim != 2 or table.shape[0] == 0 or table.shape[1] != width:
            raise DataError(
                f"golden rows have the shape {table.shape}, not (n, {width}) with n above 0",
                hint="pass rows of features in the order of the training columns",
            )
        predictions = np.asarray(booster.predict(table, num_threads=1), dtype=np.float64)
        if np.isinf(table).any() or not np.isfinite(predictions).all():
            raise DataError(
                f"golden rows or their {len(predictions)} predictions hold no finite numbers",
                hint="look at the features and at the training's parameters",
            )
        cells = ([None if math.isnan(cell) else cell for cell in row] for row in table.tolist())
        return cls(rows=tuple(map(tuple, cells)), predictions=tuple(predictions.tolist()))

    def to_json(self) -> bytes:
        """Return a document whose numbers read back exactly."""
        document = {"rows": self.rows, "predictions": self.predictions}
        return json.dumps(document, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self | None:
        """Return what ``to_json`` gave, None for anything else."""
        try:
            document = json.loads(content)
            rows = tuple(tuple(map(_cell, row)) for row in document["rows"])
            predictions = tuple(map(float, document["predictions"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        is_whole = len(rows) == len(predictions) > 0 and len(set(map(len, rows))) == 1
        return cls(rows=rows, predictions=predictions) if is_whole else None

    def difference(self, predictions: Sequence[object]) -> str | None:
        """Return how predictions for the rows differ from what they were, None if they do not."""
        if len(predictions) != len(self.predictions):
            return f"{len(predictions)} predictions for {len(self.predictions)} golden rows"
        for number, (now, was) in enumerate(zip(predictions, self.predictions, strict=True)):
            if not isinstance(now, int | float) or not _is_close(now, was):
                return f"{now!r:.40} instead of {was!r} for golden row {number}"
        return None

    def table(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Return the rows as an array (n, features), NaN where a feature is missing."""
        return np.array(self.rows, dtype=np.float64)


def _is_close(now: float, was: float) -> bool:
    return math.isclose(now, was, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _cell(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)
