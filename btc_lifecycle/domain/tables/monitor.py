"""Tables of predictions, their outcomes, and drift."""

from __future__ import annotations

from btc_lifecycle.domain.tables.ingest import CANDLE_KEY
from btc_lifecycle.domain.tables.table import Column, Table

_MODEL_VERSION = Column(
    name="model_version", type="VARCHAR", meaning="registered version of bitcoin-model"
)

PREDICTIONS = Table(
    name="predictions",
    meaning="Every row that the service scored, imported once from the prediction log.",
    key=("prediction_id",),
    time_column="made_at",
    columns=(
        Column(
            name="prediction_id", type="VARCHAR", meaning="answer's id, colon, row in the answer"
        ),
        Column(
            name="symbol",
            type="VARCHAR",
            meaning="market, where the client said it",
            is_nullable=True,
        ),
        Column(
            name="open_time",
            type="TIMESTAMP",
            unit="UTC",
            meaning="candle that the features belong to, where the client said it",
            is_nullable=True,
        ),
        _MODEL_VERSION,
        Column(
            name="made_at", type="TIMESTAMP", unit="UTC", meaning="service's clock at the answer"
        ),
        Column(name="probability_up", type="DOUBLE", meaning="predicted probability of a rise"),
        Column(name="direction", type="BIGINT", meaning="1 for up, -1 for down"),
    ),
)

OUTCOMES = Table(
    name="outcomes",
    meaning="Predictions joined with what happened, once matured.",
    key=("prediction_id",),
    columns=(
        Column(name="prediction_id", type="VARCHAR", meaning="the prediction that matured"),
        *CANDLE_KEY,
        _MODEL_VERSION,
        Column(name="probability_up", type="DOUBLE", meaning="predicted probability of a rise"),
        Column(name="direction", type="BIGINT", meaning="what happened: 1 or -1"),
        Column(name="forward_log_return", type="DOUBLE", meaning="what happened, as log return"),
        Column(
            name="matures_at", type="TIMESTAMP", unit="UTC", meaning="when the outcome was known"
        ),
        Column(name="log_loss", type="DOUBLE", unit="nats", meaning="negative log likelihood"),
    ),
)

DRIFT_METRICS = Table(
    name="drift_metrics",
    meaning="How the newest window differs from the champion's training window.",
    key=("symbol", "window_end", "model_version", "metric", "feature"),
    time_column="window_end",
    columns=(
        Column(name="symbol", type="VARCHAR", meaning="market, or * for all"),
        Column(name="window_start", type="TIMESTAMP", unit="UTC", meaning="first open time"),
        Column(name="window_end", type="TIMESTAMP", unit="UTC", meaning="end, exclusive"),
        _MODEL_VERSION,
        Column(name="metric", type="VARCHAR", meaning="psi or log_loss"),
        Column(name="feature", type="VARCHAR", meaning="feature, or empty for the model's score"),
        Column(name="n_rows", type="BIGINT", meaning="rows that the value rests on"),
        Column(name="value", type="DOUBLE", meaning="the metric", is_nullable=True),
        Column(name="threshold", type="DOUBLE", meaning="limit for a breach", is_nullable=True),
        Column(name="is_breach", type="BOOLEAN", meaning="whether the value is above the limit"),
    ),
)
