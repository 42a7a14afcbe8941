"""Candidates as runs of one MLflow experiment, before and after they are registered."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry.golden import Golden
from btc_lifecycle.adapters.registry.model_files import log_booster
from btc_lifecycle.adapters.registry.records import (
    EXPERIMENT,
    HOW_TO_TRAIN,
    LIBRARIES_TAG,
    MODEL_FILES_TAG,
    MODEL_NAME,
    MODEL_NAME_TAG,
)
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError

if TYPE_CHECKING:
    from lightgbm import Booster
    from numpy.typing import ArrayLike

_LIBRARIES = ("lightgbm", "numpy", "polars", "mlflow")
_PARENT_RUN_TAG = "mlflow.parentRunId"


class CandidateRuns:
    """A model's runs in an experiment: what training and evaluation log, and logged before."""

    def __init__(
        self, store: MlflowStore, *, experiment: str = EXPERIMENT, model_name: str = MODEL_NAME
    ) -> None:
        self._store, self.experiment, self.model_name = store, experiment, model_name

    @property
    def tracking_uri(self) -> str:
        """Where the runs are kept."""
        return self._store.tracking_uri

    def ensure_experiment(self) -> str:
        """Return the experiment's id, after creating it where it is missing.

        Call it before anything else opens the experiment by its name: MLflow fixes the place of
        artifacts at creation, and unless told otherwise that is ./mlruns of the working folder.
        """
        with self._store.creating():
            client = self._store.client
            found = self._store.look_up(client.get_experiment_by_name, self.experiment)
            if found is not None:
                return str(found.experiment_id)
            with self._store.translated():
                location = self._store.artifact_location
                return str(client.create_experiment(self.experiment, artifact_location=location))

    @contextmanager
    def open_run(
        self,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> Iterator[str]:
        """Yield the id of a new run, active until the block ends: FINISHED, or FAILED by an error.

        A run that is active already stays so beneath, and becomes the parent unless another is
        named.

        Raises:
            ConfigurationError: If the run that is active already belongs to another store.
        """
        experiment_id = self.ensure_experiment()
        with self._store.translated():
            import mlflow  # noqa: PLC0415

            active = self._active_run_id()
            if active is None:
                mlflow.set_tracking_uri(self._store.tracking_uri)
            parent = parent_run_id or active
            all_tags = {**(tags or {}), **({_PARENT_RUN_TAG: parent} if parent else {})}
            run = self._store.client.create_run(experiment_id, tags=all_tags, run_name=name)
            run_id = str(run.info.run_id)
        try:
            with self._store.translated():
                mlflow.start_run(run_id=run_id, nested=True)
            yield run_id
        except BaseException:
            self._end_run(run_id, status="FAILED")
            raise
        self._end_run(run_id, status="FINISHED")

    def log_candidate(
        self,
        booster: Booster,
        *,
        golden_rows: ArrayLike,
        feature_names: Sequence[str],
        parameters: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, bytes | Mapping[str, object]],
    ) -> str:
        """Return the id of the active MLflow run, with the candidate logged into it.

        The tags that make a run a candidate are written last: a run that was killed on the way is
        never registered.

        Args:
            booster: Trained model whose own feature names are ``feature_names``.
            golden_rows: Features in the model's order, shape (n, features), NaN where one is
                missing; whoever loads the model must get the same predictions for them.
            feature_names: The model's inputs, in order.
            parameters: What the training was told.
            metrics: What the training measured.
            tags: Facts about data and training; they are copied onto the registered version.
            artifacts: Documents by file name: an object becomes JSON, bytes stay as they are.

        Raises:
            ConfigurationError: If no MLflow run is active, or it belongs to another store.
            DataError: If the booster was trained on other names than ``feature_names``, or the
                golden rows are not rows of finite numbers for it.
        """
        if booster.feature_name() != list(feature_names):
            raise DataError(
                f"the candidate was trained on {booster.feature_name()}, not {list(feature_names)}",
                hint="pass the names in the order of the training columns",
            )
        golden = Golden.of(booster, golden_rows)
        run_id = self._active_run_id()
        if run_id is None:
            raise ConfigurationError(
                f"no MLflow run is active; a candidate is logged into one of {self.tracking_uri}",
                hint="open the run with Dagster's MLflow resource on MLFLOW_TRACKING_URI",
            )
        self.log_parameters(run_id, parameters)
        self.log_metrics(run_id, metrics)
        self.log_artifacts(run_id, artifacts)
        with self._store.translated():
            found = log_booster(self._store, booster, golden=golden, feature_names=feature_names)
        own = {MODEL_NAME_TAG: self.model_name, LIBRARIES_TAG: json.dumps(_library_versions())}
        self._log(run_id, tags={**tags, **own, **found})
        return run_id

    def log_parameters(self, run_id: str, parameters: Mapping[str, object]) -> None:
        """Add to a run what it was told."""
        self._log(run_id, params={name: str(value) for name, value in parameters.items()})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run, such as those of an evaluation after training."""
        self._log(run_id, metrics=metrics)

    def log_artifacts(
        self, run_id: str, artifacts: Mapping[str, bytes | Mapping[str, object]]
    ) -> None:
        """Add documents to a run, by file name: an object becomes JSON, bytes stay as they are."""
        for file_name, content in artifacts.items():
            self._store.write_artifact(
                run_id,
                file_name,
                content if isinstance(content, bytes) else json.dumps(dict(content)).encode(),
            )

    def newest_candidate_run(self, *, dagster_run_id: str | None = None) -> str | None:
        """Return the newest finished run with a completely logged candidate of this model.

        Args:
            dagster_run_id: Only of this Dagster run, whose tag dagster-mlflow sets.
        """
        if self._store.is_absent:
            return None
        client = self._store.client
        experiment = self._store.look_up(client.get_experiment_by_name, self.experiment)
        if experiment is None:
            return None
        wanted = (
            "attributes.status = 'FINISHED'",
            f"tags.{MODEL_NAME_TAG} = '{self.model_name}'",
            f"tags.{MODEL_FILES_TAG} LIKE '%'",
            *([f"tags.dagster_run_id = '{dagster_run_id}'"] if dagster_run_id else []),
        )
        with self._store.translated():
            runs = client.search_runs(
                [experiment.experiment_id],
                " and ".join(wanted),
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
        return str(runs[0].info.run_id) if runs else None

    def read_bytes(self, run_id: str, file_name: str) -> bytes:
        """Return a document that was logged with a run.

        Raises:
            NothingToServeError: If the run has no such document.
        """
        content = self._store.read_artifact(f"runs:/{run_id}/{file_name}")
        if content is None:
            raise NothingToServeError(
                f"MLflow run {run_id} has no artifact {file_name}", hint=HOW_TO_TRAIN
            )
        return content

    def read_json(self, run_id: str, file_name: str) -> dict[str, object]:
        """Return a JSON document that was logged with a run.

        Raises:
            NothingToServeError: If the run has no such document.
            DataError: If it is not a JSON object.
        """
        try:
            document = json.loads(self.read_bytes(run_id, file_name))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise DataError(
                f"artifact {file_name} of MLflow run {run_id} is not a JSON object",
                hint="train again; artifacts are not written by hand",
            )
        return document

    def _candidate_tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a candidate's run, without those that MLflow itself sets."""
        run = self._store.look_up(self._store.client.get_run, run_id)
        tags = {} if run is None else run.data.tags
        if MODEL_FILES_TAG not in tags or tags.get(MODEL_NAME_TAG) != self.model_name:
            raise NothingToServeError(
                f"MLflow run {run_id} has no model for {self.model_name}", hint=HOW_TO_TRAIN
            )
        return {k: v for k, v in tags.items() if not k.startswith("mlflow.")}

    def _active_run_id(self) -> str | None:
        with self._store.translated():
            import mlflow  # noqa: PLC0415

            run, uri = mlflow.active_run(), mlflow.get_tracking_uri()
        if run is None:
            return None
        if uri != self._store.tracking_uri:
            raise ConfigurationError(
                f"the active run is elsewhere, not in a store at {self.tracking_uri}",
                hint="open the run with Dagster's MLflow resource on MLFLOW_TRACKING_URI",
            )
        return str(run.info.run_id)

    def _end_run(self, run_id: str, *, status: str) -> None:
        with self._store.translated():
            import mlflow  # noqa: PLC0415

            active = mlflow.active_run()
            # The block may have ended it already, or left another open that is not ours to end.
            if active is not None and active.info.run_id == run_id:
                mlflow.end_run(status)
            else:
                self._store.client.set_terminated(run_id, status)

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        with self._store.translated():
            from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

            now_ms = int(clock.now().timestamp() * 1000)
            self._store.client.log_batch(
                run_id,
                metrics=[Metric(k, v, now_ms, 0) for k, v in (metrics or {}).items()],
                params=[Param(k, v) for k, v in (params or {}).items()],
                tags=[RunTag(k, v) for k, v in (tags or {}).items()],
            )


def _library_versions() -> dict[str, str]:
    versions = {name: installed_version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **versions}
