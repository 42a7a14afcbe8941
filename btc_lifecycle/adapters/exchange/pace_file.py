"""The file that keeps the ``PaceState`` of one address for all processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from btc_lifecycle.adapters.exchange.pace_state import PaceState
from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

_N_BYTES = 512
_LOCK_S = 10.0


class PaceFile:
    """A small file under a lock; what it holds cannot stop its readers, whatever it is."""

    def __init__(self, path: Path) -> None:
        """Prepare; the folder is made at the first lock."""
        self._path = path
        self._lock = FileLock(f"{path}.lock", timeout=_LOCK_S, poll_interval=0.005)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out.

        Raises:
            ConfigurationError: If the folder cannot be written.
            NeighbourUnavailableError: If another process keeps the lock.
        """
        try:
            with self._lock:
                yield
        except Timeout as error:
            raise NeighbourUnavailableError(
                f"another process has held {self._lock.lock_file} for {_LOCK_S:g} s",
                hint="if it hangs, end it; the next ingest continues where this one stopped",
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"the pace of requests cannot be kept in {self._path.parent} "
                f"({error.strerror or error})",
                hint="make the folder writable or make room on its disk; nothing was requested",
            ) from error

    def read(self, *, now: float) -> PaceState:
        """Return the state; as if nothing was known when it cannot be read."""
        try:
            with self._path.open("rb", buffering=0) as file:
                text = file.read(_N_BYTES)
        except OSError:
            text = b""
        return PaceState.from_json(text, now=now)

    def write(self, state: PaceState) -> None:
        """Keep the state of a moment: whole after a kill, perhaps lost with the power."""
        # One write of one length in place needs neither truncation nor a second file. That costs a
        # thirtieth of a replaced file, and it is done for each request.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.write(file, state.to_json().ljust(_N_BYTES))
        finally:
            os.close(file)

    def write_durably(self, state: PaceState) -> None:
        """Keep a state that must outlast a loss of power."""
        write_atomically(self._path, state.to_json().decode())
