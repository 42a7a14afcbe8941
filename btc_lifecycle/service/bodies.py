"""What clients send and get, field by field; how rows come out of a body is in rows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
)

from btc_lifecycle.domain.ingest.candles import SYMBOL_PATTERN

Row = Annotated[list[FiniteFloat], Field(fail_fast=True)]
NamedRow = dict[str, FiniteFloat]
SHAPES = ("row", "rows", "named_rows")


def shape_of(features: object) -> str:
    """Return which of the three shapes the features of a request are meant to have."""
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
        Discriminator(shape_of),
        Field(
            min_length=1,
            description="one row in the model's order, or rows in that order, or rows by name",
        ),
    ]
    symbol: Annotated[str, Field(pattern=f"^{SYMBOL_PATTERN}$")] | None = Field(
        default=None, description="market that the rows belong to, such as BTC/USDT"
    )
    open_times: (
        Annotated[list[Annotated[AwareDatetime, BeforeValidator(_utc_time)]], Field(fail_fast=True)]
        | None
    ) = Field(
        default=None,
        description="open time of each row's candle, so that its outcome can be joined later",
    )


def request_examples(row: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return a request of each form, as OpenAPI shows examples, from a row of features by name."""
    values = list(row.values())
    named = {"features": [dict(row)], "symbol": "BTC/USDT", "open_times": ["2026-01-31T12:00:00Z"]}
    return {
        "one row": {
            "summary": "One row, every feature in the model's order",
            "value": {"features": values},
        },
        "rows": {
            "summary": "Several rows in the model's order",
            "value": {"features": [values, values]},
        },
        "rows by name": {
            "summary": "Rows by feature name, with the candle that each belongs to",
            "value": named,
        },
    }


REQUEST_EXAMPLES = request_examples(
    {"log_return_1m": 0.0004, "log_return_5m": -0.0011, "rsi_14m": 0.61}
)
"""Schematic: which features a row has is the serving model's matter."""


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


class ErrorDetail(Body):
    """What went wrong, in a word for programs, in a sentence, and what to do."""

    code: str = Field(examples=["invalid_request"])
    message: str
    hint: str


class ErrorBody(Body):
    """The one form of every error."""

    error: ErrorDetail


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
