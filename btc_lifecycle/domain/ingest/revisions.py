"""Candles that came again: which are new, and which the exchange has revised since."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from btc_lifecycle.domain.tables import CANDLES

_VALUES = [name for name in CANDLES.schema if name not in CANDLES.key]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Incoming candles beside stored ones; rows of ``revised`` and ``replaced`` belong together.

    ``new`` were not stored; ``revised`` were, with the values of ``replaced``. Those that came with
    the values that are stored are in none of them.
    """

    new: pl.DataFrame
    revised: pl.DataFrame
    replaced: pl.DataFrame


def compare(incoming: pl.DataFrame, *, stored: pl.DataFrame) -> Comparison:
    """Tell incoming candles apart by what is stored; both have the columns of table ``candles``."""
    if stored.is_empty():
        return Comparison(new=incoming, revised=stored, replaced=stored)
    pairs = incoming.join(stored, on=CANDLES.key, suffix="_stored", maintain_order="left")
    is_changed = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in _VALUES
    )
    changed = pairs.filter(is_changed)
    return Comparison(
        new=incoming.join(stored, on=CANDLES.key, how="anti", maintain_order="left"),
        revised=changed.select(incoming.columns),
        replaced=changed.select(
            *CANDLES.key, *(pl.col(f"{name}_stored").alias(name) for name in _VALUES)
        ),
    )
