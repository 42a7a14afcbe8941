"""Schedules and the sensor: they gather facts, ask the domain and translate the verdict.

All are off until somebody switches them on: a fresh checkout must not call an exchange by itself.
"""

from dataclasses import replace

import dagster as dg

from btc_lifecycle.domain.monitor import retraining
from btc_lifecycle.orchestration.assets import ingest
from btc_lifecycle.orchestration.assets.monitor import NO_METRICS, newest_facts
from btc_lifecycle.orchestration.jobs import ingest_job, monitoring_job, training_job
from btc_lifecycle.settings import Settings

REASON = "btc_lifecycle/retrain_reason"
CAUSE = "btc_lifecycle/retrain_cause"
"""Tag of a retraining run: the champion and training that it is an answer to."""

CHAMPION = "btc_lifecycle/retrain_champion"


@dg.schedule(
    job=ingest_job, cron_schedule="* * * * *", execution_timezone="UTC", name="ingest_every_minute"
)
def ingest_every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Store new candles each minute; at the full hour with a report."""
    is_full_hour = context.scheduled_execution_time.minute == 0
    return dg.RunRequest(asset_selection=None if is_full_hour else [ingest.candles.key])


monitor_hourly = dg.ScheduleDefinition(
    name="monitor_hourly",
    job=monitoring_job,
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    description="Five minutes after the hour, when the hourly ingest report is done.",
)


@dg.sensor(job=training_job, minimum_interval_seconds=60, name="retrain_on_drift")
def retrain_on_drift(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a retraining when the verdict on the newest drift metrics says so; carry its reason."""
    facts = newest_facts(context.instance)
    if facts is None:
        return dg.SkipReason(NO_METRICS)
    facts = replace(facts, n_attempts=_count_attempts(context.instance, facts))
    verdict = retraining.decide(facts, policy=settings.lifecycle.monitor.retraining)
    if not verdict.retrain:
        return dg.SkipReason(verdict.reason)
    # One run for one cause, however often the sensor ticks; a failed run makes room for another.
    trained = f"{facts.last_trained_at:%Y%m%dT%H%M}" if facts.last_trained_at else "unknown"
    cause = f"v{facts.champion_version}-trained-{trained}"
    n_failed = _count_runs(context.instance, {CAUSE: cause}, status=dg.DagsterRunStatus.FAILURE)
    return dg.RunRequest(
        run_key=f"{cause}-try-{n_failed + 1}",
        tags={
            REASON: verdict.reason,
            CAUSE: cause,
            CHAMPION: str(facts.champion_version),
        },
    )


def _count_attempts(instance: dg.DagsterInstance, facts: retraining.DriftFacts) -> int:
    return _count_runs(instance, {CHAMPION: str(facts.champion_version)})


def _count_runs(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    *,
    status: dg.DagsterRunStatus | None = None,
) -> int:
    statuses = [status] if status else []
    return instance.get_runs_count(
        dg.RunsFilter(tags=tags, statuses=statuses, job_name=training_job.name)
    )


SCHEDULES = (ingest_every_minute, monitor_hourly)
SENSORS = (retrain_on_drift,)
