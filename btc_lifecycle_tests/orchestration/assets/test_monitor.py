"""The monitoring stage on a hand-written prediction log: outcomes, drift, verdict, report."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.domain.monitor.retraining import DriftFacts
from btc_lifecycle.domain.tables import CANDLES, DRIFT_METRICS, LABELS, OUTCOMES, PREDICTIONS
from btc_lifecycle.orchestration.assets.monitor import CHAMPION, newest_facts
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.orchestration.prediction_lines import (
    FIRST_OPEN_TIME,
    N_MATURED,
    PROBABILITY_UP,
)
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    NOW,
    Metadata,
    SmallLifecycle,
    small_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def test_predictions_are_imported_once_and_torn_lines_counted(
    life: SmallLifecycle, monitored: Metadata
) -> None:
    made = monitored["predictions"]
    assert (made["records_read"], made["torn_lines"]) == (N_MATURED + 3, 1)
    assert made["new_rows"] == life.warehouse.count(PREDICTIONS) == N_MATURED + 2


def test_only_matured_predictions_have_an_outcome(
    life: SmallLifecycle, monitored: Metadata
) -> None:
    outcomes = life.warehouse.read(OUTCOMES).sort("open_time")
    labels = _matured_labels(life)
    assert outcomes["open_time"].equals(labels["open_time"])
    assert outcomes["direction"].equals(labels["direction"])
    assert monitored["outcomes"]["new_rows"] == labels.height


def test_the_live_log_loss_is_that_of_the_outcomes(
    life: SmallLifecycle, monitored: Metadata
) -> None:
    direction = _matured_labels(life)["direction"]
    n_up, n_down = (direction == 1).sum(), (direction == -1).sum()
    by_hand = -(n_up * math.log(PROBABILITY_UP) + n_down * math.log(1 - PROBABILITY_UP)) / (
        n_up + n_down
    )
    metric = life.warehouse.read(DRIFT_METRICS).row(
        by_predicate=pl.col("metric") == "log_loss", named=True
    )
    assert metric["value"] == pytest.approx(by_hand)
    assert metric["n_rows"] == n_up + n_down
    assert monitored["drift_metrics"]["facts"]["live_log_loss"] == pytest.approx(by_hand)


def test_drift_is_measured_over_the_newest_window_of_the_market(
    life: SmallLifecycle, first_champion: ModelVersion, monitored: Metadata
) -> None:
    metrics = life.warehouse.read(DRIFT_METRICS).filter(metric="psi")
    assert metrics["window_end"].unique().to_list() == [NOW.replace(second=0)]
    assert metrics["window_start"].unique().to_list() == [
        NOW.replace(second=0) - timedelta(hours=24)
    ]
    assert metrics["model_version"].unique().to_list() == [first_champion.version]
    assert set(metrics["feature"]) <= set(first_champion.feature_names)
    assert metrics["n_rows"].unique().to_list() == [1440]


def test_the_sensor_finds_the_facts_that_the_verdict_rests_on(
    life: SmallLifecycle, first_champion: ModelVersion, monitored: Metadata
) -> None:
    facts = newest_facts(life.instance)
    assert facts == DriftFacts.from_json(monitored["drift_metrics"]["facts"])
    assert facts.champion_version == first_champion.version
    assert facts.reference_log_loss == first_champion.metrics["test_log_loss"]
    assert facts.market_now == NOW.replace(second=0)


def test_the_verdict_counts_the_refused_candidate_as_the_last_training(
    refused: Metadata, monitored: Metadata
) -> None:
    made = monitored["drift_metrics"]
    assert made["facts"]["last_trained_at"] == refused["candidate_model"]["test_until"]
    assert made["retrain"] is False
    assert made["reason"].startswith("cooling down until 2024-01-06 23:44 UTC")


def test_monitoring_is_reported_on(life: SmallLifecycle, monitored: Metadata) -> None:
    report = Path(monitored["monitoring_report"]["report"])
    assert report.read_bytes().startswith(b"%PDF")
    assert report.parent.parent == life.settings.report_dir / "monitoring"
    assert list(report.parent.glob("*.png"))


def test_monitoring_twice_adds_and_revises_nothing(
    life: SmallLifecycle, monitored: Metadata
) -> None:
    again = life.run("monitoring_job", "predictions", "outcomes", "drift_metrics")
    assert {(made["new_rows"], made["revised_rows"]) for made in again.values()} == {(0, 0)}
    assert again["drift_metrics"]["facts"] == monitored["drift_metrics"]["facts"]


def test_past_retrainings_of_the_champion_are_counted_as_the_sensor_counts_them(
    life: SmallLifecycle, first_champion: ModelVersion, monitored: Metadata
) -> None:
    """The runs go again, since the lifecycle is shared with other tests."""
    made = monitored["drift_metrics"]["facts"]
    assert (made["n_attempts"], made["n_failures"]) == (0, 0)
    tags = {CHAMPION: first_champion.version}
    runs = [
        life.instance.add_run(dg.DagsterRun(job_name="training_job", tags=tags, status=status))
        for status in (dg.DagsterRunStatus.SUCCESS, *[dg.DagsterRunStatus.FAILURE] * 2)
    ]
    counted = life.run("monitoring_job", "drift_metrics")["drift_metrics"]["facts"]
    for run in runs:
        life.instance.delete_run(run.run_id)
    assert (counted["n_attempts"], counted["n_failures"]) == (1, 2)
    life.run("monitoring_job", "drift_metrics")


def test_before_the_first_model_there_is_nothing_to_measure_and_a_report_all_the_same(
    tmp_path: Path,
) -> None:
    life = _life_with_candles(tmp_path, n=400)
    with life.instance:
        made = life.run("monitoring_job")
    assert made["drift_metrics"]["new_rows"] == 0
    assert made["drift_metrics"]["reason"] == "no champion serves, so nothing can have drifted"
    assert Path(made["monitoring_report"]["report"]).exists()


def test_fewer_candles_than_features_need_are_named_as_the_reason(tmp_path: Path) -> None:
    life = _life_with_candles(tmp_path, n=100)
    with life.instance, pytest.raises(NothingToServeError, match="no features yet"):
        life.run("monitoring_job", "features", "labels", "predictions", "outcomes", "drift_metrics")


def test_monitoring_before_the_first_ingest_says_what_to_do(tmp_path: Path) -> None:
    """Importing predictions makes the database, so that candles were an empty table, not a missing one."""
    life = SmallLifecycle(
        settings=small_settings(tmp_path), instance=dg.DagsterInstance.ephemeral()
    )
    with life.instance:
        life.run("monitoring_job", "predictions")
        with pytest.raises(NothingToServeError, match=r"no candles yet; run \./task ingest"):
            life.run("monitoring_job")


def _matured_labels(life: SmallLifecycle) -> pl.DataFrame:
    span_end = FIRST_OPEN_TIME + timedelta(minutes=N_MATURED)
    labels = life.warehouse.read(LABELS, start=FIRST_OPEN_TIME, end=span_end)
    return labels.filter(pl.col("direction") != 0)


def _life_with_candles(folder: Path, *, n: int) -> SmallLifecycle:
    life = SmallLifecycle(settings=small_settings(folder), instance=dg.DagsterInstance.ephemeral())
    life.warehouse.upsert(CANDLES, make_candles(n), source="synthetic")
    return life
