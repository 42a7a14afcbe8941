"""Where settings come from: the environment, a ``.env`` file, and the configuration files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.settings.sections import BaseUrl, IngestSettings, LifecycleSettings, Section

_KEY = re.compile(r"[\x20-\x7e]+")

ROOT = Path(__file__).resolve().parent.parent.parent
"""The checkout. Defaults are relative to it; relative places in the environment, to the working folder."""


def _sendable(key: SecretStr) -> SecretStr:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be of ASCII characters: clients send it in a header")
    return key


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
    btc_api_key: Annotated[SecretStr, AfterValidator(_sendable)] | None = None


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
    def online_dir(self) -> Path:
        """Where the newest features of each symbol lie for the service."""
        return self.data_dir / "online"

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
        + ("" if _is_untold(problem) else f" (was {_shown(problem['input'])})")
        for problem in error.errors(include_url=False)
    )


def _is_untold(problem: ErrorDetails) -> bool:
    return problem["type"] == "missing" or problem["loc"] == ("btc_api_key",)


def _sentence(message: str) -> str:
    # Not lower-cased as a whole: a pattern that the value must match is part of it.
    said = message.removeprefix("Value error, ")
    return said[:1].lower() + said[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
