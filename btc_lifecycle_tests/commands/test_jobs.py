"""Runs of the command line: their errors, and what killed ones leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from btc_lifecycle.commands.jobs import run_job
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError

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


def test_a_run_returns_its_result_and_is_recorded_with_its_tags(
    instance: dg.DagsterInstance,
) -> None:
    result = run_job(DEFS, instance, "sound_job", assets=["sound"], tags={"asked_by": "test"})
    assert result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
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
