"""What clients send and get, checked to the last value before the model sees it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationError,
)

from btc_lifecycle.service.errors import ApiError, invalid_request

Row = Annotated[list[FiniteFloat], Field(fail_fast=True)]
NamedRow = dict[str, FiniteFloat]
_SHAPES = ("row", "rows", "named_rows")
_SEE_FEATURES = "GET /features lists the model's features in order"


def _shape(features: object) -> str:
    first = features[0] if isinstance(features, list) and features else None
    if isinstance(first, list):
        return "rows"
    return "named_rows" if isinstance(first, dict) else "row"


def _utc_time(text: object) -> datetime:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        if time is not None and time.utcoffset() is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time in ISO 8601 with its offset, such as 2026-01-31T12:00:00Z")


class Body(BaseModel):
    """A part of a request or answer: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PredictRequest(Body):
    """Rows of features to score, and optionally the candle that each row belongs to."""

    features: Annotated[
        Annotated[Row, Tag("row")]
        | Annotated[list[Row], Field(fail_fast=True), Tag("rows")]
        | Annotated[list[NamedRow], Field(fail_fast=True), Tag("named_rows")],
        Discriminator(_shape),
        Field(
            min_length=1,
            description="one row in the model's order, or rows in that order, or rows by name",
        ),
    ]
    symbol: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}/[A-Z0-9]{1,20}$")] | None = Field(
        default=None, description="market that the rows belong to, such as BTC/USDT"
    )
    open_times: (
        Annotated[list[Annotated[AwareDatetime, BeforeValidator(_utc_time)]], Field(fail_fast=True)]
        | None
    ) = Field(
        default=None,
        description="open time of each row's candle, so that its outcome can be joined later",
    )


REQUEST_EXAMPLES = {
    "one row": {
        "summary": "One row, every feature in the model's order",
        "value": {"features": [0.0004, -0.0011, 0.0007]},
    },
    "rows": {
        "summary": "Several rows in the model's order",
        "value": {"features": [[0.0004, -0.0011, 0.0007], [0.0001, 0.0002, -0.0003]]},
    },
    "rows by name": {
        "summary": "Rows by feature name, with the candle that each belongs to",
        "value": {
            "features": [{"log_return_1m": 0.0004, "log_return_5m": -0.0011, "rsi_14m": 0.61}],
            "symbol": "BTC/USDT",
            "open_times": ["2026-01-31T12:00:00Z"],
        },
    },
}


class ModelName(Body):
    """The version that answered."""

    name: str = Field(examples=["bitcoin-model"])
    version: str = Field(examples=["3"])


class Prediction(Body):
    """What the model says of one row."""

    probability_up: float = Field(ge=0.0, le=1.0, examples=[0.5312])
    direction: Literal[1, -1] = Field(description="1 where a rise is at least as likely, else -1")
    expected_volatility_60m: float | None = Field(
        default=None,
        description="root mean squared one-minute log return expected for the next 60 minutes; "
        "left out while no volatility model serves",
        examples=[0.00052],
    )


class PredictResponse(Body):
    """One prediction for each row, in the order of the rows."""

    predictions: list[Prediction]
    model: ModelName
    prediction_id: str = Field(examples=["5f0c0f3e-3f1f-4a55-9d0e-0d5b8f1f6a10"])


class LiveBody(Body):
    """The process answers."""

    status: Literal["live"] = "live"


class HealthBody(Body):
    """A model is loaded; ``stale`` says that a newer one could not be loaded or looked up."""

    status: Literal["ok", "stale"]
    model: ModelName
    problem: str | None
    predictions_dropped: int = Field(description="predictions that could not be logged")


class FeatureBody(Body):
    """One input of the model."""

    name: str = Field(examples=["log_return_5m"])
    meaning: str
    unit: str


class FeaturesBody(Body):
    """The model's inputs in the order that a row has."""

    model: ModelName
    features: list[FeatureBody]


class ModelBody(Body):
    """Where the serving version comes from; a metric that is no finite number is null."""

    name: str
    version: str
    run_id: str
    created_at: datetime
    loaded_at: datetime
    n_features: int
    metrics: dict[str, float | None]
    tags: dict[str, str]


def parse_predict_request(body: bytes) -> PredictRequest:
    """Return the request that a body holds.

    Raises:
        ApiError: 400 if it is not JSON, 422 if it is not a request.
    """
    try:
        content = json.loads(
            body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        problem = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(
            400, "invalid_json", f"the body is not JSON: {problem}", hint="send a JSON object"
        ) from error
    try:
        request = PredictRequest.model_validate(content)
    except ValidationError as error:
        raise invalid_request(_problems(error), hint="GET /docs shows the three forms") from error
    if request.open_times is not None and request.symbol is None:
        raise invalid_request(
            "open_times came without a symbol", hint="add the symbol, such as BTC/USDT"
        )
    return request


def feature_matrix(
    request: PredictRequest, *, feature_names: Sequence[str], max_rows: int
) -> npt.NDArray[np.float64]:
    """Return the request's rows as an array (rows, features) in the model's order.

    Raises:
        ApiError: 422 for too many rows, or a row that has not exactly the model's features.
    """
    features = request.features
    shape = _shape(features)
    rows: list[Any] = [features] if shape == "row" else list(features)
    if len(rows) > max_rows:
        raise invalid_request(
            f"{len(rows)} rows came; {max_rows} are taken at once", hint="send them in parts"
        )
    if request.open_times is not None and len(request.open_times) != len(rows):
        raise invalid_request(
            f"{len(request.open_times)} open_times came for {len(rows)} rows",
            hint="send one open time for each row",
        )
    if shape == "named_rows":
        rows = [_in_order(r, i, feature_names=feature_names) for i, r in enumerate(rows)]
    for position, row in enumerate(rows):
        if len(row) != len(feature_names):
            raise invalid_request(
                f"row {position} has {len(row)} values; the model takes {len(feature_names)}: "
                f"{', '.join(feature_names)}",
                hint=_SEE_FEATURES,
            )
    return np.array(rows, dtype=np.float64)


def _in_order(row: dict[str, float], position: int, *, feature_names: Sequence[str]) -> list[float]:
    missing = [name for name in feature_names if name not in row]
    unknown = sorted(row.keys() - set(feature_names))
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown {', '.join(n[:60] for n in unknown[:10])}"] if unknown else []
        raise invalid_request(f"row {position} {' and '.join(parts)}", hint=_SEE_FEATURES)
    return [row[name] for name in feature_names]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{_place(problem['loc'])}: {problem['msg']}" for problem in found[:3])


def _place(location: tuple[int | str, ...]) -> str:
    """Return where a value stands, such as features[2].rsi_14m."""
    if not location:
        return "body"
    first, *rest = location
    steps = [step for i, step in enumerate(rest) if i > 0 or step not in _SHAPES]
    return str(first) + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step[:60]}" for step in steps
    )
