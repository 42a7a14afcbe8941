"""What DuckDB's errors mean for the file: it is damaged, or its place cannot be read or written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError

_PLACE = (
    "Could not write",
    "Could not sync",
    "Could not truncate",
    "Cannot open",
    "Is a directory",
    "Permission denied",
    "Read-only file system",
    "No space left",
)
"""Said of a disk, a folder or a permission; an error that is also fatal to DuckDB says so too."""

_DAMAGE = (
    "Corrupt",
    "Could not read enough bytes",
    "not a valid DuckDB database",
    "Failure while replaying WAL",
)


def manifest_path(database: Path) -> Path:
    """Return where the manifest of a database lies."""
    return database.with_name(f"{database.name}.manifest.json")


def log_path(database: Path) -> Path:
    """Return where DuckDB keeps what was committed and not yet moved into the file."""
    return database.with_name(f"{database.name}.wal")


def lost(database: Path, missing: list[str]) -> DataError:
    """Return the error for a database that holds less than its manifest records."""
    return DataError(
        f"{database} lost candles: {'; '.join(missing)}",
        hint="run ./task rebuild to bring them back; if they were removed on purpose, delete "
        f"{manifest_path(database)}",
    )


@contextmanager
def told_plainly(database: Path) -> Iterator[None]:
    """Say what an error of DuckDB means where the file or its place is at fault.

    Raises:
        DataError: If the file is damaged.
        NeighbourUnavailableError: If its place cannot be read or written.
    """
    import duckdb  # noqa: PLC0415  # a tenth of a second that the service need not pay

    try:
        yield
    except duckdb.Error as error:
        said = str(error)
        if any(words in said for words in _PLACE):
            raise unusable(database, said) from error
        is_broken = isinstance(error, duckdb.InternalException | duckdb.FatalException)
        if is_broken or any(words in said for words in _DAMAGE):
            raise DataError(
                f"{database} is damaged: {said}",
                hint="run ./task rebuild to set the file aside and bring back its snapshots",
            ) from error
        if isinstance(error, duckdb.IOException):
            raise unusable(database, said) from error
        raise


def unusable(database: Path, said: str) -> NeighbourUnavailableError:
    """Return the error for a database whose place cannot be used."""
    return NeighbourUnavailableError(
        f"{database} could not be opened, read or written: {said}",
        hint="check the path, its permissions and free disk space, then run this again; nothing "
        "that was stored before is lost",
    )
