"""Artifact folders that lie on this machine's disk."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from btc_lifecycle.domain.errors import NeighbourUnavailableError


def local_folder(uri: str) -> Path | None:
    """Return where an artifact folder lies on disk, None where it lies elsewhere."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def local_sizes(folder: Path) -> dict[str, int | None]:
    """Return how many bytes each file of a folder has, by name, none where there is no folder.

    It is None for what is not a plain file: reading a folder, a link or a device could take for
    ever.

    Raises:
        NeighbourUnavailableError: If the folder cannot be read.
    """
    with _readable(folder):
        entries = folder.iterdir() if folder.is_dir() else ()
        return {path.name: _plain_size(path) for path in entries}


def local_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each plain file that lies directly in a folder, by name.

    Raises:
        NeighbourUnavailableError: If one cannot be read.
    """
    sizes = local_sizes(folder)
    with _readable(folder):
        return {name: (folder / name).read_bytes() for name in sizes if sizes[name] is not None}


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NeighbourUnavailableError(
            f"artifacts in {folder} cannot be read: {error}",
            hint="check the disk and the folder's permissions, then try again",
        ) from error


def _plain_size(path: Path) -> int | None:
    found = path.lstat()
    return found.st_size if stat.S_ISREG(found.st_mode) else None
