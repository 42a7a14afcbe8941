"""Which rows a candidate and a champion are judged on, and how facts travel as tags."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import polars as pl
import pytest

from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.features import WARMUP_MIN, compute_features
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle.domain.learn.walk import Recipe, walk
from btc_lifecycle.orchestration.learning import (
    Tables,
    code_version,
    facts_of,
    horizon_of,
    labels_of,
    leak_of,
    require_eligible,
    rival_of,
    span_of,
    time_of,
    unseen_rows,
)
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.model_builders import FEATURES
from btc_lifecycle_tests.orchestration.small_lifecycle import LIFECYCLE

CANDLES = make_candles(600)
LABELS = label_by_horizon(CANDLES, horizon_min=15)
TABLE = compute_features(CANDLES)[WARMUP_MIN:]
TABLES = Tables(features=TABLE, labels=LABELS, source="synthetic")
LEARN = LIFECYCLE.learn
NEWEST = LABELS["open_time"].to_list()[-1]
TEST_FROM, TEST_UNTIL = START + timedelta(minutes=400), START + timedelta(minutes=499)


def model_version(
    *, horizon_min: int = 15, source: str = "synthetic", method: str = "horizon", **tags: datetime
) -> ModelVersion:
    times = {name: time.isoformat() for name, time in tags.items()}
    return ModelVersion(
        name="bitcoin-model",
        version="1",
        run_id="run",
        tags={
            "horizon_min": str(horizon_min),
            "label_method": method,
            "source": source,
            **times,
        },
        metrics={},
        feature_names=FEATURES,
        created_at=START,
    )


CANDIDATE = model_version(test_from=TEST_FROM, test_until=TEST_UNTIL)


def open_times(rows: pl.DataFrame) -> tuple[datetime, datetime]:
    return rows["open_time"].to_list()[0], rows["open_time"].to_list()[-1]


def test_a_candidate_alone_is_judged_on_all_rows_since_its_test_began() -> None:
    """Bounded by the test's end, a deferred candidate never saw enough rows to be judged."""
    rows = unseen_rows(DIRECTION_HEAD, TABLES, CANDIDATE)
    assert open_times(rows) == (TEST_FROM, NEWEST)
    assert rows.height == (NEWEST - TEST_FROM) // timedelta(minutes=1) + 1


def test_only_labels_of_the_candidates_own_horizon_count() -> None:
    """After a change of the horizon both models were judged on a target they did not learn."""
    mixed = pl.concat([LABELS[:450], label_by_horizon(CANDLES, horizon_min=30)[450:]])
    rows = unseen_rows(DIRECTION_HEAD, replace(TABLES, labels=mixed), CANDIDATE)
    assert open_times(rows) == (TEST_FROM, LABELS["open_time"].to_list()[449])
    with pytest.raises(DataError, match="no example from"):
        unseen_rows(DIRECTION_HEAD, replace(TABLES, labels=mixed[450:]), CANDIDATE)


def test_a_champion_of_the_same_kind_is_a_rival() -> None:
    assert rival_of(CANDIDATE, CANDIDATE, TABLE) == (CANDIDATE, "")
    assert rival_of(CANDIDATE, None, TABLE) == (None, "")


@pytest.mark.parametrize(
    ("champion", "why"),
    [
        (model_version(horizon_min=60), "champion 1 has horizon_min 60, not 15"),
        (
            model_version(method="triple_barrier"),
            "champion 1 has label_method triple_barrier, not horizon",
        ),
        (model_version(source="binance"), "champion 1 has source binance, not synthetic"),
        (
            replace(CANDIDATE, feature_names=("old", *FEATURES)),
            "champion 1 needs old, no features any more",
        ),
    ],
)
def test_a_champion_that_the_rows_cannot_judge_is_no_rival(
    champion: ModelVersion, why: str
) -> None:
    assert rival_of(CANDIDATE, champion, TABLE) == (None, why)


def test_rows_that_the_champion_learnt_from_are_left_out() -> None:
    trained_until = TEST_FROM + timedelta(minutes=30)
    rows = unseen_rows(
        DIRECTION_HEAD, TABLES, CANDIDATE, champion=model_version(trained_until=trained_until)
    )
    assert open_times(rows) == (trained_until, NEWEST)


def test_a_champion_that_has_seen_every_row_leaves_none() -> None:
    champion = model_version(trained_until=NEWEST + timedelta(minutes=1))
    assert unseen_rows(DIRECTION_HEAD, TABLES, CANDIDATE, champion=champion).is_empty()


def test_a_champion_of_other_features_is_given_rows_with_both_sets() -> None:
    champion = ModelVersion(
        **{
            **vars(model_version(trained_until=TEST_FROM)),
            "feature_names": ("taker_imbalance_5m", *FEATURES),
        }
    )
    rows = unseen_rows(DIRECTION_HEAD, TABLES, CANDIDATE, champion=champion)
    assert {*FEATURES, "taker_imbalance_5m"} <= set(rows.columns)


def test_a_candidate_whose_test_rows_are_gone_is_refused() -> None:
    with pytest.raises(DataError, match="no example from 2024-01-01 06:40 UTC on"):
        unseen_rows(DIRECTION_HEAD, replace(TABLES, features=TABLE[:100]), CANDIDATE)


def test_facts_say_what_was_trained_and_tested_on_in_times_that_can_be_read_back() -> None:
    candles = make_candles(3000)
    features = compute_features(candles)[WARMUP_MIN:]
    labels = label_by_horizon(candles, horizon_min=15)
    examples = DIRECTION_HEAD.join(features, labels, feature_names=FEATURES)
    recipe = Recipe(
        head=DIRECTION_HEAD,
        feature_names=FEATURES,
        horizon_min=15,
        split=LEARN.split,
        parameters=LEARN.training,
    )
    walked = walk(examples, recipe=recipe)
    facts = facts_of(walked, examples, recipe=recipe, source="synthetic", learn=LEARN)
    assert all(isinstance(value, str) for value in facts.values())
    assert time_of(facts, "trained_until") == walked.model.trained_until
    assert time_of(facts, "test_from") == walked.split.test["open_time"].min()
    assert time_of(facts, "test_until") == examples["open_time"].max()
    assert time_of(facts, "walked_from") == walked.predicted["open_time"].min()
    assert (facts["n_folds"], facts["predicts"], facts["label_method"]) == (
        "2",
        "direction",
        "horizon",
    )
    shown = span_of(facts, "walked_from", "test_until")
    assert shown.endswith(f"to {examples['open_time'].max():%Y-%m-%d %H:%M} UTC")


def test_the_volatility_has_a_horizon_and_labels_of_its_own() -> None:
    """Whatever directions are labelled by, the next hour's volatility is the same."""
    barriers = LABELS.with_columns(method=pl.lit("triple_barrier"))
    assert horizon_of(VOLATILITY_HEAD, LEARN) == 60
    assert horizon_of(DIRECTION_HEAD, LEARN) == 15
    assert labels_of(VOLATILITY_HEAD, barriers, learn=LEARN).height == LABELS.height
    assert labels_of(DIRECTION_HEAD, barriers, learn=LEARN).is_empty()
    assert labels_of(DIRECTION_HEAD, LABELS, learn=LEARN).height == LABELS.height


def test_the_volatility_s_rows_are_those_whose_hour_is_over() -> None:
    candidate = model_version(test_from=TEST_FROM, horizon_min=60, method="realized")
    rows = unseen_rows(VOLATILITY_HEAD, TABLES, candidate)
    assert open_times(rows) == (TEST_FROM, CANDLES["open_time"].to_list()[-61])


def test_a_candidate_that_learnt_from_its_own_test_rows_is_told() -> None:
    leaky = model_version(test_from=TEST_FROM, trained_until=TEST_FROM + timedelta(minutes=1))
    assert leak_of(leaky).startswith("it learnt from outcomes until 2024-01-01 06:41 UTC, but its")
    assert leak_of(model_version(test_from=TEST_FROM, trained_until=TEST_FROM)) == ""


def test_the_market_s_time_is_that_of_the_newest_outcome() -> None:
    assert TABLES.market_now == LABELS["matures_at"].to_list()[-1]
    assert replace(TABLES, labels=LABELS[:0]).market_now is None


def test_a_candidate_without_scores_does_not_reach_the_gate() -> None:
    """Promoted, it left monitoring without a test log-loss to hold the live one against."""
    with pytest.raises(NothingToServeError, match="MLflow run run was never scored"):
        require_eligible(CANDIDATE, head=DIRECTION_HEAD, source="synthetic")
    scored = replace(CANDIDATE, metrics={"test_log_loss": 0.69})
    require_eligible(scored, head=DIRECTION_HEAD, source="synthetic")
    with pytest.raises(NothingToServeError, match="never scored"):
        require_eligible(scored, head=VOLATILITY_HEAD, source="synthetic")


def test_a_candidate_of_another_source_does_not_reach_the_gate() -> None:
    """The newest candidate of a shared MLflow store was judged on another market's rows."""
    scored = replace(CANDIDATE, metrics={"test_log_loss": 0.69})
    with pytest.raises(DataError, match="trained on source 'synthetic', the database holds 'b"):
        require_eligible(scored, head=DIRECTION_HEAD, source="binance")


def test_times_keep_their_zone() -> None:
    assert time_of({"test_from": "2024-01-01T00:00:00+00:00"}, "test_from") == datetime(
        2024, 1, 1, tzinfo=UTC
    )


def test_the_code_version_starts_with_the_package_version() -> None:
    assert code_version().startswith(version("btc-lifecycle"))


def test_without_git_the_code_version_is_the_package_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version() == version("btc-lifecycle")
