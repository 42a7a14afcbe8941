"""Candidates, champion and rollback in one MLflow experiment and one registered model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry import model_text
from btc_lifecycle.adapters.registry.candidates import CandidateRuns
from btc_lifecycle.adapters.registry.records import (
    CANDIDATE_ALIAS,
    CHAMPION_ALIAS,
    EXPERIMENT,
    HOW_TO_TRAIN,
    MODEL_NAME,
    MODEL_URI_TAG,
    PREVIOUS_ALIAS,
    ROLLED_BACK,
    UNREGISTERED,
    ModelVersion,
    feature_names_of,
    parse_model_uri,
    utc_time,
)
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import NothingToServeError

if TYPE_CHECKING:
    from lightgbm import Booster
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion


class Registry(CandidateRuns):
    """What training logs, promotion decides on and the service loads.

    Nothing is opened before the first call, and looking into an SQLite store that does not exist
    yet finds nothing and creates nothing. Every method raises NeighbourUnavailableError when
    MLflow does not answer properly, and ConfigurationError when it refuses a URI.
    """

    def __init__(
        self,
        tracking_uri: str,
        registry_uri: str,
        *,
        experiment: str = EXPERIMENT,
        model_name: str = MODEL_NAME,
    ) -> None:
        super().__init__(MlflowStore(tracking_uri, registry_uri), experiment=experiment)
        self.model_name = model_name

    def register(self, run_id: str) -> str:
        """Return the version number of a run's model, registered once, with alias ``candidate``.

        Repeating the call changes nothing, and the alias never moves to an older version.

        Raises:
            NothingToServeError: If the run has no completely logged model.
        """
        tags = self._candidate_tags(run_id)
        number = self._registered(run_id, source=tags[MODEL_URI_TAG])
        if number is None:
            number = self._create_version(run_id, tags=tags)
        candidate = self.candidate()
        if candidate is None or int(candidate.version) < int(number):
            self._move(CANDIDATE_ALIAS, number)
        return number

    def version(self, alias_or_number: str) -> ModelVersion | None:
        """Return a version of the registered model by alias or number, None if there is none."""
        return self._find(self.model_name, alias_or_number)

    def champion(self) -> ModelVersion | None:
        """Return the version that serves, None before the first promotion."""
        return self.version(CHAMPION_ALIAS)

    def candidate(self) -> ModelVersion | None:
        """Return the newest registered version, None before the first registration."""
        return self.version(CANDIDATE_ALIAS)

    def resolve(self, model_uri: str) -> ModelVersion:
        """Return the version that a URI names: ``models:/name@alias`` or ``models:/name/3``.

        Raises:
            ConfigurationError: If the URI has neither form.
            NothingToServeError: If no such model, alias or version exists.
        """
        found = self._find(*parse_model_uri(model_uri))
        if found is None:
            raise NothingToServeError(f"{model_uri} does not exist", hint=HOW_TO_TRAIN)
        return found

    def candidate_of(self, run_id: str) -> ModelVersion:
        """Return the version of a run's model, numbered UNREGISTERED while it has none.

        Raises:
            NothingToServeError: If the run has no completely logged model.
        """
        tags = self._candidate_tags(run_id)
        number = self._registered(run_id, source=tags[MODEL_URI_TAG])
        if number is not None:
            return self._existing(number)
        run = self._store.client.get_run(run_id)
        return ModelVersion(
            name=self.model_name,
            version=UNREGISTERED,
            run_id=run_id,
            tags=tags,
            metrics=dict(run.data.metrics),
            feature_names=feature_names_of(tags),
            created_at=utc_time(run.info.start_time),
        )

    def promote(self, version: str, *, reason: str, market_time: datetime | None = None) -> None:
        """Make a version champion; the champion before it becomes ``previous``.

        Args:
            version: Number of a registered version.
            reason: The verdict's sentence, kept on the version.
            market_time: The exchange's time of the decision, where it differs from the clock's.

        Raises:
            NothingToServeError: If there is no such version.
        """
        self._existing(version)
        old = self.champion()
        self._tag_verdict(version, "promoted", reason=reason, market_time=market_time)
        if old is not None and old.version != version:
            self._move(PREVIOUS_ALIAS, old.version)
        # Last, as the one step that takes effect: whatever fails before it leaves the champion.
        self._move(CHAMPION_ALIAS, version)

    def refuse(self, version: str, *, reason: str, market_time: datetime | None = None) -> None:
        """Record on a version that it was not promoted, and why; arguments as for ``promote``."""
        self._existing(version)
        self._tag_verdict(version, "refused", reason=reason, market_time=market_time)

    def rollback(self) -> ModelVersion:
        """Return the version before the champion, serving again; the two trade places.

        Raises:
            NothingToServeError: If there is no version to go back to.
        """
        old, previous = self.champion(), self.version(PREVIOUS_ALIAS)
        if old is None or previous is None or old.version == previous.version:
            raise NothingToServeError(
                f"{self.model_name} has no version before the champion to go back to",
                hint="a rollback is possible after a second promotion",
            )
        reason = f"version {previous.version} serves in its place"
        self._tag_verdict(old.version, ROLLED_BACK, reason=reason, market_time=None)
        self._move(CHAMPION_ALIAS, previous.version)
        self._move(PREVIOUS_ALIAS, old.version)
        return previous

    def load_booster(self, version: ModelVersion) -> Booster:
        """Return a version's LightGBM booster, read from text whose digest matched.

        Raises:
            NothingToServeError: If files are missing, damaged, or not a plain LightGBM model.
        """
        return model_text.load_booster(version, store=self._store)

    def _registered(self, run_id: str, *, source: str) -> str | None:
        with self._store.translated():
            found = self._store.client.search_model_versions(
                f"name = '{self.model_name}' and run_id = '{run_id}'"
            )
        return next((str(version.version) for version in found if version.source == source), None)

    def _create_version(self, run_id: str, *, tags: Mapping[str, str]) -> str:
        client, name = self._store.client, self.model_name
        if self._store.look_up(client.get_registered_model, name) is None:
            with self._store.translated():
                client.create_registered_model(name)
        with self._store.translated():
            created = client.create_model_version(
                name, source=tags[MODEL_URI_TAG], run_id=run_id, tags=dict(tags)
            )
        return str(created.version)

    def _find(self, name: str, alias_or_number: str) -> ModelVersion | None:
        if self._store.is_absent:
            return None
        client = self._store.client
        is_number = alias_or_number.isdecimal()
        call = client.get_model_version if is_number else client.get_model_version_by_alias
        found = self._store.look_up(call, name, alias_or_number)
        return None if found is None else self._record(found)

    def _existing(self, number: str) -> ModelVersion:
        found = self.version(number)
        if found is None:
            raise NothingToServeError(
                f"{self.model_name} has no version {number}", hint=HOW_TO_TRAIN
            )
        return found

    def _record(self, found: MlflowModelVersion) -> ModelVersion:
        run = None
        if found.run_id is not None:
            run = self._store.look_up(self._store.client.get_run, found.run_id)
        return ModelVersion(
            name=found.name,
            version=str(found.version),
            run_id=found.run_id or "",
            tags=dict(found.tags),
            metrics={} if run is None else dict(run.data.metrics),
            feature_names=feature_names_of(found.tags),
            created_at=utc_time(found.creation_timestamp),
        )

    def _move(self, alias: str, number: str) -> None:
        with self._store.translated():
            self._store.client.set_registered_model_alias(self.model_name, alias, number)

    def _tag_verdict(
        self, number: str, verdict: str, *, reason: str, market_time: datetime | None
    ) -> None:
        tags = {"verdict": verdict, "verdict_reason": reason}
        tags["verdict_at"] = clock.now().isoformat(timespec="seconds")
        if market_time is not None:
            tags["verdict_market_time"] = market_time.isoformat(timespec="seconds")
        with self._store.translated():
            for name, value in tags.items():
                self._store.client.set_model_version_tag(self.model_name, number, name, value)
