"""A candidate's way from tables to an alias, on a real registry: better, equal, worse, leaky, cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest

from btc_lifecycle.adapters.registry import VOLATILITY_MODEL_NAME, AliasMove, Registry
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.features import WARMUP_MIN, compute_features
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.labels import compute_labels
from btc_lifecycle.domain.learn.tuning import TuningPolicy
from btc_lifecycle.orchestration.candidates import (
    BASELINES,
    PREDICTED,
    SCORES,
    Decision,
    judge_candidate,
    log_trained,
    read_baselines,
    read_parquet,
    score_candidate,
    train_candidate,
)
from btc_lifecycle.orchestration.learning import Tables
from btc_lifecycle.settings import LearnSettings
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.model_builders import copy_store
from btc_lifecycle_tests.orchestration.small_lifecycle import LIFECYCLE

LEARN = LIFECYCLE.learn
WEAK = {"num_boost_round": 2, "learning_rate": 0.02}
HEADS = pytest.mark.parametrize("head", [DIRECTION_HEAD, VOLATILITY_HEAD], ids=lambda h: h.name)


class KilledError(Exception):
    """Stands for the end of the process in the middle of a move."""


class MemoryJournal:
    """Keeps moves, and ends the process, as it were, when it is told a line too many."""

    def __init__(self) -> None:
        self.lines: list[AliasMove] = []
        self.n_left: int | None = None

    def append(self, move: AliasMove) -> None:
        if self.n_left == 0:
            raise KilledError
        self.n_left = None if self.n_left is None else self.n_left - 1
        self.lines.append(move)

    def unfinished(self) -> list[AliasMove]:
        ended = {line.move_id for line in self.lines if line.state != "intended"}
        return [line for line in self.lines if line.move_id not in ended]


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Five days whose price turns against its last five minutes in two of three, and moves on after."""
    candles = make_candles(5 * 1440)
    features = compute_features(candles)[WARMUP_MIN:]
    labels = compute_labels(candles, policy=LEARN.labels).join(
        features.select("symbol", "open_time", "log_return_5m", "realized_volatility_60m"),
        on=["symbol", "open_time"],
    )
    rng = np.random.default_rng(1)
    turns = pl.Series(rng.random(labels.height) < 2 / 3)
    falls = pl.col("log_return_5m") > 0.0
    rises = pl.when(turns).then(~falls).otherwise(falls)
    direction = pl.when(rises).then(1).otherwise(-1).cast(pl.Int64)
    planted = labels.with_columns(
        direction=direction,
        forward_log_return=direction * 1e-3,
        forward_log_volatility=pl.col("realized_volatility_60m").log() + 0.5 * falls,
    )
    return Tables(
        features=features,
        labels=planted.select(compute_labels(candles[:100], policy=LEARN.labels).columns),
        source="synthetic",
    )


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def registries(
    empty_mlflow_store: Path, tmp_path: Path, journal: MemoryJournal
) -> Mapping[str, Registry]:
    uri = copy_store(empty_mlflow_store, tmp_path)
    return {
        DIRECTION_HEAD.name: Registry(uri, uri, journal=journal),
        VOLATILITY_HEAD.name: Registry(uri, uri, model_name=VOLATILITY_MODEL_NAME, journal=journal),
    }


@pytest.fixture
def registry(registries: Mapping[str, Registry]) -> Registry:
    return registries["direction"]


def learning(**changes: object) -> LearnSettings:
    return LEARN.model_copy(update=changes)


def trained_with(**parameters: float) -> LearnSettings:
    return learning(training=replace(LEARN.training, **parameters))


def log(
    registry: Registry,
    tables: Tables,
    *,
    head: Head = DIRECTION_HEAD,
    learn: LearnSettings = LEARN,
    **facts: str,
) -> str:
    """Return the run of a scored candidate."""
    trained = train_candidate(head, tables, learn=learn)
    told = replace(trained, facts={**trained.facts, **facts})
    run_id = log_trained(registry, told, run=registry.open_run(head.name), artifacts={})
    score_candidate(head, registry=registry, run_id=run_id, learn=learn)
    return run_id


def judge(
    registry: Registry,
    run_id: str,
    tables: Tables,
    *,
    head: Head = DIRECTION_HEAD,
    learn: LearnSettings = LEARN,
) -> Decision:
    return judge_candidate(
        head, tables, registry=registry, run_id=run_id, learn=learn, actor="test"
    )


def serving(registry: Registry) -> tuple[str | None, str | None]:
    """Return the versions behind production and previous."""
    found = registry.champion(), registry.version("previous")
    champion, previous = (None if it is None else it.version for it in found)
    return champion, previous


class TestPromotion:
    @HEADS
    def test_a_candidate_that_beats_every_baseline_serves(self, registries, tables, head) -> None:
        registry = registries[head.name]
        decision = judge(registry, log(registry, tables, head=head), tables, head=head)
        assert decision.outcome == "promoted"
        assert serving(registry) == ("1", None)
        for name in ("prior", "contrarian", "logistic") if head is DIRECTION_HEAD else ("har",):
            assert f"{name} by +" in decision.reason

    def test_a_better_one_takes_its_place_and_a_rollback_brings_the_first_back(
        self, registry, tables
    ) -> None:
        lax = learning(
            promotion=LEARN.promotion,
            training=replace(LEARN.training, num_boost_round=12, learning_rate=0.1),
        )
        assert judge(registry, log(registry, tables, learn=lax), tables).outcome == "promoted"
        run_id = log(registry, tables, learn=trained_with(seed=8))
        assert judge(registry, run_id, tables).outcome == "promoted"
        assert serving(registry) == ("2", "1")
        registry.rollback(actor="test")
        assert serving(registry) == ("1", "2")
        again = judge(registry, run_id, tables)
        assert again.outcome == "rolled back"
        assert serving(registry) == ("1", "2")

    def test_the_same_data_and_parameters_make_the_same_text_which_changes_nothing(
        self, registry, tables
    ) -> None:
        runs = [log(registry, tables) for _ in range(2)]
        texts = [
            registry.load_booster(registry.candidate_of(run)).model_to_string() for run in runs
        ]
        assert texts[0] == texts[1]
        assert judge(registry, runs[0], tables).outcome == "promoted"
        decision = judge(registry, runs[1], tables)
        assert decision.outcome == "refused"
        assert "is that of champion 1; champion 1 stays" in decision.reason
        assert serving(registry) == ("1", None)

    @HEADS
    def test_a_worse_one_is_refused_for_good(self, registries, tables, head) -> None:
        registry = registries[head.name]
        judge(registry, log(registry, tables, head=head), tables, head=head)
        run_id = log(registry, tables, head=head, learn=trained_with(**WEAK))
        for _ in range(2):
            assert judge(registry, run_id, tables, head=head).outcome == "refused"
            assert serving(registry) == ("1", None)

    def test_a_leaky_one_is_refused_however_good_it_looks(self, registry, tables) -> None:
        late = "2024-01-05T12:00:00+00:00"
        decision = judge(registry, log(registry, tables, trained_until=late), tables)
        assert decision.outcome == "refused"
        assert "it learnt from outcomes until 2024-01-05 12:00 UTC" in decision.reason
        assert serving(registry) == (None, None)

    def test_one_that_too_few_rows_can_judge_waits_and_is_judged_again(
        self, registry, tables
    ) -> None:
        run_id = log(registry, tables)
        strict = learning(promotion=replace(LEARN.promotion, min_rows=10**6))
        decision = judge(registry, run_id, tables, learn=strict)
        assert decision.outcome == "deferred"
        assert serving(registry) == (None, None)
        assert judge(registry, run_id, tables).outcome == "promoted"
        assert serving(registry) == ("1", None)

    def test_a_champion_that_learnt_from_the_test_rows_leaves_no_fair_window(
        self, registry, tables
    ) -> None:
        """It would look better than it is; the newest outcome is too close to judge it by."""
        newest = tables.market_now
        assert newest is not None
        judge(registry, log(registry, tables), tables)
        champion = registry.champion()
        client = mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri)
        client.set_model_version_tag(
            champion.name, champion.version, "trained_until", newest.isoformat()
        )
        decision = judge(registry, log(registry, tables, learn=trained_with(seed=8)), tables)
        assert decision.outcome == "deferred"
        assert "0 unseen rows of 0 days to judge by" in decision.reason
        assert decision.reason.endswith("champion 1 stays")

    @pytest.mark.parametrize("n_lines", range(6))
    def test_an_interrupted_promotion_ends_before_or_after_and_can_be_repeated(
        self, registry, tables, journal, n_lines
    ) -> None:
        weaker = trained_with(num_boost_round=12, learning_rate=0.1)
        judge(registry, log(registry, tables, learn=weaker), tables)
        run_id = log(registry, tables, learn=trained_with(seed=8))
        journal.n_left = n_lines
        with pytest.raises(KilledError):
            judge(registry, run_id, tables)
        journal.n_left = None
        registry.settle()
        assert serving(registry) in {("1", None), ("2", "1")}
        assert journal.unfinished() == []
        assert judge(registry, run_id, tables).outcome == "promoted"
        assert serving(registry) == ("2", "1")


class TestArtifacts:
    @HEADS
    def test_a_run_keeps_what_all_predicted_the_baselines_and_the_scores(
        self, registries, tables, head
    ) -> None:
        registry = registries[head.name]
        trained = train_candidate(head, tables, learn=LEARN)
        run_id = log_trained(registry, trained, run=registry.open_run("x"), artifacts={})
        scores = score_candidate(head, registry=registry, run_id=run_id, learn=LEARN)
        assert read_parquet(registry, run_id, PREDICTED).equals(trained.walk.predicted)
        assert read_parquet(registry, run_id, SCORES).equals(scores)
        assert read_baselines(head, registry, run_id) == trained.walk.baselines
        assert registry.read_json(run_id, BASELINES) == trained.walk.baselines.to_json()
        version = registry.candidate_of(run_id)
        assert head.score_to_have in version.metrics
        assert version.tags["predicts"] == head.name

    def test_a_search_is_logged_as_runs_beneath_its_candidate(self, registry, tables) -> None:
        slow = replace(LEARN.training, learning_rate=1e-4)
        tuned = learning(tuning=TuningPolicy(n_trials=2), training=slow)
        run_id = log(registry, tables, learn=tuned)
        client = mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri)
        experiment = client.get_experiment_by_name(registry.experiment)
        trials = client.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
        )
        assert {run.data.tags["mlflow.runName"] for run in trials} == {"trial 0", "trial 1"}
        assert {run.info.status for run in trials} == {"FINISHED"}
        losses = {
            run.data.tags["mlflow.runName"]: run.data.metrics["inner_test_loss"] for run in trials
        }
        assert losses["trial 0"] <= losses["trial 1"]
        best = next(run for run in trials if run.data.tags["mlflow.runName"] == "trial 0")
        chosen = client.get_run(run_id).data.params
        assert chosen["learning_rate"] == best.data.params["learning_rate"] != "0.0001"
        assert registry.newest_candidate_run() == run_id


class TestRefusals:
    """Nothing is logged, and what serves goes on serving."""

    def test_candles_of_no_known_market_are_refused(self, tables) -> None:
        with pytest.raises(DataError, match="which market the candles are of, or they are of sev"):
            train_candidate(DIRECTION_HEAD, replace(tables, source=None), learn=LEARN)

    def test_mostly_missing_features_are_refused(self, tables) -> None:
        holed = tables.features.with_columns(rsi_14m=pl.lit(None, pl.Float64))
        with pytest.raises(DataError, match=r"mostly missing .* rsi_14m \(0.0%\)"):
            train_candidate(DIRECTION_HEAD, replace(tables, features=holed), learn=LEARN)

    def test_missing_optional_features_lead_to_the_smaller_set(self, tables) -> None:
        nothing = pl.lit(None, pl.Float64)
        holed = tables.features.with_columns(taker_imbalance_5m=nothing)
        trained = train_candidate(DIRECTION_HEAD, replace(tables, features=holed), learn=LEARN)
        assert "taker_imbalance_5m" not in trained.recipe.feature_names
        assert "taker_imbalance_15m" in trained.recipe.feature_names
        assert trained.walk.model.booster.feature_name() == list(trained.recipe.feature_names)

    def test_features_that_are_left_out_are_not_learnt_from(self, tables) -> None:
        learn = learning(leave_out=("rsi_14m",))
        trained = train_candidate(DIRECTION_HEAD, tables, learn=learn)
        assert "rsi_14m" not in trained.recipe.feature_names

    def test_overlapping_labels_may_weigh_by_their_uniqueness(self, tables) -> None:
        learn = learning(labels=replace(LEARN.labels, weighting="uniqueness"))
        trained = train_candidate(DIRECTION_HEAD, tables, learn=learn)
        assert trained.recipe.weigh is not None

    def test_a_candidate_without_scores_is_not_judged(self, registry, tables) -> None:
        trained = train_candidate(DIRECTION_HEAD, tables, learn=LEARN)
        run_id = log_trained(registry, trained, run=registry.open_run("x"), artifacts={})
        with pytest.raises(NothingToServeError, match="was never scored"):
            judge(registry, run_id, tables)
        assert registry.candidate() is None
