"""The model that serves: loaded by alias, replaced in place when the alias moves."""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

import numpy as np
import numpy.typing as npt

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import (
    FEATURE_NAMES_TAG,
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

_SHOWN_VERSIONS, _VERSIONS_KNOWN_S = 5, 15.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A version together with its trees: whoever holds one never mixes two versions."""

    version: ModelVersion
    trees: NativeModel
    target: Target
    loaded_at: datetime

    def predict(self, rows: npt.NDArray[np.float64]) -> list[float | None]:
        """Return the model's prediction for each row of an array (rows, features).

        It is None where the model says what is no probability, or the log of no market's volatility.
        """
        predictions = self.target.anchored(
            self.trees.predict(rows), rows, feature_names=self.version.feature_names
        ).tolist()
        low, high = _BOUNDS[self.target]
        return [it if low <= it <= high else None for it in predictions]

    def no_prediction(self) -> NothingToServeError:
        """Return the error of a model that predicts None."""
        low, high = _BOUNDS[self.target]
        return NothingToServeError(
            f"{self.version.name} version {self.version.version} predicts what is no number "
            f"from {low:g} to {high:g}",
            hint="go back with `./task rollback`, or train and promote another version",
        )


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
        self._versions: Sequence[ModelVersion] | str = self._problem
        self._versions_known_at = -math.inf
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="live-model", daemon=True)

    @property
    def model(self) -> LoadedModel | None:
        """The model that serves now, None while there never was a usable one."""
        return self._model

    @property
    def versions(self) -> Sequence[ModelVersion] | str:
        """The newest versions of the model, newest first, or why they are not known."""
        return self._versions

    @property
    def problem(self) -> str | None:
        """Why the newest look-up did not end with the model that the URI names."""
        return self._problem

    def start(self) -> None:
        """Begin to look the model up, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End the look-ups; one that is under way may end, and dies with the process."""
        self._stopping.set()

    def join(self) -> None:
        """Wait half a second at most for the end of the look-ups."""
        self._thread.join(timeout=0.5)

    def refresh(self) -> None:
        """Look the model up once and load it where it is another version; never raises for it."""
        with self._refreshing:
            try:
                self._model = self._newest()
                self._refresh_versions()
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

    def _refresh_versions(self) -> None:
        if monotonic() - self._versions_known_at < _VERSIONS_KNOWN_S:
            return
        try:
            self._versions = self._registry.newest_versions(self.model_name, limit=_SHOWN_VERSIONS)
        except LifecycleError as error:
            self._versions = str(error)
        self._versions_known_at = monotonic()

    def _newest(self) -> LoadedModel:
        version, serving = self._registry.resolve(self.model_uri), self._model
        if serving is not None and _key(version) == _key(serving.version):
            if version.feature_names != serving.version.feature_names:
                raise NothingToServeError(
                    f"the tag {FEATURE_NAMES_TAG} of {version.name} version {version.version} was "
                    "changed while it serves",
                    hint="set it back, or promote another version",
                )
            # Metrics and tags may have been added to the version since.
            return replace(serving, version=version)
        loaded = LoadedModel(
            version=version,
            trees=self._registry.load(version),
            target=self._target,
            loaded_at=clock.now(),
        )
        # Which also spares the first client the model's cold start.
        if None in loaded.predict(np.zeros((1, len(version.feature_names)))):
            raise loaded.no_prediction()
        _log.info("serving %s version %s", version.name, version.version)
        return loaded


def _key(version: ModelVersion) -> tuple[str, str, str]:
    # A registry that was made anew counts its versions from 1 again.
    return version.name, version.version, version.run_id
