"""The learning stage on real stores: tables, candidate, scores, gate, aliases, report."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.learn.features import WARMUP_MIN
from btc_lifecycle.domain.monitor.reference import Reference
from btc_lifecycle.domain.tables import ALIAS_MOVES, CANDLES, FEATURES, LABELS
from btc_lifecycle.orchestration.learning import DRIFT_REFERENCE
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    LIFECYCLE,
    LIMIT,
    Metadata,
    SmallLifecycle,
    with_window_days,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

HORIZON_MIN = LIFECYCLE.learn.labels.horizon_min


def test_features_start_after_their_warm_up(life: SmallLifecycle, trained: Metadata) -> None:
    candles, features = life.warehouse.read(CANDLES), life.warehouse.read(FEATURES)
    assert features["open_time"].equals(candles["open_time"][WARMUP_MIN:])
    assert trained["features"]["new_rows"] == LIMIT - WARMUP_MIN


def test_labels_end_where_the_future_is_unknown(life: SmallLifecycle, trained: Metadata) -> None:
    candles, labels = life.warehouse.read(CANDLES), life.warehouse.read(LABELS)
    assert labels["open_time"].equals(candles["open_time"][:-HORIZON_MIN])
    close = candles["close"]
    assert labels["forward_log_return"][0] == pytest.approx(math.log(close[HORIZON_MIN] / close[0]))


def test_tables_only_gain_rows(life: SmallLifecycle, trained: Metadata) -> None:
    """A shorter window computes fewer rows; those that are stored stay as they are."""
    before = life.warehouse.read(FEATURES), life.warehouse.read(LABELS)
    short = with_window_days(life.settings, 1)
    made = life.run("training_job", "features", "labels", settings=short)
    assert life.warehouse.read(FEATURES).equals(before[0])
    assert life.warehouse.read(LABELS).equals(before[1])
    assert made["features"]["new_rows"] == made["features"]["revised_rows"] == 0
    assert made["labels"]["new_rows"] == made["labels"]["revised_rows"] == 0


def test_the_first_candidate_that_beats_the_prior_serves(
    first_champion: ModelVersion, trained: Metadata
) -> None:
    decision, scores = trained["production_model"], trained["evaluation"]
    assert first_champion.version == decision["model_version"] == "1"
    assert decision["promoted"] is True
    assert scores["test_log_loss"] < scores["prior_log_loss"]
    assert decision["verdict"] == "promoted"
    assert "beats prior by" in decision["reason"]
    assert first_champion.tags["verdict"] == "promoted"
    assert first_champion.tags["verdict_reason"] == decision["reason"]


def test_a_version_carries_what_it_was_trained_on(
    life: SmallLifecycle, first_champion: ModelVersion, trained: Metadata
) -> None:
    tags, facts = first_champion.tags, trained["candidate_model"]
    assert tags["source"] == "synthetic"
    assert tags["horizon_min"] == str(HORIZON_MIN)
    assert tags["data_sha256"] == facts["data_sha256"]
    assert tags["trained_from"] < tags["trained_until"] <= tags["test_from"] < tags["test_until"]
    assert first_champion.run_id == facts["mlflow_run_id"]
    document = life.registry.read_json(first_champion.run_id, DRIFT_REFERENCE)
    assert Reference.from_json(document).features


def test_scores_rest_on_rows_whose_labels_nobody_trained_on(
    life: SmallLifecycle, first_champion: ModelVersion, trained: Metadata
) -> None:
    test_rows = _examples(life).filter(
        pl.col("open_time") >= datetime.fromisoformat(first_champion.tags["walked_from"])
    )
    assert trained["evaluation"]["test_n_rows"] == test_rows.height
    assert first_champion.tags["trained_until"] <= first_champion.tags["test_from"]
    assert first_champion.metrics["test_log_loss"] == trained["evaluation"]["test_log_loss"]


def test_registering_twice_changes_nothing(
    life: SmallLifecycle, first_champion: ModelVersion, registered_again: Metadata
) -> None:
    assert registered_again["production_model"]["reason"] == "version 1 already serves"
    assert registered_again["production_model"]["promoted"] is True
    version = life.registry.version("1")
    assert version is not None
    assert version.tags == first_champion.tags


def test_a_worse_candidate_is_registered_refused_and_never_serves(
    life: SmallLifecycle, refused: Metadata
) -> None:
    decision = refused["production_model"]
    assert decision["promoted"] is False
    assert decision["model_version"] == "2"
    champion, candidate = life.registry.champion(), life.registry.candidate()
    assert champion is not None
    assert candidate is not None
    assert (champion.version, candidate.version) == ("1", "2")
    assert candidate.tags["verdict"] == "refused"
    assert candidate.tags["verdict_reason"] == decision["reason"]
    assert life.registry.version("previous") is None


def test_the_champion_is_judged_only_on_rows_after_its_training(
    life: SmallLifecycle, first_champion: ModelVersion, refused: Metadata
) -> None:
    """The candidate's own test rows begin earlier, among those that the champion learnt from."""
    assert refused["candidate_model"]["test_from"] < first_champion.tags["trained_until"]
    unseen_by_both = _examples(life).filter(
        pl.col("open_time") >= datetime.fromisoformat(first_champion.tags["trained_until"])
    )
    assert unseen_by_both.height < refused["evaluation"]["test_n_rows"]
    reason = refused["production_model"]["reason"]
    assert f"on {unseen_by_both.height:,} unseen rows of 2 days" in reason
    assert reason.endswith("champion 1 stays")


def test_both_decisions_are_reported_on(
    life: SmallLifecycle, trained: Metadata, refused: Metadata
) -> None:
    for made in (trained, refused):
        report = Path(made["model_report"]["report"])
        assert report.read_bytes().startswith(b"%PDF")
        assert report.parent.parent == life.settings.report_dir / "modeling"
        assert list(report.parent.glob("*.png"))


def test_training_runs_end_finished_one_for_each_dagster_run(
    life: SmallLifecycle, trained: Metadata, refused: Metadata
) -> None:
    import mlflow

    run_ids = [made["candidate_model"]["mlflow_run_id"] for made in (trained, refused)]
    client = mlflow.MlflowClient(life.settings.mlflow_tracking_uri)
    runs = [client.get_run(run_id) for run_id in run_ids]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert len({run.data.tags["dagster_run_id"] for run in runs}) == 2


def test_the_volatility_s_candidate_goes_the_same_way(
    life: SmallLifecycle, trained: Metadata, registered_again: Metadata
) -> None:
    """Its own registered model, with its own verdict; the direction's is not touched by it."""
    made = trained["candidate_volatility"]
    candidate = life.volatility_registry.candidate_of(made["mlflow_run_id"])
    assert (candidate.name, candidate.version) == ("bitcoin-volatility", "1")
    assert candidate.tags["predicts"] == "volatility"
    assert candidate.tags["verdict"] == trained["production_volatility"]["verdict"]
    assert candidate.metrics["test_mse"] == made["test_mse"]
    assert {"har_mse", "last_value_mse"} <= set(made)
    again = registered_again["production_volatility"]
    assert again["model_version"] == "1"
    assert again["verdict"] == candidate.tags["verdict"]


def test_every_move_of_an_alias_is_kept_with_its_reason(
    life: SmallLifecycle, first_champion: ModelVersion, refused: Metadata
) -> None:
    moves = life.warehouse.read(ALIAS_MOVES).filter(model_name="bitcoin-model", state="done")
    told = moves.sort("moved_at").select("alias", "from_version", "to_version").rows()
    assert told == [
        ("candidate", None, "1"),
        ("production", None, "1"),
        ("candidate", "1", "2"),
    ]
    (promotion,) = moves.filter(alias="production").iter_rows(named=True)
    assert promotion["reason"] == first_champion.tags["verdict_reason"]
    assert promotion["actor"].startswith("training_job ")


def test_a_version_tells_parameters_libraries_and_intervals(first_champion: ModelVersion) -> None:
    metrics = first_champion.metrics
    assert metrics["test_auc_low"] < metrics["test_auc"] < metrics["test_auc_high"]
    assert {"delayed_auc", "logistic_auc", "test_net_bp"} <= set(metrics)
    assert "lightgbm" in str(first_champion.tags.get("library_versions", first_champion.tags))


def test_the_report_has_a_model_card_beside_it(trained: Metadata) -> None:
    card = Path(trained["model_report"]["model_card"]).read_text("utf-8")
    assert "synthetic" in card.lower()
    assert trained["production_model"]["reason"] in card


def _examples(life: SmallLifecycle) -> pl.DataFrame:
    """Return all labelled rows with every feature and a rise or a fall."""
    features, labels = life.warehouse.read(FEATURES), life.warehouse.read(LABELS)
    joined = features.join(labels.drop("forward_log_volatility"), on=["symbol", "open_time"])
    return joined.drop_nulls().filter(pl.col("direction") != 0)
