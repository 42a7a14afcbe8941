"""The HTTP service: `uvicorn btc_lifecycle.service.app:app`.

What lives here: the app and its endpoints. What does not: rules of bodies (bodies), the way from
request to answer (predicting), the model (holder) and the form of errors (errors).
"""

import asyncio
import ipaddress
import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.adapters.registry import CHAMPION_ALIAS, VOLATILITY_MODEL_NAME, Registry
from btc_lifecycle.domain.learn.training import VOLATILITY
from btc_lifecycle.domain.tables import FEATURE_COLUMNS
from btc_lifecycle.service import bodies
from btc_lifecycle.service.docs_page import docs_page
from btc_lifecycle.service.errors import ApiError, install_error_handlers
from btc_lifecycle.service.holder import LiveModel, LoadedModel
from btc_lifecycle.service.predicting import answer_predict, serving_model

_LARGE_BODY_BYTES = 32 * 1024
"""Above it an answer takes milliseconds, and is made beside the loop that serves the others."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What the service needs to know; bodies are bounded in rows, bytes and seconds."""

    model_uri: str
    volatility_model_uri: str = f"models:/{VOLATILITY_MODEL_NAME}@{CHAMPION_ALIAS}"
    tracking_uri: str
    registry_uri: str
    prediction_log_dir: Path
    api_key: str | None = None
    poll_seconds: float = 2.0
    max_rows: int = 1000
    max_body_bytes: int = 2 * 1024 * 1024
    body_timeout_seconds: float = 10.0


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the service; it looks for its model once it is started."""
    endpoints = Endpoints(settings)
    app = FastAPI(
        title="bitcoin-lifecycle",
        summary="Probability that bitcoin rises, from the champion of the model registry.",
        lifespan=endpoints.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(endpoints.open_router())
    app.include_router(endpoints.guarded_router())
    install_error_handlers(app)
    app.state.live, app.state.volatility = endpoints.live, endpoints.volatility
    app.state.log = endpoints.log
    return app


class Endpoints:
    """The endpoints of one app, with the live model and the prediction log that they share."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        registry = Registry(settings.tracking_uri, settings.registry_uri)
        self.live = LiveModel(
            registry, model_uri=settings.model_uri, poll_seconds=settings.poll_seconds
        )
        self.volatility = LiveModel(
            Registry(
                settings.tracking_uri, settings.registry_uri, model_name=VOLATILITY_MODEL_NAME
            ),
            model_uri=settings.volatility_model_uri,
            poll_seconds=settings.poll_seconds,
            target=VOLATILITY,
        )
        self.log = PredictionLog(settings.prediction_log_dir)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Look the model up while the app runs, and write the last predictions when it stops."""
        self.live.start()
        self.volatility.start()
        yield
        await run_in_threadpool(self.volatility.stop)
        await run_in_threadpool(self.live.stop)
        await run_in_threadpool(self.log.close)

    def open_router(self) -> APIRouter:
        """Return the endpoints that never ask for a key: probes, and documents without data."""
        router = APIRouter()
        router.add_api_route("/live", self.get_live, summary="Whether the process answers")
        router.add_api_route("/health", self.get_health, summary="Whether a model serves")
        router.add_api_route("/docs", self.get_docs, include_in_schema=False)
        return router

    def guarded_router(self) -> APIRouter:
        """Return the endpoints that ask for the key where one is set."""
        router = APIRouter(dependencies=[Depends(self.check_key)])
        router.add_api_route(
            "/predict",
            self.post_predict,
            methods=["POST"],
            summary="Probability of a rise for rows of features",
            responses={200: {"model": bodies.PredictResponse}},
            openapi_extra={"requestBody": _PREDICT_BODY},
        )
        router.add_api_route("/features", self.get_features, summary="The model's inputs in order")
        router.add_api_route("/model", self.get_model, summary="Where the model comes from")
        return router

    async def check_key(
        self,
        request: Request,
        header: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))],
        bearer: Annotated[
            HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))
        ],
    ) -> None:
        """Refuse a request without the right key; without a key, all but this machine's own."""
        wanted = self._settings.api_key
        if not wanted and _is_remote(request):
            raise ApiError(
                401,
                "unauthorized",
                "no API key is set, so only requests of the same machine are answered",
                hint="set BTC_API_KEY where the service runs, and send it as X-API-Key",
            )
        given = header or (bearer.credentials if bearer else "")
        if wanted and not secrets.compare_digest(given.encode(), wanted.encode()):
            raise ApiError(
                401,
                "unauthorized",
                "the API key is missing or wrong",
                hint="send it as X-API-Key: KEY or Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def get_live(self) -> bodies.LiveBody:
        """Answers while the process runs, with or without a model."""
        return bodies.LiveBody()

    async def get_health(self) -> bodies.HealthBody:
        """Answers 200 with the model's name and version once one is loaded, else 503 with why."""
        model, problem = serving_model(self.live), self.live.problem
        return bodies.HealthBody(
            status="ok" if problem is None else "stale",
            model=_name(model),
            problem=problem,
            predictions_dropped=self.log.dropped,
        )

    async def get_docs(self, request: Request) -> HTMLResponse:
        """Return the endpoints as a page that loads nothing from elsewhere."""
        return HTMLResponse(docs_page(request.app.openapi(), base_url=str(request.base_url)))

    async def post_predict(self, request: Request) -> Response:
        """Scores one row or several; the rows are logged after the answer."""
        body = await self._read_body(request)
        answer_to = partial(
            answer_predict,
            live=self.live,
            volatility=self.volatility,
            max_rows=self._settings.max_rows,
        )
        if len(body) > _LARGE_BODY_BYTES:
            answer = await run_in_threadpool(answer_to, body)
        else:
            answer = answer_to(body)
        return Response(
            answer.body,
            media_type="application/json",
            background=BackgroundTask(self._log_records, answer.records),
        )

    async def get_features(self) -> bodies.FeaturesBody:
        """Lists names, meanings and units in the order that a row has."""
        model = serving_model(self.live)
        known = {column.name: column for column in FEATURE_COLUMNS}
        features = []
        for name in model.version.feature_names:
            meaning, unit = (known[name].meaning, known[name].unit) if name in known else ("", "")
            features.append(bodies.FeatureBody(name=name, meaning=meaning, unit=unit))
        return bodies.FeaturesBody(model=_name(model), features=features)

    async def get_model(self) -> bodies.ModelBody:
        """Tells version, run, metrics and tags of the model that serves."""
        model = serving_model(self.live)
        version = model.version
        return bodies.ModelBody(
            name=version.name,
            version=version.version,
            run_id=version.run_id,
            created_at=version.created_at,
            loaded_at=model.loaded_at,
            n_features=len(version.feature_names),
            metrics={k: v if math.isfinite(v) else None for k, v in version.metrics.items()},
            tags=dict(version.tags),
        )

    async def _log_records(self, records: list[dict[str, object]]) -> None:
        self.log.append(records)

    async def _read_body(self, request: Request) -> bytes:
        """Return the whole body, refused as soon as it is too large, too slow or not JSON."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise ApiError(
                400,
                "wrong_content_type",
                "the body must be JSON and say so",
                hint="send the header Content-Type: application/json",
            )
        body, limit = bytearray(), self._settings.max_body_bytes
        try:
            async with asyncio.timeout(self._settings.body_timeout_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise ApiError(
                            413,
                            "body_too_large",
                            f"the body is larger than {limit} bytes",
                            hint="send the rows in parts",
                        )
        except (TimeoutError, ClientDisconnect) as error:
            raise ApiError(
                400, "body_incomplete", "the body did not arrive in time", hint="send it again"
            ) from error
        return bytes(body)


_PREDICT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": bodies.PredictRequest.model_json_schema(),
            "examples": bodies.REQUEST_EXAMPLES,
        }
    },
}


def _name(model: LoadedModel) -> bodies.ModelName:
    return bodies.ModelName(name=model.version.name, version=model.version.version)


def __getattr__(name: str) -> FastAPI:
    """Build ``app`` when a server first asks for it: an import alone reads no environment."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from btc_lifecycle.settings import load_settings  # noqa: PLC0415  # as above

    settings = load_settings()
    key = settings.api_key
    app = create_app(
        ServiceSettings(
            model_uri=settings.model_uri,
            tracking_uri=settings.mlflow_tracking_uri,
            registry_uri=settings.mlflow_registry_uri,
            prediction_log_dir=settings.prediction_log_dir,
            api_key=key.get_secret_value() if key is not None else None,
        )
    )
    globals()["app"] = app
    return app


def _is_remote(request: Request) -> bool:
    try:
        return not ipaddress.ip_address(request.client.host if request.client else "").is_loopback
    except ValueError:
        # No address, so a local socket or a test's client.
        return False
