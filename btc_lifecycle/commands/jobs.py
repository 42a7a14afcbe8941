"""Running the lifecycle's Dagster jobs in this process, as the command line and the demo do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from btc_lifecycle.domain.errors import LifecycleError

if TYPE_CHECKING:
    import dagster as dg


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

    from btc_lifecycle.orchestration.launching import release_orphans  # noqa: PLC0415

    release_orphans(instance)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    try:
        return defs.resolve_job_def(name).execute_in_process(
            instance=instance,
            run_config=quiet,
            asset_selection=[dg.AssetKey(asset) for asset in assets] if assets else None,
            tags=tags,
        )
    except dg.DagsterError as error:
        failed = error
    # Raised out here, where Python does not chain the error to itself.
    raise _purposeful(failed) or failed


def _purposeful(error: BaseException | None) -> LifecycleError | None:
    while error is not None:
        if isinstance(error, LifecycleError):
            return error
        error = error.__cause__
    return None
