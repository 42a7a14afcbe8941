from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.tables import TABLES
from btc_lifecycle.settings import (
    ROOT,
    IngestSettings,
    LifecycleSettings,
    Places,
    dagster_dir,
    load_settings,
    read_config,
    read_places,
)

VARIABLES = [name.upper() for name in Places.model_fields]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an environment without any of the lifecycle's variables."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestPlaces:
    def test_without_anything_set_all_data_lie_in_the_checkouts_data_folder(self):
        settings = load_settings()
        data = ROOT / "data"
        assert settings.data_dir == data
        assert settings.feature_db_path == data / "feature_store" / "bitcoin.duckdb"
        assert settings.ingestion_stats_path == data / "feature_store" / "ingestion_stats.json"
        assert settings.report_dir == data / "reports"
        assert settings.prediction_log_dir == data / "predictions"
        assert settings.mlflow_tracking_uri == f"sqlite:///{data}/mlflow/mlflow.db"
        assert settings.mlflow_registry_uri == settings.mlflow_tracking_uri
        assert settings.model_uri == "models:/bitcoin-model@production"
        assert settings.exchange_base_urls == ()
        assert settings.archive_url is None
        assert settings.exchange_state_dir == data / "exchange"
        assert settings.snapshots_dir == data / "feature_store" / "snapshots"
        assert settings.api_key is None
        assert dagster_dir() == data / "dagster"

    def test_every_data_place_derives_from_the_data_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        before = load_settings()
        monkeypatch.setenv("BTC_DATA_DIR", str(folder / "elsewhere"))
        after = load_settings()
        moved = repr(before).replace(str(ROOT / "data"), str(folder / "elsewhere"))
        assert repr(after) == moved
        assert dagster_dir() == folder / "elsewhere" / "dagster"

    def test_each_place_can_be_set_by_itself(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FEATURE_DB_PATH", "/a/b.duckdb")
        monkeypatch.setenv("BTC_REPORT_DIR", "/a/reports")
        monkeypatch.setenv("PREDICTION_LOG_DIR", "/a/log")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
        monkeypatch.setenv("MODEL_URI", "models:/bitcoin-model/3")
        monkeypatch.setenv("BTC_API_KEY", "open sesame")
        settings = load_settings()
        assert settings.feature_db_path == Path("/a/b.duckdb")
        assert settings.report_dir == Path("/a/reports")
        assert settings.prediction_log_dir == Path("/a/log")
        assert settings.mlflow_tracking_uri == "http://127.0.0.1:5000"
        assert settings.mlflow_registry_uri == "http://127.0.0.1:5000"
        assert settings.model_uri == "models:/bitcoin-model/3"
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == "open sesame"
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:5001")
        assert load_settings().mlflow_registry_uri == "http://127.0.0.1:5001"

    def test_relative_places_are_relative_to_the_working_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("BTC_DATA_DIR", "here")
        monkeypatch.setenv("BTC_REPORT_DIR", "there/reports")
        (folder / "mine.json").write_text('{"symbols": ["ETH/USDT"]}')
        monkeypatch.setenv("INGEST_CONFIG", "mine.json")
        settings = load_settings()
        assert settings.feature_db_path == folder / "here" / "feature_store" / "bitcoin.duckdb"
        assert settings.report_dir == folder / "there" / "reports"
        assert settings.mlflow_tracking_uri == f"sqlite:///{folder}/here/mlflow/mlflow.db"
        assert settings.ingest.symbols == ("ETH/USDT",)

    def test_a_tilde_is_the_home_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("BTC_DATA_DIR", "~/btc")
        monkeypatch.setenv("INGEST_CONFIG", "~/mine.json")
        (folder / "mine.json").write_text("{}")
        assert load_settings().data_dir == folder / "btc"

    def test_a_dot_env_file_is_read_and_the_environment_wins_over_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (folder / ".env").write_text(
            "BTC_DATA_DIR=from_file\nBTC_API_KEY='from file'\nPATH_OF_ANOTHER_PROGRAM=x\n"
        )
        monkeypatch.setenv("BTC_DATA_DIR", "from_environment")
        settings = load_settings()
        assert settings.data_dir == folder / "from_environment"
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == "from file"

    @pytest.mark.parametrize("name", VARIABLES)
    def test_an_empty_variable_is_as_good_as_none(self, name: str, monkeypatch: pytest.MonkeyPatch):
        before = load_settings()
        monkeypatch.setenv(name, "")
        assert load_settings() == before

    @pytest.mark.parametrize("key", ["ключ-секрет", "two\nlines"])
    def test_a_key_that_no_header_can_hold_is_refused_and_not_told(self, monkeypatch, key):
        monkeypatch.setenv("BTC_API_KEY", key)
        with pytest.raises(ConfigurationError, match="btc_api_key: must be of ASCII") as refused:
            load_settings()
        assert key not in str(refused.value)
        assert repr(key) not in str(refused.value)

    def test_the_key_is_not_shown_where_settings_are(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("BTC_API_KEY", "open sesame")
        assert "sesame" not in repr(load_settings())

    def test_nothing_can_be_changed_afterwards(self):
        with pytest.raises(ValidationError, match="frozen"):
            read_places().model_uri = "models:/other/1"  # type: ignore[misc]


def ingest_file(folder: Path, content: object) -> Path:
    path = folder / "ingest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


class TestIngestFile:
    def test_what_a_file_does_not_say_has_its_default(self, folder: Path):
        ingest = read_config(ingest_file(folder, {}), IngestSettings)
        assert ingest.model_dump() == {
            "exchange": "binance",
            "symbols": ("BTC/USDT",),
            "interval": "1m",
            "limit": 43_200,
            "table": "candles",
            "start": None,
            "base_url": None,
            "weight_share": 0.5,
            "backfill_from": "exchange",
            "archive_url": None,
        }

    def test_every_key_is_read(self, folder: Path):
        wanted = {
            "exchange": "binance",
            "symbols": ["ETH/USDT", "BTC/USDT"],
            "interval": "1m",
            "limit": 5,
            "table": "order",
            "start": "2024-01-01T02:00:00+02:00",
            "base_url": "http://127.0.0.1:8765",
        }
        ingest = read_config(ingest_file(folder, wanted), IngestSettings)
        assert ingest.symbols == ("ETH/USDT", "BTC/USDT")
        assert (ingest.limit, ingest.table) == (5, "order")
        assert ingest.start == datetime(2024, 1, 1, tzinfo=UTC)
        assert ingest.start.utcoffset() == timedelta(hours=2)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ({"symbol": "BTC/USDT"}, "symbol: extra inputs are not permitted (was 'BTC/USDT')"),
            ({"exchange": "kraken"}, "exchange: input should be 'binance' (was 'kraken')"),
            ({"interval": "5m"}, "interval: input should be '1m' (was '5m')"),
            ({"limit": "5"}, "limit: input should be a valid integer (was '5')"),
            ({"limit": 1.5}, "limit: input should be a valid integer (was 1.5)"),
            ({"limit": True}, "limit: input should be a valid integer (was True)"),
            ({"limit": 0}, "limit: input should be greater than or equal to 1 (was 0)"),
            ({"symbols": "BTC/USDT"}, "symbols: input should be a valid array (was 'BTC/USDT')"),
            ({"symbols": []}, "symbols: must name at least one market, and each once (was [])"),
            (
                {"symbols": ["BTC/USDT", "BTC/USDT"]},
                "symbols: must name at least one market, and each once",
            ),
            (
                {"symbols": ["BTC/USDT", "btc/usdt"]},
                "symbols.1: string should match pattern '^[A-Z0-9]{1,20}/[A-Z0-9]{1,20}$' (was 'btc/usdt')",
            ),
            ({"symbols": ["BTCUSDT"]}, "symbols.0: string should match pattern"),
            ({"symbols": [1]}, "symbols.0: input should be a valid string (was 1)"),
            ({"table": "Candles"}, "table: string should match pattern '^[a-z][a-z0-9_]{0,62}$'"),
            ({"table": 'x"; DROP TABLE y; --'}, "table: string should match pattern"),
            ({"table": "features"}, "table: is the name of another table; choose one of your own"),
            ({"start": "yesterday"}, "start: input should be a valid datetime"),
            ({"start": "2024-01-01T00:00:00"}, "start: input should have timezone info"),
            ({"start": 1704067200}, "start: input should be a valid datetime"),
            ({"base_url": "http://h:1/api"}, "base_url: must end after the port"),
            ("{", "file: invalid JSON: EOF while parsing an object at line 1 column 1 (was b'{')"),
            ("", "file: invalid JSON: EOF while parsing a value"),
            ("[]", "file: input should be an object (was [])"),
            ('{"limit": NaN}', "limit: input should be a valid integer (was nan)"),
        ],
        ids=str,
    )
    def test_a_wrong_file_is_refused_with_its_path_key_and_value(
        self, folder: Path, content: object, problem: str
    ):
        path = ingest_file(folder, content)
        with pytest.raises(ConfigurationError) as refusal:
            read_config(path, IngestSettings)
        assert refusal.value.message.startswith(
            f"configuration file {path} is not valid: {problem}"
        )
        assert refusal.value.hint == "mend the named keys; docs/configuration.md lists every key"

    def test_no_other_table_can_be_taken_for_candles(self, folder: Path):
        for table in TABLES[1:]:
            with pytest.raises(ConfigurationError, match="is the name of another table"):
                read_config(ingest_file(folder, {"table": table.name}), IngestSettings)

    def test_all_problems_are_told_at_once_and_long_values_in_part(self, folder: Path):
        path = ingest_file(folder, {"interval": "x" * 500, "limit": -1})
        with pytest.raises(ConfigurationError) as refusal:
            read_config(path, IngestSettings)
        assert "interval: " in refusal.value.message
        assert "; limit: " in refusal.value.message
        assert len(refusal.value.message) < 400

    def test_a_missing_file_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("INGEST_CONFIG", str(folder / "none.json"))
        with pytest.raises(ConfigurationError) as refusal:
            load_settings()
        assert refusal.value.message == (
            f"configuration file {folder / 'none.json'} could not be read: "
            "No such file or directory"
        )
        assert ".env.example" in refusal.value.hint


class TestLifecycleFile:
    @pytest.fixture
    def shipped(self) -> dict[str, Any]:
        return json.loads((ROOT / "config" / "lifecycle.json").read_bytes())

    def test_the_shipped_file_is_read_to_its_last_key(self, shipped: dict[str, Any]):
        lifecycle = read_config(ROOT / "config" / "lifecycle.json", LifecycleSettings)
        assert json.loads(lifecycle.model_dump_json()) == shipped
        assert load_settings().lifecycle == lifecycle

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda it: it.update(lern=1), "lern: extra inputs are not permitted (was 1)"),
            (lambda it: it["learn"].update(x=1), "learn.x: extra inputs are not permitted (was 1)"),
            (
                lambda it: it["learn"]["training"].update(x=1),
                "learn.training.x: unexpected keyword argument (was 1)",
            ),
            (
                lambda it: it["monitor"]["drift"].update(x=1),
                "monitor.drift.x: unexpected keyword argument (was 1)",
            ),
            (lambda it: it.pop("monitor"), "monitor: field required"),
            (
                lambda it: it["learn"]["split"].pop("min_rows"),
                "learn.split.min_rows: field required",
            ),
            (
                lambda it: it["learn"]["training"].update(seed="7"),
                "learn.training.seed: input should be a valid integer (was '7')",
            ),
            (
                lambda it: it["learn"]["training"].update(learning_rate=float("nan")),
                "learn.training.learning_rate: input should be a finite number (was nan)",
            ),
            (
                lambda it: it["learn"]["labels"].update(horizon_min=0),
                (
                    "learn.labels: horizon_min must be 1 to 240 (was {'method': 'horizon', "
                    "'horizon_min': 0, 'barrier_width': 1.0, 'volatility_win...)"
                ),
            ),
            (
                lambda it: it["learn"]["labels"].update(method="trend"),
                "learn.labels.method: input should be 'horizon' or 'triple_barrier' (was 'trend')",
            ),
            (
                lambda it: it["learn"].update(leave_out=["rsi_14m", "rsi"]),
                "learn.leave_out.1: is no feature; docs/features.md lists them (was 'rsi')",
            ),
            (
                lambda it: it["learn"].update(leave_out=2 * ["rsi_14m"]),
                "learn.leave_out: must name each feature once (was ['rsi_14m', 'rsi_14m'])",
            ),
            (
                lambda it: it["learn"].update(window_days=2),
                "72 hours of monitor.drift.window_hours do not fit into 2 days of learn.window_days",
            ),
            (
                lambda it: it["learn"]["split"].update(test_fraction=2.0),
                "a split with 0.2 for validation and 2.0 for test leaves a part empty",
            ),
        ],
    )
    def test_a_wrong_key_or_value_is_refused_with_file_and_dotted_path(
        self,
        folder: Path,
        shipped: dict[str, Any],
        change: Callable[[dict[str, Any]], object],
        problem: str,
        monkeypatch: pytest.MonkeyPatch,
    ):
        change(shipped)
        path = folder / "lifecycle.json"
        path.write_text(json.dumps(shipped))
        monkeypatch.setenv("LIFECYCLE_CONFIG", str(path))
        with pytest.raises(ConfigurationError) as refusal:
            load_settings()
        assert refusal.value.message == f"configuration file {path} is not valid: {problem}"


class TestExample:
    """The file .env.example at the root."""

    @pytest.fixture
    def example(self) -> str:
        return (ROOT / ".env.example").read_text(encoding="utf-8")

    def test_it_names_exactly_the_variables_that_are_read(self, example: str):
        named = re.findall(r"^# ([A-Z_]+)=", example, flags=re.MULTILINE)
        assert sorted(named) == sorted(VARIABLES)

    def test_nothing_in_it_is_set_before_a_hash_is_taken_off(self, example: str):
        assert all(line.startswith("#") or not line for line in example.splitlines())

    def test_every_variable_is_told_what_it_is_for(self, example: str):
        for paragraph in example.strip().split("\n\n")[1:]:
            *meaning, variable = paragraph.splitlines()
            assert re.match(r"# [A-Z_]+=", variable)
            assert meaning
            assert meaning[-1].endswith(".")

    def test_its_values_are_the_defaults(self, folder: Path, example: str):
        expected = load_settings()
        shutil.copytree(ROOT / "config", folder / "config")
        uncommented = re.sub(r"^# (?=[A-Z_]+=)", "", example, flags=re.MULTILINE)
        (folder / ".env").write_text(uncommented, encoding="utf-8")
        assert read_places().btc_data_dir == Path("data")
        assert repr(load_settings()).replace(str(folder), str(ROOT)) == repr(expected)
