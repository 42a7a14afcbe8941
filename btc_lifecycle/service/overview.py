"""The answer of GET /overview: all that the live page shows of one market, from one moment.

What is not there is null, and the field beside it says in words why; nothing of it is an error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from pydantic import Field

from btc_lifecycle.adapters.online_store import MonitoringSummary, OnlineSnapshot, OnlineStore
from btc_lifecycle.adapters.registry import VERDICT_REASON_TAG, ModelVersion
from btc_lifecycle.domain.errors import LifecycleError
from btc_lifecycle.domain.learn.evaluation import DIRECTION_RIVALS
from btc_lifecycle.service.bodies import Body
from btc_lifecycle.service.latest import LatestBody, horizon_min

MAX_SHOWN_CANDLES = 180


class CandleBody(Body):
    """One closed candle."""

    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float = Field(description="in the base currency")


class MarketBody(Body):
    """The newest candles, and how old they are."""

    source: str = Field(
        description="where the candles come from; synthetic is a market that is made up",
        examples=["synthetic"],
    )
    market_now: datetime = Field(description="the exchange's time now, as far as one can tell")
    age_seconds: float = Field(description="since the newest candle closed")
    candles: tuple[CandleBody, ...] = Field(description="the newest ones, oldest first")


class BaselineBody(Body):
    """A simple rival's scores on the same test rows."""

    name: str
    auc: float | None
    log_loss: float | None = Field(description="in nats")


class ModelCardBody(Body):
    """The version that serves, and its scores on rows that it had not seen."""

    name: str
    version: str
    source: str | None = Field(description="market that it learnt from")
    label_method: str | None = Field(
        description="horizon where a rise is a higher close after horizon_min minutes"
    )
    horizon_min: int | None = Field(description="how many minutes ahead it looks, at the most")
    trained_from: datetime | None
    trained_until: datetime | None
    test_from: datetime | None
    test_until: datetime | None
    n_test_rows: int | None
    test_auc: float | None
    test_auc_low: float | None = Field(description="lower bound of 95 %")
    test_auc_high: float | None = Field(description="upper bound of 95 %")
    test_log_loss: float | None = Field(description="in nats")
    baselines: list[BaselineBody]


class VersionBody(Body):
    """A retraining: the version that came of it, and what was concluded on it."""

    version: str
    created_at: datetime
    trained_until: datetime | None
    verdict: str | None = Field(description="null while nothing was concluded")
    reason: str | None
    is_serving: bool


class OutcomeBody(Body):
    """A prediction whose outcome is known."""

    open_time: datetime
    matures_at: datetime
    model_version: str
    probability_up: float
    predicted: Literal[1, -1]
    happened: Literal[1, -1]


class ScoreBody(Body):
    """How the champion's predictions of all markets did lately, beside a fair coin's."""

    model_version: str
    window_start: datetime
    window_end: datetime
    n_outcomes: int
    log_loss: float = Field(description="in nats")
    log_loss_low: float | None = Field(description="lower bound of 95 %; null with one day only")
    log_loss_high: float | None
    hit_rate: float
    hit_rate_low: float | None
    hit_rate_high: float | None
    coin_log_loss: float
    coin_hit_rate: float


class DriftBody(Body):
    """How far a feature, or the model's own score where there is none, strayed from training."""

    feature: str = Field(description="empty for the model's own score")
    metric: str
    n_rows: int
    value: float | None = Field(description="null with too few rows")
    limit: float | None
    is_over: bool


class MonitoringBody(Body):
    """What the newest monitoring found."""

    as_of: datetime = Field(description="the exchange's time that it looks back from")
    outcomes: tuple[OutcomeBody, ...] = Field(description="of this market, oldest first")
    score: ScoreBody | None = Field(description="null before the champion's first outcome")
    drift: tuple[DriftBody, ...]
    retrain: bool
    reason: str


class OverviewBody(Body):
    """One market at a glance."""

    symbol: str
    symbols: list[str] = Field(description="markets that can be asked for")
    made_at: datetime = Field(description="the service's clock")
    max_age_seconds: float = Field(description="beyond which a candle is not predicted from")
    market: MarketBody | None
    market_problem: str | None = Field(description="why there is no market")
    prediction: LatestBody | None
    prediction_problem: str | None = Field(description="why there is no prediction")
    model: ModelCardBody | None
    model_problem: str | None = Field(description="why there is no model")
    versions: list[VersionBody] = Field(description="the last retrainings, newest first")
    versions_problem: str | None = Field(description="why there are no versions")
    monitoring: MonitoringBody | None
    monitoring_problem: str | None = Field(description="why there is no monitoring")


def make_overview(
    store: OnlineStore,
    *,
    symbol: str,
    now: datetime,
    prediction: LatestBody | str,
    model: ModelVersion | str,
    versions: Sequence[ModelVersion] | str,
    max_age_seconds: float,
) -> OverviewBody:
    """Return the overview of a market; never raises for what is missing or damaged.

    Args:
        store: Where snapshots and the monitoring's summary are.
        symbol: The market.
        now: The service's clock.
        prediction: The latest one, or why there is none.
        model: The version that serves, or why none does.
        versions: The newest ones, newest first, or why they are not known.
        max_age_seconds: Beyond which a candle is not predicted from.
    """
    snapshot, market_problem = _snapshot(store, symbol)
    summary, monitoring_problem = _summary(store)
    serving = model if isinstance(model, ModelVersion) else None
    known = [] if isinstance(versions, str) else versions
    nothing = None if known else "no model was trained yet; run ./task track"
    return OverviewBody(
        symbol=symbol,
        symbols=list(store.symbols()),
        made_at=now,
        max_age_seconds=max_age_seconds,
        market=None if snapshot is None else _market(snapshot, now=now),
        market_problem=market_problem,
        prediction=None if isinstance(prediction, str) else prediction,
        prediction_problem=prediction if isinstance(prediction, str) else None,
        model=None if serving is None else _model_card(serving),
        model_problem=model if isinstance(model, str) else None,
        versions=[_version(version, serving=serving) for version in known],
        versions_problem=versions if isinstance(versions, str) else nothing,
        monitoring=None if summary is None else _monitoring(summary, symbol=symbol),
        monitoring_problem=monitoring_problem,
    )


def _snapshot(store: OnlineStore, symbol: str) -> tuple[OnlineSnapshot | None, str | None]:
    try:
        snapshot = store.read(symbol)
    except LifecycleError as error:
        return None, str(error)
    nothing = f"no candle of {symbol} was ingested yet; run ./task ingest"
    return snapshot, nothing if snapshot is None else None


def _summary(store: OnlineStore) -> tuple[MonitoringSummary | None, str | None]:
    try:
        summary = store.read_monitoring()
    except LifecycleError as error:
        return None, str(error)
    nothing = "monitoring has not run yet; it does each hour, or with ./task monitor"
    return summary, nothing if summary is None else None


def _market(snapshot: OnlineSnapshot, *, now: datetime) -> MarketBody:
    return MarketBody(
        source=snapshot.source,
        market_now=snapshot.market_now(now),
        age_seconds=snapshot.age(now).total_seconds(),
        candles=tuple(
            CandleBody.model_validate(candle, from_attributes=True)
            for candle in snapshot.candles[-MAX_SHOWN_CANDLES:]
        ),
    )


def _model_card(version: ModelVersion) -> ModelCardBody:
    tags, metrics = version.tags, version.metrics
    n_rows = metrics.get("test_n_rows", math.nan)
    return ModelCardBody(
        name=version.name,
        version=version.version,
        source=tags.get("source"),
        label_method=tags.get("label_method"),
        horizon_min=horizon_min(version),
        trained_from=_time(tags, "trained_from"),
        trained_until=_time(tags, "trained_until"),
        test_from=_time(tags, "test_from"),
        test_until=_time(tags, "test_until"),
        n_test_rows=int(n_rows) if math.isfinite(n_rows) else None,
        test_auc=metrics.get("test_auc"),
        test_auc_low=metrics.get("test_auc_low"),
        test_auc_high=metrics.get("test_auc_high"),
        test_log_loss=metrics.get("test_log_loss"),
        baselines=[
            BaselineBody(
                name=rival,
                auc=metrics.get(f"{rival}_auc"),
                log_loss=metrics.get(f"{rival}_log_loss"),
            )
            for rival in DIRECTION_RIVALS
            # The model's own are under other names.
            if f"{rival}_log_loss" in metrics
        ],
    )


def _version(version: ModelVersion, *, serving: ModelVersion | None) -> VersionBody:
    return VersionBody(
        version=version.version,
        created_at=version.created_at,
        trained_until=_time(version.tags, "trained_until"),
        verdict=version.verdict,
        reason=version.tags.get(VERDICT_REASON_TAG),
        is_serving=serving is not None and version.run_id == serving.run_id,
    )


def _time(tags: Mapping[str, str], name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(tags.get(name, ""))
    except ValueError:
        # Anybody may write to a tag; the page does without rather than with an error.
        return None


def _monitoring(summary: MonitoringSummary, *, symbol: str) -> MonitoringBody:
    of_symbol = tuple(outcome for outcome in summary.outcomes if outcome.symbol == symbol)
    return MonitoringBody.model_validate(replace(summary, outcomes=of_symbol), from_attributes=True)
