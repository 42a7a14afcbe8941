"""The catalogue of features: what each one is, what it reads, and how far it looks back.

The table of features, the order of a model's inputs and docs/features.md come from here; what
computes a feature masks it by its `window_min`.
"""

from __future__ import annotations

from dataclasses import dataclass

from btc_lifecycle.domain.tables.ingest import CANDLE_KEY, CANDLES
from btc_lifecycle.domain.tables.table import Column, Table

_ABSENT_ELSEWHERE = frozenset(column.name for column in CANDLES.columns if column.is_nullable)


@dataclass(frozen=True, kw_only=True)
class FeatureEntry:
    """One feature: its formula in the notation of docs/features.md, and what it needs.

    `window_min` is how many minutes before its own candle it looks back: its warm-up, and how long
    a missing minute silences it. The longest is 240: one of a day would silence every model for a
    day after one missing minute.
    """

    name: str
    meaning: str
    formula: str
    window_min: int
    inputs: tuple[str, ...]
    unit: str = ""
    source: str = ""

    @property
    def is_optional(self) -> bool:
        """Whether it reads a candle column that not every exchange has."""
        return not _ABSENT_ELSEWHERE.isdisjoint(self.inputs)


_RANGE = ("high", "low")
_RANGE_AND_CLOSE = (*_RANGE, "close")
_PRICES = ("open", *_RANGE_AND_CLOSE)
_VALUE = (*_RANGE_AND_CLOSE, "volume")
_TAKER = ("volume", "taker_buy_base")
_TIME = ("open_time",)

_LOG_RETURN = "log return"
_PER_MINUTE = "log return per minute"
_DEVIATIONS = "standard deviations"

_REALIZED = (
    "Andersen, Bollerslev, Diebold and Labys (2003), Modeling and Forecasting Realized Volatility, "
    "Econometrica 71"
)
_PARKINSON = (
    "Parkinson (1980), The Extreme Value Method for Estimating the Variance of the Rate of Return, "
    "Journal of Business 53"
)
_GARMAN_KLASS = (
    "Garman and Klass (1980), On the Estimation of Security Price Volatilities from Historical "
    "Data, Journal of Business 53"
)
_ROGERS_SATCHELL = (
    "Rogers and Satchell (1991), Estimating Variance from High, Low and Closing Prices, Annals of "
    "Applied Probability 1"
)
_AMIHUD = (
    "Amihud (2002), Illiquidity and Stock Returns: Cross-Section and Time-Series Effects, Journal "
    "of Financial Markets 5; as a ratio of two windows, which has no unit"
)
_BARTLETT = (
    "Bartlett (1936), The Square Root Transformation in Analysis of Variance, Supplement to the "
    "Journal of the Royal Statistical Society 3, for the root"
)
_VWAP = (
    "Berkowitz, Logue and Noser (1988), The Total Cost of Transactions on the NYSE, Journal of "
    "Finance 43, for the average"
)
_IMBALANCE = (
    "Chordia, Roll and Subrahmanyam (2002), Order Imbalance, Liquidity, and Market Returns, "
    "Journal of Financial Economics 65"
)
_WILDER = (
    "Wilder (1978), New Concepts in Technical Trading Systems, section VI; with plain means, as "
    "his smoothing never forgets its start"
)


def _log_return(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"log_return_{minutes}m",
        meaning=f"log of close over the close {minutes} minute{'s' * (minutes > 1)} before",
        formula=f"ln(C / C[-{minutes}])",
        window_min=minutes,
        inputs=("close",),
        unit=_LOG_RETURN,
    )


def _scaled_return(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"scaled_return_{minutes}m",
        meaning=f"{minutes}-minute log return in units of the last 240 minutes' volatility",
        formula=f"ln(C / C[-{minutes}]) / sqrt({minutes} mean_240(r^2))",
        window_min=240,
        inputs=("close",),
        unit=_DEVIATIONS,
    )


def _realized_volatility(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"realized_volatility_{minutes}m",
        meaning=f"root mean squared one-minute log return, {minutes} minutes",
        formula=f"sqrt(mean_{minutes}(r^2))",
        window_min=minutes,
        inputs=("close",),
        unit=_PER_MINUTE,
        source=_REALIZED,
    )


def _range_position(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"range_position_{minutes}m",
        meaning=f"where the close lies in the {minutes}-minute range, 0 low to 1 high",
        formula=f"(C - min_{minutes}(L)) / (max_{minutes}(H) - min_{minutes}(L))",
        window_min=minutes - 1,
        inputs=_RANGE_AND_CLOSE,
    )


def _vwap_deviation(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"vwap_deviation_{minutes}m",
        meaning=f"log of close over the {minutes}-minute volume-weighted typical price",
        formula=f"ln(C sum_{minutes}(V) / sum_{minutes}(V T))",
        window_min=minutes - 1,
        inputs=_VALUE,
        unit=_LOG_RETURN,
        source=_VWAP,
    )


def _taker_imbalance(minutes: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"taker_imbalance_{minutes}m",
        meaning=f"taker buys minus taker sells over volume, {minutes} minute{'s' * (minutes > 1)}",
        formula=f"sum_{minutes}(2 B - V) / sum_{minutes}(V)",
        window_min=minutes - 1,
        inputs=_TAKER,
        source=_IMBALANCE,
    )


def _volatility_ratio(short: int, long: int) -> FeatureEntry:
    return FeatureEntry(
        name=f"volatility_ratio_{short}m_{long}m",
        meaning=f"log of {short}-minute over {long}-minute realized volatility",
        formula=f"ln(sqrt(mean_{short}(r^2) / mean_{long}(r^2)))",
        window_min=long,
        inputs=("close",),
    )


def _range_ratio(
    name: str, *, whose: str, term: str, inputs: tuple[str, ...], source: str
) -> FeatureEntry:
    return FeatureEntry(
        name=f"{name}_ratio_60m",
        meaning=f"{whose} volatility over the realized one, 60 minutes",
        formula=f"sqrt(mean_60({term}) / mean_60(r^2))",
        window_min=60,
        inputs=inputs,
        source=source,
    )


def _zscore(name: str, *, what: str, letter: str, column: str) -> FeatureEntry:
    return FeatureEntry(
        name=name,
        meaning=f"z-score of the root of {what} within 60 minutes",
        formula=f"(sqrt({letter}) - mean_60(sqrt({letter}))) / std_60(sqrt({letter}))",
        window_min=59,
        inputs=(column,),
        unit=_DEVIATIONS,
        source=_BARTLETT,
    )


def _phase(
    position: str, function: str, *, word: str, period: str, period_min: int
) -> FeatureEntry:
    return FeatureEntry(
        name=f"{position}_{function}",
        meaning=f"{word} of the close's minute within the UTC {period}",
        formula=f"{function}(2 pi m / {period_min}), m the minutes from the {period}'s start to close",
        window_min=0,
        inputs=_TIME,
    )


CATALOGUE: tuple[FeatureEntry, ...] = (
    *map(_log_return, (1, 5, 15, 60, 240)),
    *map(_scaled_return, (5, 15)),
    *map(_realized_volatility, (15, 60, 240)),
    _volatility_ratio(15, 60),
    _volatility_ratio(60, 240),
    _range_ratio(
        "parkinson",
        whose="Parkinson's range",
        term="ln(H/L)^2 / (4 ln 2)",
        inputs=(*_RANGE, "close"),
        source=_PARKINSON,
    ),
    _range_ratio(
        "garman_klass",
        whose="Garman and Klass's",
        term="ln(H/L)^2 / 2 - (2 ln 2 - 1) ln(C/O)^2",
        inputs=_PRICES,
        source=_GARMAN_KLASS,
    ),
    _range_ratio(
        "rogers_satchell",
        whose="Rogers and Satchell's",
        term="ln(H/O) ln(H/C) + ln(L/O) ln(L/C)",
        inputs=_PRICES,
        source=_ROGERS_SATCHELL,
    ),
    FeatureEntry(
        name="high_low_range_1m",
        meaning="log of the candle's high over its low",
        formula="ln(H / L)",
        window_min=0,
        inputs=_RANGE,
        unit=_LOG_RETURN,
    ),
    FeatureEntry(
        name="volume_ratio_15m_240m",
        meaning="log of mean volume of 15 minutes over that of 240 minutes",
        formula="ln(mean_15(V) / mean_240(V))",
        window_min=239,
        inputs=("volume",),
    ),
    _zscore("volume_zscore_60m", what="volume", letter="V", column="volume"),
    FeatureEntry(
        name="illiquidity_ratio_60m_240m",
        meaning="log of Amihud's illiquidity of 60 minutes over that of 240 minutes",
        formula="ln((sum_60(abs r) / sum_60(V T)) / (sum_240(abs r) / sum_240(V T)))",
        window_min=240,
        inputs=_VALUE,
        source=_AMIHUD,
    ),
    *map(_range_position, (60, 240)),
    *map(_vwap_deviation, (60, 240)),
    FeatureEntry(
        name="body_ratio_1m",
        meaning="close minus open over high minus low, 0 for a flat candle",
        formula="(C - O) / (H - L), 0 where H = L",
        window_min=0,
        inputs=_PRICES,
    ),
    FeatureEntry(
        name="close_location_1m",
        meaning="2 close - high - low over high - low, 0 for a flat candle",
        formula="(2 C - H - L) / (H - L), 0 where H = L",
        window_min=0,
        inputs=_RANGE_AND_CLOSE,
    ),
    FeatureEntry(
        name="rsi_14m",
        meaning="relative strength over 14 minutes with plain means, 0 to 1",
        formula="sum_14(max(d, 0)) / sum_14(abs d), d = C - C[-1]; 0.5 where no price moved",
        window_min=14,
        inputs=("close",),
        source=_WILDER,
    ),
    _phase("minute_of_day", "sin", word="sine", period="day", period_min=1440),
    _phase("minute_of_day", "cos", word="cosine", period="day", period_min=1440),
    _phase("day_of_week", "sin", word="sine", period="week", period_min=10_080),
    _phase("day_of_week", "cos", word="cosine", period="week", period_min=10_080),
    _zscore("trades_zscore_60m", what="the number of trades", letter="N", column="trades"),
    *map(_taker_imbalance, (1, 5, 15, 60)),
)
"""Every feature once, in the order of its columns; those that not every exchange has come last."""

FEATURE_COLUMNS = tuple(
    Column(name=entry.name, type="DOUBLE", unit=entry.unit, meaning=entry.meaning, is_nullable=True)
    for entry in CATALOGUE
)

FEATURES = Table(
    name="features",
    meaning="What is known at each candle's close; missing where a window spans a gap or warms up.",
    key=("symbol", "open_time"),
    columns=(*CANDLE_KEY, *FEATURE_COLUMNS),
)
