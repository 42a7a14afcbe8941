"""Runs of the command line: their errors, and what killed ones leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.commands.jobs import PID_TAG, release_orphans, run_job
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.orchestration.storage import open_instance

POOL = "warehouse"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dg.asset
def sound() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"answer": 42})


@dg.asset
def refused() -> None:
    raise DataError("a candle broke a rule", hint="look at it") from OSError("the disk said no")


@dg.asset
def broken() -> None:
    raise ZeroDivisionError("a defect")


class RefusingIOManager(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise DataError("rows were refused", hint="look at them")

    def load_input(self, context: dg.InputContext) -> object:
        raise AssertionError


@dg.asset(io_manager_key="refusing")
def stored_badly() -> int:
    return 1


@dg.resource
def absent_neighbour(context: dg.InitResourceContext) -> object:
    raise NeighbourUnavailableError("the registry is down", hint="wait for it")


@dg.asset(required_resource_keys={"neighbour"})
def dependent() -> None: ...


ASSETS = (sound, refused, broken, stored_badly, dependent)
DEFS = dg.Definitions(
    assets=ASSETS,
    jobs=[
        dg.define_asset_job(
            f"{asset.key.to_user_string()}_job",
            selection=[asset],
            executor_def=dg.in_process_executor,
        )
        for asset in ASSETS
    ],
    resources={"refusing": RefusingIOManager(), "neighbour": absent_neighbour},
)


def test_a_run_returns_its_result_and_is_recorded_with_its_process(
    instance: dg.DagsterInstance,
) -> None:
    result = run_job(DEFS, instance, "sound_job", assets=["sound"], tags={"asked_by": "test"})
    assert result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[PID_TAG] == str(os.getpid())
    assert run.tags["asked_by"] == "test"


def test_a_step_that_fails_on_purpose_raises_its_own_error_with_its_own_cause(
    instance: dg.DagsterInstance,
) -> None:
    with pytest.raises(DataError, match="a candle broke a rule; look at it") as caught:
        run_job(DEFS, instance, "refused_job")
    assert isinstance(caught.value.__cause__, OSError)
    (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.FAILURE


def test_a_store_that_fails_on_purpose_raises_its_own_error(instance: dg.DagsterInstance) -> None:
    with pytest.raises(DataError, match="rows were refused"):
        run_job(DEFS, instance, "stored_badly_job")


def test_a_resource_that_fails_on_purpose_is_found_under_dagsters_wrapping(
    instance: dg.DagsterInstance,
) -> None:
    with pytest.raises(NeighbourUnavailableError, match="the registry is down; wait for it"):
        run_job(DEFS, instance, "dependent_job")


def test_a_defect_stays_what_it_is(instance: dg.DagsterInstance) -> None:
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run_job(DEFS, instance, "broken_job")


def test_an_unknown_asset_is_dagsters_own_error(instance: dg.DagsterInstance) -> None:
    with pytest.raises(dg.DagsterError, match="unheard_of"):
        run_job(DEFS, instance, "sound_job", assets=["unheard_of"])


@pytest.fixture
def stored_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of dagster.yaml, whose pool the runs of several processes share."""
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    with open_instance() as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
        yield instance


def run_of(
    instance: dg.DagsterInstance,
    pid: int | None,
    *,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
) -> str:
    tags = {} if pid is None else {PID_TAG: str(pid)}
    run = dg.DagsterRun(job_name="ingest_job", tags=tags, status=status)
    return instance.add_run(run).run_id


def claim(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run's step got the pool's only slot."""
    storage = instance.event_log_storage
    return storage.claim_concurrency_slot(POOL, run_id, "candles").is_claimed


def pid_that_is_gone() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
def test_a_run_whose_process_is_gone_is_failed_and_gives_its_slot_back(
    stored_instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    orphan = run_of(stored_instance, pid_that_is_gone(), status=status)
    next_run = run_of(stored_instance, os.getpid())
    assert claim(stored_instance, orphan)
    assert not claim(stored_instance, next_run)
    release_orphans(stored_instance)
    run = stored_instance.get_run_by_id(orphan)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert claim(stored_instance, next_run)


@pytest.mark.parametrize("pid", [os.getpid(), 1, None], ids=["own", "of another user", "of the UI"])
def test_a_run_that_lives_or_is_not_the_command_lines_is_left_alone(
    stored_instance: dg.DagsterInstance, pid: int | None
) -> None:
    living = run_of(stored_instance, pid)
    assert claim(stored_instance, living)
    release_orphans(stored_instance)
    run = stored_instance.get_run_by_id(living)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.STARTED
    assert not claim(stored_instance, run_of(stored_instance, os.getpid()))


def test_a_process_of_another_user_counts_as_living(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    living = run_of(instance, 12345)
    release_orphans(instance)
    run = instance.get_run_by_id(living)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.STARTED
