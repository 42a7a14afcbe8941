"""Features of the whole history and of its last hours, by the same code.

Every window is computed from its own candles alone, so a row does not depend on how much history
came before it: the last WARMUP_MIN + 1 candles give the last row to 1e-12, in fact to the bit. A
window is there only where its candles are consecutive minutes; elsewhere the feature is null.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.features.block import CandleBlock
from btc_lifecycle.domain.learn.features.formulas import FORMULAS
from btc_lifecycle.domain.learn.features.windows import Values
from btc_lifecycle.domain.tables.features import CATALOGUE

FEATURE_NAMES: tuple[str, ...] = tuple(entry.name for entry in CATALOGUE)

WARMUP_MIN = max(entry.window_min for entry in CATALOGUE)
"""The longest window. One of a day would silence every model for a day after a missing minute."""

# What is computed of a block fits the processor's cache, and does not grow with the history.
_BLOCK_ROWS = 16_384


def compute_features(candles: pl.DataFrame) -> pl.DataFrame:
    """Return one row of FEATURES per candle; row t uses candle t and earlier ones only.

    Args:
        candles: One symbol's candles in the order of their open times, each once. Gaps and open
            times off the full minute are allowed.

    Returns:
        The features in the order of FEATURE_NAMES. Null in as many first rows, and after each
        gap, as a feature looks back; where an optional input is absent; and where a formula has
        no finite value, such as a window without volume.

    Raises:
        DataError: For several symbols, or open times that do not increase.
    """
    _refuse_disorder(candles)
    columns = {name: np.empty(candles.height) for name in FEATURE_NAMES}
    for first in range(0, candles.height, _BLOCK_ROWS):
        n_before = min(first, WARMUP_MIN)
        block = CandleBlock(candles[first - n_before : first + _BLOCK_ROWS])
        for name, values in _known_values(block).items():
            columns[name][first : first + _BLOCK_ROWS] = values[n_before:]
    return candles.select(
        "symbol",
        "open_time",
        *(pl.Series(name, values, nan_to_null=True) for name, values in columns.items()),
    )


def _known_values(block: CandleBlock) -> dict[str, Values]:
    """Return each feature, NaN where its window spans a gap or its formula has no finite value."""
    known: dict[str, Values] = {}
    reaches = {n: block.consecutive_min >= n for n in {entry.window_min for entry in CATALOGUE}}
    # A window without volume or without a move divides by zero, which is no mistake.
    with np.errstate(all="ignore"):
        for entry in CATALOGUE:
            values = FORMULAS[entry.name](block)
            is_known = np.isfinite(values) & reaches[entry.window_min]
            # In most blocks nothing is missing, and a copy of each column would be for nothing.
            known[entry.name] = values if is_known.all() else np.where(is_known, values, np.nan)
    return known


def _refuse_disorder(candles: pl.DataFrame) -> None:
    if candles["symbol"].n_unique() > 1:
        raise DataError(
            f"features were asked for {candles['symbol'].n_unique()} symbols in one frame",
            hint="compute them for one symbol at a time",
        )
    steps = candles["open_time"].diff()
    n_backward = int((steps <= timedelta(0)).sum())
    if n_backward:
        raise DataError(
            f"{candles['symbol'][0]}: {n_backward} of {candles.height} candles do not open after "
            "the candle before them",
            hint="sort the candles by open_time and keep one for each minute",
        )
