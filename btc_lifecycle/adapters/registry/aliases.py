"""Aliases and verdicts of one registered model, changed whole or not at all.

MLflow moves one alias at a time, and a process may be killed between two. So the moves of a change
are written to the journal before the first and after the last, its verdicts wait in tags of their
own, and the first move decides: where it did not happen nothing else did, and where it did, whoever
writes next ends the change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.registry.records import (
    CHAMPION_ALIAS,
    VERDICT_REASON_TAG,
    VERDICT_TAG,
    AliasMove,
    Journal,
)
from btc_lifecycle.adapters.registry.store import MlflowStore

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

_AT_TAG, _ACTOR_TAG, _MARKET_TIME_TAG = "verdict_at", "verdict_actor", "verdict_market_time"
# The verdict comes last: where it is told, all that belongs to it is there.
_VERDICT_TAGS = (VERDICT_REASON_TAG, _AT_TAG, _ACTOR_TAG, _MARKET_TIME_TAG, VERDICT_TAG)
_PENDING_TAG = "pending_verdict"

Tags = Mapping[str, str]


def verdict_tags(
    verdict: str, *, reason: str, actor: str, market_time: datetime | None = None
) -> dict[str, str]:
    """Return a verdict as tags of a version; times in ISO 8601."""
    tags = {VERDICT_TAG: verdict, VERDICT_REASON_TAG: reason, _ACTOR_TAG: actor}
    tags[_AT_TAG] = clock.now().isoformat(timespec="seconds")
    if market_time is not None:
        tags[_MARKET_TIME_TAG] = market_time.isoformat(timespec="seconds")
    return tags


class Aliases:
    """The aliases of one registered model. Only one process at a time may change them."""

    def __init__(self, store: MlflowStore, *, model_name: str, journal: Journal | None) -> None:
        self._store, self._model_name, self._journal = store, model_name, journal

    def version(self, alias_or_number: str) -> MlflowModelVersion | None:
        """Return MLflow's record of a version, None where there is none."""
        return self._store.find_version(self._model_name, alias_or_number)

    def change(
        self,
        targets: Mapping[str, str],
        *,
        actor: str,
        reason: str,
        verdicts: Mapping[str, Tags] | None = None,
    ) -> None:
        """Move aliases, and give versions their verdicts.

        Args:
            targets: Version by alias; the first decides whether an interrupted change is ended.
            actor: Who moves them.
            reason: Why.
            verdicts: Tags of a verdict by version.
        """
        verdicts = verdicts or {}
        planned = (
            self._intended(alias, number, actor=actor, reason=reason)
            for alias, number in targets.items()
        )
        moves = [move for move in planned if move.from_version != move.to_version]
        if moves:
            self._record(moves)
            for number, tags in verdicts.items():
                pending = {"move_id": moves[0].move_id, "tags": tags}
                self._set_tags(number, {_PENDING_TAG: json.dumps(pending)})
        self._end(moves, verdicts=verdicts)

    def settle(self) -> list[AliasMove]:
        """Return the rows that ended an interrupted change in the journal, after ending it.

        Afterwards aliases and verdicts are exactly as before the change, or as after it.
        """
        found = [] if self._journal is None else self._journal.unfinished()
        moves = [move for move in found if move.model_name == self._model_name]
        if not moves:
            return []
        verdicts = self._pending(moves)
        first = next((move for move in moves if move.alias == CHAMPION_ALIAS), moves[0])
        if self._number(first.alias) == first.to_version:
            return self._end(moves, verdicts=verdicts)
        for number in verdicts:
            self._delete_tag(number, _PENDING_TAG)
        # The first move ends last: until then it tells whoever comes next what was going on.
        return self._record(moves[::-1], state="abandoned")

    def _intended(self, alias: str, number: str, *, actor: str, reason: str) -> AliasMove:
        return AliasMove(
            move_id=str(uuid4()),
            moved_at=clock.now(),
            model_name=self._model_name,
            alias=alias,
            from_version=self._number(alias),
            to_version=number,
            actor=actor,
            reason=reason,
            state="intended",
        )

    def _end(self, moves: Sequence[AliasMove], *, verdicts: Mapping[str, Tags]) -> list[AliasMove]:
        for move in moves:
            if self._number(move.alias) != move.to_version:
                with self._store.translated():
                    self._store.client.set_registered_model_alias(
                        self._model_name, move.alias, move.to_version
                    )
        for number, tags in verdicts.items():
            self._set_verdict(number, tags)
        return self._record(moves[::-1], state="done")

    def _record(
        self,
        moves: Iterable[AliasMove],
        *,
        state: Literal["intended", "done", "abandoned"] = "intended",
    ) -> list[AliasMove]:
        rows = [replace(move, state=state, moved_at=clock.now()) for move in moves]
        if self._journal is not None:
            for row in rows:
                self._journal.append(row)
        return rows

    def _pending(self, moves: Iterable[AliasMove]) -> dict[str, Tags]:
        """Return the verdicts that wait for moves, by version."""
        ids = {move.move_id for move in moves}
        verdicts = {}
        for number in {it for move in moves for it in (move.from_version, move.to_version)}:
            found = None if number is None else self.version(number)
            pending = json.loads(found.tags.get(_PENDING_TAG, "{}")) if found else {}
            # One of a change that no journal knew of is none of ours.
            if pending.get("move_id") in ids:
                verdicts[str(number)] = pending["tags"]
        return verdicts

    def _number(self, alias: str) -> str | None:
        found = self.version(alias)
        return None if found is None else str(found.version)

    def _set_verdict(self, number: str, tags: Tags) -> None:
        found = self.version(number)
        stale = set() if found is None else {*_VERDICT_TAGS} & found.tags.keys() - tags.keys()
        for name in stale:
            self._delete_tag(number, name)
        self._set_tags(number, {name: tags[name] for name in _VERDICT_TAGS if name in tags})
        if found is not None and _PENDING_TAG in found.tags:
            self._delete_tag(number, _PENDING_TAG)

    def _set_tags(self, number: str, tags: Tags) -> None:
        with self._store.translated():
            for name, value in tags.items():
                self._store.client.set_model_version_tag(self._model_name, number, name, value)

    def _delete_tag(self, number: str, name: str) -> None:
        with self._store.translated():
            self._store.client.delete_model_version_tag(self._model_name, number, name)
