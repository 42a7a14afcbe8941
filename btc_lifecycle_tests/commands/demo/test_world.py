"""The demo's folder, environment and child processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from btc_lifecycle.commands.demo import world as world_module
from btc_lifecycle.commands.demo.world import DemoError, World, get, post
from btc_lifecycle.domain.errors import NeighbourUnavailableError
from btc_lifecycle.settings import Places, load_settings
from btc_lifecycle_tests.orchestration.small_lifecycle import make_exchange

NOW = datetime(2025, 3, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Entering a world changes the process's environment; each test gets its own back."""
    for name in Places.model_fields:
        monkeypatch.setenv(name.upper(), "")
        monkeypatch.delenv(name.upper())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "demo", seed=7, now=NOW) as world:
        yield world


def test_the_environment_names_every_place(tmp_path: Path) -> None:
    environment = World(tmp_path, seed=7, now=NOW).environment()
    assert set(environment) == {name.upper() for name in Places.model_fields}


def test_every_place_is_kept_to_the_folder_whatever_a_dotenv_file_says(
    world: World, tmp_path: Path
) -> None:
    """Variables that were merely emptied were filled again from the .env file of the working folder."""
    elsewhere = [
        f"{name.upper()}={tmp_path / 'elsewhere' / name}"
        for name in Places.model_fields
        if name != "exchange_base_url"
    ]
    Path(".env").write_text("\n".join([*elsewhere, "EXCHANGE_BASE_URL=http://127.0.0.1:1"]))
    settings = load_settings()
    for place in (
        settings.data_dir,
        settings.feature_db_path,
        settings.report_dir,
        settings.prediction_log_dir,
    ):
        assert place.is_relative_to(world.folder)
    assert settings.mlflow_tracking_uri == settings.mlflow_registry_uri
    assert settings.mlflow_tracking_uri.startswith(f"sqlite:///{world.folder}/")
    assert settings.exchange_base_urls == (world.exchange_url,)
    assert settings.model_uri == "models:/bitcoin-model@production"


def test_the_configuration_is_the_shipped_one_but_for_a_shorter_window_and_fewer_folds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_demo = load_settings()
    for name in ("INGEST_CONFIG", "LIFECYCLE_CONFIG"):
        monkeypatch.delenv(name)
    shipped = load_settings()
    assert of_demo.ingest == shipped.ingest
    assert of_demo.lifecycle.monitor == shipped.lifecycle.monitor
    learn = shipped.lifecycle.learn
    changes = {
        "window_days": world_module.WINDOW_DAYS,
        "split": replace(learn.split, n_folds=world_module.N_FOLDS),
    }
    assert of_demo.lifecycle.learn == learn.model_copy(update=changes)


def test_exchange_and_service_listen_on_this_machine_on_ports_of_their_own(world: World) -> None:
    assert world.exchange_url.startswith("http://127.0.0.1:")
    assert world.service_url.startswith("http://127.0.0.1:")
    assert world.exchange_url != world.service_url


def test_the_exchange_leaps_changes_regime_and_ends_with_the_world(tmp_path: Path) -> None:
    with World(tmp_path / "demo", seed=7, now=NOW) as world:
        state = world.start_exchange()
        assert (state["market"], state["now"][:10]) == ("synthetic", "2025-03-03")
        world.leap(NOW + timedelta(days=1))
        assert get(f"{world.exchange_url}/sandbox/state")["now"][:10] == "2025-03-04"
        changed = world.change_regime(NOW + timedelta(days=2))
        assert changed["regimes"][0]["flow_effect_factor"] == -2.0
    with pytest.raises(NeighbourUnavailableError):
        get(f"{world.exchange_url}/sandbox/state")


def test_a_process_that_dies_at_its_start_is_named_with_its_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DemoError, match=r"the service did not come up.*read the logs in"):
        world.start_service()
    assert (world.folder / "logs" / "serve.log").exists()


def test_a_version_that_does_not_come_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "_START_WAIT_S", -1.0)
    with make_exchange() as exchange:
        world.service_url = exchange.url
        with pytest.raises(DemoError, match="version 2 in the service did not come up"):
            world.wait_for_version("2")


def test_answers_other_than_200_are_told_with_their_text() -> None:
    with make_exchange() as exchange:
        assert "serverTime" in get(f"{exchange.url}/api/v3/time")
        with pytest.raises(NeighbourUnavailableError, match="answered 404"):
            get(f"{exchange.url}/nowhere")
        with pytest.raises(NeighbourUnavailableError, match=r"answered 400: .*error"):
            post(f"{exchange.url}/sandbox/clock", {"now": "soon"})


def test_no_answer_is_told_with_its_address() -> None:
    with make_exchange() as exchange:
        url = exchange.url
    with pytest.raises(NeighbourUnavailableError, match=url) as caught:
        get(url)
    assert isinstance(caught.value.__cause__, httpx.HTTPError)
