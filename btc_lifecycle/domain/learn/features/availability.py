"""Which features a model can have, given what the exchange tells of each symbol."""

from __future__ import annotations

import polars as pl

from btc_lifecycle.domain.tables.features import CATALOGUE

OPTIONAL_FEATURES: tuple[str, ...] = tuple(entry.name for entry in CATALOGUE if entry.is_optional)
"""Those that read candle columns that not every exchange has."""

MIN_KNOWN_SHARE = 0.5
"""An example needs every feature: one rarer than this would cost most of a symbol's examples."""


def available_features(features: pl.DataFrame) -> tuple[str, ...]:
    """Return the names of the features to learn from, in the catalogue's order.

    An optional feature that is known in less than MIN_KNOWN_SHARE of any symbol's rows is left
    out: the exchange does not tell it. A required one stays however little of it is known, which
    is a fault of the data that `refuse_unknown_features` names.
    """
    lowest_share = (
        features.group_by("symbol")
        .agg(pl.col(OPTIONAL_FEATURES).is_not_null().mean())
        .select(pl.col(OPTIONAL_FEATURES).min().fill_null(0.0))
        .row(0, named=True)
    )
    return tuple(
        entry.name for entry in CATALOGUE if lowest_share.get(entry.name, 1.0) >= MIN_KNOWN_SHARE
    )
