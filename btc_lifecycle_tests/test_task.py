"""The wrapper ./task and the Taskfile behind it; nothing here sets up an environment."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from btc_lifecycle.settings import ROOT

WRAPPER = ROOT / "task"
SOURCE = WRAPPER.read_text("utf-8")
PUBLIC = "demo test check ingest backfill rebuild track register rollback monitor serve sandbox ui mlflow up status"
FOR_CONTRIBUTORS = "docs lock"


@pytest.fixture
def wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The wrapper as a module, for a checkout in a folder of the test's own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("task_wrapper", str(WRAPPER))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    (tmp_path / "requirements.lock").write_text("numpy==1\n", encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "BIN": tmp_path / ".venv" / "bin",
        "LOCK": tmp_path / "requirements.lock",
        "STAMP": tmp_path / ".venv" / ".installed",
    }
    for name, place in places.items():
        monkeypatch.setattr(module, name, place)
    return module


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, list[str], dict[str, str]]]:
    """What the wrapper became, instead of becoming it."""
    calls: list[tuple[Path, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


def test_the_wrapper_needs_the_standard_library_only() -> None:
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (
            [ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names
        )
    }
    assert imported <= sys.stdlib_module_names


def test_the_wrapper_can_be_started() -> None:
    assert SOURCE.startswith("#!/usr/bin/env python3\n")
    assert os.access(WRAPPER, os.X_OK)


def test_a_python_that_is_too_old_is_told_so() -> None:
    """An old one has to understand the file to say it."""
    ast.parse(SOURCE, feature_version=(3, 7))
    old = "import runpy, sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 (main)';"
    ended = subprocess.run(
        [sys.executable, "-c", f"{old} runpy.run_path({str(WRAPPER)!r}, run_name='__main__')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: Python 3.11 to 3.14 is needed, this is 3.10.4 (")
    assert hint == "hint: run it with another interpreter, such as: python3.12 ./task demo"


def test_a_python_without_venv_is_told_what_to_install(
    wrapper: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit) as ended:
        wrapper.make_venv()
    assert ended.value.code == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: this Python cannot make virtual environments"
    assert f"apt-get install python3.{sys.version_info[1]}-venv; or install uv" in hint


def test_a_step_of_the_set_up_that_fails_is_named(
    wrapper: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        wrapper.run(sys.executable, "-c", "raise SystemExit(3)")
    assert ended.value.code == 1
    assert f"error: setting up failed at: {sys.executable} -c" in capsys.readouterr().err


def test_the_fingerprint_changes_with_the_lock_file_and_the_place(
    wrapper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = wrapper.fingerprint()
    assert wrapper.fingerprint() == before
    wrapper.LOCK.write_text("numpy==2\n", encoding="utf-8")
    changed = wrapper.fingerprint()
    monkeypatch.setattr(wrapper, "ROOT", tmp_path / "moved")
    assert len({before, changed, wrapper.fingerprint()}) == 3


def test_the_environment_is_set_up_once_and_again_when_the_lock_changes(
    wrapper: ModuleType, handed_over: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up: list[str] = []
    monkeypatch.setattr(wrapper, "install", lambda: set_up.append("done"))
    wrapper.main()
    wrapper.main()
    assert len(set_up) == 1
    wrapper.LOCK.write_text("numpy==2\n", encoding="utf-8")
    wrapper.main()
    assert len(set_up) == 2
    assert len(handed_over) == 3


def test_a_set_up_that_failed_is_tried_again(
    wrapper: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper.shutil, "which", lambda name: "/bin/false")
    wrapper.STAMP.write_text("of an older lock file", encoding="utf-8")
    with pytest.raises(SystemExit):
        wrapper.main()
    assert not wrapper.STAMP.exists()


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [([], ["--list"]), (["backfill", "--", "--start", "2024-01-01"], None)],
    ids=["no task lists them", "arguments are passed on"],
)
def test_the_wrapper_becomes_the_task_runner(
    wrapper: ModuleType,
    handed_over: list[tuple[Path, list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    passed_on: list[str] | None,
) -> None:
    wrapper.STAMP.write_text(wrapper.fingerprint(), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["task", *given])
    wrapper.main()
    ((program, arguments, environment),) = handed_over
    assert program == wrapper.BIN / "task"
    assert arguments == ["task", *(passed_on or given)]
    assert environment["PATH"].startswith(f"{wrapper.BIN}{os.pathsep}")


def test_the_taskfile_has_exactly_the_public_tasks_each_with_a_line() -> None:
    tasks = yaml.safe_load((ROOT / "Taskfile.yml").read_text("utf-8"))["tasks"]
    assert set(tasks) == {*PUBLIC.split(), *FOR_CONTRIBUTORS.split()}
    assert all(task["desc"] and "\n" not in task["desc"] for task in tasks.values())


def test_the_task_runner_lists_every_task() -> None:
    runner = Path(sys.executable).with_name("task")
    listed = subprocess.run(
        [runner, "--list", "--json", "--dir", ROOT], capture_output=True, text=True, check=True
    )
    names = {task["name"] for task in json.loads(listed.stdout)["tasks"]}
    assert names == {*PUBLIC.split(), *FOR_CONTRIBUTORS.split()}


@pytest.mark.parametrize("name", ["task", "Taskfile.yml"])
def test_no_host_is_named(name: str) -> None:
    """Who installs from a mirror says so to uv or pip, not to the project."""
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    assert "index" not in text
