"""From the bytes of a body to rows of features, checked to the last value before the model sees them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ValidationError

from btc_lifecycle.service.bodies import SHAPES, PredictRequest, shape_of
from btc_lifecycle.service.errors import ApiError, invalid_request

_SEE_FEATURES = "GET /features lists the model's features in order"

_NO_MORE_THAN_FEATURES = 2
"""Quotation marks in a body whose only text is its one key."""

_MOST_BYTES_A_NUMBER = 100
"""Whatever the spaces around it: to read a longer body takes its time."""

_NUMBERS = {float, int}
PLAIN = PredictRequest(features=[0.0])
"""A request with neither symbol nor times, whatever its row."""


def plain_row(body: bytes, *, n_features: int) -> list[float] | None:
    """Return the row of a body that is one sound row and nothing else, None of any other.

    It is what most requests are, read at a tenth of the cost; a body with more to look at, or with
    anything wrong, is looked at closely by the others.
    """
    is_short = len(body) <= _MOST_BYTES_A_NUMBER * (n_features + 1)
    if not is_short or body.count(b'"') != _NO_MORE_THAN_FEATURES:
        return None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    row = content.get("features") if type(content) is dict else None
    if type(row) is not list or len(row) != n_features or not {*map(type, row)} <= _NUMBERS:
        return None
    return row


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
    shape = shape_of(features)
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
    steps = [step for i, step in enumerate(rest) if i > 0 or step not in SHAPES]
    return str(first) + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step[:60]}" for step in steps
    )
