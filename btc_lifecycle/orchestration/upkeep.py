"""What keeps a lifecycle that runs for years: old runs are forgotten, candles are copied.

What lives here: which runs may go. What does not: where their records lie, which is storage.py's.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice

import dagster as dg

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.warehouse import CandleStore, write_snapshots
from btc_lifecycle.orchestration.assets.common import WAREHOUSE_POOL
from btc_lifecycle.orchestration.assets.monitor import CHAMPION
from btc_lifecycle.orchestration.jobs import MAX_RUNTIME, training_job
from btc_lifecycle.orchestration.storage import delete_runs, newest_records, stray_files
from btc_lifecycle.settings import Settings

BATCH_RUNS = 100
"""Runs whose events are deleted in one transaction, which other processes wait for."""

MAX_RUNS = 5_000
"""Runs that one pass deletes at most; a longer backlog is worked off pass by pass."""

_UNSUCCESSFUL = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True, kw_only=True)
class PruneCounts:
    """What one pass of pruning did.

    Attributes:
        n_successful: Successful runs deleted.
        n_unsuccessful: Failed and canceled runs deleted.
        n_stray_files: Files of events deleted whose runs were gone already.
        n_kept: Runs that are old enough, and are kept for what they record.
    """

    n_successful: int
    n_unsuccessful: int
    n_stray_files: int
    n_kept: int


def prune_runs(
    instance: dg.DagsterInstance, *, successful: timedelta, failed: timedelta, now: datetime
) -> PruneCounts:
    """Delete runs that ended long ago, with all that they left; the oldest first.

    Runs are kept, however old, while they are unfinished, while an asset, partition or check has no
    newer record than theirs, and while retrainings are counted by them.

    Args:
        instance: Where the runs are recorded.
        successful: How long successful runs are kept at least.
        failed: How long failed and canceled runs are kept at least.
        now: The present.
    """
    needed = newest_records(instance) | _counted_by(instance)
    old_successful = _ended_before(instance, [dg.DagsterRunStatus.SUCCESS], until=now - successful)
    old_unsuccessful = _ended_before(instance, _UNSUCCESSFUL, until=now - failed)
    gone = [run_id for run_id in old_successful if run_id not in needed][:MAX_RUNS]
    gone_unsuccessful = [run_id for run_id in old_unsuccessful if run_id not in needed][:MAX_RUNS]
    # Left by runs that were deleted in the UI. New files are let be, as somebody may look at them.
    stray = stray_files(instance, until=now - timedelta(hours=1))
    doomed = [*gone, *gone_unsuccessful, *stray]
    for start in range(0, len(doomed), BATCH_RUNS):
        delete_runs(instance, doomed[start : start + BATCH_RUNS])
    return PruneCounts(
        n_successful=len(gone),
        n_unsuccessful=len(gone_unsuccessful),
        n_stray_files=len(stray),
        n_kept=len(needed.intersection([*old_successful, *old_unsuccessful])),
    )


def _ended_before(
    instance: dg.DagsterInstance, statuses: list[dg.DagsterRunStatus], *, until: datetime
) -> list[str]:
    ended = dg.RunsFilter(statuses=statuses, updated_before=until)
    return list(reversed(instance.get_run_ids(ended)))


def _counted_by(instance: dg.DagsterInstance) -> set[str]:
    """Return the trainings that decide whether another one is asked for, see assets/monitor.py."""
    trainings = instance.get_runs(dg.RunsFilter(job_name=training_job.name))
    # All that were asked for: after a rollback any champion may serve again. There is one a week.
    counted = {run.run_id for run in trainings if CHAMPION in run.tags}
    # Failures are counted back to it.
    succeeded = (run.run_id for run in trainings if run.status is dg.DagsterRunStatus.SUCCESS)
    return counted | set(islice(succeeded, 1))


@dg.op
def prune(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Forget runs that ended long ago and that nothing rests on."""
    policy = settings.lifecycle.upkeep
    counts = prune_runs(
        context.instance,
        successful=timedelta(hours=policy.keep_successful_hours),
        failed=timedelta(days=policy.keep_failed_days),
        now=clock.now(),
    )
    context.add_output_metadata(asdict(counts))


@dg.op(pool=WAREHOUSE_POOL)
def snapshot(
    context: dg.OpExecutionContext,
    settings: dg.ResourceParam[Settings],
    candle_store: dg.ResourceParam[CandleStore],
) -> None:
    """Copy the months that changed, from which a damaged database is made again."""
    if not candle_store.warehouse.path.exists():
        context.log.info("there is no database yet")
        return
    counts = write_snapshots(
        candle_store.warehouse, candle_store.tables, folder=settings.snapshots_dir
    )
    context.add_output_metadata(asdict(counts))


@dg.job(tags={MAX_RUNTIME: "900"})
def upkeep_job() -> None:
    """Bound what a lifecycle that runs for years leaves on the disk, and keep a copy of the rest."""
    prune()
    snapshot()


upkeep_hourly = dg.ScheduleDefinition(
    name="upkeep_hourly",
    job=upkeep_job,
    cron_schedule="35 * * * *",
    execution_timezone="UTC",
    description="Away from the full hour, when the other schedules have more to do.",
)
