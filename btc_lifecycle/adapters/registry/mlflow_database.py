"""Look-ups in the tables of MLflow's own database, without MLflow: each takes milliseconds.

These tables are no interface that MLflow promises. The tests compare every look-up with what MLflow's
client says of the same store: they tell when another version of MLflow keeps its records otherwise.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btc_lifecycle.adapters.registry.records import ModelVersion, feature_names_of, utc_time
from btc_lifecycle.adapters.registry.store import SQLITE, unavailable
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row, Select, TableClause

READS = "3.17"
"""The MLflow whose tables these are."""
_COLUMNS = {
    "model_versions": "workspace name version run_id creation_time current_stage",
    "model_version_tags": "workspace name version key value",
    "registered_model_aliases": "workspace name version alias",
    "latest_metrics": "run_uuid key value is_nan",
    "logged_models": "model_id artifact_location lifecycle_stage",
}
_WORKSPACE, _DELETED_VERSION, _DELETED_MODEL = "default", "Deleted_Internal", "deleted"
_NEWEST = "latest"
"""An alias that nobody may set: MLflow takes it for the highest version."""
_SQLITE_WAIT_S, _CONNECT_WAIT_S = 0.5, 3
_DRIVERS_THAT_TAKE_A_WAIT = {"psycopg", "psycopg2", "pymysql", "mysqldb"}
_MISSING = re.compile(
    r"no such (table|column)|Undefined(Table|Column)|doesn't exist|Unknown column"
)


class MlflowDatabase:
    """An MLflow store in a database, such as an SQLite file, which is never created.

    Each look-up opens a connection and closes it, so a database that was replaced is seen.

    Every method raises NeighbourUnavailableError where the database is down, locked or damaged, or
    has other tables, and ConfigurationError where no database can be meant by its URI.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        is_file = uri.startswith(SQLITE)
        self._file = Path(uri.removeprefix(SQLITE)).absolute() if is_file else None

    def version(self, name: str, alias_or_number: str) -> ModelVersion | None:
        """Return a version by alias or number, without its metrics, None where there is none."""
        if alias_or_number.lower() == _NEWEST:
            return next(iter(self.newest_versions(name, limit=1)), None)
        versions, aliases = _table("model_versions"), _table("registered_model_aliases")
        query = _versions_of(name)
        if alias_or_number.isdecimal():
            query = query.where(versions.c.version == int(alias_or_number))
        else:
            is_same = [
                versions.c[key] == aliases.c[key] for key in ("workspace", "name", "version")
            ]
            query = query.where(*is_same, aliases.c.alias == alias_or_number)
        return next(iter(self._records(query)), None)

    def newest_versions(self, name: str, *, limit: int) -> list[ModelVersion]:
        """Return versions of a model, without their metrics, newest first."""
        newest_first = _table("model_versions").c.version.desc()
        return self._records(_versions_of(name).order_by(newest_first).limit(limit))

    def metrics(self, run_ids: Collection[str]) -> dict[str, dict[str, float]]:
        """Return the last value of each metric, by name, of those runs that have any."""
        metrics = _table("latest_metrics")
        query = metrics.select().where(metrics.c.run_uuid.in_(run_ids))
        found: dict[str, dict[str, float]] = defaultdict(dict)
        with self._connection() as connection:
            for row in connection.execute(query):
                found[row.run_uuid][row.key] = math.nan if row.is_nan else float(row.value)
        return dict(found)

    def model_location(self, model_id: str) -> str | None:
        """Return the artifact folder of a logged model, None where there is no such model."""
        models = _table("logged_models")
        query = models.select().where(
            models.c.model_id == model_id, models.c.lifecycle_stage != _DELETED_MODEL
        )
        with self._connection() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else str(found.artifact_location)

    def _records(self, query: Select[Any]) -> list[ModelVersion]:
        if self._is_absent:
            return []
        with self._connection() as connection:
            versions = connection.execute(query).all()
            tags = _tags(connection, versions)
        return [
            ModelVersion(
                name=row.name,
                version=str(row.version),
                run_id=row.run_id or "",
                tags=tags[row.version],
                metrics={},
                feature_names=feature_names_of(tags[row.version]),
                created_at=utc_time(row.creation_time),
            )
            for row in versions
        ]

    @property
    def _is_absent(self) -> bool:
        """Whether it is an SQLite file that nobody created yet, or whose tables are on their way."""
        try:
            return self._file is not None and self._file.stat().st_size == 0
        except FileNotFoundError:
            return True
        except OSError as error:
            raise unavailable(self._uri, str(error)) from error

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._told(error) from error

    @cached_property
    def _engine(self) -> Engine:
        import sqlalchemy  # noqa: PLC0415
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

        if self._file is not None:
            return sqlalchemy.create_engine(
                "sqlite://", creator=self._open_file, poolclass=sqlalchemy.NullPool
            )
        try:
            url = sqlalchemy.make_url(self._uri)
            takes_wait = url.get_dialect().driver in _DRIVERS_THAT_TAKE_A_WAIT
            wait = {"connect_timeout": _CONNECT_WAIT_S} if takes_wait else {}
            return sqlalchemy.create_engine(url, connect_args=wait, poolclass=sqlalchemy.NullPool)
        except (ArgumentError, ImportError, ValueError) as error:
            raise ConfigurationError(
                f"no database can be opened by MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI: {error}",
                hint="correct it, or install the driver that it names",
            ) from error

    def _open_file(self) -> sqlite3.Connection:
        assert self._file is not None  # noqa: S101
        # Not mode=ro: that cannot roll back what a killed writer left, and would fail until another
        # writer comes. Neither creates the file.
        connection = sqlite3.connect(
            f"{self._file.as_uri()}?mode=rw", uri=True, timeout=_SQLITE_WAIT_S
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _told(self, error: Exception) -> NeighbourUnavailableError:
        said = str(error)
        if _MISSING.search(said) is None:
            return unavailable(self._uri, said)
        return NeighbourUnavailableError(
            f"the tables are not those of MLflow {READS}: {said.partition(chr(10))[0]}",
            hint=f"let MLflow {READS} upgrade its database with `mlflow db upgrade`",
        )


def _versions_of(name: str) -> Select[Any]:
    versions = _table("model_versions").c
    return (
        _table("model_versions")
        .select()
        .where(
            versions.workspace == _WORKSPACE,
            versions.name == name,
            versions.current_stage != _DELETED_VERSION,
        )
    )


def _tags(connection: Connection, versions: Collection[Row[Any]]) -> dict[int, dict[str, str]]:
    """Return the tags of versions of one model by number."""
    found: dict[int, dict[str, str]] = {row.version: {} for row in versions}
    if versions:
        tags = _table("model_version_tags")
        query = tags.select().where(
            tags.c.workspace == _WORKSPACE,
            tags.c.name == next(iter(versions)).name,
            tags.c.version.in_(found),
        )
        for row in connection.execute(query):
            found[row.version][row.key] = row.value
    return found


@cache
def _table(name: str) -> TableClause:
    import sqlalchemy  # noqa: PLC0415

    return sqlalchemy.table(name, *map(sqlalchemy.column, _COLUMNS[name].split()))
