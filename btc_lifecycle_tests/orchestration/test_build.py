"""The code location as a whole: it loads, its graph is the golden one, automation is off at first."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from btc_lifecycle.orchestration.build import build_defs
from btc_lifecycle.settings import ROOT, load_settings

GOLDEN = Path(__file__).parents[1] / "golden" / "asset_graph.json"
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture
def defs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    return build_defs(load_settings())


def test_definitions_load(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_asset_graph_equals_the_golden_one(defs: dg.Definitions) -> None:
    graph = {
        spec.key.to_user_string(): {
            "group": spec.group_name,
            "reads": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        }
        for spec in defs.resolve_all_asset_specs()
    }
    assert graph == json.loads(GOLDEN.read_text("utf-8"))


def test_every_asset_is_made_by_a_job(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    made = {
        key
        for job in repository.get_all_jobs()
        if job.name != "__ASSET_JOB"
        for key in job.asset_layer.selected_asset_keys
    }
    assert made == {spec.key for spec in defs.resolve_all_asset_specs()}


def test_jobs_schedules_and_sensor_have_their_public_names(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs()} - {"__ASSET_JOB"}
    assert jobs == {"ingest_job", "backfill_job", "training_job", "monitoring_job", "upkeep_job"}
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "ingest_every_minute",
        "monitor_hourly",
        "upkeep_hourly",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {"retrain_on_drift"}


def test_nothing_calls_an_exchange_before_somebody_switches_it_on(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    statuses = {schedule.default_status for schedule in repository.schedule_defs}
    assert statuses == {dg.DefaultScheduleStatus.STOPPED}
    assert {sensor.default_status for sensor in repository.sensor_defs} == {
        dg.DefaultSensorStatus.STOPPED
    }


def test_resources_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    exchange = object()
    defs = build_defs(load_settings(), resources={"exchange": exchange})
    assert (defs.resources or {})["exchange"] is exchange


def test_workspace_names_the_code_location() -> None:
    workspace = (ROOT / "workspace.yaml").read_text("utf-8")
    assert "module_name: btc_lifecycle.definitions" in workspace
    assert "location_name: btc_lifecycle" in workspace
