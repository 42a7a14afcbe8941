"""The service's metrics in Prometheus' text format, over all worker processes where there are some."""

import os
from collections.abc import Iterable, Sequence
from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.online_store import OnlineStore
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.service.holder import LiveModel
from btc_lifecycle.service.predicting import Scored

# When each count began would double their number, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_SCORES = (0.3, 0.4, 0.44, 0.46, 0.48, 0.49, 0.5, 0.51, 0.52, 0.54, 0.56, 0.6, 0.7)


class Metrics:
    """Counts requests and predictions; tells what else there is to tell when it is asked."""

    def __init__(self, state: Collector) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "btc_http_requests",
            "Requests answered.",
            ("method", "path", "status"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "btc_http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._predictions = Counter(
            "btc_predictions",
            "Rows scored, by the model version that scored them.",
            ("model", "version"),
            registry=self._registry,
        )
        self._scores = Histogram(
            "btc_prediction_probability_up",
            "Probabilities of a rise that were answered.",
            buckets=_SCORES,
            registry=self._registry,
        )
        self._dropped = Counter(
            "btc_prediction_log_dropped",
            "Predictions that could not be logged.",
            registry=self._registry,
        )
        # Looking a child up by its labels costs as much as all the rest.
        self._requests_of: dict[tuple[str, str, int], Counter] = {}
        self._durations_of: dict[str, Histogram] = {}
        self._predictions_of: dict[tuple[str, str], Counter] = {}

    def saw_request(self, *, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is one of the service's, or one name for all others."""
        key = (method, path, status)
        counter = self._requests_of.get(key)
        if counter is None:
            counter = self._requests_of[key] = self._requests.labels(method, path, str(status))
        counter.inc()
        durations = self._durations_of.get(path)
        if durations is None:
            durations = self._durations_of[path] = self._durations.labels(path)
        durations.observe(seconds)

    def saw_predictions(self, scored: Scored) -> None:
        """Count scored rows and their probabilities of a rise."""
        version = scored.model.version
        key = (version.name, version.version)
        counter = self._predictions_of.get(key)
        if counter is None:
            counter = self._predictions_of[key] = self._predictions.labels(*key)
        counter.inc(len(scored.predictions))
        for prediction in scored.predictions:
            self._scores.observe(prediction["probability_up"])

    def lost_predictions(self, n_predictions: int) -> None:
        """Count predictions that could not be logged."""
        self._dropped.inc(n_predictions)

    def text(self) -> bytes:
        """Return all metrics; counts are those of every worker, the rest this process's."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry) + _text_of(self._state)
        everywhere = CollectorRegistry()
        MultiProcessCollector(everywhere)  # type: ignore[no-untyped-call]
        return generate_latest(everywhere) + _text_of(self._state)


class ServiceState(Collector):
    """What is looked up when the metrics are asked for: models and features."""

    def __init__(self, models: Sequence[LiveModel], *, online: OnlineStore) -> None:
        self._models, self._online = models, online

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        now = clock.now()
        ages = GaugeMetricFamily(
            "btc_model_age_seconds",
            "Since the version was registered.",
            labels=("model", "version"),
        )
        fails = GaugeMetricFamily(
            "btc_model_refresh_failing",
            "1 where the newest look-up did not end with the model that is asked for.",
            labels=("uri",),
        )
        for live in self._models:
            fails.add_metric([live.model_uri], float(live.problem is not None))
            if live.model is not None:
                version = live.model.version
                age = (now - version.created_at).total_seconds()
                ages.add_metric([version.name, version.version], age)
        return [ages, fails, self._staleness(now)]

    def _staleness(self, now: datetime) -> Metric:
        staleness = GaugeMetricFamily(
            "btc_feature_staleness_seconds",
            "Since the candle of the newest features closed.",
            labels=("symbol",),
        )
        for symbol in self._online.symbols():
            try:
                snapshot = self._online.read(symbol)
            except DataError:
                continue
            if snapshot is not None:
                staleness.add_metric([symbol], snapshot.age(now).total_seconds())
        return staleness


def _text_of(collector: Collector) -> bytes:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
