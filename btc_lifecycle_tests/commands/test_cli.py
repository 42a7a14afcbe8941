"""Exit codes and what is said on stdout and stderr; errors raised on purpose show no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from rich.console import Console

from btc_lifecycle.commands import cli, lifecycle
from btc_lifecycle.commands.demo import story
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.settings import Places
from btc_lifecycle_tests.orchestration.small_lifecycle import NOW, START, make_exchange

COMMAND = [sys.executable, "-m", "btc_lifecycle.commands"]


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for commands that fail: making Dagster's storage takes a second."""
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(autouse=True)
def environment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Places.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(folder))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["btc_lifecycle", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        status = ended.value.code
        assert isinstance(status, int)
        return Said(status, printed.out, printed.err)

    return run


def refuses(said: Said, *, error: str, hint: str) -> None:
    """Check that a command ended with status 1 and two lines, what happened and what to do."""
    lines = said.err.splitlines()
    assert said.status == 1
    assert len(lines) == 2
    assert re.search(error, lines[0].removeprefix("error: "))
    assert lines[0].startswith("error: ")
    assert re.search(hint, lines[1].removeprefix("hint: "))
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"symbol": "BTC/USDT"}, "symbol: extra inputs are not permitted"),
        ({"limit": "many"}, "limit: .*integer.* \\(was 'many'\\)"),
        ({"symbols": ["bitcoin"]}, "symbols.0: .*pattern"),
        ({"interval": "5m"}, "interval: input should be '1m' \\(was '5m'\\)"),
        ({"exchange": "nowhere"}, "exchange: input should be 'binance'"),
        ({"base_url": "127.0.0.1:8765"}, "base_url: .*scheme, host and port"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_key(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: dict[str, object],
    error: str,
) -> None:
    path = tmp_path / "ingest.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("INGEST_CONFIG", str(path))
    refuses(run("status"), error=rf"{path} is not valid: {error}", hint=r"docs/configuration\.md")


def test_a_symbol_that_the_exchange_does_not_know_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ingest.json"
    path.write_text('{"symbols": ["NOPE/USDT"]}', encoding="utf-8")
    monkeypatch.setenv("INGEST_CONFIG", str(path))
    with make_exchange(start=START, now=NOW) as exchange:
        monkeypatch.setenv("EXCHANGE_BASE_URL", exchange.url)
        said = run("ingest")
    refuses(said, error="does not know the market NOPE/USDT", hint="mend `symbols`")


def test_an_exchange_that_is_not_there_is_named_without_a_traceback(folder: Path) -> None:
    with socket.socket() as closed:
        # Bound and not listening: nobody else can have the port, and connections are refused.
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ended = subprocess.run(
            [*COMMAND, "ingest"],
            env={**os.environ, "EXCHANGE_BASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    said = Said(ended.returncode, ended.stdout, ended.stderr)
    refuses(said, error=f"{url} did not answer", hint="EXCHANGE_BASE_URL")


def test_registering_without_a_candidate_says_how_to_get_one(run: Run) -> None:
    refuses(run("register"), error="no candidate yet", hint=r"\./task track")


def test_rolling_back_without_a_previous_champion_is_refused(run: Run) -> None:
    refuses(run("rollback"), error="no version before the champion", hint="second promotion")


@pytest.mark.parametrize("command", ["track", "monitor"])
def test_learning_and_monitoring_before_an_ingest_say_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str, command: str
) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    refuses(run(command), error="there (is no database|are no candles)", hint=r"\./task ingest")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])  # noqa: S104
def test_without_a_key_the_service_binds_to_this_machine_only(run: Run, host: str) -> None:
    refuses(run("serve", "--host", host), error=f"{host} was asked for", hint="BTC_API_KEY")


@pytest.mark.parametrize(("host", "key"), [("127.0.0.1", ""), ("0.0.0.0", "secret")])  # noqa: S104
def test_the_service_binds_to_where_it_may(
    run: Run, monkeypatch: pytest.MonkeyPatch, host: str, key: str
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: asked.update(options, app=app))
    monkeypatch.setenv("BTC_API_KEY", key)
    assert run("serve", "--host", host, "--port", "8123").status == 0
    assert asked["app"] == "btc_lifecycle.service.app:app"
    assert (asked["host"], asked["port"]) == (host, 8123)


def test_mlflows_ui_opens_the_lifecycles_store_on_this_machine(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, env: started.append(arguments))
    assert run("mlflow", "--port", "5123").status == 0
    (arguments,) = started
    assert f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}" in arguments
    assert arguments[-4:] == ["--host", "127.0.0.1", "--port", "5123"]


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--market", "bull"], "market 'bull' is unknown", "synthetic or replay"),
        (["--market", "replay"], "a replay has no data", "--data"),
        (["--market", "replay", "--data", "absent"], "absent: no recorded candles", "SYMBOL"),
        (["--now", "yesterday"], "'yesterday' is not a time", "2024-03-01T00:00:30Z"),
        (["--speed", "-1", "--port", "0"], "cannot run at speed -1", "from 0"),
    ],
)
def test_a_sandbox_that_cannot_be_is_refused(
    run: Run, arguments: list[str], error: str, hint: str
) -> None:
    refuses(run("sandbox", *arguments), error=error, hint=hint)


def test_the_sandbox_says_how_to_use_it_answers_and_ends_quietly() -> None:
    process = subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", "--now", "2024-03-01T00:00:30Z", "--speed", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    assert f"EXCHANGE_BASE_URL={url} ./task ingest" in process.stdout.readline()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"{url}/api/v3/time", timeout=10).json()
    assert answer == {"serverTime": 1_709_251_230_000}
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["unheard-of"],
        ["backfill"],
        ["backfill", "--start", "soon"],
        ["serve", "--port", "70000"],
        ["sandbox", "--port", "-1"],
        ["sandbox", "--history-days", "0"],
        ["ingest", "now"],
    ],
)
def test_mistakes_in_the_arguments_end_with_status_2(run: Run, arguments: list[str]) -> None:
    said = run(*arguments)
    assert said.status == 2
    assert "Usage:" in said.err


def test_help_lists_every_command(run: Run) -> None:
    said = run("--help")
    assert said.status == 0
    commands = "ingest backfill track register rollback monitor status serve mlflow sandbox demo"
    assert all(re.search(rf"^\s*{name}\b", said.out, re.MULTILINE) for name in commands.split())


FIGURES = {"auc": 0.5123456, "reason": "a[red]b"}


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        ("ingest", lambda: FIGURES),
        ("track", lambda: {"direction": FIGURES}),
        ("register", lambda: {"direction": FIGURES}),
        ("rollback", lambda model_name: FIGURES),
        ("monitor", lambda: FIGURES),
    ],
)
def test_figures_are_shown_by_name_without_reading_them_as_markup(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, figures: Callable[..., object]
) -> None:
    monkeypatch.setattr(lifecycle, command, figures)
    said = run(command)
    assert said.status == 0
    assert re.search(r"auc\s+0\.51235\s*\n", said.out)
    assert re.search(r"reason\s+a\[red\]b\s*\n", said.out)


def test_an_errors_brackets_are_shown_as_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DataError("columns lack ['open']", hint="see [docs]")

    monkeypatch.setattr(lifecycle, "ingest", fail)
    refuses(run("ingest"), error=r"columns lack \['open'\]", hint=r"see \[docs\]")


def test_a_backfill_takes_its_days_as_utc_and_shows_its_figures(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[datetime, datetime | None]] = []

    def months(*, start: datetime, end: datetime | None, console: Console) -> dict[str, object]:
        asked.append((start, end))
        return {"new_rows": 3}

    monkeypatch.setattr(lifecycle, "backfill", months)
    said = run("backfill", "--start", "2024-01-05", "--end", "2024-02-01")
    assert asked == [(datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))]
    assert said.out.split() == ["backfilled", "new_rows", "3"]
    run("backfill", "--start", "2024-01-05")
    assert asked[1] == (datetime(2024, 1, 5, tzinfo=UTC), None)


def test_a_market_that_failed_beside_others_is_shown_and_is_no_success(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"new_rows": 3, "failed ETH/USDT": "unknown; mend `symbols`"}
    monkeypatch.setattr(lifecycle, "ingest", lambda: figures)
    said = run("ingest")
    assert said.status == 1
    assert "failed ETH/USDT  unknown; mend `symbols`" in said.out


def test_an_empty_folder_has_a_status(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "empty"))
    said = run("status")
    assert said.status == 0
    assert re.search(r"BTC/USDT\s+0 candles", said.out)
    assert said.out.count("none yet; ./task track and ./task register make one") == 3
    assert not (tmp_path / "empty").exists()


def test_the_demo_is_told_where_to_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(story, "run_demo", lambda console, **options: told.update(options))
    assert run("demo", "--data-dir", str(tmp_path), "--seed", "3").status == 0
    assert told == {"data_dir": tmp_path, "seed": 3}
