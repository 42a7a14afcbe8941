"""Candidates as runs of one MLflow experiment, before and after they are registered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from btc_lifecycle.adapters.registry import model_text
from btc_lifecycle.adapters.registry.records import DIGEST_TAG, EXPERIMENT, HOW_TO_TRAIN
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import ConfigurationError, DataError, NothingToServeError

if TYPE_CHECKING:
    from lightgbm import Booster
    from numpy.typing import ArrayLike


class CandidateRuns:
    """The runs of one experiment: what training and evaluation log, and what they logged before."""

    def __init__(self, store: MlflowStore, *, experiment: str = EXPERIMENT) -> None:
        self._store, self.experiment = store, experiment

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

    def log_candidate(
        self,
        booster: Booster,
        *,
        input_example: ArrayLike,
        feature_names: Sequence[str],
        parameters: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Mapping[str, object]],
    ) -> str:
        """Return the id of the active MLflow run, with the candidate logged into it.

        The tags that make a run a candidate are written last: a run that was killed on the way is
        never registered.

        Args:
            booster: Trained model whose own feature names are ``feature_names``.
            input_example: One row of features in the model's order.
            feature_names: The model's inputs, in order.
            parameters: What the training was told.
            metrics: What the training measured.
            tags: Facts about data and training; they are copied onto the registered version.
            artifacts: JSON documents by file name, ``name.json``.

        Raises:
            ConfigurationError: If no MLflow run is active, or it belongs to another store.
            DataError: If the booster was trained on other names than ``feature_names``.
        """
        if booster.feature_name() != list(feature_names):
            raise DataError(
                f"the candidate was trained on {booster.feature_name()}, not {list(feature_names)}",
                hint="pass the names in the order of the training columns",
            )
        run_id = self._active_run_id()
        with self._store.translated():
            import mlflow  # noqa: PLC0415

            mlflow.log_params(dict(parameters))
            mlflow.log_metrics(dict(metrics))
            mlflow.set_tags(dict(tags))
            for file_name, content in artifacts.items():
                mlflow.log_dict(dict(content), file_name)
            mlflow.set_tags(
                model_text.log_booster(
                    self._store, booster, input_example=input_example, feature_names=feature_names
                )
            )
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run, such as those of an evaluation after training."""
        with self._store.translated():
            for name, value in metrics.items():
                self._store.client.log_metric(run_id, name, value)

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run; a version that was registered before keeps its own."""
        with self._store.translated():
            for name, value in tags.items():
                self._store.client.set_tag(run_id, name, value)

    def newest_candidate_run(self, *, dagster_run_id: str | None = None) -> str | None:
        """Return the newest finished run with a completely logged model.

        Args:
            dagster_run_id: Only of this Dagster run, whose tag dagster-mlflow sets.
        """
        if self._store.is_absent:
            return None
        client = self._store.client
        experiment = self._store.look_up(client.get_experiment_by_name, self.experiment)
        if experiment is None:
            return None
        with self._store.translated():
            runs = client.search_runs(
                [experiment.experiment_id],
                f"attributes.status = 'FINISHED' and tags.{DIGEST_TAG} LIKE '%'"
                + (f" and tags.dagster_run_id = '{dagster_run_id}'" if dagster_run_id else ""),
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
        return str(runs[0].info.run_id) if runs else None

    def read_json(self, run_id: str, file_name: str) -> dict[str, object]:
        """Return a JSON document that was logged with a run.

        Raises:
            NothingToServeError: If the run has no such document.
            DataError: If it is not a JSON object.
        """
        content = self._store.read_artifact(f"runs:/{run_id}/{file_name}")
        if content is None:
            raise NothingToServeError(
                f"MLflow run {run_id} has no artifact {file_name}", hint=HOW_TO_TRAIN
            )
        try:
            document = json.loads(content)
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
        if run is None or DIGEST_TAG not in run.data.tags:
            raise NothingToServeError(f"MLflow run {run_id} has no model", hint=HOW_TO_TRAIN)
        return {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}

    def _active_run_id(self) -> str:
        with self._store.translated():
            import mlflow  # noqa: PLC0415

            run, uri = mlflow.active_run(), mlflow.get_tracking_uri()
        if run is None or uri != self._store.tracking_uri:
            problem = "no MLflow run is active" if run is None else "the active run is elsewhere"
            raise ConfigurationError(
                f"{problem}; a candidate is logged into a run of {self._store.tracking_uri}",
                hint="open the run with Dagster's MLflow resource on MLFLOW_TRACKING_URI",
            )
        return str(run.info.run_id)
