"""The sensor through its retry story, and what the schedules ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

# Dagster refuses a queued run without its origin and has no public name for it.
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from btc_lifecycle.domain.monitor.retraining import DriftFacts
from btc_lifecycle.orchestration.assets.monitor import (
    CHAMPION,
    NO_METRICS,
    count_attempts,
    count_failures,
)
from btc_lifecycle.orchestration.automation import (
    REASON,
    ingest_every_minute,
    monitor_hourly,
    retrain_on_drift,
)
from btc_lifecycle_tests.orchestration.small_lifecycle import LIFECYCLE, small_settings

TRAINED_AT = datetime(2024, 1, 5, 23, 44, tzinfo=UTC)
SUCCESS = dg.DagsterRunStatus.SUCCESS
FAILURE = dg.DagsterRunStatus.FAILURE
CANCELED = dg.DagsterRunStatus.CANCELED
POLICY = LIFECYCLE.monitor.retraining
DRIFTED = DriftFacts(
    drifted=(
        "log_return_1m",
        "rsi_14m",
        "volume_zscore_60m",
        "body_ratio_1m",
        "taker_imbalance_5m",
    ),
    n_monitored=28,
    live_log_loss=None,
    reference_log_loss=0.69,
    n_outcomes=0,
    champion_version="3",
    last_trained_at=TRAINED_AT,
    market_now=TRAINED_AT + timedelta(hours=POLICY.cooldown_hours),
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def record(instance: dg.DagsterInstance, facts: DriftFacts) -> None:
    """Record drift metrics as the asset does."""
    event = dg.AssetMaterialization("drift_metrics", metadata={"facts": facts.to_json()})
    instance.report_runless_asset_event(event)


def tick(instance: dg.DagsterInstance, folder: Path) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(
        instance=instance, resources={"settings": small_settings(folder)}
    ) as context:
        decided = retrain_on_drift(context)
    assert isinstance(decided, dg.RunRequest | dg.SkipReason)
    return decided


def evaluated_after(hours: int) -> DriftFacts:
    """The same drift, found by an evaluation some hours later."""
    return replace(DRIFTED, market_now=DRIFTED.market_now + timedelta(hours=hours))


def requested(instance: dg.DagsterInstance, folder: Path) -> dg.RunRequest:
    decided = tick(instance, folder)
    assert isinstance(decided, dg.RunRequest), decided
    return decided


def skipped_because(instance: dg.DagsterInstance, folder: Path) -> str:
    decided = tick(instance, folder)
    assert isinstance(decided, dg.SkipReason), decided
    return decided.skip_message or ""


def run_asked_for(
    instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    """Leave a run as the daemon does that answers a request."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("lifecycle"), "lifecycle")
    run = dg.DagsterRun(
        job_name="training_job",
        tags=dict(request.tags),
        status=status,
        remote_job_origin=RemoteJobOrigin(repository, "training_job"),
    )
    return instance.add_run(run)


def run_by_hand(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    instance.add_run(dg.DagsterRun(job_name="training_job", status=status))


def test_without_drift_metrics_the_sensor_says_what_to_do(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert tick(instance, tmp_path) == dg.SkipReason(NO_METRICS)


def test_without_drift_the_sensor_gives_the_verdicts_reason(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, replace(DRIFTED, drifted=DRIFTED.drifted[:2]))
    reason = skipped_because(instance, tmp_path)
    assert reason.startswith("2 of 28 features drifted (5 needed): log_return_1m")


def test_the_newest_metrics_count(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    record(instance, DRIFTED)
    record(instance, replace(DRIFTED, drifted=()))
    assert isinstance(tick(instance, tmp_path), dg.SkipReason)


def test_drift_asks_for_one_training_with_its_reason_and_champion(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, DRIFTED)
    request = requested(instance, tmp_path)
    assert request.run_key == "v3-window-20240106T2344"
    assert request.tags[CHAMPION] == "3"
    assert request.tags[REASON].startswith("5 of 28 features drifted (5 needed)")
    assert retrain_on_drift.job_name == "training_job"


@pytest.mark.parametrize("status", [SUCCESS, FAILURE, CANCELED])
def test_an_evaluation_keeps_its_run_key_so_that_it_gives_one_run_and_the_next_another(
    instance: dg.DagsterInstance, tmp_path: Path, status: dg.DagsterRunStatus
) -> None:
    """A retraining whose candidate was refused starts a cooldown besides, which the facts carry."""
    record(instance, DRIFTED)
    first = requested(instance, tmp_path)
    run_asked_for(instance, first, status)
    assert requested(instance, tmp_path).run_key == first.run_key
    record(instance, evaluated_after(hours=1))
    assert requested(instance, tmp_path).run_key == "v3-window-20240107T0044"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (dg.DagsterRunStatus.QUEUED, "queued"),
        (dg.DagsterRunStatus.NOT_STARTED, "not started"),
        (dg.DagsterRunStatus.STARTING, "starting"),
        (dg.DagsterRunStatus.STARTED, "started"),
        (dg.DagsterRunStatus.CANCELING, "canceling"),
    ],
)
def test_an_unfinished_retraining_is_named_and_waited_for(
    instance: dg.DagsterInstance, tmp_path: Path, status: dg.DagsterRunStatus, told: str
) -> None:
    record(instance, DRIFTED)
    run = run_asked_for(instance, requested(instance, tmp_path), status)
    record(instance, evaluated_after(hours=1))
    reason = skipped_because(instance, tmp_path)
    assert reason == f"retraining run {run.run_id} has not ended ({told})"


def test_a_training_by_hand_is_not_waited_for(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    record(instance, DRIFTED)
    run_by_hand(instance, dg.DagsterRunStatus.STARTED)
    assert requested(instance, tmp_path)


def test_failed_runs_are_answered_evaluation_by_evaluation_up_to_the_limit(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run_keys = set()
    for hours in range(POLICY.max_attempts):
        record(instance, evaluated_after(hours))
        request = requested(instance, tmp_path)
        run_keys.add(request.run_key)
        run_asked_for(instance, request, FAILURE)
    assert len(run_keys) == POLICY.max_attempts
    record(instance, evaluated_after(POLICY.max_attempts))
    assert skipped_because(instance, tmp_path).startswith(
        "3 retraining runs for version 3 failed since a training last succeeded (limit 3), look at "
        "them in the UI and train by hand; 5 of 28 features drifted"
    )
    run_by_hand(instance, FAILURE)
    assert skipped_because(instance, tmp_path).startswith("3 retraining runs")
    run_by_hand(instance, SUCCESS)
    assert requested(instance, tmp_path)


def test_ticks_on_one_evaluation_do_not_use_up_the_failures(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, DRIFTED)
    run_asked_for(instance, requested(instance, tmp_path), FAILURE)
    assert len({requested(instance, tmp_path).run_key for _ in range(5)}) == 1


def test_canceled_runs_count_as_neither_attempt_nor_failure(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for hours in range(POLICY.max_attempts + 1):
        record(instance, evaluated_after(hours))
        run_asked_for(instance, requested(instance, tmp_path), CANCELED)
    assert count_attempts(instance, "3") == count_failures(instance, "3") == 0


def test_refused_candidates_are_counted_as_attempts_until_another_champion_serves(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Failures before a success are forgotten, attempts are not."""
    for attempt in range(POLICY.max_attempts):
        for hours in (100 * attempt, 100 * attempt + 1):
            record(instance, evaluated_after(hours))
            status = SUCCESS if hours % 100 else FAILURE
            run_asked_for(instance, requested(instance, tmp_path), status)
    assert count_attempts(instance, "3") == POLICY.max_attempts
    assert count_failures(instance, "3") == 0
    reason = skipped_because(instance, tmp_path)
    assert reason.startswith("3 retrainings did not replace version 3 (limit 3)")
    record(instance, replace(DRIFTED, champion_version="4"))
    assert requested(instance, tmp_path).run_key == "v4-window-20240106T2344"


def test_failures_for_another_champion_do_not_count(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for _ in range(POLICY.max_attempts):
        record(instance, DRIFTED)
        run_asked_for(instance, requested(instance, tmp_path), FAILURE)
    record(instance, replace(DRIFTED, champion_version="4"))
    assert requested(instance, tmp_path)


def test_the_sensor_counts_anew_whatever_the_evaluation_counted(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, replace(DRIFTED, n_attempts=9, n_failures=9))
    assert requested(instance, tmp_path)


@pytest.mark.parametrize("status", [SUCCESS, FAILURE])
def test_trainings_that_the_sensor_did_not_ask_for_are_neither_attempts_nor_failures(
    instance: dg.DagsterInstance, tmp_path: Path, status: dg.DagsterRunStatus
) -> None:
    record(instance, DRIFTED)
    for _ in range(POLICY.max_attempts):
        run_by_hand(instance, status)
    assert requested(instance, tmp_path)
    assert count_attempts(instance, None) == count_failures(instance, None) == 0


def test_a_champion_whose_training_time_is_unknown_can_be_retrained(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, replace(DRIFTED, last_trained_at=None))
    assert requested(instance, tmp_path).run_key == "v3-window-20240106T2344"


@pytest.fixture
def scheduler() -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule opens its own from a reference."""
    with dg.instance_for_test() as instance:
        yield instance


def scheduled(instance: dg.DagsterInstance, time: datetime) -> dg.RunRequest | dg.SkipReason:
    return ingest_every_minute(
        dg.build_schedule_context(instance=instance, scheduled_execution_time=time)
    )


@pytest.mark.parametrize("minute", [1, 30, 59])
def test_each_minute_asks_for_candles_and_what_the_service_predicts_from(
    scheduler: dg.DagsterInstance, minute: int
) -> None:
    request = scheduled(scheduler, datetime(2024, 3, 1, 10, minute, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection == [dg.AssetKey("candles"), dg.AssetKey("online_features")]


def test_the_full_hour_asks_for_candles_and_their_report(
    scheduler: dg.DagsterInstance,
) -> None:
    request = scheduled(scheduler, datetime(2024, 3, 1, 10, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection is None


@pytest.mark.parametrize(
    ("job", "status", "is_asked"),
    [
        ("ingest_job", dg.DagsterRunStatus.QUEUED, False),
        ("ingest_job", dg.DagsterRunStatus.STARTED, True),
        ("ingest_job", dg.DagsterRunStatus.FAILURE, True),
        ("training_job", dg.DagsterRunStatus.QUEUED, True),
    ],
)
def test_no_second_ingest_waits_while_one_does(
    scheduler: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus, is_asked: bool
) -> None:
    """An hour's training left sixty runs in the queue, each to store nothing after the first."""
    # Dagster queues only what came from a code location.
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="btc_lifecycle")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    scheduler.add_run(dg.DagsterRun(job_name=job, status=status, remote_job_origin=origin))
    asked = scheduled(scheduler, datetime(2024, 3, 1, 10, 7, tzinfo=UTC))
    assert isinstance(asked, dg.RunRequest) is is_asked


def test_schedules_run_by_utc_and_monitoring_after_the_hourly_report() -> None:
    assert ingest_every_minute.cron_schedule == "* * * * *"
    assert ingest_every_minute.job_name == "ingest_job"
    assert monitor_hourly.cron_schedule == "5 * * * *"
    assert monitor_hourly.job_name == "monitoring_job"
    assert {ingest_every_minute.execution_timezone, monitor_hourly.execution_timezone} == {"UTC"}
