"""The sensor through its retry story, and what the schedules ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.domain.monitor.retraining import DriftFacts
from btc_lifecycle.orchestration.assets.monitor import NO_METRICS
from btc_lifecycle.orchestration.automation import (
    CAUSE,
    CHAMPION,
    REASON,
    ingest_every_minute,
    monitor_hourly,
    retrain_on_drift,
)
from btc_lifecycle_tests.orchestration.small_lifecycle import LIFECYCLE, small_settings

TRAINED_AT = datetime(2024, 1, 5, 23, 44, tzinfo=UTC)
CAUSE_OF_FACTS = "v3-trained-20240105T2344"
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


def run_asked_for(
    instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus
) -> None:
    """Leave a run as the daemon does that answers a request."""
    instance.add_run(dg.DagsterRun(job_name="training_job", tags=dict(request.tags), status=status))


def test_without_drift_metrics_the_sensor_says_what_to_do(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert tick(instance, tmp_path) == dg.SkipReason(NO_METRICS)


def test_without_drift_the_sensor_gives_the_verdicts_reason(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, replace(DRIFTED, drifted=DRIFTED.drifted[:2]))
    skipped = tick(instance, tmp_path)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message is not None
    assert skipped.skip_message.startswith("2 of 28 features drifted (5 needed): log_return_1m")


def test_the_newest_metrics_count(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    record(instance, DRIFTED)
    record(instance, replace(DRIFTED, drifted=()))
    assert isinstance(tick(instance, tmp_path), dg.SkipReason)


def test_drift_asks_for_one_training_with_its_reason_and_cause(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, DRIFTED)
    request = tick(instance, tmp_path)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == f"{CAUSE_OF_FACTS}-try-1"
    assert request.tags[CAUSE] == CAUSE_OF_FACTS
    assert request.tags[CHAMPION] == "3"
    assert request.tags[REASON].startswith("5 of 28 features drifted (5 needed)")
    assert retrain_on_drift.job_name == "training_job"


@pytest.mark.parametrize(
    "status",
    [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED],
)
def test_the_same_cause_keeps_its_run_key_so_that_no_second_run_starts(
    instance: dg.DagsterInstance, tmp_path: Path, status: dg.DagsterRunStatus
) -> None:
    record(instance, DRIFTED)
    first = tick(instance, tmp_path)
    assert isinstance(first, dg.RunRequest)
    run_asked_for(instance, first, status)
    again = tick(instance, tmp_path)
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == first.run_key


def test_a_failed_run_makes_room_for_another_until_the_limit_of_attempts(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, DRIFTED)
    for attempt in range(1, POLICY.max_attempts + 1):
        request = tick(instance, tmp_path)
        assert isinstance(request, dg.RunRequest)
        assert request.run_key == f"{CAUSE_OF_FACTS}-try-{attempt}"
        run_asked_for(instance, request, dg.DagsterRunStatus.FAILURE)
    skipped = tick(instance, tmp_path)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message is not None
    assert skipped.skip_message.startswith("3 retrainings did not replace version 3 (limit 3)")


def test_refused_candidates_count_as_attempts_too(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Each moves the time of the newest training, and so the cause, but not the champion."""
    for days in range(POLICY.max_attempts):
        trained_at = TRAINED_AT + timedelta(days=2 * days)
        record(
            instance,
            replace(DRIFTED, last_trained_at=trained_at, market_now=trained_at + timedelta(days=1)),
        )
        request = tick(instance, tmp_path)
        assert isinstance(request, dg.RunRequest)
        run_asked_for(instance, request, dg.DagsterRunStatus.SUCCESS)
    assert isinstance(tick(instance, tmp_path), dg.SkipReason)
    record(instance, replace(DRIFTED, champion_version="4"))
    assert isinstance(tick(instance, tmp_path), dg.RunRequest)


def test_trainings_that_the_sensor_did_not_ask_for_are_no_attempts(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, DRIFTED)
    for _ in range(POLICY.max_attempts):
        instance.add_run(dg.DagsterRun(job_name="training_job", status=dg.DagsterRunStatus.FAILURE))
    request = tick(instance, tmp_path)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == f"{CAUSE_OF_FACTS}-try-1"


def test_a_champion_whose_training_time_is_unknown_can_be_retrained(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    record(instance, replace(DRIFTED, last_trained_at=None))
    request = tick(instance, tmp_path)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "v3-trained-unknown-try-1"


def scheduled(time: datetime) -> dg.RunRequest:
    request = ingest_every_minute(dg.build_schedule_context(scheduled_execution_time=time))
    assert isinstance(request, dg.RunRequest)
    return request


@pytest.mark.parametrize("minute", [1, 30, 59])
def test_each_minute_asks_for_candles_alone(minute: int) -> None:
    request = scheduled(datetime(2024, 3, 1, 10, minute, tzinfo=UTC))
    assert request.asset_selection == [dg.AssetKey("candles")]


def test_the_full_hour_asks_for_candles_and_their_report() -> None:
    assert scheduled(datetime(2024, 3, 1, 10, tzinfo=UTC)).asset_selection is None


def test_schedules_run_by_utc_and_monitoring_after_the_hourly_report() -> None:
    assert ingest_every_minute.cron_schedule == "* * * * *"
    assert ingest_every_minute.job_name == "ingest_job"
    assert monitor_hourly.cron_schedule == "5 * * * *"
    assert monitor_hourly.job_name == "monitoring_job"
    assert {ingest_every_minute.execution_timezone, monitor_hourly.execution_timezone} == {"UTC"}
