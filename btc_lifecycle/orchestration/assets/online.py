"""Assets of what the service answers from: newest features each minute, monitoring in short.

Each reads its inputs, makes one call and reports figures. What does not live here: how features and
scores come about, which is in domain, and how files are kept, which is the online store's.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.online_store import (
    MAX_CANDLES,
    MAX_OUTCOMES,
    DriftState,
    LiveScore,
    MonitoringSummary,
    OnlineCandle,
    OnlineSnapshot,
    OnlineStore,
    PastPrediction,
)
from btc_lifecycle.adapters.warehouse import CandleStore, read_rows
from btc_lifecycle.domain.errors import LifecycleError, NothingToServeError
from btc_lifecycle.domain.ingest.candles import INTERVAL
from btc_lifecycle.domain.learn.evaluation import by_group, mean_interval, utc_days
from btc_lifecycle.domain.learn.features import FEATURE_NAMES, WARMUP_MIN, compute_features
from btc_lifecycle.domain.monitor import retraining
from btc_lifecycle.domain.monitor.outcomes import one_per_candle
from btc_lifecycle.orchestration.assets import ingest
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL
from btc_lifecycle.orchestration.assets.monitor import newest_facts
from btc_lifecycle.settings import Settings

_READ = max(WARMUP_MIN + 1, MAX_CANDLES) * INTERVAL
_COIN = 0.5
_WHOLE = pl.lit(0)
_BARS = ("open_time", "open", "high", "low", "close", "volume")


@dg.asset(
    group_name="serve",
    pool=WAREHOUSE_POOL,
    kinds={"json", "polars"},
    deps=[ingest.candles],
    # Ahead of the report, which takes seconds.
    op_tags={"dagster/priority": "1"},
)
def online_features(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    candle_store: dg.ResourceParam[CandleStore],
) -> dg.MaterializeResult[None]:
    """Newest features and candles of each symbol, in files that the service answers from."""
    store, (figures, asked_at) = OnlineStore(settings.online_dir), _ingested(settings)
    written: dict[str, OnlineSnapshot] = {}
    failures: dict[str, LifecycleError] = {}
    for symbol, candles in _newest_candles(candle_store, figures).items():
        try:
            snapshot = make_snapshot(
                candles,
                source=figures[symbol]["source"],
                market_time=datetime.fromisoformat(figures[symbol]["fetched_at"]),
                read_at=asked_at,
            )
            store.write(snapshot)
            written[symbol] = snapshot
        except LifecycleError as error:
            failures[symbol] = error
    for symbol, failure in failures.items():
        context.log.error("%s: %s", symbol, failure)
    if len(failures) == len(figures):
        raise next(iter(failures.values()))
    return dg.MaterializeResult(
        metadata={
            **{
                f"open_time {s}": dg.MetadataValue.timestamp(w.open_time)
                for s, w in written.items()
            },
            **{f"missing features {s}": _missing(w) for s, w in written.items()},
            **{f"failed {symbol}": str(error) for symbol, error in failures.items()},
        }
    )


def make_snapshot(
    candles: pl.DataFrame, *, source: str, market_time: datetime, read_at: datetime
) -> OnlineSnapshot:
    """Return a market's snapshot: the row that the features table will hold of its newest candle.

    Args:
        candles: One symbol's newest ones by open time, at least one; WARMUP_MIN + 1 make every
            feature known that can be.
        source: Where they come from.
        market_time: The exchange's time by which it was decided what is closed.
        read_at: This machine's time when the exchange told its own.

    Raises:
        DataError: As ``compute_features``.
    """
    features = compute_features(candles).row(-1, named=True)
    shown = candles.select(_BARS).tail(MAX_CANDLES)
    return OnlineSnapshot(
        symbol=features["symbol"],
        open_time=features["open_time"],
        features={name: features[name] for name in FEATURE_NAMES},
        candles=tuple(OnlineCandle(**row) for row in shown.iter_rows(named=True)),
        source=source,
        market_time=market_time,
        read_at=read_at,
    )


@dg.asset(group_name="serve", pool=WAREHOUSE_POOL, kinds={"json", "polars"})
def live_summary(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    outcomes: pl.DataFrame,
    drift_metrics: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    """Newest outcomes, live score, drift and verdict, in a file that the service shows."""
    facts = newest_facts(context.instance)
    if facts is None:
        raise NothingToServeError("there are no drift metrics yet", hint="run ./task monitor")
    monitor = settings.lifecycle.monitor
    summary = make_summary(
        one_per_candle(outcomes),
        drift_metrics,
        facts=facts,
        verdict=retraining.decide(facts, policy=monitor.retraining),
        window=timedelta(hours=monitor.drift.window_hours),
        rng=np.random.default_rng(settings.lifecycle.learn.training.seed),
        written_at=clock.now(),
    )
    OnlineStore(settings.online_dir).write_monitoring(summary)
    return dg.MaterializeResult(
        metadata={
            "outcomes": len(summary.outcomes),
            "features_over_limit": sum(state.is_over for state in summary.drift),
            "retrain": summary.retrain,
            "reason": summary.reason,
        }
    )


def make_summary(
    outcomes: pl.DataFrame,
    drift_metrics: pl.DataFrame,
    *,
    facts: retraining.DriftFacts,
    verdict: retraining.Verdict,
    window: timedelta,
    rng: np.random.Generator,
    written_at: datetime,
) -> MonitoringSummary:
    """Return what one monitoring found, for the window that its facts rest on.

    Args:
        outcomes: ``OUTCOMES.schema``, one for each candle and version.
        drift_metrics: ``DRIFT_METRICS.schema``; those of other windows and versions are left out.
        facts: What the verdict rests on: it names the champion and the window's end.
        verdict: Whether to retrain, and why.
        window: Length of the window.
        rng: Draws the days of the score's bounds.
        written_at: This machine's time.
    """
    newest = outcomes.sort("open_time", "symbol", "model_version").tail(MAX_OUTCOMES)
    of_champion = drift_metrics.filter(
        pl.col("window_end") == facts.market_now,
        pl.col("model_version") == pl.lit(facts.champion_version, pl.String),
    )
    return MonitoringSummary(
        as_of=facts.market_now,
        written_at=written_at,
        outcomes=tuple(_past_prediction(row) for row in newest.iter_rows(named=True)),
        score=_live_score(outcomes, facts=facts, window=window, rng=rng),
        drift=tuple(_drift_state(row) for row in of_champion.iter_rows(named=True)),
        retrain=verdict.retrain,
        reason=verdict.reason,
    )


def _past_prediction(row: Mapping[str, Any]) -> PastPrediction:
    return PastPrediction(
        symbol=row["symbol"],
        open_time=row["open_time"],
        matures_at=row["matures_at"],
        model_version=row["model_version"],
        probability_up=row["probability_up"],
        predicted=1 if row["probability_up"] >= _COIN else -1,
        happened=row["direction"],
    )


def _drift_state(row: Mapping[str, Any]) -> DriftState:
    return DriftState(
        feature=row["feature"],
        metric=row["metric"],
        n_rows=row["n_rows"],
        value=row["value"],
        limit=row["threshold"],
        is_over=row["is_breach"],
    )


def _live_score(
    outcomes: pl.DataFrame,
    *,
    facts: retraining.DriftFacts,
    window: timedelta,
    rng: np.random.Generator,
) -> LiveScore | None:
    """Return the champion's score over its outcomes of the window, None without any."""
    start = facts.market_now - window
    scored = outcomes.filter(
        pl.col("open_time").is_between(start, facts.market_now, closed="left"),
        pl.col("model_version") == pl.lit(facts.champion_version, pl.String),
    )
    if scored.is_empty():
        return None
    model, rival = pl.col("probability_up"), pl.lit(_COIN)
    against_coin = scored.with_columns(model=model, prior=rival)
    (mean,) = by_group(against_coin, group=_WHOLE, names=("all",)).to_dicts()
    is_hit = scored.select((model >= _COIN) == (pl.col("direction") == 1)).to_series()
    day = utc_days(scored["open_time"])
    loss_low, loss_high = _bounds(scored["log_loss"], day, rng=rng)
    hit_low, hit_high = _bounds(is_hit, day, rng=rng)
    return LiveScore(
        model_version=scored["model_version"][0],
        window_start=start,
        window_end=facts.market_now,
        n_outcomes=scored.height,
        log_loss=mean["log_loss"],
        log_loss_low=loss_low,
        log_loss_high=loss_high,
        hit_rate=mean["accuracy"],
        hit_rate_low=hit_low,
        hit_rate_high=hit_high,
        coin_log_loss=math.log(2.0),
        coin_hit_rate=_COIN,
    )


def _bounds(
    values: pl.Series, day: npt.NDArray[np.int64], *, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """Return a mean's bounds of 95 %, None where the rows are of one day."""
    low, high = mean_interval(values.cast(pl.Float64).to_numpy(), day, rng=rng)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _ingested(settings: Settings) -> tuple[dict[str, dict[str, Any]], datetime]:
    """Return what the newest ingest says of each symbol that went well, and when it began."""
    path = settings.ingestion_stats_path
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # An earlier version of the lifecycle left it out.
    if "asked_at" not in told:
        raise NothingToServeError("there are no candles yet", hint="run ./task ingest")
    figures = {row["symbol"]: row for row in told["symbols"]}
    return figures, datetime.fromisoformat(told["asked_at"])


def _newest_candles(
    store: CandleStore, figures: Mapping[str, Mapping[str, Any]]
) -> dict[str, pl.DataFrame]:
    with store.warehouse.connect(read_only=True) as connection:
        return {
            symbol: read_rows(
                connection,
                store.tables.candles,
                symbol=symbol,
                start=datetime.fromisoformat(of_symbol["last_open_time"]) - _READ,
            )
            for symbol, of_symbol in figures.items()
        }


def _missing(snapshot: OnlineSnapshot) -> str:
    missing = [name for name, value in snapshot.features.items() if value is None]
    return ", ".join(missing) or "none"
