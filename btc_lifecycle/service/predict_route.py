"""`POST /predict`: a body read within bounds, an answer, and its records on their way to the log."""

import asyncio
from typing import cast

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.service import bodies
from btc_lifecycle.service.errors import ApiError, error_response
from btc_lifecycle.service.holder import LoadedModel
from btc_lifecycle.service.metrics import Metrics
from btc_lifecycle.service.predicting import Answer, Scorer
from btc_lifecycle.service.rows import PLAIN, feature_matrix, parse_predict_request, plain_row
from btc_lifecycle.settings import ServeSettings

_JSON = b"application/json"

PREDICT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": bodies.PredictRequest.model_json_schema(),
            "examples": bodies.REQUEST_EXAMPLES,
        }
    },
}


async def post_predict() -> None:
    """Scores one row or several; the rows are logged, off the way of the answer."""
    # Never called: FastAPI documents it, and the front door hands its requests to Predict.


class _Deadline:
    """Ends the waiting inside with TimeoutError after some seconds.

    What ``asyncio.timeout`` does, at a third of its price: that was a twentieth of a whole answer.
    """

    def __init__(self, seconds: float) -> None:
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._is_over = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._timer.cancel()
        # Others may have cancelled the task as well, and then it is to end.
        if self._is_over and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise TimeoutError

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()


class Predict:
    """Scores rows that clients send: an ASGI application of its own.

    What FastAPI does around an endpoint to fill its parameters costs several times a prediction.
    """

    def __init__(
        self, scorer: Scorer, *, log: PredictionLog, metrics: Metrics, limits: ServeSettings
    ) -> None:
        self._scorer, self._log, self._metrics, self._limits = scorer, log, metrics, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await self._answer(scope, receive)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        headers = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        limits = self._limits
        headers: dict[bytes, bytes] = dict(scope["headers"])
        _check_headers(headers, most_bytes=limits.max_body_bytes)
        body = await _read(receive, most_bytes=limits.max_body_bytes, seconds=limits.body_timeout_s)
        model = self._scorer.model()
        row = plain_row(body, n_features=len(model.version.feature_names))
        if row is None:
            # What takes longer is done beside the loop that serves the others.
            return await run_in_threadpool(self._answer_closely, body, model)
        return self._noted(
            self._scorer.answer(PLAIN, np.array([row], dtype=np.float64), model=model)
        )

    def _answer_closely(self, body: bytes, model: LoadedModel) -> bytes:
        request = parse_predict_request(body)
        rows = feature_matrix(
            request,
            feature_names=model.version.feature_names,
            max_rows=self._limits.max_rows,
        )
        return self._noted(self._scorer.answer(request, rows, model=model))

    def _noted(self, answer: Answer) -> bytes:
        self._metrics.saw_predictions(answer.scored)
        self._log.append(answer.records)
        return answer.body


def _check_headers(headers: dict[bytes, bytes], *, most_bytes: int) -> None:
    """Refuse what says of itself that it is not JSON, or too large."""
    content_type = headers.get(b"content-type", b"")
    if content_type != _JSON and content_type.partition(b";")[0].strip().lower() != _JSON:
        raise ApiError(
            400,
            "wrong_content_type",
            "the body must be JSON and say so",
            hint="send the header Content-Type: application/json",
        )
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)


async def _read(receive: Receive, *, most_bytes: int, seconds: float) -> bytes:
    """Return the whole body, refused as soon as it is too large or too slow."""
    try:
        with _Deadline(seconds):
            message = await receive()
            if not message.get("more_body", False):
                return _part(message, most_bytes=most_bytes)
            body = bytearray(_part(message, most_bytes=most_bytes))
            while message.get("more_body", False):
                message = await receive()
                body += _part(message, most_bytes=most_bytes - len(body))
            return bytes(body)
    except TimeoutError as error:
        raise _incomplete() from error


def _part(message: Message, *, most_bytes: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise _incomplete()
    part: bytes = message.get("body", b"")
    if len(part) > most_bytes:
        raise _too_large(most_bytes)
    return part


def _incomplete() -> ApiError:
    return ApiError(400, "body_incomplete", "the body did not arrive in time", hint="send it again")


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        "body_too_large",
        f"the body is larger than {limit} bytes",
        hint="send the rows in parts",
    )
