"""Which runs a living process works on, so that killed ones are failed and the others left alone.

A process claims a run by a lock on a file, from the run's start to its end. The operating system lets
go of the lock however the process ends; process ids are given out again, and clocks get set.
"""

from datetime import datetime
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.runs import SqliteRunStorage
from filelock import FileLock, Timeout

GONE = "the process that worked on it is gone"

_ENDS = frozenset(
    {
        dg.DagsterEventType.RUN_SUCCESS,
        dg.DagsterEventType.RUN_FAILURE,
        dg.DagsterEventType.RUN_CANCELED,
    }
)


class RunClaims:
    """Locks on files of one folder, each held by the process that works on a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}

    def claim(self, run_id: str) -> None:
        """Hold the run until ``release`` or the end of this process, unless another process does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not bound to a thread: nobody promises that a run ends in the one that began it.
        lock = FileLock(self._path(run_id), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return
        self._held[run_id] = lock

    def release(self, run_id: str) -> None:
        """Let go of the run if this process holds it."""
        lock = self._held.pop(run_id, None)
        if lock is not None:
            lock.release()
            self._path(run_id).unlink(missing_ok=True)

    def is_claimed(self, run_id: str) -> bool:
        """Return whether a living process holds the run, this one included."""
        path = self._path(run_id)
        if not path.exists():
            return False
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.lock"


class ClaimedRunStorage(SqliteRunStorage):
    """Dagster's run storage; the process that starts a run claims it until the run has ended."""

    def __init__(self, connection: str, *, claims: RunClaims) -> None:
        super().__init__(connection)
        self.claims = claims

    def handle_run_event(
        self, run_id: str, event: dg.DagsterEvent, update_timestamp: datetime | None = None
    ) -> None:
        """Store what an event says of its run; whoever sees it started sees it claimed."""
        if event.event_type is dg.DagsterEventType.RUN_START:
            self.claims.claim(run_id)
        super().handle_run_event(run_id, event, update_timestamp)
        if event.event_type in _ENDS:
            self.claims.release(run_id)


class ClaimingRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher, which besides tells run monitoring whose process is gone."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks for the state of each started run."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a process works on a started run, whoever launched it."""
        if is_orphan(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def is_orphan(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether nobody works on a started run of a storage that knows who works on what."""
    storage = instance.run_storage
    if not isinstance(storage, ClaimedRunStorage) or storage.claims.is_claimed(run.run_id):
        return False
    # Its end may have been stored since it was read: a run is stored as ended, then let go.
    read_again = instance.get_run_by_id(run.run_id)
    return read_again is not None and read_again.status is dg.DagsterRunStatus.STARTED


def release_orphans(instance: dg.DagsterInstance) -> None:
    """Fail started runs that nobody works on.

    Dagster's daemon does the same every few seconds, but somebody who only uses the command line
    never starts it.
    """
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    for run in instance.get_runs(started):
        if is_orphan(instance, run):
            instance.report_run_failed(run, GONE)
