"""Tables of what is known at a candle's close, and of what happened after it."""

from __future__ import annotations

from btc_lifecycle.domain.tables.ingest import CANDLE_KEY
from btc_lifecycle.domain.tables.table import Column, Table


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
    columns=(*CANDLE_KEY, *FEATURE_COLUMNS),
)

LABELS = Table(
    name="labels",
    meaning="What happened after each candle's close, once it is known.",
    key=("symbol", "open_time"),
    columns=(
        *CANDLE_KEY,
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
