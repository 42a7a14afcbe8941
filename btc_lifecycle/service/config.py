"""What the service needs to know: places, model URIs, its key, and the limits of requests."""

from dataclasses import dataclass, field
from pathlib import Path

from btc_lifecycle.adapters.registry import CHAMPION_ALIAS, VOLATILITY_MODEL_NAME
from btc_lifecycle.settings import IngestSettings, ServeSettings, Settings


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of one service; `poll_seconds` lie between two looks at where an alias points."""

    model_uri: str
    volatility_model_uri: str = f"models:/{VOLATILITY_MODEL_NAME}@{CHAMPION_ALIAS}"
    tracking_uri: str
    registry_uri: str
    prediction_log_dir: Path
    online_dir: Path
    symbols: tuple[str, ...] = IngestSettings().symbols
    api_key: str | None = None
    poll_seconds: float = 2.0
    limits: ServeSettings = field(default_factory=ServeSettings)


def service_settings(settings: Settings) -> ServiceSettings:
    """Return the part of the lifecycle's settings that concerns the service."""
    key = settings.api_key
    return ServiceSettings(
        model_uri=settings.model_uri,
        tracking_uri=settings.mlflow_tracking_uri,
        registry_uri=settings.mlflow_registry_uri,
        prediction_log_dir=settings.prediction_log_dir,
        online_dir=settings.online_dir,
        symbols=settings.ingest.symbols,
        api_key=key.get_secret_value() if key is not None else None,
        limits=settings.lifecycle.serve,
    )
