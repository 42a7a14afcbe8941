"""The overview: everything of one market, and for everything absent the reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btc_lifecycle.adapters.online_store import OnlineStore
from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.service.overview import MAX_SHOWN_CANDLES, OverviewBody, make_overview
from btc_lifecycle_tests.service.overview_states import (
    NO_MODEL,
    NOW,
    OPENED,
    STALE,
    make_latest,
    make_monitoring,
    make_snapshot,
    make_version,
    overviews,
)


@pytest.fixture
def store(tmp_path: Path) -> OnlineStore:
    return OnlineStore(tmp_path)


def overview(store: OnlineStore, **changes: object) -> OverviewBody:
    asked: dict[str, object] = {
        "symbol": "BTC/USDT",
        "now": NOW,
        "prediction": make_latest(),
        "model": make_version(),
        "versions": [make_version()],
        "max_age_seconds": 180.0,
    }
    return make_overview(store, **{**asked, **changes})  # type: ignore[arg-type]


def test_every_state_is_valid_and_survives_its_way_through_json(tmp_path: Path) -> None:
    for state in overviews(tmp_path).values():
        assert OverviewBody.model_validate_json(state.model_dump_json()) == state


def test_what_is_absent_has_a_reason_and_what_is_there_has_none(tmp_path: Path) -> None:
    for state in overviews(tmp_path).values():
        for name in ("market", "prediction", "model", "monitoring"):
            part, problem = getattr(state, name), getattr(state, f"{name}_problem")
            assert (part is None) == bool(problem), name
        assert (not state.versions) == bool(state.versions_problem)


def test_the_newest_candles_are_shown_with_their_age_by_the_exchange_s_clock(
    store: OnlineStore,
) -> None:
    store.write(make_snapshot())
    market = overview(store).market
    assert market is not None
    assert len(market.candles) == MAX_SHOWN_CANDLES
    assert market.candles[-1].open_time == OPENED
    assert market.candles[-1].close == make_snapshot().candles[-1].close
    assert market.age_seconds == 40.0
    assert market.market_now == OPENED + timedelta(minutes=1, seconds=40)
    assert market.source == "binance"


def test_it_lists_the_markets_that_can_be_asked_for(store: OnlineStore) -> None:
    for symbol in ("ETH/USDT", "BTC/USDT"):
        store.write(make_snapshot(symbol))
    assert overview(store).symbols == ["BTC/USDT", "ETH/USDT"]


def test_a_market_that_nobody_ingests_is_told_and_no_error(store: OnlineStore) -> None:
    for symbol in ("DOGE/USDT", "../../etc/passwd"):
        told = overview(store, symbol=symbol)
        assert told.market is None
        assert told.market_problem == f"no candle of {symbol} was ingested yet; run ./task ingest"


def test_damaged_files_are_told_and_hide_nothing_else(store: OnlineStore, tmp_path: Path) -> None:
    for name in ("BTC-USDT.json", "monitoring.json"):
        (tmp_path / name).write_text("{")
    told = overview(store)
    assert "BTC-USDT.json is not usable" in (told.market_problem or "")
    assert "monitoring.json is not usable" in (told.monitoring_problem or "")
    assert told.prediction == make_latest()
    assert told.model is not None


def test_reasons_are_passed_on_as_they_are(store: OnlineStore) -> None:
    told = overview(store, prediction=STALE, model=NO_MODEL, versions="the registry is locked")
    assert (told.prediction, told.prediction_problem) == (None, STALE)
    assert (told.model, told.model_problem) == (None, NO_MODEL)
    assert (told.versions, told.versions_problem) == ([], "the registry is locked")


def test_outcomes_are_of_the_market_and_scores_of_all(store: OnlineStore) -> None:
    store.write_monitoring(make_monitoring())
    monitoring = overview(store).monitoring
    assert monitoring is not None
    assert [outcome.happened for outcome in monitoring.outcomes] == [1, -1]
    assert monitoring.score is not None
    assert monitoring.score.n_outcomes == 3
    assert [state.is_over for state in monitoring.drift] == [True, False, False]
    assert (monitoring.as_of, monitoring.retrain, monitoring.reason) == (OPENED, False, "no need")


def test_the_model_card_has_its_scores_beside_those_of_the_baselines(store: OnlineStore) -> None:
    model = overview(store).model
    assert model is not None
    assert (model.version, model.horizon_min, model.n_test_rows) == ("2", 15, 87_000)
    assert model.trained_until == datetime(2025, 12, 1, tzinfo=UTC)
    assert (model.test_auc_low, model.test_auc, model.test_auc_high) == (0.524, 0.531, 0.538)
    baselines = [(one.name, one.auc, one.log_loss) for one in model.baselines]
    assert baselines == [("prior", None, 0.6931), ("logistic", 0.526, 0.6927)]


@pytest.mark.parametrize("tag", ["trained_from", "test_until", "horizon_min"])
def test_a_tag_that_somebody_spoilt_is_null(store: OnlineStore, tag: str) -> None:
    model = overview(store, model=make_version(**{tag: "soon"})).model
    assert model is not None
    assert getattr(model, tag) is None


def test_a_version_that_was_never_scored_has_a_card_of_nulls(store: OnlineStore) -> None:
    bare = ModelVersion(
        name="bitcoin-model",
        version="1",
        run_id="run1",
        tags={},
        metrics={},
        feature_names=(),
        created_at=NOW,
    )
    model = overview(store, model=bare).model
    assert model is not None
    known = {name for name, value in json.loads(model.model_dump_json()).items() if value}
    assert known == {"name", "version"}


def test_versions_tell_their_verdict_and_which_one_serves(store: OnlineStore) -> None:
    tried = [
        make_version(3, verdict="refused", verdict_reason="worse than version 2"),
        make_version(2, verdict="promoted"),
        make_version(1),
    ]
    versions = overview(store, versions=tried, model=tried[1]).versions
    assert [(v.version, v.verdict, v.reason, v.is_serving) for v in versions] == [
        ("3", "refused", "worse than version 2", False),
        ("2", "promoted", None, True),
        ("1", None, None, False),
    ]
    assert not any(v.is_serving for v in overview(store, versions=tried, model=NO_MODEL).versions)


def test_before_the_first_training_the_versions_say_what_to_do(store: OnlineStore) -> None:
    assert overview(store, versions=[]).versions_problem == (
        "no model was trained yet; run ./task track"
    )
