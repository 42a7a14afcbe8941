"""The HTTP service: `uvicorn btc_lifecycle.service.app:app`.

What lives here: the app, its parts, and the endpoints that only read. What does not: what every
request passes (front_door), predictions (predict_route, latest), probes (probes), the model (holder).
"""

import gc
import logging
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Security
from fastapi.routing import iter_route_contexts
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.lines import Lines
from btc_lifecycle.adapters.online_store import OnlineStore
from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.adapters.registry import (
    RegistryReader,
)
from btc_lifecycle.domain.ingest.candles import SYMBOL_PATTERN
from btc_lifecycle.domain.learn.training import VOLATILITY
from btc_lifecycle.domain.tables import FEATURE_COLUMNS
from btc_lifecycle.service import bodies
from btc_lifecycle.service.config import ServiceSettings, service_settings
from btc_lifecycle.service.docs_page import add_docs_page, with_examples
from btc_lifecycle.service.errors import ApiError, install_error_handlers
from btc_lifecycle.service.front_door import FrontDoor
from btc_lifecycle.service.holder import LiveModel
from btc_lifecycle.service.latest import Latest, LatestBody
from btc_lifecycle.service.metrics import Metrics, ServiceState
from btc_lifecycle.service.overview import OverviewBody, make_overview
from btc_lifecycle.service.page import content_security_policy, live_page
from btc_lifecycle.service.predict_route import PREDICT_BODY, Predict, post_predict
from btc_lifecycle.service.predicting import Scorer, name_of
from btc_lifecycle.service.probes import Probes, Responses

_MOST_ACCESS_LOG_BYTES = 4 * 1024 * 1024

# What asks for the key is the front door; here it is only documented.
_DOCUMENTED_KEY = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
]
_ERRORS: Responses = {
    code: {"model": bodies.ErrorBody, "description": description}
    for code, description in {
        401: "The key is missing or wrong",
        422: "The request is not what the endpoint takes",
        429: "This address made too many requests",
        503: "There is nothing to answer with; the message says why",
    }.items()
}
_BODY_ERRORS: Responses = {
    400: {"model": bodies.ErrorBody, "description": "The body is not JSON, or did not arrive"},
    413: {"model": bodies.ErrorBody, "description": "The body is too large"},
}
Symbol = Annotated[
    str, Query(pattern=f"^{SYMBOL_PATTERN}$", description="market", examples=["BTC/USDT"])
]


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the service; it looks for its model once it is started."""
    service = Service(settings)
    app = FastAPI(
        title="bitcoin-lifecycle",
        summary="Probability that bitcoin rises, from the champion of the model registry.",
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Asks for each request, at length, whether there is something to report to; see /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_api_route(
        "/predict",
        post_predict,
        methods=["POST"],
        tags=["predictions"],
        summary="Probability of a rise for rows of features",
        dependencies=_DOCUMENTED_KEY,
        response_model=bodies.PredictResponse,
        responses={**_BODY_ERRORS, **_ERRORS},
        openapi_extra={"requestBody": PREDICT_BODY},
    )
    app.include_router(service.probes.router())
    app.include_router(service.open_router())
    app.include_router(service.guarded_router())
    add_docs_page(app)
    install_error_handlers(app)
    documented = app.openapi
    # FastAPI's way to change the document: its examples follow the model.
    app.openapi = lambda: with_examples(documented(), service.examples())  # type: ignore[method-assign]
    paths = frozenset(str(route.path) for route in iter_route_contexts(app.routes))
    # Around all of FastAPI's own layers, which cost several times what is done here.
    app.middleware_stack = FrontDoor(
        app.build_middleware_stack(),
        direct={("POST", "/predict"): service.predict},
        paths=paths,
        metrics=service.metrics,
        access_log=service.access_log,
        api_key=settings.api_key,
        limits=settings.limits,
    )
    app.state.service = service
    return app


class Service:
    """The parts of one app, and the endpoints that only read them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        registry = RegistryReader(settings.tracking_uri, settings.registry_uri)
        self.live = LiveModel(
            registry, model_uri=settings.model_uri, poll_seconds=settings.poll_seconds
        )
        self.volatility = LiveModel(
            registry,
            model_uri=settings.volatility_model_uri,
            poll_seconds=settings.poll_seconds,
            target=VOLATILITY,
        )
        self.access_log = _access_log() if settings.limits.access_log else None
        self._online = OnlineStore(settings.online_dir)
        self.metrics = Metrics(ServiceState((self.live, self.volatility), online=self._online))
        self.log = PredictionLog(settings.prediction_log_dir, on_drop=self.metrics.lost_predictions)
        self.scorer = scorer = Scorer(self.live, volatility=self.volatility)
        self.probes = Probes(scorer, log=self.log)
        self.predict = Predict(scorer, log=self.log, metrics=self.metrics, limits=settings.limits)
        self._latest = Latest(
            scorer,
            online=self._online,
            log=self.log,
            metrics=self.metrics,
            max_age=timedelta(seconds=settings.limits.max_feature_age_s),
        )

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Look the models up while the app runs, and write the last lines when it stops."""
        if self.access_log is not None:
            # The server's own would tell of each request a second time.
            server_log = logging.getLogger("uvicorn.access")
            server_log.handlers.clear()
            server_log.propagate = False
        self.live.start()
        self.volatility.start()
        yield
        await run_in_threadpool(self._end)

    def _end(self) -> None:
        """End the threads, none of which may hold the process up for long."""
        models = self.live, self.volatility
        for live in models:
            live.stop()
        self.log.close()
        if self.access_log is not None:
            self.access_log.close(timeout_s=0.5)
        for live in models:
            live.join()

    def open_router(self) -> APIRouter:
        """Return the pages: documents without data, which never ask for a key."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/", self.get_page, methods=["GET", "HEAD"])
        return router

    def guarded_router(self) -> APIRouter:
        """Return the endpoints that ask for the key where one is set."""
        router = APIRouter(dependencies=_DOCUMENTED_KEY, responses=_ERRORS)
        router.add_api_route(
            "/predict/latest",
            self.get_latest,
            tags=["predictions"],
            summary="Prediction for a market's newest candle",
        )
        router.add_api_route(
            "/overview", self.get_overview, tags=["predictions"], summary="One market at a glance"
        )
        router.add_api_route(
            "/features", self.get_features, tags=["model"], summary="The model's inputs in order"
        )
        router.add_api_route(
            "/model", self.get_model, tags=["model"], summary="Where the model comes from"
        )
        router.add_api_route(
            "/metrics",
            self.get_metrics,
            tags=["operations"],
            summary="Metrics in Prometheus' text format",
            response_class=Response,
            responses={200: {"content": {"text/plain": {}}}},
        )
        return router

    async def get_page(self) -> HTMLResponse:
        """Return the live page, which asks for /overview every few seconds."""
        page = live_page()
        return HTMLResponse(page, headers={"Content-Security-Policy": content_security_policy()})

    def examples(self) -> dict[str, dict[str, Any]]:
        """Return requests that the model which serves would take; schematic ones without it."""
        model = self.live.model
        if model is None:
            return bodies.REQUEST_EXAMPLES
        return bodies.request_examples(dict.fromkeys(model.version.feature_names, 0.0))

    async def get_latest(self, symbol: Symbol) -> LatestBody:
        """Scores the newest closed candle's features, and says when the prediction matures."""
        return self._latest.predict(symbol)

    async def get_overview(self, symbol: Symbol | None = None) -> OverviewBody:
        """Tells what the live page shows of a market, the first configured one if none is named."""
        symbol = symbol or self._settings.symbols[0]
        prediction: LatestBody | str
        try:
            prediction = self._latest.predict(symbol)
        except ApiError as error:
            prediction = f"{error.message}; {error.hint}"
        model = self.live.model
        return make_overview(
            self._online,
            symbol=symbol,
            now=clock.now(),
            prediction=prediction,
            model=str(self.live.problem) if model is None else model.version,
            versions=self.live.versions,
            max_age_seconds=self._settings.limits.max_feature_age_s,
        )

    async def get_features(self) -> bodies.FeaturesBody:
        """Lists names, meanings and units in the order that a row has."""
        model = self.scorer.model()
        known = {column.name: column for column in FEATURE_COLUMNS}
        features = []
        for name in model.version.feature_names:
            meaning, unit = (known[name].meaning, known[name].unit) if name in known else ("", "")
            features.append(bodies.FeatureBody(name=name, meaning=meaning, unit=unit))
        return bodies.FeaturesBody(model=name_of(model), features=features)

    async def get_model(self) -> bodies.ModelBody:
        """Tells version, run, metrics and tags of the model that serves."""
        model = self.scorer.model()
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

    async def get_metrics(self) -> Response:
        """Tells requests, durations, predictions, scores, ages and losses."""
        text = await run_in_threadpool(self.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _access_log() -> Lines:
    def write(lines: bytes) -> None:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    return Lines(write, max_bytes=_MOST_ACCESS_LOG_BYTES)


def __getattr__(name: str) -> FastAPI:
    """Build ``app`` when a server first asks for it: an import alone reads no environment."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from btc_lifecycle.settings import load_settings  # noqa: PLC0415  # as above

    app = create_app(service_settings(load_settings()))
    # What was imported stays: to look through it for garbage would hold requests up.
    gc.freeze()
    globals()["app"] = app
    return app
