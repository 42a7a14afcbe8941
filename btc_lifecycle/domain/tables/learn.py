"""Tables of what happened after each candle's close, and of the models learnt from it."""

from __future__ import annotations

from btc_lifecycle.domain.tables.ingest import CANDLE_KEY
from btc_lifecycle.domain.tables.table import Column, Table

LABELS = Table(
    name="labels",
    meaning="What happened after each candle's close, once it is known.",
    key=("symbol", "open_time"),
    columns=(
        *CANDLE_KEY,
        Column(
            name="method",
            type="VARCHAR",
            meaning="how the outcome is found: horizon, or triple_barrier",
        ),
        Column(
            name="horizon_min",
            type="BIGINT",
            unit="minutes",
            meaning="from this close to the outcome, at the latest with barriers",
        ),
        Column(
            name="forward_log_return",
            type="DOUBLE",
            meaning="log of the outcome's price over this candle's close",
        ),
        Column(
            name="direction",
            type="BIGINT",
            meaning="1 for a rise, -1 for a fall, 0 for neither; with barriers, of the one touched",
        ),
        Column(
            name="matures_at", type="TIMESTAMP", unit="UTC", meaning="when the outcome is known"
        ),
        Column(
            name="forward_log_volatility",
            type="DOUBLE",
            unit="log of return per minute",
            meaning="log of the root mean squared one-minute log return of the next 60 minutes; "
            "missing until they are over, where one is missing, or where no price moved",
            is_nullable=True,
        ),
    ),
)

ALIAS_MOVES = Table(
    name="alias_moves",
    meaning="Every move of an alias of a registered model, before and after; rows are only added.",
    key=("move_id", "state"),
    time_column="moved_at",
    columns=(
        Column(name="move_id", type="VARCHAR", meaning="the same for all rows of one move"),
        Column(
            name="state",
            type="VARCHAR",
            meaning="intended before the move, then done, or abandoned where it never happened",
        ),
        Column(name="moved_at", type="TIMESTAMP", unit="UTC", meaning="clock when this was said"),
        Column(name="model_name", type="VARCHAR", meaning="registered model"),
        Column(name="alias", type="VARCHAR", meaning="production, previous or candidate"),
        Column(
            name="from_version",
            type="VARCHAR",
            meaning="version before, missing where the alias did not exist",
            is_nullable=True,
        ),
        Column(name="to_version", type="VARCHAR", meaning="version after"),
        Column(name="actor", type="VARCHAR", meaning="run, or user and command, that moved it"),
        Column(name="reason", type="VARCHAR", meaning="why"),
    ),
)
