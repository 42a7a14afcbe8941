"""The commands one after the other on one small folder, each as ./task calls it."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from btc_lifecycle.adapters.warehouse import write_snapshots
from btc_lifecycle.commands import lifecycle
from btc_lifecycle.commands.lifecycle import Figures
from btc_lifecycle.commands.status import status as read_status
from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.orchestration.build import open_store
from btc_lifecycle.orchestration.journal import open_registry
from btc_lifecycle.settings import IngestSettings, Places, load_settings
from btc_lifecycle_tests.model_builders import copy_store, promote_new
from btc_lifecycle_tests.orchestration.small_lifecycle import (
    LIFECYCLE,
    LIMIT,
    make_exchange,
)

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture(scope="module", autouse=True)
def folder(empty_mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder that the environment names, with a sandbox exchange to ingest from."""
    folder = tmp_path_factory.mktemp("commands")
    copy_store(empty_mlflow_store, folder)
    places = {
        "BTC_DATA_DIR": str(folder),
        "LIFECYCLE_CONFIG": str(folder / "lifecycle.json"),
        "INGEST_CONFIG": str(folder / "ingest.json"),
    }
    (folder / "lifecycle.json").write_text(LIFECYCLE.model_dump_json(), encoding="utf-8")
    (folder / "ingest.json").write_text(
        IngestSettings(limit=LIMIT).model_dump_json(), encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch, make_exchange() as exchange:
        patch.chdir(folder)
        for name in Places.model_fields:
            patch.delenv(name.upper(), raising=False)
        for name, value in {**places, "EXCHANGE_BASE_URL": exchange.url}.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def ingested() -> Figures:
    return lifecycle.ingest()


@pytest.fixture(scope="module")
def tracked(ingested: Figures) -> dict[str, Figures]:
    return lifecycle.track()


@pytest.fixture(scope="module")
def status_when_tracked(tracked: dict[str, Figures]) -> dict[str, Figures]:
    return read_status()


@pytest.fixture(scope="module")
def registered(status_when_tracked: dict[str, Figures]) -> dict[str, Figures]:
    return lifecycle.register()


@pytest.fixture(scope="module")
def status(registered: dict[str, Figures]) -> dict[str, Figures]:
    return read_status()


@pytest.fixture(scope="module")
def monitored(status: dict[str, Figures]) -> Figures:
    return lifecycle.monitor()


@pytest.fixture(scope="module")
def rolled_back(monitored: Figures) -> Figures:
    """What is shown after a second promotion was taken back."""
    settings = load_settings()
    promote_new(open_registry(settings))
    return lifecycle.rollback("bitcoin-model")


def test_ingest_shows_what_is_stored_and_where_the_report_lies(
    ingested: Figures, folder: Path
) -> None:
    assert ingested["new_rows"] == ingested["dagster/row_count"] == LIMIT
    assert ingested["source"] == "synthetic"
    assert ingested["last_open_time"] == "2024-01-05 23:59 UTC"
    assert ingested["database"] == folder / "feature_store" / "bitcoin.duckdb"
    assert Path(str(ingested["report"])).is_relative_to(folder / "reports" / "ingestion")


NUMBER = r"-?\d+\.\d{5}"


def test_track_shows_scores_beside_the_baselines_and_what_they_rest_on(
    tracked: dict[str, Figures],
) -> None:
    direction, volatility = tracked["direction"], tracked["volatility"]
    for figures in (direction, volatility):
        assert figures["source"] == "synthetic"
        assert str(figures["trained_from"]) < str(figures["trained_until"])
        assert figures["n_folds"] == "2"
    rivals = "".join(f", {name} {NUMBER}" for name in ("prior", "contrarian", "logistic"))
    interval = rf"{NUMBER} \({NUMBER} to {NUMBER}\)"
    assert re.fullmatch(interval + rivals, str(direction["log_loss"]))
    assert re.fullmatch(rf"{interval}, har {NUMBER}, last_value {NUMBER}", str(volatility["mse"]))


def test_track_lets_nothing_serve(status_when_tracked: dict[str, Figures]) -> None:
    none_yet = {"version": "none yet; ./task track and ./task register make one"}
    assert status_when_tracked["champion"] == none_yet
    assert status_when_tracked["candidate"]["version"] == "not registered yet"
    assert status_when_tracked["candidate"]["decision"] == "none yet; ./task register makes one"


def test_register_shows_the_decisions_with_their_reasons(
    registered: dict[str, Figures], folder: Path
) -> None:
    direction = registered["direction"]
    assert direction["promoted"] is True
    assert direction["model_version"] == "1"
    assert "beats prior by" in str(direction["reason"])
    assert registered["volatility"]["verdict"] in {"promoted", "refused"}
    for shown in ("report", "model_card"):
        path = Path(str(registered["reports"][shown]))
        assert path.is_relative_to(folder / "reports" / "modeling")
        assert path.is_file()


def test_status_shows_store_champion_and_candidate_on_one_screen(
    registered: dict[str, Figures], status: dict[str, Figures]
) -> None:
    assert status["store"]["source"] == "synthetic"
    assert re.fullmatch(
        r"[\d,]+ candles, 2024-01-01 00:00 UTC to 2024-01-05 23:59 UTC",
        str(status["store"]["BTC/USDT"]),
    )
    assert status["store"]["BTC/USDT gaps"] == "0 of 0 minutes; 0 minutes never asked for"
    assert status["champion"] == status["candidate"]
    assert status["champion"]["version"] == "bitcoin-model 1"
    assert status["champion"]["decision"] == f"promoted: {registered['direction']['reason']}"


def test_monitor_shows_the_verdict_on_retraining(monitored: Figures, folder: Path) -> None:
    assert monitored["retrain"] is False
    assert str(monitored["reason"]).startswith("cooling down until")
    assert Path(str(monitored["report"])).is_relative_to(folder / "reports" / "monitoring")


def test_a_rollback_of_no_model_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="no model 'bitcoin'; name one of bitcoin-model, b"
    ):
        lifecycle.rollback("bitcoin")


def test_rollback_shows_what_serves_after_it(rolled_back: Figures) -> None:
    assert rolled_back == {"serving": "bitcoin-model 1"}
    assert read_status()["champion"]["version"] == "bitcoin-model 1"


@pytest.fixture
def copied_store(
    ingested: Figures, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of the test's own, so that what it changes is not seen by the others."""
    shutil.copytree(folder / "feature_store", tmp_path / "feature_store")
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))


@pytest.mark.usefixtures("copied_store")
def test_a_backfill_reaches_before_the_first_ingest_and_asks_for_nothing_twice() -> None:
    """The market began a day before the candles that the first ingest reached back to."""
    asked = {"start": datetime(2023, 12, 5, tzinfo=UTC), "end": datetime(2024, 1, 1, tzinfo=UTC)}
    console = Console(file=io.StringIO(), width=120)
    assert lifecycle.backfill(**asked, console=console)["new_rows"] == 1440
    assert "44640/44640" in console.file.getvalue()
    assert lifecycle.backfill(**asked, console=console)["new_rows"] == 0


@pytest.mark.parametrize(
    ("start", "end"),
    [("2999-01-01", None), ("2024-01-05", "2024-01-02"), ("2010-01-01", "2011-01-01")],
)
def test_a_backfill_of_no_month_is_refused(start: str, end: str | None) -> None:
    """It said nothing and ended as if all were done; the end of the market is the exchange's."""
    until = datetime.fromisoformat(end).replace(tzinfo=UTC) if end else None
    with pytest.raises(ConfigurationError, match=f"no month to fetch from {start} to "):
        lifecycle.backfill(
            start=datetime.fromisoformat(start).replace(tzinfo=UTC), end=until, console=Console()
        )


def test_status_names_a_damaged_store_and_shows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: dict[str, Figures]
) -> None:
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("FEATURE_DB_PATH", str(damaged))
    shown = read_status()
    assert str(damaged) in str(shown["store"]["problem"])
    assert str(shown["champion"]["version"]).startswith("bitcoin-model ")


@pytest.mark.usefixtures("copied_store")
def test_a_damaged_database_is_made_again_from_snapshots_and_the_exchange() -> None:
    settings = load_settings()
    store = open_store(settings)
    write_snapshots(store.warehouse, store.tables, folder=settings.snapshots_dir)
    # Half of January is in no snapshot: the exchange has to give it again.
    (settings.snapshots_dir / "BTCUSDT" / "2024-01.parquet").write_bytes(b"cut")
    database = settings.feature_db_path
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged"):
        store.warehouse.verify()

    shown = lifecycle.rebuild(is_forced=False, console=Console(file=io.StringIO()))
    assert "damaged" in str(shown["problem"])
    assert Path(str(shown["set aside"])).exists()
    assert "2024-01.parquet" in str(shown["snapshots that were of no use"])
    holdings = store.holdings("BTC/USDT")
    assert holdings.n_missing_min == 0
    assert holdings.n_rows >= LIMIT
