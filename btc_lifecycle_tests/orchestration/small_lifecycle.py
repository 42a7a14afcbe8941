"""A lifecycle of five synthetic days whose parts are the real ones: exchange, stores, jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from btc_lifecycle.adapters.registry import VOLATILITY_MODEL_NAME, Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.orchestration.build import build_defs
from btc_lifecycle.orchestration.journal import open_registry
from btc_lifecycle.sandbox.clock import SandboxClock
from btc_lifecycle.sandbox.server import SandboxExchange
from btc_lifecycle.sandbox.synthetic import Regime, SyntheticMarket
from btc_lifecycle.settings import IngestSettings, LifecycleSettings, Settings

START = datetime(2024, 1, 1, tzinfo=UTC)
LIMIT = 5 * 1440
NOW = START + timedelta(minutes=LIMIT, seconds=20)
"""The exchange's time: the last of the candles that the first ingest reaches closed 20 s ago."""

LIFECYCLE = LifecycleSettings.model_validate_json(
    json.dumps(
        {
            "learn": {
                "labels": {"horizon_min": 15},
                "window_days": 30,
                "split": {
                    "validation_fraction": 0.2,
                    "test_fraction": 0.6,
                    "n_folds": 2,
                    "min_rows": 1000,
                },
                "training": {
                    "num_boost_round": 40,
                    "early_stopping_rounds": 40,
                    "learning_rate": 0.05,
                    "num_leaves": 7,
                    "min_data_in_leaf": 100,
                    "seed": 7,
                },
                "promotion": {"min_rows": 200, "min_days": 2},
            },
            "monitor": {
                "drift": {"window_hours": 24, "min_window_rows": 360, "min_psi": 0.2},
                "retraining": {
                    "min_drifted_features": 5,
                    "max_log_loss_increase": 0.02,
                    "min_outcomes": 50,
                    "cooldown_hours": 24,
                    "max_attempts": 3,
                },
            },
        }
    )
)

Metadata = Mapping[str, Mapping[str, Any]]


def make_exchange(
    *,
    start: datetime = START - timedelta(days=1),
    now: datetime = NOW,
    symbols: Sequence[str] = ("BTCUSDT",),
) -> SandboxExchange:
    """Return a sandbox exchange with its clock stopped.

    Order flow moves its prices eight times as much as usual, so that four days teach something.
    """
    regime = Regime(starts_at=start, flow_effect_factor=8.0)
    market = SyntheticMarket(seed=7, start=start, symbols=symbols, regimes=[regime])
    return SandboxExchange(market, SandboxClock(now, 0), wall=lambda: 30.0)


def small_settings(
    folder: Path,
    *,
    mlflow_uri: str | None = None,
    exchange_url: str | None = None,
    symbols: tuple[str, ...] = ("BTC/USDT",),
    lifecycle: LifecycleSettings = LIFECYCLE,
) -> Settings:
    """Return settings whose every place lies in a folder."""
    uri = mlflow_uri or f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    return Settings(
        data_dir=folder,
        feature_db_path=folder / "feature_store" / "bitcoin.duckdb",
        report_dir=folder / "reports",
        prediction_log_dir=folder / "predictions",
        mlflow_tracking_uri=uri,
        mlflow_registry_uri=uri,
        model_uri="models:/bitcoin-model@production",
        exchange_base_urls=(exchange_url,),
        archive_url=exchange_url,
        api_key=None,
        ingest=IngestSettings(limit=LIMIT, symbols=symbols),
        lifecycle=lifecycle,
    )


def trained_otherwise(
    settings: Settings, *, split: Mapping[str, float] | None = None, **training: float
) -> Settings:
    """Return settings under which a candidate is split or trained in another way."""
    learn = settings.lifecycle.learn
    changed = learn.model_copy(
        update={
            "split": replace(learn.split, **(split or {})),
            "training": replace(learn.training, **training),
        }
    )
    lifecycle = settings.lifecycle.model_copy(update={"learn": changed})
    return replace(settings, lifecycle=lifecycle)


def with_window_days(settings: Settings, window_days: int) -> Settings:
    """Return settings under which training looks at another number of days."""
    learn = settings.lifecycle.learn.model_copy(update={"window_days": window_days})
    lifecycle = settings.lifecycle.model_copy(update={"learn": learn})
    return replace(settings, lifecycle=lifecycle)


@dataclass(frozen=True, kw_only=True)
class SmallLifecycle:
    """One folder's lifecycle: settings and the Dagster instance that its runs are recorded in."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def registry(self) -> Registry:
        """The registry of the direction's models."""
        return open_registry(self.settings)

    @property
    def volatility_registry(self) -> Registry:
        """The registry of the volatility's models."""
        return open_registry(self.settings, model_name=VOLATILITY_MODEL_NAME)

    @property
    def warehouse(self) -> Warehouse:
        """The store of all tables."""
        return Warehouse(self.settings.feature_db_path)

    def run(self, job: str, *assets: str, settings: Settings | None = None) -> Metadata:
        """Run a job, or some of its assets, and return its assets' metadata by name."""
        defs = build_defs(settings or self.settings)
        return metadata_of(run_job(defs, self.instance, job, assets=list(assets) or None))


def metadata_of(result: dg.ExecuteInProcessResult) -> Metadata:
    """Return what a run recorded of each asset that it made."""
    made = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]
    return {
        entry.asset_key.to_user_string(): {name: v.value for name, v in entry.metadata.items()}
        for entry in made
    }
