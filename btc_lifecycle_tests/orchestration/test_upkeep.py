"""Which runs are forgotten, which never, and that the storage stops growing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.orchestration import upkeep
from btc_lifecycle.orchestration.assets.monitor import CHAMPION, count_attempts, count_failures
from btc_lifecycle.orchestration.build import open_store
from btc_lifecycle.orchestration.jobs import MAX_RUNTIME
from btc_lifecycle.orchestration.storage import open_instance
from btc_lifecycle.orchestration.upkeep import PruneCounts, prune_runs, upkeep_hourly, upkeep_job
from btc_lifecycle.settings import Settings
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.orchestration.small_lifecycle import small_settings

SUCCESS = dg.DagsterRunStatus.SUCCESS
FAILURE = dg.DagsterRunStatus.FAILURE
CANCELED = dg.DagsterRunStatus.CANCELED
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    return tmp_path / "dagster"


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        yield instance


@dg.asset
def candles() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"new_rows": 1})


@dg.asset_check(asset=candles)
def candles_are_whole() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def add_run(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *,
    ended_at: datetime,
    job_name: str = "ingest_job",
    champion: str | None = None,
) -> str:
    """Record a run as having reached a status at some time."""
    tags = {} if champion is None else {CHAMPION: champion}
    run = instance.add_run(dg.DagsterRun(job_name=job_name, tags=tags))
    event_type = {
        SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        FAILURE: dg.DagsterEventType.RUN_FAILURE,
        CANCELED: dg.DagsterEventType.RUN_CANCELED,
        dg.DagsterRunStatus.STARTED: dg.DagsterEventType.RUN_START,
    }[status]
    event = dg.DagsterEvent(event_type.value, job_name)
    instance.run_storage.handle_run_event(run.run_id, event, ended_at)
    return run.run_id


def prune(instance: dg.DagsterInstance, *, now: datetime = NOW) -> PruneCounts:
    return prune_runs(instance, successful=timedelta(hours=48), failed=timedelta(days=14), now=now)


def left(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_run_ids())


def test_successes_go_after_hours_and_failures_after_days(instance: dg.DagsterInstance) -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    gone = {
        add_run(instance, SUCCESS, ended_at=NOW - 49 * hour),
        add_run(instance, FAILURE, ended_at=NOW - 15 * day),
        add_run(instance, CANCELED, ended_at=NOW - 15 * day),
    }
    kept = {
        add_run(instance, SUCCESS, ended_at=NOW - 47 * hour),
        add_run(instance, FAILURE, ended_at=NOW - 13 * day),
        add_run(instance, CANCELED, ended_at=NOW - 13 * day),
    }
    counts = prune(instance)
    assert (counts.n_successful, counts.n_unsuccessful, counts.n_kept) == (1, 2, 0)
    assert left(instance) == kept
    assert not gone & kept


def test_an_unfinished_run_is_never_deleted(instance: dg.DagsterInstance) -> None:
    long_ago = NOW - timedelta(days=400)
    started = add_run(instance, dg.DagsterRunStatus.STARTED, ended_at=long_ago)
    queued = instance.add_run(
        dg.DagsterRun(job_name="ingest_job", status=dg.DagsterRunStatus.NOT_STARTED)
    ).run_id
    prune(instance, now=datetime.now(UTC) + timedelta(days=400))
    assert left(instance) == {started, queued}


def test_what_assets_and_checks_last_were_outlives_its_age(instance: dg.DagsterInstance) -> None:
    runs = [
        dg.materialize([candles, candles_are_whole], instance=instance, run_config=QUIET).run_id
        for _ in range(2)
    ]
    counts = prune(instance, now=datetime.now(UTC) + timedelta(days=400))
    assert counts == PruneCounts(n_successful=1, n_unsuccessful=0, n_stray_files=0, n_kept=1)
    assert left(instance) == {runs[1]}
    event = instance.get_latest_materialization_event(candles.key)
    assert event is not None
    assert event.run_id == runs[1]


def test_the_counts_that_hold_retraining_back_outlive_their_runs_age(
    instance: dg.DagsterInstance,
) -> None:
    """Failures are counted back to the newest success, so that success has to stay as well."""
    trainings = [
        (FAILURE, "3"),
        (SUCCESS, None),
        (SUCCESS, "3"),
        (FAILURE, "3"),
        (SUCCESS, None),
        (FAILURE, None),
        (FAILURE, "3"),
    ]
    for hours, (status, champion) in enumerate(trainings):
        ended_at = NOW - timedelta(days=100) + timedelta(hours=hours)
        add_run(instance, status, ended_at=ended_at, job_name="training_job", champion=champion)
    counted = count_attempts(instance, "3"), count_failures(instance, "3")
    assert counted == (1, 1)
    counts = prune(instance)
    assert (counts.n_successful, counts.n_unsuccessful, counts.n_kept) == (1, 1, 5)
    assert (count_attempts(instance, "3"), count_failures(instance, "3")) == counted


def test_a_long_backlog_is_worked_off_pass_by_pass_the_oldest_first(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MAX_RUNS", 3)
    monkeypatch.setattr(upkeep, "BATCH_RUNS", 2)
    runs = [
        add_run(instance, SUCCESS, ended_at=NOW - timedelta(days=30) + timedelta(hours=hours))
        for hours in range(5)
    ]
    assert prune(instance).n_successful == 3
    assert left(instance) == set(runs[3:])
    assert prune(instance).n_successful == 2
    assert prune(instance).n_successful == 0


def test_what_deletion_in_the_ui_leaves_is_swept(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    run_id = dg.materialize([candles], instance=instance, run_config=QUIET).run_id
    instance.delete_run(run_id)
    assert (folder / "history" / "runs" / f"{run_id}.db").exists()
    assert prune(instance, now=datetime.now(UTC) + timedelta(hours=2)).n_stray_files == 1
    assert not (folder / "history" / "runs" / f"{run_id}.db").exists()


def footprint(folder: Path) -> tuple[int, int]:
    """Return how many files lie in a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


@pytest.mark.parametrize(
    ("n_hours", "runs_per_hour"), [(3, 5), pytest.param(10, 15, marks=pytest.mark.slow)]
)
def test_files_and_bytes_level_off_over_many_runs(
    instance: dg.DagsterInstance, folder: Path, n_hours: int, runs_per_hour: int
) -> None:
    """A run leaves 130 kB; a year of minutes came to 70 GB."""
    job = dg.Definitions(
        assets=[candles],
        asset_checks=[candles_are_whole],
        jobs=[dg.define_asset_job("ingest_job", selection=[candles])],
    ).resolve_job_def("ingest_job")
    footprints = []
    for _ in range(n_hours):
        began_at = datetime.now(UTC)
        for _ in range(runs_per_hour):
            assert job.execute_in_process(instance=instance, run_config=QUIET).success
        age = datetime.now(UTC) - began_at
        prune_runs(instance, successful=age, failed=age, now=datetime.now(UTC))
        footprints.append(footprint(folder))
    n_files, n_bytes = zip(*footprints, strict=True)
    # The runs of one hour stay; the databases stop growing once pages of deleted runs come free.
    assert max(n_files[2:]) <= n_files[1] + 1
    assert max(n_bytes[2:]) <= 1.1 * n_bytes[1]
    assert instance.get_runs_count() <= runs_per_hour + 1


def done(instance: dg.DagsterInstance, settings: Settings) -> dict[str, dict[str, object]]:
    """Return what the steps of one upkeep reported."""
    resources = {"settings": settings, "candle_store": open_store(settings)}
    result = upkeep_job.execute_in_process(instance=instance, run_config=QUIET, resources=resources)
    return {
        event.step_key: {name: v.value for name, v in event.step_output_data.metadata.items()}
        for event in result.all_events
        if event.is_successful_output
    }


def test_before_the_first_ingest_there_is_nothing_to_copy(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    settings = small_settings(tmp_path)
    assert done(instance, settings)["snapshot"] == {}
    assert not settings.feature_db_path.parent.exists()


def test_the_job_runs_hourly_in_bounds_and_reports_what_it_did(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    add_run(instance, SUCCESS, ended_at=NOW)
    settings = small_settings(tmp_path)
    store = open_store(settings)
    store.warehouse.upsert(CANDLES, make_candles(5), source="synthetic")
    metadata = done(instance, settings)
    assert metadata["prune"]["n_successful"] == 1
    assert set(metadata["prune"]) == {"n_successful", "n_unsuccessful", "n_stray_files", "n_kept"}
    assert metadata["snapshot"]["n_unchanged"] == 0
    assert (settings.snapshots_dir / "BTCUSDT" / "2024-01.parquet").exists()
    assert done(instance, settings)["snapshot"]["n_written"] == 0
    assert upkeep_hourly.job_name == "upkeep_job"
    assert upkeep_hourly.cron_schedule == "35 * * * *"
    assert upkeep_hourly.execution_timezone == "UTC"
    assert upkeep_hourly.default_status == dg.DefaultScheduleStatus.STOPPED
    assert int(upkeep_job.tags[MAX_RUNTIME]) <= 3600
