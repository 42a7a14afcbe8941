"""Configuration files and environment as frozen values; unknown keys are refused with their path.

The environment (and a ``.env`` file in the working folder) holds places and secrets; the JSON files
under ``config/`` hold numbers. The environment wins over a file where both name the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.learn.splits import SplitPolicy
from btc_lifecycle.domain.learn.training import TrainingParameters
from btc_lifecycle.domain.monitor.reference import DriftPolicy
from btc_lifecycle.domain.monitor.retraining import RetrainingPolicy
from btc_lifecycle.domain.tables import CANDLES, TABLES

ROOT = Path(__file__).resolve().parent.parent
"""The checkout. Defaults are relative to it; relative places in the environment, to the working folder."""


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


SymbolName = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}/[A-Z0-9]{1,20}$")]
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$"), AfterValidator(_candles_table)]
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
    """What is predicted, from how much history, and how the model is fitted."""

    horizon_min: int = Field(ge=1, le=240, description="minutes from close to outcome")
    window_days: int = Field(ge=1, description="newest days that training and features look at")
    min_comparison_rows: int = Field(ge=1, description="fewest unseen rows to promote by")
    split: SplitPolicy
    training: TrainingParameters


class MonitorSettings(Section):
    """When recent data count as drifted, and when drift leads to retraining."""

    drift: DriftPolicy
    retraining: RetrainingPolicy


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


class Places(BaseSettings):
    """The environment: places and secrets, each by the variable named like the field in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    btc_data_dir: Path = ROOT / "data"
    ingest_config: Path = ROOT / "config" / "bitcoin_ingest.json"
    lifecycle_config: Path = ROOT / "config" / "lifecycle.json"
    feature_db_path: Path | None = None
    btc_report_dir: Path | None = None
    mlflow_tracking_uri: str | None = None
    mlflow_registry_uri: str | None = None
    model_uri: str = "models:/bitcoin-model@production"
    exchange_base_url: BaseUrl = None
    prediction_log_dir: Path | None = None
    btc_api_key: SecretStr | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of the lifecycle, with places resolved to absolute paths."""

    data_dir: Path
    feature_db_path: Path
    report_dir: Path
    prediction_log_dir: Path
    mlflow_tracking_uri: str
    mlflow_registry_uri: str
    model_uri: str
    exchange_base_urls: tuple[str, ...]
    archive_url: str | None
    api_key: SecretStr | None
    ingest: IngestSettings
    lifecycle: LifecycleSettings

    @property
    def ingestion_stats_path(self) -> Path:
        """Where the figures of the newest ingest are written."""
        return self.data_dir / "feature_store" / "ingestion_stats.json"

    @property
    def exchange_state_dir(self) -> Path:
        """Where processes tell each other of request weight and of pauses the exchange asked for."""
        return self.data_dir / "exchange"

    @property
    def snapshots_dir(self) -> Path:
        """Where copies of the tables lie from which a damaged database is made again."""
        return self.feature_db_path.parent / "snapshots"


_File = TypeVar("_File", bound=Section)


def read_config(path: Path, kind: type[_File]) -> _File:
    """Return a configuration file as frozen values.

    Raises:
        ConfigurationError: If the file is missing, is not JSON, holds an unknown key or a value of
            the wrong type or outside its range; the message names the file and each key's path.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"configuration file {path} could not be read: {error.strerror}",
            hint="create it or name another one in the environment (see .env.example)",
        ) from error
    except ConfigurationError as error:
        raise ConfigurationError(
            f"configuration file {path} is not valid: {error.message}", hint=error.hint
        ) from error
    except ValidationError as error:
        raise ConfigurationError(
            f"configuration file {path} is not valid: {_problems(error)}",
            hint="mend the named keys; docs/configuration.md lists every key",
        ) from error


def read_places() -> Places:
    """Return the environment's places and secrets, a ``.env`` file included."""
    try:
        return Places()
    except ValidationError as error:
        raise ConfigurationError(
            f"the environment is not valid: {_problems(error)}",
            hint="mend the named variables; .env.example lists every variable",
        ) from error


def dagster_dir() -> Path:
    """Return where Dagster keeps its own storage."""
    return _place(read_places().btc_data_dir) / "dagster"


def load_settings() -> Settings:
    """Return all settings, read afresh from environment and files."""
    places = read_places()
    data_dir = _place(places.btc_data_dir)
    ingest = read_config(places.ingest_config.expanduser(), IngestSettings)
    base_urls = tuple(filter(None, (places.exchange_base_url or ingest.base_url or "").split(",")))
    # It is its own archive, and speaks plain HTTP, which no exchange does.
    sandbox = next((url for url in base_urls[:1] if url.startswith("http://")), None)
    tracking_uri = places.mlflow_tracking_uri or f"sqlite:///{data_dir / 'mlflow' / 'mlflow.db'}"
    return Settings(
        data_dir=data_dir,
        feature_db_path=_place(places.feature_db_path or data_dir / "feature_store/bitcoin.duckdb"),
        report_dir=_place(places.btc_report_dir or data_dir / "reports"),
        prediction_log_dir=_place(places.prediction_log_dir or data_dir / "predictions"),
        mlflow_tracking_uri=tracking_uri,
        mlflow_registry_uri=places.mlflow_registry_uri or tracking_uri,
        model_uri=places.model_uri,
        exchange_base_urls=base_urls,
        archive_url=ingest.archive_url or sandbox,
        api_key=places.btc_api_key,
        ingest=ingest,
        lifecycle=read_config(places.lifecycle_config.expanduser(), LifecycleSettings),
    )


def _place(path: Path) -> Path:
    return path.expanduser().absolute()


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {_sentence(problem['msg'])}"
        + ("" if problem["type"] == "missing" else f" (was {_shown(problem['input'])})")
        for problem in error.errors(include_url=False)
    )


def _sentence(message: str) -> str:
    # Not lower-cased as a whole: a pattern that the value must match is part of it.
    said = message.removeprefix("Value error, ")
    return said[:1].lower() + said[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
