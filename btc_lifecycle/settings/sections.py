"""The content of the configuration files: frozen, strictly typed, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.ingest.candles import SYMBOL_PATTERN
from btc_lifecycle.domain.learn.evaluation import TradingRule
from btc_lifecycle.domain.learn.labels import LabelPolicy
from btc_lifecycle.domain.learn.promotion import PromotionPolicy
from btc_lifecycle.domain.learn.splits import SplitPolicy
from btc_lifecycle.domain.learn.training import TrainingParameters
from btc_lifecycle.domain.learn.tuning import TuningPolicy
from btc_lifecycle.domain.monitor.reference import DriftPolicy
from btc_lifecycle.domain.monitor.retraining import RetrainingPolicy
from btc_lifecycle.domain.tables import CANDLES, FEATURE_COLUMNS, TABLES


def _address(value: str) -> str:
    parts = urlsplit(value)
    # Asking for the port refuses one that is no number or out of range.
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("must be scheme, host and port such as http://127.0.0.1:8765")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must end after the port; paths such as /api/v3/... are appended")
    return f"{parts.scheme}://{parts.netloc}"


def _addresses(value: str | None) -> str | None:
    if not value:
        return None
    return ",".join(_address(one.strip()) for one in value.split(","))


def _each_once(symbols: tuple[str, ...]) -> tuple[str, ...]:
    if not symbols or len(set(symbols)) < len(symbols):
        raise ValueError("must name at least one market, and each once")
    return symbols


def _candles_table(name: str) -> str:
    others = {table.name for table in TABLES} - {CANDLES.name}
    if name in others or name.endswith(tuple(f"_{other}" for other in others)):
        raise ValueError("is the name of another table; choose one of your own")
    return name


def _feature_name(name: str) -> str:
    if name not in {column.name for column in FEATURE_COLUMNS}:
        raise ValueError("is no feature; docs/features.md lists them")
    return name


def _features_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must name each feature once")
    return names


SymbolName = Annotated[str, Field(pattern=f"^{SYMBOL_PATTERN}$")]
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$"), AfterValidator(_candles_table)]
FeatureName = Annotated[str, AfterValidator(_feature_name)]
BaseUrl = Annotated[str | None, AfterValidator(_addresses)]
ArchiveUrl = Annotated[str, AfterValidator(_address)]


class Section(BaseModel):
    """A part of a configuration file: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IngestSettings(Section):
    """What to ingest, from which exchange, how far back."""

    exchange: Literal["binance"] = Field(default="binance", description="its id in ccxt")
    symbols: Annotated[tuple[SymbolName, ...], AfterValidator(_each_once)] = Field(
        default=("BTC/USDT",), description="markets in ccxt's form, all in one table"
    )
    interval: Literal["1m"] = Field(
        default="1m", description="length of a candle; features and labels count minutes"
    )
    limit: int = Field(
        default=43_200, ge=1, description="minutes that the first ingest reaches back"
    )
    table: TableName = Field(default=CANDLES.name, description="table of candles")
    start: AwareDatetime | None = Field(
        default=None, description="ISO time to reach back to instead of limit"
    )
    base_url: BaseUrl = Field(
        default=None,
        description="exchange's scheme, host and port, if not its own; several, separated by commas, "
        "are asked in order when one refuses by country; EXCHANGE_BASE_URL wins",
    )
    weight_share: float = Field(
        default=0.5, gt=0, le=1, description="share of an address's request limit that is used"
    )
    backfill_from: Literal["exchange", "archive"] = Field(
        default="exchange",
        description="where months of the past come from first; the exchange settles differences",
    )
    archive_url: ArchiveUrl | None = Field(
        default=None,
        description="archive's scheme, host and port, if not its own; a sandbox is its own archive",
    )


class LearnSettings(Section):
    """What is predicted, from how much history, and how models are fitted and judged."""

    labels: LabelPolicy
    window_days: int = Field(ge=1, description="newest days that training and features look at")
    leave_out: Annotated[tuple[FeatureName, ...], AfterValidator(_features_once)] = Field(
        default=(), description="features that no model learns from"
    )
    split: SplitPolicy
    training: TrainingParameters
    tuning: TuningPolicy = TuningPolicy()
    trading: TradingRule = TradingRule(min_edge=0.02, taker_cost_bp=5.0)
    promotion: PromotionPolicy = PromotionPolicy()


class MonitorSettings(Section):
    """When recent data count as drifted, and when drift leads to retraining."""

    drift: DriftPolicy
    retraining: RetrainingPolicy


class ServeSettings(Section):
    """What the service takes, and how old the features may be that it predicts from."""

    max_feature_age_s: float = Field(
        default=180.0,
        gt=0,
        description="seconds since the newest candle closed, beyond which it is not predicted from",
    )
    max_rows: int = Field(default=1000, ge=1, description="rows that one request may hold")
    max_body_bytes: int = Field(
        default=2 * 1024 * 1024, ge=1024, description="bytes that the body of a request may have"
    )
    body_timeout_s: float = Field(
        default=5.0, gt=0, description="seconds within which the body of a request must arrive"
    )
    max_concurrent_requests: int = Field(
        default=128,
        ge=1,
        description="requests worked on at once, the others are told to come again",
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="requests that one address may make; null: as many as it likes",
    )
    access_log: bool = Field(
        default=True, description="whether each request leaves a line of JSON on standard output"
    )


class UpkeepSettings(Section):
    """How long Dagster's records of runs are kept; those that something rests on stay longer."""

    keep_successful_hours: int = Field(
        default=48, ge=1, description="hours for runs that went well"
    )
    keep_failed_days: int = Field(default=14, ge=1, description="days for runs that did not")


class LifecycleSettings(Section):
    """The content of config/lifecycle.json."""

    learn: LearnSettings
    monitor: MonitorSettings
    serve: ServeSettings = ServeSettings()
    upkeep: UpkeepSettings = UpkeepSettings()

    @model_validator(mode="after")
    def _window_within_window(self) -> Self:
        if self.monitor.drift.window_hours > self.learn.window_days * 24:
            raise ConfigurationError(
                f"{self.monitor.drift.window_hours} hours of monitor.drift.window_hours do not fit "
                f"into {self.learn.window_days} days of learn.window_days",
                hint="shorten the one or lengthen the other",
            )
        return self
