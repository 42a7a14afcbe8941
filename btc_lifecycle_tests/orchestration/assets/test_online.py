"""What the service answers from: the online row beside the features table's, and monitoring in short."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from btc_lifecycle.adapters.online_store import (
    MAX_CANDLES,
    MonitoringSummary,
    OnlineSnapshot,
    OnlineStore,
)
from btc_lifecycle.adapters.registry import ModelVersion
from btc_lifecycle.domain.errors import DataError, NothingToServeError
from btc_lifecycle.domain.learn.features import FEATURE_NAMES, WARMUP_MIN
from btc_lifecycle.domain.monitor.retraining import DriftFacts, Verdict
from btc_lifecycle.domain.tables import CANDLES, DRIFT_METRICS, FEATURES, OUTCOMES
from btc_lifecycle.orchestration.assets.online import make_snapshot, make_summary
from btc_lifecycle_tests.builders import START, make_candles
from btc_lifecycle_tests.orchestration.prediction_lines import N_MATURED, PROBABILITY_UP
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    NOW,
    Metadata,
    SmallLifecycle,
    make_exchange,
    small_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

MINUTE = timedelta(minutes=1)
ASKED_AT = datetime(2031, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def life_of_two(tmp_path: Path) -> SmallLifecycle:
    """A lifecycle on two markets with candles, whose newest ingest the test writes by hand."""
    settings = small_settings(tmp_path, symbols=("BTC/USDT", "ETH/USDT"))
    return SmallLifecycle(settings=settings, instance=dg.DagsterInstance.ephemeral())


def hold(life: SmallLifecycle, *candles: pl.DataFrame) -> None:
    """Leave candles, and the figures of an ingest of them that ended 20 s after the newest closed."""
    figures = []
    for of_symbol in candles:
        life.warehouse.upsert(CANDLES, of_symbol, source="synthetic")
        last = of_symbol["open_time"][-1]
        figures.append(
            {
                "symbol": of_symbol["symbol"][0],
                "last_open_time": last.isoformat(),
                "fetched_at": (last + timedelta(seconds=80)).isoformat(),
                "source": "synthetic",
            }
        )
    path = life.settings.ingestion_stats_path
    told = {"symbols": figures, "asked_at": ASKED_AT.isoformat()}
    path.write_text(json.dumps(told), encoding="utf-8")


def online(life: SmallLifecycle, symbol: str = "BTC/USDT") -> OnlineSnapshot:
    snapshot = OnlineStore(life.settings.online_dir).read(symbol)
    assert snapshot is not None
    return snapshot


def bits(values: list[float | None]) -> list[bytes | None]:
    return [None if value is None else struct.pack("<d", value) for value in values]


def test_the_online_row_is_the_features_table_s_row_to_the_bit(
    life: SmallLifecycle, trained: Metadata
) -> None:
    """Training computed its row from days of candles, the minute run from the newest ones."""
    snapshot = online(life)
    (row,) = life.warehouse.read(FEATURES, start=snapshot.open_time).to_dicts()
    assert row["open_time"] == snapshot.open_time == NOW.replace(second=0) - MINUTE
    assert list(snapshot.features) == list(FEATURE_NAMES)
    names = list(FEATURE_NAMES)
    assert bits([snapshot.features[name] for name in names]) == bits([row[name] for name in names])
    assert None not in snapshot.features.values()


def test_the_newest_candles_come_along_as_they_are_stored(
    life: SmallLifecycle, ingested: Metadata
) -> None:
    snapshot = online(life)
    stored = life.warehouse.read(CANDLES, start=NOW.replace(second=0) - MAX_CANDLES * MINUTE)
    kept = [vars(candle) for candle in snapshot.candles]
    assert kept == stored.select(*kept[0]).to_dicts()
    assert len(kept) == MAX_CANDLES


def test_its_age_is_by_the_exchange_s_clock_that_decided_what_is_closed(
    life: SmallLifecycle, ingested: Metadata
) -> None:
    snapshot = online(life)
    assert snapshot.market_time == NOW
    assert snapshot.age(snapshot.read_at) == timedelta(seconds=20)
    assert snapshot.source == "synthetic"


def test_what_the_ingest_took_counts_among_a_candle_s_age(life_of_two: SmallLifecycle) -> None:
    """Written hours after its ingest asked, it passed for as young as it had been then."""
    with life_of_two.instance:
        hold(life_of_two, make_candles(300))
        life_of_two.run("ingest_job", "online_features")
    snapshot = online(life_of_two)
    assert snapshot.read_at == ASKED_AT
    assert snapshot.age(ASKED_AT + timedelta(hours=2)) == timedelta(hours=2, seconds=20)


def test_metadata_say_which_candle_and_what_is_missing(ingested: Metadata) -> None:
    made = ingested["online_features"]
    assert made["open_time BTC/USDT"] == (NOW.replace(second=0) - MINUTE).timestamp()
    assert made["missing features BTC/USDT"] == "none"


def test_a_minute_run_moves_the_snapshot_on_by_a_candle_and_keeps_its_time_honest(
    tmp_path: Path,
) -> None:
    with (
        make_exchange(now=START + timedelta(hours=6)) as exchange,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        settings = small_settings(tmp_path, exchange_url=exchange.url)
        life = SmallLifecycle(settings=settings, instance=instance)
        seen = []
        for minutes in (0, 1, 1.5):
            exchange.clock.set(now=START + timedelta(hours=6, minutes=minutes))
            made = life.run("ingest_job", "candles", "online_features")
            snapshot = online(life)
            seen.append((snapshot.open_time - START, snapshot.market_time - START))
    hours = timedelta(hours=6)
    assert list(made) == ["candles", "online_features"]
    assert seen == [
        (hours - MINUTE, hours),
        (hours, hours + MINUTE),
        (hours, hours + 1.5 * MINUTE),
    ]


def test_too_few_candles_give_a_row_of_nulls_and_a_gap_some(life_of_two: SmallLifecycle) -> None:
    gap = make_candles(400, symbol="ETH/USDT").filter(
        pl.col("open_time") != START + timedelta(minutes=390)
    )
    with life_of_two.instance:
        hold(life_of_two, make_candles(1), gap)
        made = life_of_two.run("ingest_job", "online_features")["online_features"]
    alone, after_gap = online(life_of_two), online(life_of_two, "ETH/USDT")
    assert alone.features["log_return_1m"] is None
    assert len(alone.candles) == 1
    assert after_gap.features["log_return_1m"] is not None
    assert after_gap.features["log_return_15m"] is None
    assert "log_return_15m" in made["missing features ETH/USDT"].split(", ")
    assert len(after_gap.candles) == MAX_CANDLES


def test_a_market_that_failed_stops_no_other_and_keeps_its_last_snapshot(
    life_of_two: SmallLifecycle,
) -> None:
    """Its ingest failed, or its candles make no snapshot: the old one grows older, and tells so."""
    bitcoin, ether = make_candles(300), make_candles(300, symbol="ETH/USDT")
    with life_of_two.instance:
        hold(life_of_two, bitcoin[:250], ether[:250])
        life_of_two.run("ingest_job", "online_features")
        before = online(life_of_two, "ETH/USDT")
        hold(life_of_two, bitcoin)
        life_of_two.run("ingest_job", "online_features")
        assert online(life_of_two, "ETH/USDT") == before
        hold(life_of_two, bitcoin, ether)
        _say_source(life_of_two, "ETH/USDT", source="")
        made = life_of_two.run("ingest_job", "online_features")["online_features"]
    assert "source" in made["failed ETH/USDT"]
    assert online(life_of_two, "ETH/USDT") == before
    assert online(life_of_two).open_time == bitcoin["open_time"][-1]


def test_where_every_market_failed_the_run_fails(life_of_two: SmallLifecycle) -> None:
    with life_of_two.instance:
        hold(life_of_two, make_candles(3))
        _say_source(life_of_two, "BTC/USDT", source="")
        with pytest.raises(DataError, match="is not usable"):
            life_of_two.run("ingest_job", "online_features")


def test_before_the_first_ingest_it_says_what_to_do(life_of_two: SmallLifecycle) -> None:
    with (
        life_of_two.instance,
        pytest.raises(NothingToServeError, match=r"no candles yet; run \./task ingest"),
    ):
        life_of_two.run("ingest_job", "online_features")


def test_the_longest_window_is_known_from_as_many_candles_as_are_read() -> None:
    candles = make_candles(WARMUP_MIN + 1)
    for n, is_known in ((WARMUP_MIN + 1, True), (WARMUP_MIN, False)):
        snapshot = make_snapshot(candles.tail(n), source="synthetic", market_time=NOW, read_at=NOW)
        assert (None not in snapshot.features.values()) is is_known


def test_monitoring_leaves_a_summary_of_what_it_found(
    life: SmallLifecycle, first_champion: ModelVersion, monitored: Metadata
) -> None:
    summary = OnlineStore(life.settings.online_dir).read_monitoring()
    assert summary is not None
    outcomes = life.warehouse.read(OUTCOMES).sort("open_time")
    told = [(o.open_time, o.matures_at, o.happened, o.predicted) for o in summary.outcomes]
    stored = outcomes.select("open_time", "matures_at", "direction", pl.lit(1)).rows()
    assert told == stored
    assert len(told) <= N_MATURED
    assert {o.probability_up for o in summary.outcomes} == {PROBABILITY_UP}
    assert summary.as_of == NOW.replace(second=0)
    assert (summary.retrain, summary.reason) == (
        monitored["drift_metrics"]["retrain"],
        monitored["drift_metrics"]["reason"],
    )
    assert summary.score is not None
    metrics = life.warehouse.read(DRIFT_METRICS)
    live = metrics.row(by_predicate=pl.col("metric") == "log_loss", named=True)
    assert summary.score.log_loss == pytest.approx(live["value"])
    assert summary.score.n_outcomes == live["n_rows"]
    assert summary.score.model_version == first_champion.version
    assert summary.score.log_loss_low is None
    states = {(s.metric, s.feature, s.value, s.limit, s.is_over) for s in summary.drift}
    columns = ("metric", "feature", "value", "threshold", "is_breach")
    assert states == set(metrics.select(columns).rows())


def test_before_drift_was_ever_measured_there_is_nothing_to_sum_up(
    life_of_two: SmallLifecycle,
) -> None:
    with life_of_two.instance:
        hold(life_of_two, make_candles(3))
        with pytest.raises(NothingToServeError, match=r"no drift metrics yet; run \./task monitor"):
            life_of_two.run("monitoring_job", "live_summary")


def test_a_summary_without_a_champion_has_no_score_and_no_drift() -> None:
    summary = summarize(outcome_rows([(0, 0.6, 1)]), champion=None)
    assert (summary.score, summary.drift) == (None, ())
    assert len(summary.outcomes) == 1


def test_scores_of_several_days_stand_beside_the_coin_s_with_their_bounds() -> None:
    """Days 0 to 2 at probabilities 0.6, 0.6 and 0.3: right, wrong, right."""
    rows = outcome_rows([(0, 0.6, 1), (1440, 0.6, -1), (2880, 0.3, -1)])
    score = summarize(rows, champion="3").score
    assert score is not None
    assert score.n_outcomes == 3
    assert score.hit_rate == pytest.approx(2 / 3)
    by_hand = -(math.log(0.6) + math.log(0.4) + math.log(0.7)) / 3
    assert score.log_loss == pytest.approx(by_hand)
    assert score.coin_log_loss == pytest.approx(-math.log(0.5))
    assert score.log_loss_low is not None
    assert score.log_loss_high is not None
    assert score.log_loss_low < by_hand < score.log_loss_high
    assert score.hit_rate_low == pytest.approx(0.0)
    assert score.hit_rate_high == pytest.approx(1.0)


def test_where_every_day_was_right_both_ways_the_bounds_say_so() -> None:
    score = summarize(outcome_rows([(0, 0.6, 1), (1440, 0.3, -1)]), champion="3").score
    assert score is not None
    assert (score.hit_rate_low, score.hit_rate, score.hit_rate_high) == (1.0, 1.0, 1.0)


def test_scores_are_of_the_champion_s_outcomes_within_the_window() -> None:
    rows = outcome_rows([(0, 0.6, 1), (1440, 0.6, -1), (3 * 1440, 0.9, 1)])
    others = outcome_rows([(1441, 0.9, 1)], version="2")
    score = summarize(pl.concat([rows, others]), champion="3", window_days=2).score
    assert score is not None
    assert (score.n_outcomes, score.hit_rate) == (1, 0.0)


def test_a_summary_holds_the_newest_outcomes_and_no_more() -> None:
    rows = outcome_rows([(minute, 0.5, -1) for minute in range(250)])
    summary = summarize(rows.sample(fraction=1.0, shuffle=True, seed=1), champion="3")
    opened = [outcome.open_time for outcome in summary.outcomes]
    assert opened == [START + minute * MINUTE for minute in range(50, 250)]
    assert {outcome.predicted for outcome in summary.outcomes} == {1}


def summarize(
    outcomes: pl.DataFrame, *, champion: str | None, window_days: int = 3
) -> MonitoringSummary:
    """Return a summary as of three days after START."""
    facts = DriftFacts(
        drifted=(),
        n_monitored=0,
        live_log_loss=None,
        reference_log_loss=None,
        n_outcomes=0,
        champion_version=champion,
        last_trained_at=None,
        market_now=START + timedelta(days=3),
    )
    other_window = pl.DataFrame(
        [("*", START, START + MINUTE, "3", "psi", "rsi_14m", 9, 0.1, 0.2, False)],
        schema=DRIFT_METRICS.schema,
        orient="row",
    )
    return make_summary(
        outcomes,
        other_window,
        facts=facts,
        verdict=Verdict(retrain=False, reason="no need"),
        window=timedelta(days=window_days),
        rng=np.random.default_rng(7),
        written_at=NOW,
    )


def outcome_rows(rows: list[tuple[int, float, int]], *, version: str = "3") -> pl.DataFrame:
    """Return outcomes of (minute after START, probability of a rise, what happened)."""
    return pl.DataFrame(
        [
            {
                "prediction_id": f"{version}-{minute}",
                "symbol": "BTC/USDT",
                "open_time": START + minute * MINUTE,
                "model_version": version,
                "probability_up": p,
                "direction": happened,
                "forward_log_return": happened * 0.001,
                "matures_at": START + (minute + 16) * MINUTE,
                "log_loss": -math.log(p if happened == 1 else 1 - p),
            }
            for minute, p, happened in rows
        ],
        schema=OUTCOMES.schema,
    )


def _say_source(life: SmallLifecycle, symbol: str, *, source: str) -> None:
    """Make the ingest's figures say what no snapshot can hold of one market."""
    path = life.settings.ingestion_stats_path
    stats = json.loads(path.read_text("utf-8"))
    for figures in stats["symbols"]:
        if figures["symbol"] == symbol:
            figures["source"] = source
    path.write_text(json.dumps(stats), encoding="utf-8")
