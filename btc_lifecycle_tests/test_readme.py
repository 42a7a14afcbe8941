"""What README tells the reader to type exists, and its Python runs on what the tasks make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from fastapi.routing import iter_route_contexts

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.service.app import create_app
from btc_lifecycle.service.latest import LatestBody
from btc_lifecycle.settings import ROOT, load_settings
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.service.conftest import service_settings

README = (ROOT / "README.md").read_text("utf-8")
TASKS = yaml.safe_load((ROOT / "Taskfile.yml").read_text("utf-8"))["tasks"]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_every_task_that_readme_names_exists() -> None:
    named = set(re.findall(r"\./task ([a-z]+)", README))
    assert {"demo", "test", "ingest", "track", "register", "serve", "sandbox"} <= named
    assert named <= set(TASKS)


def test_every_public_task_has_its_row_in_readme() -> None:
    rows = "".join(line for line in README.splitlines() if line.startswith("| `"))
    assert [name for name in TASKS if f"`{name}`" not in rows] == []


@pytest.mark.parametrize("block", PYTHON)
def test_every_python_block_compiles(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_reader_block_counts_and_loads_candles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in PYTHON if "btc_lifecycle.reader" in block]
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path))
    Warehouse(load_settings().feature_db_path).upsert(CANDLES, make_candles(7))
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102  # our own document
    assert capsys.readouterr().out == "7\n"
    assert len(names["candles"]) == 7  # type: ignore[arg-type]


def test_the_services_paths_and_the_answer_shown_are_those_of_the_service(tmp_path: Path) -> None:
    app = create_app(service_settings(f"sqlite:///{tmp_path}/none.db", tmp_path))
    served = {route.path for route in iter_route_contexts(app.routes)}
    named = re.findall(r"http://127\.0\.0\.1:8000(/[a-z/]*)", README)
    named += re.findall(r"`(?:GET |POST )?(/[a-z]+)`", README)
    assert named
    assert [path for path in named if path not in served] == []
    (shown,) = re.findall(r"^\{\"symbol\".*?\}$", README, re.DOTALL | re.MULTILINE)
    LatestBody.model_validate_json(shown.replace("\n", ""))
