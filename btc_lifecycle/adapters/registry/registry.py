"""Candidates, champion and rollback in one MLflow experiment and one registered model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from btc_lifecycle.adapters.registry import loading
from btc_lifecycle.adapters.registry.aliases import Aliases, verdict_tags
from btc_lifecycle.adapters.registry.candidates import CandidateRuns
from btc_lifecycle.adapters.registry.records import (
    CANDIDATE_ALIAS,
    CHAMPION_ALIAS,
    EXPERIMENT,
    FINAL_VERDICTS,
    HOW_TO_TRAIN,
    MODEL_NAME,
    MODEL_URI_TAG,
    PREVIOUS_ALIAS,
    ROLLED_BACK,
    UNREGISTERED,
    VERDICT_REASON_TAG,
    AliasMove,
    Journal,
    ModelVersion,
    feature_names_of,
    parse_model_uri,
    utc_time,
)
from btc_lifecycle.adapters.registry.store import MlflowStore
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.promotion import DEFERRED, PROMOTED, REFUSED

if TYPE_CHECKING:
    from lightgbm import Booster
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion


class Registry(CandidateRuns):
    """What training logs, promotion decides on and the service loads, of one registered model.

    Nothing is opened before the first call, and looking into an SQLite store that does not exist
    yet finds nothing and creates nothing. Every method raises NeighbourUnavailableError when
    MLflow does not answer properly, and ConfigurationError when it refuses a URI.

    Whatever moves an alias tells the journal before and after, and first ends what an interrupted
    move left behind. Without a journal an interrupted move stays as it is.
    """

    def __init__(
        self,
        tracking_uri: str,
        registry_uri: str,
        *,
        experiment: str = EXPERIMENT,
        model_name: str = MODEL_NAME,
        journal: Journal | None = None,
    ) -> None:
        store = MlflowStore(tracking_uri, registry_uri)
        super().__init__(store, experiment=experiment, model_name=model_name)
        self._journal = journal
        self._aliases = Aliases(store, model_name=model_name, journal=journal)

    def register(self, run_id: str, *, actor: str) -> str:
        """Return the version number of a run's model, registered once, with alias ``candidate``.

        Repeating the call changes nothing, and the alias never moves to an older version.

        Raises:
            NothingToServeError: If the run has no completely logged model of this name.
        """
        tags = self._candidate_tags(run_id)
        with self._store.changing():
            self._aliases.settle()
            number = self._registered(run_id, source=tags[MODEL_URI_TAG])
            if number is None:
                number = self._create_version(run_id, tags=tags)
            candidate = self.candidate()
            if candidate is None or int(candidate.version) < int(number):
                reason = f"MLflow run {run_id} was registered"
                self._aliases.change({CANDIDATE_ALIAS: number}, actor=actor, reason=reason)
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

    def conclude(
        self,
        version: str,
        verdict: str,
        *,
        reason: str,
        actor: str,
        market_time: datetime | None = None,
    ) -> None:
        """Record a verdict on a version; ``promoted`` makes it champion.

        The champion before it becomes ``previous``. Repeating a call changes nothing.

        Args:
            version: Number of a registered version.
            verdict: ``promoted``, ``refused`` or ``deferred``: judged again when there is more data.
            reason: The verdict's sentence, kept on the version.
            actor: Who concluded it: a person at the command line, a job's run.
            market_time: The exchange's time of the decision, where it differs from the clock's.

        Raises:
            NothingToServeError: If there is no such version.
            DataError: If the version serves and shall not, or was refused or rolled back before.
        """
        if verdict not in {PROMOTED, REFUSED, DEFERRED}:
            raise ValueError(f"{verdict!r} is no verdict on a candidate")
        with self._store.changing():
            self._aliases.settle()
            found, champion = self._existing(version), self.champion()
            serves = champion is not None and champion.version == version
            if found.verdict == verdict and (serves or verdict in FINAL_VERDICTS):
                return
            _require_open(found, serves=serves, verdict=verdict)
            targets = {CHAMPION_ALIAS: version} if verdict == PROMOTED else {}
            if targets and champion is not None and not serves:
                targets[PREVIOUS_ALIAS] = champion.version
            tags = verdict_tags(verdict, reason=reason, actor=actor, market_time=market_time)
            self._aliases.change(targets, actor=actor, reason=reason, verdicts={version: tags})

    def rollback(self, *, actor: str) -> ModelVersion:
        """Return the version before the champion, serving again; the two trade places.

        Where the process of the last rollback was killed on the way, the call only ends that one.

        Raises:
            NothingToServeError: If there is no version to go back to.
        """
        with self._store.changing():
            if any(self._rolled_back(row) for row in self._aliases.settle()):
                return self.resolve(f"models:/{self.model_name}@{CHAMPION_ALIAS}")
            old, previous = self.champion(), self.version(PREVIOUS_ALIAS)
            if old is None or previous is None or old.version == previous.version:
                raise NothingToServeError(
                    f"{self.model_name} has no version before the champion to go back to",
                    hint="a rollback is possible after a second promotion",
                )
            reason = f"version {previous.version} serves in its place"
            verdicts = {old.version: verdict_tags(ROLLED_BACK, reason=reason, actor=actor)}
            if previous.verdict != PROMOTED:
                again = f"serves again in place of version {old.version}"
                verdicts[previous.version] = verdict_tags(PROMOTED, reason=again, actor=actor)
            self._aliases.change(
                {CHAMPION_ALIAS: previous.version, PREVIOUS_ALIAS: old.version},
                actor=actor,
                reason=f"version {old.version} was rolled back",
                verdicts=verdicts,
            )
            return self._existing(previous.version)

    def settle(self) -> list[AliasMove]:
        """Return the journal's rows that ended an interrupted move, after ending it.

        Every other writing method does so first. Without a journal there is nothing to end.
        """
        if self._journal is None or not self._journal.unfinished():
            return []
        with self._store.changing():
            return self._aliases.settle()

    def load_booster(self, version: ModelVersion) -> Booster:
        """Return a version's LightGBM booster, which predicts as it did when it was logged.

        Its files are those that were logged, and its text was tried out in another process first,
        because LightGBM ends the process on some damaged ones.

        Raises:
            NothingToServeError: If files are missing, damaged, or not a plain LightGBM model.
        """
        return loading.load_booster(version, store=self._store)

    def _rolled_back(self, row: AliasMove) -> bool:
        """Return whether a row ended the rollback of the version that served before it."""
        if row.alias != CHAMPION_ALIAS or row.state != "done" or row.from_version is None:
            return False
        return self._existing(row.from_version).verdict == ROLLED_BACK

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
        uri = tags[MODEL_URI_TAG]
        with self._store.translated():
            created = client.create_model_version(
                name,
                source=uri,
                run_id=run_id,
                tags=dict(tags),
                # A server takes a logged model's URI only with the model's id beside it.
                model_id=uri.removeprefix("models:/"),
            )
        return str(created.version)

    def _find(self, name: str, alias_or_number: str) -> ModelVersion | None:
        found = self._store.find_version(name, alias_or_number)
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


def _require_open(version: ModelVersion, *, serves: bool, verdict: str) -> None:
    """Raise where a verdict on a version contradicts what it is or what was concluded for good."""
    if serves and verdict != PROMOTED:
        raise DataError(
            f"{version.name} version {version.version} serves and cannot be {verdict}",
            hint="take it from its place with `./task rollback`",
        )
    if version.verdict in FINAL_VERDICTS and not serves:
        raise DataError(
            f"{version.name} version {version.version} was {version.verdict} before: "
            f"{version.tags.get(VERDICT_REASON_TAG, 'no reason is known')}",
            hint="train another candidate with `./task track`",
        )
