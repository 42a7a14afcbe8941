"""Running the lifecycle's Dagster jobs in this process, as the command line and the demo do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from btc_lifecycle.domain.errors import LifecycleError

if TYPE_CHECKING:
    import dagster as dg

PID_TAG = "btc_lifecycle/pid"
"""Process that executes a run of the command line; a run whose process is gone is an orphan."""


def run_job(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    *,
    assets: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Execute a job, or some of its assets, and return its result.

    Args:
        defs: The code location.
        instance: Where the run and its events are recorded, as for a run from the UI.
        name: Name of the job.
        assets: Names of the assets to materialize; all of the job's by default.
        tags: Tags of the run.

    Raises:
        LifecycleError: The one that the failed step raised on purpose; others as they are.
    """
    import dagster as dg  # noqa: PLC0415  # two thirds of a second

    release_orphans(instance)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    try:
        return defs.resolve_job_def(name).execute_in_process(
            instance=instance,
            run_config=quiet,
            asset_selection=[dg.AssetKey(asset) for asset in assets] if assets else None,
            tags={PID_TAG: str(os.getpid()), **(tags or {})},
        )
    except dg.DagsterError as error:
        failed = error
    # Raised out here, where Python does not chain the error to itself.
    raise _purposeful(failed) or failed


def release_orphans(instance: dg.DagsterInstance) -> None:
    """Fail runs of the command line whose process is gone, and free the pool slots they held.

    Without this a killed command would keep the warehouse's pool taken until a Dagster daemon
    comes by, which somebody who only uses the command line never starts.
    """
    import dagster as dg  # noqa: PLC0415

    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        pid = run.tags.get(PID_TAG)
        if pid is not None and not _is_alive(int(pid)):
            instance.report_run_failed(run, f"process {pid} is gone")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _purposeful(error: BaseException | None) -> LifecycleError | None:
    while error is not None:
        if isinstance(error, LifecycleError):
            return error
        error = error.__cause__
    return None
