"""Schedules and the sensor: they gather facts, ask the domain and translate the verdict.

All are off until somebody switches them on: a fresh checkout must not call an exchange by itself.
"""

from dataclasses import replace

import dagster as dg

from btc_lifecycle.domain.monitor import retraining
from btc_lifecycle.orchestration.assets import ingest, online
from btc_lifecycle.orchestration.assets.monitor import (
    CHAMPION,
    NO_METRICS,
    count_attempts,
    count_failures,
    newest_facts,
)
from btc_lifecycle.orchestration.jobs import ingest_job, monitoring_job, training_job
from btc_lifecycle.orchestration.upkeep import upkeep_hourly
from btc_lifecycle.settings import Settings

REASON = "btc_lifecycle/retrain_reason"

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.schedule(
    job=ingest_job, cron_schedule="* * * * *", execution_timezone="UTC", name="ingest_every_minute"
)
def ingest_every_minute(
    context: dg.ScheduleEvaluationContext,
) -> dg.RunRequest | dg.SkipReason:
    """Store and check new candles each minute; at the full hour with a report."""
    if context.scheduled_execution_time.minute == 0:
        return dg.RunRequest()
    waiting = dg.RunsFilter(job_name=ingest_job.name, statuses=[dg.DagsterRunStatus.QUEUED])
    if context.instance.get_run_ids(waiting, limit=1):
        # The one that waits, for a training say, will store all that closed meanwhile.
        return dg.SkipReason("an ingest run waits in the queue already")
    return dg.RunRequest(asset_selection=[ingest.candles.key, online.online_features.key])


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
    unfinished = _unfinished_retraining(context.instance)
    if unfinished is not None:
        status = unfinished.status.value.lower().replace("_", " ")
        return dg.SkipReason(f"retraining run {unfinished.run_id} has not ended ({status})")
    facts = replace(
        facts,
        n_attempts=count_attempts(context.instance, facts.champion_version),
        n_failures=count_failures(context.instance, facts.champion_version),
    )
    verdict = retraining.decide(facts, policy=settings.lifecycle.monitor.retraining)
    if not verdict.retrain:
        return dg.SkipReason(verdict.reason)
    return dg.RunRequest(
        # One run for one evaluation, however often the sensor ticks and however the run ends.
        run_key=f"v{facts.champion_version}-window-{facts.market_now:%Y%m%dT%H%M}",
        tags={REASON: verdict.reason, CHAMPION: str(facts.champion_version)},
    )


def _unfinished_retraining(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    unfinished = instance.get_runs(dg.RunsFilter(job_name=training_job.name, statuses=_UNFINISHED))
    return next((run for run in unfinished if CHAMPION in run.tags), None)


SCHEDULES = (ingest_every_minute, monitor_hourly, upkeep_hourly)
SENSORS = (retrain_on_drift,)
