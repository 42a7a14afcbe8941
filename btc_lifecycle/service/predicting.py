"""From the bytes of a request to the bytes of its answer and the records that go to the log."""

import math
import os
import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from btc_lifecycle.adapters import clock
from btc_lifecycle.service.bodies import ModelName, PredictRequest
from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.holder import LiveModel, LoadedModel

_RANDOM = random.Random(os.urandom(32))  # noqa: S311  # as _new_id says


class Scored(NamedTuple):
    """What the models say of rows, and which version said it."""

    model: LoadedModel
    predictions: list[dict[str, float]]

    def records(
        self,
        rows: npt.NDArray[np.float64],
        *,
        prediction_id: str,
        symbol: str | None,
        open_times: Sequence[datetime | None],
    ) -> list[dict[str, object]]:
        """Return what the prediction log keeps of each row."""
        made_at, version = clock.now().isoformat(), self.model.version
        return [
            {
                "prediction_id": prediction_id,
                "row": position,
                "symbol": symbol,
                "open_time": None if open_time is None else open_time.isoformat(),
                "model_name": version.name,
                "model_version": version.version,
                "made_at": made_at,
                "probability_up": prediction["probability_up"],
                "direction": prediction["direction"],
                "features": row,
            }
            for position, (row, prediction, open_time) in enumerate(
                zip(rows.tolist(), self.predictions, open_times, strict=True)
            )
        ]


class Answer(NamedTuple):
    """The body of an answer, what was scored for it, and one record for each of its rows."""

    body: bytes
    scored: Scored
    records: list[dict[str, object]]


class Scorer:
    """Scores rows with the champion, and with the volatility model while one of its inputs serves."""

    def __init__(self, live: LiveModel, *, volatility: LiveModel) -> None:
        self.live, self.volatility = live, volatility

    def model(self) -> LoadedModel:
        """Return the model that serves now.

        Raises:
            ApiError: 503 while there is none; the message says why.
        """
        if self.live.model is None:
            raise ApiError(
                503,
                "no_model",
                f"no model is loaded: {self.live.problem}",
                hint="the service looks for one every few seconds; it needs no restart",
                headers={"Retry-After": "5"},
            )
        return self.live.model

    def score(self, rows: npt.NDArray[np.float64], *, model: LoadedModel) -> Scored:
        """Return what a model says of rows, and their expected volatility where it is known.

        Raises:
            ApiError: 503 if the model answers with what is no probability.
        """
        predictions: list[dict[str, float]] = []
        for probability in model.predict(rows):
            if probability is None:
                error = model.no_prediction()
                raise ApiError(503, "bad_model", error.message, hint=error.hint)
            predictions.append(
                {"probability_up": probability, "direction": 1 if probability >= 0.5 else -1}
            )
        for prediction, log_volatility in zip(
            predictions, self._log_volatility(rows, model=model), strict=False
        ):
            # It rests on a feature that a client may make up: then nothing is expected.
            if log_volatility is not None:
                prediction["expected_volatility_60m"] = math.exp(log_volatility)
        return Scored(model=model, predictions=predictions)

    def _log_volatility(
        self, rows: npt.NDArray[np.float64], *, model: LoadedModel
    ) -> list[float | None]:
        names, volatility = model.version.feature_names, self.volatility.model
        if volatility is None:
            return []
        theirs = volatility.version.feature_names
        if theirs != names:
            if not set(theirs) <= set(names):
                return []
            rows = np.ascontiguousarray(rows[:, [names.index(name) for name in theirs]])
        return volatility.predict(rows)

    def answer(
        self, request: PredictRequest, rows: npt.NDArray[np.float64], *, model: LoadedModel
    ) -> Answer:
        """Return the answer to a request of these rows, from one model version throughout.

        Raises:
            ApiError: As ``score``.
        """
        scored, prediction_id = self.score(rows, model=model), _new_id()
        content = {
            "predictions": scored.predictions,
            "model": {"name": model.version.name, "version": model.version.version},
            "prediction_id": prediction_id,
        }
        return Answer(
            body=orjson.dumps(content),
            scored=scored,
            records=scored.records(
                rows,
                prediction_id=prediction_id,
                symbol=request.symbol,
                open_times=request.open_times or [None] * len(rows),
            ),
        )


def _new_id() -> str:
    """Return a random UUID; it is no secret, and the system's randomness costs ten times as much."""
    digits = f"{_RANDOM.getrandbits(128):032x}"
    # Of a fourth version the thirteenth digit is 4, the seventeenth 8 to b.
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def name_of(model: LoadedModel) -> ModelName:
    """Return the version that answers."""
    return ModelName(name=model.version.name, version=model.version.version)
