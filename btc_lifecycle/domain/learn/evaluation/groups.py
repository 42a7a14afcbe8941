"""Groups: where the model is good, by the hour of the day and by how much the market moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from btc_lifecycle.domain.learn.evaluation.losses import is_rise, log_losses
from btc_lifecycle.domain.learn.evaluation.ranks import Ranks, auc

GROUP_SCORES_SCHEMA = pl.Schema(
    {
        "group": pl.String(),
        "n_rows": pl.Int64(),
        "auc": pl.Float64(),
        "log_loss": pl.Float64(),
        "log_loss_gain": pl.Float64(),
        "accuracy": pl.Float64(),
    }
)
"""The model's scores on one group; the gain, in nats, is over the prior. `auc` is null where all
rows of the group went the same way."""

HOURS = tuple(f"{hour:02d}" for hour in range(24))
REGIMES = ("low", "middle", "high")


def scores_by_hour(predicted: pl.DataFrame) -> pl.DataFrame:
    """Return GROUP_SCORES_SCHEMA for each UTC hour of open_time that has rows, 00 to 23.

    Args:
        predicted: open_time, direction (1 or -1), model and prior (probabilities of a rise).

    Raises:
        DataError: For probabilities or directions out of range.
    """
    return by_group(predicted, group=pl.col("open_time").dt.hour(), names=HOURS)


def scores_by_volatility(predicted: pl.DataFrame) -> pl.DataFrame:
    """Return GROUP_SCORES_SCHEMA for the thirds of the last hour's volatility: low, middle, high.

    Equal volatilities share a group; rows without one are in none.

    Args:
        predicted: realized_volatility_60m (known at the row's close), direction (1 or -1), model
            and prior (probabilities of a rise).

    Raises:
        DataError: For probabilities or directions out of range.
    """
    volatility = pl.col("realized_volatility_60m")
    # The smallest rank decides, so that equal values stay together.
    third = (volatility.rank("min") - 1) * len(REGIMES) // volatility.count()
    return by_group(predicted, group=third, names=REGIMES)


def by_group(predicted: pl.DataFrame, *, group: pl.Expr, names: Sequence[str]) -> pl.DataFrame:
    """Return GROUP_SCORES_SCHEMA for each group that has rows, in the order of their names.

    Args:
        predicted: direction (1 or -1), model and prior (probabilities of a rise), and what the
            expression reads.
        group: Each row's place in `names`, from 0; rows where it is null are left out.
        names: What the groups are called.

    Raises:
        DataError: For probabilities or directions out of range.
    """
    placed = predicted.with_columns(place=group.cast(pl.Int64)).drop_nulls("place")
    scores = [
        {"group": name, **_scores(rows)}
        for place, name in enumerate(names)
        if not (rows := placed.filter(place=place)).is_empty()
    ]
    return pl.DataFrame(scores, schema=GROUP_SCORES_SCHEMA)


def _scores(rows: pl.DataFrame) -> dict[str, float | None]:
    direction = rows["direction"].to_numpy()
    model, prior = rows["model"].to_numpy(), rows["prior"].to_numpy()
    is_up = is_rise(model, direction)
    losses = log_losses(model, direction)
    area = auc(Ranks.of(model), is_up)
    return {
        "n_rows": rows.height,
        "auc": None if np.isnan(area) else area,
        "log_loss": float(losses.mean()),
        "log_loss_gain": float((log_losses(prior, direction) - losses).mean()),
        "accuracy": float(((model >= 0.5) == is_up).mean()),
    }
