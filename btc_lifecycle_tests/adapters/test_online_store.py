"""The online store on real files: round trips, ages, and files that are not what they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.online_store import (
    DriftState,
    LiveScore,
    MonitoringSummary,
    OnlineCandle,
    OnlineSnapshot,
    OnlineStore,
    PastPrediction,
)
from btc_lifecycle.domain.errors import DataError

FIRST = datetime(2026, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def make_snapshot(n_candles: int = 3, **changes: object) -> OnlineSnapshot:
    candles = tuple(
        OnlineCandle(
            open_time=FIRST + i * MINUTE,
            open=100.0,
            high=103.5,
            low=99.25,
            close=101.0 + i,
            volume=7.0,
        )
        for i in range(n_candles)
    )
    closed = candles[-1].open_time + MINUTE
    snapshot = OnlineSnapshot(
        symbol="BTC/USDT",
        open_time=candles[-1].open_time,
        features={"log_return_1m": 1 / 3, "rsi_14m": None},
        candles=candles,
        source="synthetic",
        market_time=closed + timedelta(seconds=5),
        read_at=datetime(2031, 7, 1, tzinfo=UTC),
    )
    return replace(snapshot, **changes)  # type: ignore[arg-type]


def make_monitoring(**changes: object) -> MonitoringSummary:
    summary = MonitoringSummary(
        as_of=FIRST,
        written_at=FIRST + MINUTE,
        outcomes=(
            PastPrediction(
                symbol="BTC/USDT",
                open_time=FIRST - 20 * MINUTE,
                matures_at=FIRST - 4 * MINUTE,
                model_version="3",
                probability_up=0.53,
                predicted=1,
                happened=-1,
            ),
        ),
        score=LiveScore(
            model_version="3",
            window_start=FIRST - timedelta(hours=72),
            window_end=FIRST,
            n_outcomes=1,
            log_loss=0.755,
            log_loss_low=None,
            log_loss_high=None,
            hit_rate=0.0,
            hit_rate_low=None,
            hit_rate_high=None,
            coin_log_loss=0.6931,
            coin_hit_rate=0.5,
        ),
        drift=(
            DriftState(
                feature="rsi_14m", metric="psi", n_rows=9, value=0.3, limit=0.2, is_over=True
            ),
            DriftState(
                feature="", metric="log_loss", n_rows=1, value=None, limit=0.71, is_over=False
            ),
        ),
        retrain=False,
        reason="1 of 30 features drifted (5 needed)",
    )
    return replace(summary, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> OnlineStore:
    return OnlineStore(tmp_path / "online")


def written(store: OnlineStore, folder: Path) -> Path:
    """Return the file of a snapshot that was written and read."""
    store.write(make_snapshot())
    assert store.read("BTC/USDT") == make_snapshot()
    return folder / "online" / "BTC-USDT.json"


def test_a_snapshot_is_read_as_it_was_written(store: OnlineStore, tmp_path: Path) -> None:
    assert written(store, tmp_path).exists()
    assert OnlineStore(tmp_path / "online").read("BTC/USDT") == make_snapshot()


@given(
    features=st.dictionaries(st.text(max_size=5), st.none() | FINITE, max_size=4),
    close=FINITE,
    read_at=st.datetimes(timezones=st.just(UTC)),
)
def test_every_number_and_time_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    features: dict[str, float | None],
    close: float,
    read_at: datetime,
) -> None:
    candle = replace(make_snapshot().candles[-1], close=close)
    snapshot = make_snapshot(features=features, candles=(candle,), read_at=read_at)
    store = OnlineStore(tmp_path_factory.mktemp("online"))
    store.write(snapshot)
    read = store.read("BTC/USDT")
    assert read is not None
    assert repr(read.features) == repr(features)
    assert repr(read.candles[0].close) == repr(close)
    assert (read.read_at, read.read_at.tzinfo) == (read_at, UTC)


def test_a_monitoring_summary_is_read_as_it_was_written(store: OnlineStore) -> None:
    store.write_monitoring(make_monitoring())
    assert store.read_monitoring() == make_monitoring()
    store.write_monitoring(make_monitoring(outcomes=(), score=None, drift=()))
    assert store.read_monitoring() == make_monitoring(outcomes=(), score=None, drift=())


def test_before_the_first_ingest_and_monitoring_there_is_nothing(store: OnlineStore) -> None:
    assert store.read("BTC/USDT") is None
    assert store.read_monitoring() is None
    assert store.symbols() == ()


def test_markets_are_listed_by_their_files_and_nothing_else(
    store: OnlineStore, tmp_path: Path
) -> None:
    for symbol in ("ETH/USDT", "BTC/USDT"):
        store.write(make_snapshot(symbol=symbol))
    store.write_monitoring(make_monitoring())
    for name in (".BTC-USDT.json.0a1b", "notes.json", "A-B-C.json"):
        (tmp_path / "online" / name).write_text("{}")
    assert store.symbols() == ("BTC/USDT", "ETH/USDT")


@pytest.mark.parametrize("symbol", ["../BTC/USDT", "btc/usdt", "", "/etc/passwd", "BTC/USDT\n"])
def test_what_is_no_market_leads_to_no_file(store: OnlineStore, symbol: str) -> None:
    store.write(make_snapshot())
    assert store.read(symbol) is None


def test_the_age_is_the_market_s_at_writing_plus_what_passed_here_since() -> None:
    snapshot = make_snapshot()
    assert snapshot.age(snapshot.read_at) == timedelta(seconds=5)
    assert snapshot.age(snapshot.read_at + timedelta(seconds=40)) == timedelta(seconds=45)
    assert snapshot.market_now(snapshot.read_at + MINUTE) == snapshot.market_time + MINUTE


def test_a_clock_that_was_put_back_makes_no_snapshot_younger() -> None:
    snapshot = make_snapshot()
    assert snapshot.age(snapshot.read_at - timedelta(hours=1)) == timedelta(seconds=5)


def test_a_file_is_parsed_again_only_when_it_changed(store: OnlineStore, tmp_path: Path) -> None:
    path = written(store, tmp_path)
    assert store.read("BTC/USDT") is store.read("BTC/USDT")
    stat = path.stat()
    store.write(make_snapshot(source="replayed!"))
    # As long, and of the same time: only the inode tells the two apart.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    newer = store.read("BTC/USDT")
    assert newer is not None
    assert newer.source == "replayed!"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff\xfe" + content,
        lambda content: content.replace(b"0.333", b'"0.333').replace(b"3333,", b'3333",'),
        lambda content: content.replace(b'"source"', b'"origin"'),
        lambda content: content.replace(b"12:02:00Z", b"12:02:00"),
        lambda content: content.replace(b"7.0", b"NaN"),
        lambda content: content.replace(b"12:01:00Z", b"12:00:00Z"),
        lambda content: content.replace(b'"candles":[', b'"candles":[],"more":['),
    ],
    ids=["torn", "empty", "no text", "text", "key", "offset", "nan", "twice", "no candles"],
)
def test_a_damaged_file_is_refused_by_name_with_what_to_do(
    store: OnlineStore, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = written(store, tmp_path)
    spoilt = spoil(path.read_bytes())
    assert spoilt != path.read_bytes()
    path.write_bytes(spoilt)
    with pytest.raises(DataError, match=r"BTC-USDT\.json is not usable.*\./task ingest writes it"):
        store.read("BTC/USDT")
    store.write(make_snapshot())
    assert store.read("BTC/USDT") == make_snapshot()


def test_another_market_s_file_is_refused(store: OnlineStore, tmp_path: Path) -> None:
    written(store, tmp_path).rename(tmp_path / "online" / "ETH-USDT.json")
    with pytest.raises(DataError, match="it is of BTC/USDT, not of ETH/USDT"):
        store.read("ETH/USDT")


def test_a_damaged_summary_names_the_command_that_writes_it(
    store: OnlineStore, tmp_path: Path
) -> None:
    store.write_monitoring(make_monitoring())
    path = tmp_path / "online" / "monitoring.json"
    document = json.loads(path.read_bytes())
    document["outcomes"][0]["happened"] = 0
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"outcomes\.0\.happened.*\./task monitor writes it"):
        store.read_monitoring()


def test_a_file_that_cannot_be_opened_is_refused_too(store: OnlineStore, tmp_path: Path) -> None:
    (tmp_path / "online" / "BTC-USDT.json").mkdir(parents=True)
    with pytest.raises(DataError, match="it cannot be read: Is a directory"):
        store.read("BTC/USDT")


@pytest.mark.parametrize(
    "changes",
    [
        {"features": {"rsi_14m": float("nan")}},
        {"features": {"rsi_14m": float("inf")}},
        {"source": ""},
        {"symbol": "BTC-USDT"},
        {"candles": make_snapshot(241).candles, "open_time": FIRST + 240 * MINUTE},
    ],
    ids=["nan", "infinite", "no source", "no market", "too many candles"],
)
def test_what_no_reader_would_take_is_never_written(
    store: OnlineStore, changes: dict[str, object]
) -> None:
    store.write(make_snapshot())
    with pytest.raises(DataError, match="is not usable"):
        store.write(make_snapshot(**changes))
    assert store.read("BTC/USDT") == make_snapshot()


@pytest.mark.parametrize("n_candles", [1, 240])
def test_a_snapshot_has_from_one_to_the_most_candles(store: OnlineStore, n_candles: int) -> None:
    store.write(make_snapshot(n_candles))
    assert store.read("BTC/USDT") == make_snapshot(n_candles)


@pytest.mark.parametrize("changes", [{"open_time": FIRST}, {"candles": ()}])
def test_features_belong_to_the_newest_candle(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the last at open_time"):
        make_snapshot(**changes)
