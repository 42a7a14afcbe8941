"""The prediction for the newest candle, from the features that the ingest left for the service."""

import math
import re
import uuid
from datetime import datetime, timedelta

import numpy as np
from pydantic import Field

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.online_store import OnlineSnapshot, OnlineStore
from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.candles import INTERVAL
from btc_lifecycle.service.bodies import Body, ModelName
from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.holder import LoadedModel
from btc_lifecycle.service.metrics import Metrics
from btc_lifecycle.service.predicting import Scorer, name_of

Row = np.ndarray[tuple[int, int], np.dtype[np.float64]]

_MINUTES = re.compile("[1-9][0-9]{0,5}")

_PREDICTIONS = uuid.UUID("7d1f7a52-6f0e-4a43-9a53-6d1c7c0c3f0b")
"""Namespace of the ids: whichever process predicts from a candle gives the prediction the same one."""


class LatestBody(Body):
    """The prediction for the newest candle of a market."""

    symbol: str = Field(examples=["BTC/USDT"])
    open_time: datetime = Field(description="open time of the newest closed candle")
    matures_at: datetime | None = Field(
        description="when it is known whether the prediction came true; null where the model's "
        "version does not say how far it looks"
    )
    age_seconds: float = Field(description="since that candle closed, by the exchange's clock")
    source: str = Field(
        description="the exchange, or which market was made up", examples=["binance"]
    )
    probability_up: float = Field(ge=0.0, le=1.0, examples=[0.5312])
    direction: int = Field(description="1 where a rise is at least as likely, else -1")
    expected_volatility_60m: float | None = Field(
        description="root mean squared one-minute log return expected for the next 60 minutes; "
        "null while no volatility model serves",
        examples=[0.00052],
    )
    model: ModelName
    prediction_id: str = Field(
        description="the same however often it is asked for, until the next candle or model, or "
        "until the exchange revises the candle",
        examples=["1d4cde55-2ad0-5ab8-9d6b-3fc6b0f0a1b4"],
    )


class Latest:
    """Predicts from the newest features of a market, and logs each such prediction once."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        online: OnlineStore,
        log: PredictionLog,
        metrics: Metrics,
        max_age: timedelta,
    ) -> None:
        self._scorer, self._online, self._log, self._metrics = scorer, online, log, metrics
        self._max_age = max_age
        self._logged: dict[str, str] = {}

    def predict(self, symbol: str) -> LatestBody:
        """Return the prediction for a market's newest candle.

        Raises:
            ApiError: 503 while there is no model, or no features of this market that are complete
                and fresh.
        """
        model = self._scorer.model()
        snapshot = self._fresh(symbol)
        row = _row(snapshot, model=model)
        scored = self._scorer.score(row, model=model)
        (prediction,) = scored.predictions
        prediction_id = _prediction_id(snapshot, row, model=model)
        if self._logged.get(symbol) != prediction_id:
            self._logged[symbol] = prediction_id
            self._metrics.saw_predictions(scored)
            self._log.append(
                scored.records(
                    row,
                    prediction_id=prediction_id,
                    symbol=symbol,
                    open_times=[snapshot.open_time],
                )
            )
        return LatestBody(
            symbol=symbol,
            open_time=snapshot.open_time,
            matures_at=_matures_at(snapshot, model=model),
            age_seconds=snapshot.age(clock.now()).total_seconds(),
            source=snapshot.source,
            probability_up=prediction["probability_up"],
            direction=int(prediction["direction"]),
            expected_volatility_60m=prediction.get("expected_volatility_60m"),
            model=name_of(model),
            prediction_id=prediction_id,
        )

    def _fresh(self, symbol: str) -> OnlineSnapshot:
        try:
            snapshot = self._online.read(symbol)
        except DataError as error:
            raise _unready("no_features", error.message, hint=error.hint) from error
        if snapshot is None:
            others = ", ".join(self._online.symbols()) or "no market"
            raise _unready(
                "no_features",
                f"there are no features of {symbol}; there are some of {others}",
                hint="name it in the ingest configuration, and run ./task ingest or ./task ui",
            )
        age = snapshot.age(clock.now())
        if age > self._max_age:
            raise _unready(
                "stale_features",
                f"the newest candle of {symbol} closed {age.total_seconds():.0f} s ago, at "
                f"{snapshot.open_time + INTERVAL:%Y-%m-%d %H:%M} UTC; "
                f"{self._max_age.total_seconds():g} s is the most that is predicted from",
                hint="look whether the minute schedule runs: ./task status",
            )
        return snapshot


def _row(snapshot: OnlineSnapshot, *, model: LoadedModel) -> Row:
    values = [snapshot.features.get(name) for name in model.version.feature_names]
    missing = [
        name
        for name, value in zip(model.version.feature_names, values, strict=True)
        if value is None or not math.isfinite(value)
    ]
    if missing:
        raise _unready(
            "incomplete_features",
            f"of the candle of {snapshot.open_time:%Y-%m-%d %H:%M} UTC {len(missing)} features of the "
            f"model are missing: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}",
            hint="a gap silences features until it lies behind their windows: ./task status tells gaps",
        )
    return np.array([values], dtype=np.float64)


def _unready(code: str, message: str, *, hint: str) -> ApiError:
    return ApiError(503, code, message, hint=hint, headers={"Retry-After": "30"})


def _prediction_id(snapshot: OnlineSnapshot, row: Row, *, model: LoadedModel) -> str:
    # A candle that the exchange revised makes other features, and another prediction.
    of = (
        row.tobytes().hex(),
        model.version.run_id,
        model.version.version,
        snapshot.symbol,
        snapshot.open_time.isoformat(),
    )
    return str(uuid.uuid5(_PREDICTIONS, " ".join(of)))


def horizon_min(version: ModelVersion) -> int | None:
    """Return how many minutes ahead a version looks, None where its tag does not say so."""
    minutes = version.tags.get("horizon_min", "")
    return int(minutes) if _MINUTES.fullmatch(minutes) else None


def _matures_at(snapshot: OnlineSnapshot, *, model: LoadedModel) -> datetime | None:
    minutes = horizon_min(model.version)
    return None if minutes is None else snapshot.open_time + INTERVAL + timedelta(minutes=minutes)
