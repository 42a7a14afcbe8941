"""The model that serves: loaded by alias, replaced in place when the alias moves."""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import ModelVersion, Registry
from btc_lifecycle.domain.errors import LifecycleError, NothingToServeError
from btc_lifecycle.domain.learn.training import DIRECTION, VOLATILITY, Target

if TYPE_CHECKING:
    from lightgbm import Booster

# A volatility of 100 % a minute would be no market's.
_BOUNDS = {DIRECTION: (0.0, 1.0), VOLATILITY: (-50.0, 0.0)}
"""Between what numbers a prediction must lie, a probability or a log volatility."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A version together with its booster: whoever holds one never mixes two versions."""

    version: ModelVersion
    booster: "Booster"
    target: Target
    loaded_at: datetime

    def predict(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the model's prediction for each row of an array (rows, features)."""
        trees = np.asarray(self.booster.predict(rows, num_threads=1), dtype=np.float64)
        return self.target.anchored(trees, rows, feature_names=self.version.feature_names)


class LiveModel:
    """Holds the newest usable model behind a URI, looked up again every few seconds.

    A version is loaded and tried aside, then swapped in as one reference. When the registry is
    down, the alias gone or the new version unusable, the last good model stays and ``problem``
    says why.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        model_uri: str,
        poll_seconds: float,
        target: Target = DIRECTION,
    ) -> None:
        self._registry, self._model_uri, self._poll_seconds = registry, model_uri, poll_seconds
        self._target = target
        self._model: LoadedModel | None = None
        self._problem: str | None = "the model is still being loaded; try again in a few seconds"
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="live-model", daemon=True)

    @property
    def model(self) -> LoadedModel | None:
        """The model that serves now, None while there never was a usable one."""
        return self._model

    @property
    def problem(self) -> str | None:
        """Why the newest look-up did not end with the model that the URI names."""
        return self._problem

    def start(self) -> None:
        """Begin to look the model up, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End the look-ups; one that hangs on the registry is left to die with the process."""
        self._stopping.set()
        self._thread.join(timeout=2.0)

    def refresh(self) -> None:
        """Look the model up once and load it where it is another version; never raises for it."""
        with self._refreshing:
            try:
                self._model = self._newest()
                problem = None
            except LifecycleError as error:
                problem = str(error)
            if problem is not None and problem != self._problem:
                _log.warning("model not refreshed: %s", problem)
            self._problem = problem

    def _poll(self) -> None:
        while not self._stopping.is_set():
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001  # a dead thread would freeze the model
                self._problem = f"look-up of {self._model_uri} failed: {error!r}"
                _log.exception("look-up of %s failed", self._model_uri)
            self._stopping.wait(self._poll_seconds)

    def _newest(self) -> LoadedModel:
        version, serving = self._registry.resolve(self._model_uri), self._model
        if serving is not None and _key(version) == _key(serving.version):
            # Metrics and tags may have been added to the version since.
            return replace(serving, version=version)
        booster = self._registry.load_booster(version)
        loaded = LoadedModel(
            version=version, booster=booster, target=self._target, loaded_at=clock.now()
        )
        _try_out(loaded)
        _log.info("serving %s version %s", version.name, version.version)
        return loaded


def _key(version: ModelVersion) -> tuple[str, str, str]:
    # A registry that was made anew counts its versions from 1 again.
    return version.name, version.version, version.run_id


def _try_out(model: LoadedModel) -> None:
    """Make one prediction, which also spares the first client the model's cold start."""
    prediction = model.predict(np.zeros((1, len(model.version.feature_names))))
    low, high = _BOUNDS[model.target]
    if prediction.shape != (1,) or not low <= prediction[0] <= high:
        raise NothingToServeError(
            f"{model.version.name} version {model.version.version} does not predict a number from "
            f"{low:g} to {high:g}",
            hint="go back with `./task rollback`, or train and promote another version",
        )
