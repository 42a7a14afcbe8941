"""Who works on a run: claims, the launcher's answer to run monitoring, and the command line's."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

# What the daemon calls for each started run; Dagster has no public name for it.
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from btc_lifecycle.orchestration.launching import (
    GONE,
    ClaimedRunStorage,
    ClaimingRunLauncher,
    RunClaims,
    is_orphan,
    release_orphans,
)
from btc_lifecycle.orchestration.storage import open_instance

WORKER = """
import sys
import dagster as dg
from btc_lifecycle.orchestration.storage import open_instance

@dg.asset
def endless(context):
    print(context.run.run_id, flush=True)
    sys.stdin.read()

dg.materialize([endless], instance=open_instance())
"""


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def instance(data_dir: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        yield instance


def claims_of(instance: dg.DagsterInstance) -> RunClaims:
    assert isinstance(instance.run_storage, ClaimedRunStorage)
    return instance.run_storage.claims


def add_started(instance: dg.DagsterInstance) -> dg.DagsterRun:
    run = dg.DagsterRun(job_name="ingest_job", status=dg.DagsterRunStatus.STARTED)
    return instance.add_run(run)


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def monitor(instance: dg.DagsterInstance, run_id: str) -> None:
    """Look at a started run as Dagster's daemon does."""
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    monitor_started_run(instance, None, record, logging.getLogger("monitoring"))  # type: ignore[arg-type]


def test_a_run_is_claimed_from_its_start_to_its_end_however_it_ends(
    instance: dg.DagsterInstance, data_dir: Path
) -> None:
    seen = []

    @dg.asset
    def watched(context) -> None:
        seen.append(claims_of(instance).is_claimed(context.run.run_id))
        assert len(seen) == 1

    for succeeds in (True, False):
        result = dg.materialize([watched], instance=instance, raise_on_error=False)
        assert result.success is succeeds
        assert not claims_of(instance).is_claimed(result.run_id)
    assert seen == [True, True]
    assert list((data_dir / "dagster" / "claims").iterdir()) == []


def test_run_monitoring_fails_a_run_once_its_process_is_killed_and_not_before(
    instance: dg.DagsterInstance, data_dir: Path
) -> None:
    """Dagster's own launcher cannot tell, so the run stayed STARTED and its pool stayed taken."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        run_id = worker.stdout.readline().strip()
        monitor(instance, run_id)
        release_orphans(instance)
        assert status_of(instance, run_id) == dg.DagsterRunStatus.STARTED
        worker.kill()
    monitor(instance, run_id)
    assert status_of(instance, run_id) == dg.DagsterRunStatus.FAILURE
    assert list((data_dir / "dagster" / "claims").iterdir()) == []


def test_the_command_line_fails_started_runs_that_nobody_works_on_and_leaves_others_alone(
    instance: dg.DagsterInstance,
) -> None:
    orphan, working = add_started(instance), add_started(instance)
    queued = instance.add_run(
        dg.DagsterRun(job_name="ingest_job", status=dg.DagsterRunStatus.NOT_STARTED)
    )
    claims_of(instance).claim(working.run_id)
    release_orphans(instance)
    assert status_of(instance, orphan.run_id) == dg.DagsterRunStatus.FAILURE
    assert status_of(instance, working.run_id) == dg.DagsterRunStatus.STARTED
    assert status_of(instance, queued.run_id) == dg.DagsterRunStatus.NOT_STARTED
    (failure,) = instance.all_logs(orphan.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert GONE in failure.message


def test_a_run_that_ended_since_it_was_read_is_no_orphan(instance: dg.DagsterInstance) -> None:
    read_before = add_started(instance)
    instance.report_run_canceled(read_before)
    assert not is_orphan(instance, read_before)
    instance.delete_run(read_before.run_id)
    assert not is_orphan(instance, read_before)


def test_a_storage_that_knows_no_claims_has_no_orphans() -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        run = add_started(ephemeral)
        release_orphans(ephemeral)
        assert status_of(ephemeral, run.run_id) == dg.DagsterRunStatus.STARTED


def test_dagster_launches_runs_with_a_launcher_that_knows_their_health(
    instance: dg.DagsterInstance,
) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, ClaimingRunLauncher)
    assert launcher.supports_check_run_worker_health
    assert instance.run_monitoring_enabled


def test_a_claim_belongs_to_who_came_first_until_he_lets_go(tmp_path: Path) -> None:
    first, second = RunClaims(tmp_path / "claims"), RunClaims(tmp_path / "claims")
    assert not second.is_claimed("run")
    first.claim("run")
    second.claim("run")
    second.release("run")
    assert first.is_claimed("run")
    assert second.is_claimed("run")
    first.release("run")
    assert not first.is_claimed("run")
    second.claim("run")
    assert first.is_claimed("run")


def test_what_a_killed_process_left_is_cleared_away_by_who_asks(tmp_path: Path) -> None:
    left = tmp_path / "run.lock"
    left.touch()
    assert not RunClaims(tmp_path).is_claimed("run")
    assert not left.exists()
