"""Whether the process lives and a model serves: plainly, and by the Open Inference Protocol."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import JSONResponse

from btc_lifecycle.adapters.prediction_log import PredictionLog
from btc_lifecycle.service import bodies
from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.holder import LiveModel
from btc_lifecycle.service.predicting import Scorer, name_of

Responses = dict[int | str, dict[str, Any]]
"""What an endpoint may answer beside its own body, by status, as FastAPI documents it."""

_UNREADY: Responses = {503: {"model": bodies.ErrorBody, "description": "No model is loaded"}}


class V2Live(bodies.Body):
    """The Open Inference Protocol's answer on the process."""

    live: bool = True


class V2Ready(bodies.Body):
    """The Open Inference Protocol's answer on the whole service."""

    ready: bool


class V2ModelReady(bodies.Body):
    """The Open Inference Protocol's answer on one model."""

    name: str = Field(examples=["bitcoin-model"])
    ready: bool


class Probes:
    """The endpoints that orchestrators and load balancers ask."""

    def __init__(self, scorer: Scorer, *, log: PredictionLog) -> None:
        self._scorer, self._log = scorer, log

    def router(self) -> APIRouter:
        """Return the endpoints."""
        router = APIRouter(tags=["operations"])
        # Many a load balancer asks so, and wants no body.
        for path, endpoint in {
            "/live": self.get_live,
            "/health": self.get_health,
            "/v2/health/live": self.get_v2_live,
            "/v2/health/ready": self.get_v2_ready,
        }.items():
            router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        router.add_api_route("/live", self.get_live, summary="Whether the process answers")
        router.add_api_route(
            "/health", self.get_health, summary="Whether a model serves", responses=_UNREADY
        )
        router.add_api_route("/v2/health/live", self.get_v2_live, summary="The same as /live")
        router.add_api_route(
            "/v2/health/ready",
            self.get_v2_ready,
            summary="The same as /health, as the Open Inference Protocol has it",
            response_model=V2Ready,
            responses={503: {"model": V2Ready}},
        )
        router.add_api_route(
            "/v2/models/{name}/ready",
            self.get_v2_model_ready,
            summary="Whether one model serves",
            response_model=V2ModelReady,
            responses={
                404: {"model": bodies.ErrorBody, "description": "No model of this name"},
                # Otherwise FastAPI documents a form of its own, which no answer has.
                422: {"model": bodies.ErrorBody, "description": "The name is not taken"},
                503: {"model": V2ModelReady},
            },
        )
        return router

    async def get_live(self) -> bodies.LiveBody:
        """Answers while the process runs, with or without a model."""
        return bodies.LiveBody()

    async def get_health(self) -> bodies.HealthBody:
        """Answers 200 with the model's name and version once one is loaded, else 503 with why."""
        model, problem = self._scorer.model(), self._scorer.live.problem
        return bodies.HealthBody(
            status="ok" if problem is None else "stale",
            model=name_of(model),
            problem=problem,
            predictions_dropped=self._log.dropped,
        )

    async def get_v2_live(self) -> V2Live:
        """Answers while the process runs."""
        return V2Live()

    async def get_v2_ready(self) -> JSONResponse:
        """Answers 200 while the champion is loaded, else 503."""
        is_ready = self._scorer.live.model is not None
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def get_v2_model_ready(
        self, name: Annotated[str, Path(examples=["bitcoin-model"])]
    ) -> JSONResponse:
        """Answers 200 while the model is loaded, 503 while it is not, 404 for any other name."""
        live = self._live_of(name)
        is_ready = live.model is not None
        return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    def _live_of(self, name: str) -> LiveModel:
        models = {live.model_name: live for live in (self._scorer.live, self._scorer.volatility)}
        if name not in models:
            raise ApiError(
                404,
                "no_such_model",
                "this service serves no model of that name",
                hint=f"ask for {' or '.join(models)}",
            )
        return models[name]
