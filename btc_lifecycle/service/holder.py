"""The model that serves: loaded by alias, replaced in place when the alias moves."""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import (
    ModelVersion,
    NativeModel,
    RegistryReader,
    parse_model_uri,
)
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    LifecycleError,
    NothingToServeError,
)
from btc_lifecycle.domain.learn.training import DIRECTION, VOLATILITY, Target

# A volatility of 100 % a minute would be no market's.
_BOUNDS = {DIRECTION: (0.0, 1.0), VOLATILITY: (-50.0, 0.0)}
"""Between what numbers a prediction must lie, a probability or a log volatility."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A version together with its trees: whoever holds one never mixes two versions."""

    version: ModelVersion
    trees: NativeModel
    target: Target
    loaded_at: datetime

    def predict(self, rows: npt.NDArray[np.float64]) -> list[float]:
        """Return the model's prediction for each row of an array (rows, features).

        Raises:
            NothingToServeError: If one is no probability, or no log volatility that a market has.
        """
        predictions: list[float] = self.target.anchored(
            self.trees.predict(rows), rows, feature_names=self.version.feature_names
        ).tolist()
        low, high = _BOUNDS[self.target]
        if not all(low <= prediction <= high for prediction in predictions):
            raise NothingToServeError(
                f"{self.version.name} version {self.version.version} predicts what is no number "
                f"from {low:g} to {high:g}",
                hint="go back with `./task rollback`, or train and promote another version",
            )
        return predictions


class LiveModel:
    """Holds the newest usable model behind a URI, looked up again every few seconds.

    A version is loaded and tried aside, then swapped in as one reference. When the registry is
    down, the alias gone or the new version unusable, the last good model stays and ``problem``
    says why.
    """

    def __init__(
        self,
        registry: RegistryReader,
        *,
        model_uri: str,
        poll_seconds: float,
        target: Target = DIRECTION,
    ) -> None:
        self.model_uri = model_uri
        try:
            self.model_name, _ = parse_model_uri(model_uri)
        except ConfigurationError:
            # Told by each look-up, and then by whoever asks for the model.
            self.model_name = model_uri
        self._registry, self._poll_seconds = registry, poll_seconds
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
        self._thread.join(timeout=1.0)

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
                self._problem = f"look-up of {self.model_uri} failed: {error!r}"
                _log.exception("look-up of %s failed", self.model_uri)
            self._stopping.wait(self._poll_seconds)

    def _newest(self) -> LoadedModel:
        version, serving = self._registry.resolve(self.model_uri), self._model
        if serving is not None and _key(version) == _key(serving.version):
            # Metrics and tags may have been added to the version since.
            return replace(serving, version=version)
        loaded = LoadedModel(
            version=version,
            trees=self._registry.load(version),
            target=self._target,
            loaded_at=clock.now(),
        )
        # Which also spares the first client the model's cold start.
        loaded.predict(np.zeros((1, len(version.feature_names))))
        _log.info("serving %s version %s", version.name, version.version)
        return loaded


def _key(version: ModelVersion) -> tuple[str, str, str]:
    # A registry that was made anew counts its versions from 1 again.
    return version.name, version.version, version.run_id
