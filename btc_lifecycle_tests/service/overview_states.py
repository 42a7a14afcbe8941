"""Overviews of a service in every state that the live page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from btc_lifecycle.adapters.online_store import (
    DriftState,
    LiveScore,
    MonitoringSummary,
    OnlineCandle,
    OnlineSnapshot,
    OnlineStore,
    PastPrediction,
)
from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.service.bodies import ModelName
from btc_lifecycle.service.latest import LatestBody
from btc_lifecycle.service.overview import OverviewBody, make_overview

MINUTE = timedelta(minutes=1)
OPENED = datetime(2026, 1, 31, 12, tzinfo=UTC)
"""When the newest candle opened."""

NOW = datetime(2026, 3, 1, tzinfo=UTC)
"""The service's clock, which is not the exchange's."""

STALE = "the newest candle of BTC/USDT closed 2900 s ago; look whether the minute schedule runs"
NO_MODEL = "no version has the alias production; train a model with `./task track`"
SPOILT = '<img src=x onerror="alert(1)">'


def make_snapshot(
    symbol: str = "BTC/USDT", *, source: str = "binance", n_candles: int = 240
) -> OnlineSnapshot:
    """Return a snapshot that was written 30 s ago, 10 s after its newest candle closed."""
    first = OPENED - (n_candles - 1) * MINUTE
    candles = tuple(
        OnlineCandle(
            open_time=first + i * MINUTE,
            open=40_000.0 + i % 7,
            high=40_012.0,
            low=39_990.0,
            close=40_001.5 + i % 5,
            volume=1.0 + i % 3,
        )
        for i in range(n_candles)
    )
    return OnlineSnapshot(
        symbol=symbol,
        open_time=OPENED,
        features={"rsi_14m": 0.5},
        candles=candles,
        source=source,
        market_time=OPENED + MINUTE + timedelta(seconds=10),
        read_at=NOW - timedelta(seconds=30),
    )


def make_monitoring(*, is_of_one_day: bool = False, reason: str = "no need") -> MonitoringSummary:
    """Return a summary: of BTC/USDT one hit and one miss, of ETH/USDT one hit."""
    past = [("BTC/USDT", 1, 1), ("ETH/USDT", -1, -1), ("BTC/USDT", 1, -1)]
    return MonitoringSummary(
        as_of=OPENED,
        written_at=NOW,
        outcomes=tuple(
            PastPrediction(
                symbol=symbol,
                open_time=OPENED - (60 - i) * MINUTE,
                matures_at=OPENED - (44 - i) * MINUTE,
                model_version="2",
                probability_up=0.5 + predicted * 0.03,
                predicted=predicted,
                happened=happened,
            )
            for i, (symbol, predicted, happened) in enumerate(past)
        ),
        score=LiveScore(
            model_version="2",
            window_start=OPENED - timedelta(hours=72),
            window_end=OPENED,
            n_outcomes=3,
            log_loss=0.6921,
            log_loss_low=None if is_of_one_day else 0.69,
            log_loss_high=None if is_of_one_day else 0.694,
            hit_rate=2 / 3,
            hit_rate_low=None if is_of_one_day else 0.4,
            hit_rate_high=None if is_of_one_day else 0.9,
            coin_log_loss=0.6931,
            coin_hit_rate=0.5,
        ),
        drift=(
            DriftState(
                feature="rsi_14m", metric="psi", n_rows=99, value=0.3, limit=0.2, is_over=True
            ),
            DriftState(
                feature="log_return_1m",
                metric="psi",
                n_rows=9,
                value=None,
                limit=0.2,
                is_over=False,
            ),
            DriftState(
                feature="", metric="log_loss", n_rows=3, value=0.6921, limit=0.71, is_over=False
            ),
        ),
        retrain=False,
        reason=reason,
    )


def make_version(number: int = 2, **tags: str) -> ModelVersion:
    """Return a version with what training and evaluation leave of it."""
    facts = {
        "source": "binance",
        "label_method": "horizon",
        "horizon_min": "15",
        "trained_from": "2025-10-01T00:00:00+00:00",
        "trained_until": "2025-12-01T00:00:00+00:00",
        "test_from": "2025-12-01T01:00:00+00:00",
        "test_until": "2026-01-31T00:00:00+00:00",
    }
    metrics = {
        "test_auc": 0.531,
        "test_auc_low": 0.524,
        "test_auc_high": 0.538,
        "test_log_loss": 0.6925,
        "test_n_rows": 87_000.0,
        "prior_log_loss": 0.6931,
        "logistic_auc": 0.526,
        "logistic_log_loss": 0.6927,
    }
    return ModelVersion(
        name="bitcoin-model",
        version=str(number),
        run_id=f"run{number}",
        tags={**facts, **tags},
        metrics=metrics,
        feature_names=("rsi_14m",),
        created_at=datetime(2026, 1, number, tzinfo=UTC),
    )


def make_latest(probability_up: float = 0.521, *, volatility: float | None = 0.0005) -> LatestBody:
    """Return the prediction for the snapshot's newest candle."""
    return LatestBody(
        symbol="BTC/USDT",
        open_time=OPENED,
        matures_at=OPENED + 16 * MINUTE,
        age_seconds=40.0,
        source="binance",
        probability_up=probability_up,
        direction=1 if probability_up >= 0.5 else -1,
        expected_volatility_60m=volatility,
        model=ModelName(name="bitcoin-model", version="2"),
        prediction_id="1d4cde55-2ad0-5ab8-9d6b-3fc6b0f0a1b4",
    )


def overviews(folder: Path) -> dict[str, OverviewBody]:
    """Return an overview for every state, by the state's name."""
    full, fresh, one_day = (OnlineStore(folder / name) for name in ("full", "fresh", "one_day"))
    full.write(make_snapshot(source="synthetic"))
    full.write_monitoring(make_monitoring(reason=SPOILT))
    one_day.write(make_snapshot(n_candles=1))
    one_day.write_monitoring(make_monitoring(is_of_one_day=True))
    champion, candidate = (
        make_version(2, verdict="promoted", verdict_reason="better"),
        make_version(3),
    )
    tried = (candidate, champion)
    return {
        "full": make_overview(
            full,
            symbol="BTC/USDT",
            max_age_seconds=180.0,
            now=NOW,
            prediction=make_latest(),
            model=champion,
            versions=tried,
        ),
        "fresh": make_overview(
            fresh,
            symbol="BTC/USDT",
            max_age_seconds=180.0,
            now=NOW,
            prediction=NO_MODEL,
            model=NO_MODEL,
            versions=(),
        ),
        "stale": make_overview(
            full,
            symbol="BTC/USDT",
            max_age_seconds=180.0,
            now=NOW + timedelta(minutes=48),
            prediction=STALE,
            model=champion,
            versions="the registry does not answer",
        ),
        "one day": make_overview(
            one_day,
            symbol="BTC/USDT",
            max_age_seconds=180.0,
            now=NOW,
            prediction=make_latest(0.31, volatility=None),
            model=make_version(2, label_method="barriers"),
            versions=tried,
        ),
    }
