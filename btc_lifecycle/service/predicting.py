"""From the bytes of a request to the bytes of its answer and the records that go to the log."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from btc_lifecycle.adapters import clock
from btc_lifecycle.service.bodies import PredictRequest, feature_matrix, parse_predict_request
from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.holder import LiveModel, LoadedModel


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The body of an answer and one record for each of its rows."""

    body: bytes
    records: list[dict[str, object]]


def serving_model(live: LiveModel) -> LoadedModel:
    """Return the model that serves now.

    Raises:
        ApiError: 503 while there is none; the message says why.
    """
    if live.model is None:
        raise ApiError(
            503,
            "no_model",
            f"no model is loaded: {live.problem}",
            hint="the service looks for one every few seconds; it needs no restart",
            headers={"Retry-After": "5"},
        )
    return live.model


def answer_predict(body: bytes, *, live: LiveModel, volatility: LiveModel, max_rows: int) -> Answer:
    """Return the answer to a request, from one model version throughout.

    Each row's expected volatility is told too while a model of it serves whose features are among
    the direction's.

    Raises:
        ApiError: For a body that is not a request for this model, or while there is no model.
    """
    request = parse_predict_request(body)
    model = serving_model(live)
    rows = feature_matrix(request, feature_names=model.version.feature_names, max_rows=max_rows)
    prediction_id = str(uuid.uuid4())
    predictions = [
        {"probability_up": probability, "direction": 1 if probability >= 0.5 else -1}
        for probability in model.predict(rows).tolist()
    ]
    content = {
        "predictions": _with_volatility(
            predictions, rows, model=model, volatility=volatility.model
        ),
        "model": {"name": model.version.name, "version": model.version.version},
        "prediction_id": prediction_id,
    }
    return Answer(
        body=json.dumps(content, allow_nan=False).encode(),
        records=_records(request, rows, predictions, model=model, prediction_id=prediction_id),
    )


def _with_volatility(
    predictions: list[dict[str, float]],
    rows: npt.NDArray[np.float64],
    *,
    model: LoadedModel,
    volatility: LoadedModel | None,
) -> list[dict[str, float]]:
    names = model.version.feature_names
    if volatility is None or not set(volatility.version.feature_names) <= set(names):
        return predictions
    columns = [names.index(name) for name in volatility.version.feature_names]
    expected = np.exp(volatility.predict(rows[:, columns])).tolist()
    return [
        {**prediction, "expected_volatility_60m": per_minute}
        for prediction, per_minute in zip(predictions, expected, strict=True)
    ]


def _records(
    request: PredictRequest,
    rows: npt.NDArray[np.float64],
    predictions: list[dict[str, float]],
    *,
    model: LoadedModel,
    prediction_id: str,
) -> list[dict[str, object]]:
    made_at = clock.now().isoformat()
    open_times: Sequence[datetime | None] = request.open_times or [None] * len(predictions)
    return [
        {
            "prediction_id": prediction_id,
            "row": position,
            "symbol": request.symbol,
            "open_time": None if open_time is None else open_time.isoformat(),
            "model_name": model.version.name,
            "model_version": model.version.version,
            "made_at": made_at,
            **prediction,
            "features": row,
        }
        for position, (row, prediction, open_time) in enumerate(
            zip(rows.tolist(), predictions, open_times, strict=True)
        )
    ]
