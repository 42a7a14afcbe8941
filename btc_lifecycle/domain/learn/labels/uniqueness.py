"""How much of a label is its own: labels that cover the same minutes tell partly the same."""

from __future__ import annotations

import numpy as np
import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.labels.minutes import CANDLE, Floats, Ints


def average_uniqueness(examples: pl.DataFrame) -> Floats:
    """Return the average uniqueness of each example's label, above 0 and at most 1.

    A label covers the minutes after its own candle's close up to `matures_at`. Where c[s] labels
    of the same symbol cover minute s, each has 1 / c[s] of it; a label's uniqueness is the mean of
    that over its minutes. Labels alone have 1, back-to-back ones of h minutes each minute 1 / h.

    Args:
        examples: symbol, open_time and matures_at, in any order.

    Returns:
        Shape (examples,), in the order of the rows.

    Raises:
        DataError: For a label that matures before the first minute after its candle is over.

    Source: López de Prado (2018), "Advances in Financial Machine Learning", sections 4.3 and 4.4.
    """
    _refuse_empty_spans(examples)
    minute = pl.col(pl.Datetime).dt.epoch("us").floordiv(60_000_000)
    spans = examples.select("symbol", minute)
    first, end = (spans["open_time"] + 1).to_numpy(), spans["matures_at"].to_numpy()
    uniqueness = np.empty(examples.height)
    for of_symbol in spans.with_row_index("row").group_by("symbol").agg("row")["row"]:
        rows = of_symbol.to_numpy()
        uniqueness[rows] = _uniqueness_of_spans(first[rows], end[rows])
    return uniqueness


def _uniqueness_of_spans(first: Ints, end: Ints) -> Floats:
    """Return the mean of 1 / c over each half-open span of minutes, by sums up to each minute."""
    origin, n_minutes = first.min(), end.max() - first.min()
    starts = np.bincount(first - origin, minlength=n_minutes + 1)
    ends = np.bincount(end - origin, minlength=n_minutes + 1)
    concurrency = np.cumsum(starts - ends)[:-1]
    # No span covers a minute without labels, so what stands for it there does not matter.
    share_until = np.concatenate([[0.0], np.cumsum(1.0 / np.maximum(concurrency, 1))])
    shares: Floats = share_until[end - origin] - share_until[first - origin]
    return shares / (end - first)


def _refuse_empty_spans(examples: pl.DataFrame) -> None:
    empty = examples.filter(pl.col("matures_at") < pl.col("open_time") + 2 * CANDLE)
    if empty.height:
        raise DataError(
            f"{empty['symbol'][0]}: {empty.height} labels mature less than a minute after their "
            f"candle's close, first at {empty['open_time'][0]:%Y-%m-%d %H:%M} UTC",
            hint="label the candles again",
        )
