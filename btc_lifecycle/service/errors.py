"""The one form of every error answer: {"error": {"code", "message", "hint"}}."""

import json
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

_BY_STATUS = {
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not take this method"),
}


class ApiError(Exception):
    """A request that gets an error answer; raised anywhere in the service ring."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers = headers


OWN_FAULT = ApiError(
    500,
    "internal_error",
    "the service failed",
    hint="nothing is wrong with the request; the service's log says more",
)


def invalid_request(message: str, *, hint: str) -> ApiError:
    """Return the error for a body that is JSON but not what the endpoint takes."""
    return ApiError(422, "invalid_request", message, hint=hint)


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of the app, the framework's own included, the one form."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(HTTPException, _answer_framework_error)
    app.add_exception_handler(RequestValidationError, _answer_bad_parameters)
    app.add_exception_handler(Exception, _answer_own_fault)


async def _answer_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # the handler is installed for this class
    return error_response(error)


async def _answer_framework_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    code, message = _BY_STATUS.get(error.status_code, ("bad_request", str(error.detail)))
    hint = "GET /docs lists every endpoint"
    return error_response(
        ApiError(error.status_code, code, message, hint=hint, headers=error.headers)
    )


async def _answer_bad_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    # Never the input itself: it may hold what JSON cannot, such as NaN or half a character.
    problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
    return error_response(
        invalid_request("; ".join(problems), hint="GET /docs shows what is taken")
    )


async def _answer_own_fault(_request: Request, _error: Exception) -> Response:
    return error_response(OWN_FAULT)


def error_response(error: ApiError) -> Response:
    """Return the answer that an error becomes."""
    body = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    # Pure ASCII, as a message may quote half of a surrogate pair, which UTF-8 cannot hold.
    return Response(
        json.dumps(body),
        status_code=error.status,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )
