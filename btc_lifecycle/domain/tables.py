"""Every table of the warehouse, once: columns, types, units, nullability, meaning and key.

The store creates its tables from here, the checks and docs/tables.md are generated from here.
Times are stored as naive UTC microseconds and leave the store as aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

ColumnType = Literal["VARCHAR", "TIMESTAMP", "DOUBLE", "BIGINT", "BOOLEAN"]
UTC_TIME = pl.Datetime("us", "UTC")
_POLARS_TYPES: dict[ColumnType, pl.DataType] = {
    "VARCHAR": pl.String(),
    "TIMESTAMP": UTC_TIME,
    "DOUBLE": pl.Float64(),
    "BIGINT": pl.Int64(),
    "BOOLEAN": pl.Boolean(),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: its SQL type, unit and meaning."""

    name: str
    type: ColumnType
    meaning: str
    unit: str = ""
    is_nullable: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its columns in order, its primary key and the column that windows cut on."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str = "open_time"

    @property
    def schema(self) -> pl.Schema:
        """The Polars schema of a frame of this table."""
        return pl.Schema({column.name: _POLARS_TYPES[column.type] for column in self.columns})

    def renamed(self, name: str) -> Table:
        """Return the same table under another name, as the configuration may ask for candles."""
        return Table(
            name=name,
            meaning=self.meaning,
            columns=self.columns,
            key=self.key,
            time_column=self.time_column,
        )


_CANDLE_KEY = (
    Column(name="symbol", type="VARCHAR", meaning="market in ccxt's form, such as BTC/USDT"),
    Column(
        name="open_time", type="TIMESTAMP", unit="UTC", meaning="when the candle's minute opened"
    ),
)

CANDLES = Table(
    name="candles",
    meaning="Closed one-minute candles as the exchange gave them.",
    key=("symbol", "open_time"),
    columns=(
        *_CANDLE_KEY,
        Column(name="open", type="DOUBLE", unit="quote", meaning="first trade's price"),
        Column(name="high", type="DOUBLE", unit="quote", meaning="highest trade's price"),
        Column(name="low", type="DOUBLE", unit="quote", meaning="lowest trade's price"),
        Column(name="close", type="DOUBLE", unit="quote", meaning="last trade's price"),
        Column(name="volume", type="DOUBLE", unit="base", meaning="amount traded"),
        Column(
            name="quote_volume",
            type="DOUBLE",
            unit="quote",
            meaning="value traded",
            is_nullable=True,
        ),
        Column(name="trades", type="BIGINT", meaning="number of trades", is_nullable=True),
        Column(
            name="taker_buy_base",
            type="DOUBLE",
            unit="base",
            meaning="amount bought by takers",
            is_nullable=True,
        ),
        Column(
            name="taker_buy_quote",
            type="DOUBLE",
            unit="quote",
            meaning="value bought by takers",
            is_nullable=True,
        ),
    ),
)


def _feature(name: str, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type="DOUBLE", unit=unit, meaning=meaning, is_nullable=True)


FEATURE_COLUMNS = (
    _feature("log_return_1m", "log of close over the close 1 minute before"),
    _feature("log_return_5m", "log of close over the close 5 minutes before"),
    _feature("log_return_15m", "log of close over the close 15 minutes before"),
    _feature("log_return_60m", "log of close over the close 60 minutes before"),
    _feature("log_return_240m", "log of close over the close 240 minutes before"),
    _feature(
        "scaled_return_5m", "5-minute log return in units of the last 240 minutes' volatility"
    ),
    _feature(
        "scaled_return_15m", "15-minute log return in units of the last 240 minutes' volatility"
    ),
    _feature("realized_volatility_15m", "root mean squared one-minute log return, 15 minutes"),
    _feature("realized_volatility_60m", "root mean squared one-minute log return, 60 minutes"),
    _feature("realized_volatility_240m", "root mean squared one-minute log return, 240 minutes"),
    _feature("volatility_ratio_15m_240m", "log of 15-minute over 240-minute realized volatility"),
    _feature("parkinson_volatility_60m", "Parkinson's range volatility per minute, 60 minutes"),
    _feature("garman_klass_volatility_60m", "Garman and Klass's volatility per minute, 60 minutes"),
    _feature("high_low_range_1m", "log of the candle's high over its low"),
    _feature("volume_ratio_15m_240m", "log of mean volume of 15 minutes over that of 240 minutes"),
    _feature("volume_zscore_60m", "z-score of log(1 + volume) within 60 minutes"),
    _feature("volume_zscore_240m", "z-score of log(1 + volume) within 240 minutes"),
    _feature("range_position_60m", "where the close lies in the 60-minute range, 0 low to 1 high"),
    _feature(
        "range_position_240m", "where the close lies in the 240-minute range, 0 low to 1 high"
    ),
    _feature("vwap_deviation_60m", "log of close over the 60-minute volume-weighted typical price"),
    _feature(
        "vwap_deviation_240m", "log of close over the 240-minute volume-weighted typical price"
    ),
    _feature("body_ratio_1m", "close minus open over high minus low, 0 for a flat candle"),
    _feature("close_location_1m", "2 close - high - low over high - low, 0 for a flat candle"),
    _feature("rsi_14m", "relative strength over 14 minutes with plain means, 0 to 1"),
    _feature("minute_of_day_sin", "sine of the close's minute within the UTC day"),
    _feature("minute_of_day_cos", "cosine of the close's minute within the UTC day"),
    _feature("day_of_week_sin", "sine of the close's minute within the UTC week"),
    _feature("day_of_week_cos", "cosine of the close's minute within the UTC week"),
    _feature("taker_imbalance_1m", "taker buys minus taker sells over volume, 1 minute"),
    _feature("taker_imbalance_5m", "taker buys minus taker sells over volume, 5 minutes"),
    _feature("taker_imbalance_15m", "taker buys minus taker sells over volume, 15 minutes"),
    _feature("taker_imbalance_60m", "taker buys minus taker sells over volume, 60 minutes"),
)

FEATURES = Table(
    name="features",
    meaning="What is known at each candle's close; missing where a window spans a gap or warms up.",
    key=("symbol", "open_time"),
    columns=(*_CANDLE_KEY, *FEATURE_COLUMNS),
)

LABELS = Table(
    name="labels",
    meaning="What happened after each candle's close, once it is known.",
    key=("symbol", "open_time"),
    columns=(
        *_CANDLE_KEY,
        Column(name="horizon_min", type="BIGINT", unit="minutes", meaning="from close to outcome"),
        Column(
            name="forward_log_return",
            type="DOUBLE",
            meaning="log of the close at the horizon over this candle's close",
        ),
        Column(
            name="direction", type="BIGINT", meaning="sign of the forward log return: 1, 0 or -1"
        ),
        Column(
            name="matures_at", type="TIMESTAMP", unit="UTC", meaning="when the outcome is known"
        ),
    ),
)

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
        *_CANDLE_KEY,
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

TABLES = (CANDLES, FEATURES, LABELS, PREDICTIONS, OUTCOMES, DRIFT_METRICS)
