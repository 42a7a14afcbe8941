"""What the service takes of the lifecycle's settings."""

from __future__ import annotations

from btc_lifecycle.service.config import service_settings
from btc_lifecycle.settings import load_settings


def test_the_service_gets_its_places_its_key_and_its_limits(monkeypatch, tmp_path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREDICTION_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BTC_API_KEY", "s3cret")
    monkeypatch.setenv("MODEL_URI", "models:/bitcoin-model/3")
    settings = load_settings()
    told = service_settings(settings)
    assert told.model_uri == "models:/bitcoin-model/3"
    assert told.volatility_model_uri == "models:/bitcoin-volatility@production"
    assert told.tracking_uri == told.registry_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert (told.prediction_log_dir, told.online_dir) == (
        tmp_path / "predictions",
        tmp_path / "online",
    )
    assert (told.api_key, told.symbols) == ("s3cret", ("BTC/USDT",))
    assert told.limits == settings.lifecycle.serve


def test_without_a_key_none_is_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BTC_API_KEY", "")
    assert service_settings(load_settings()).api_key is None
