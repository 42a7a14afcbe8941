"""The house keeps its promises: rings, lean imports, twin tests, documents, pinned dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from btc_lifecycle.settings import ROOT, IngestSettings, LifecycleSettings, read_config
from btc_lifecycle_tests import generated_docs, lock

PACKAGE, TESTS = ROOT / "btc_lifecycle", ROOT / "btc_lifecycle_tests"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKED = (ROOT / "requirements.lock").read_text("utf-8")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
SOURCES = sorted([*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")])
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md"]
)

TESTED_ELSEWHERE = {
    "definitions.py": ("orchestration/test_build.py", "one call of build_defs"),
    "adapters/registry/": ("adapters/registry/test_registry.py", "parts of one class"),
    "adapters/report_pdf/": ("adapters/report_pdf/test_writers.py", "drawings in whole reports"),
    "adapters/warehouse/": ("adapters/test_warehouse.py", "rows are seen through the file"),
    "commands/status.py": ("commands/test_lifecycle.py", "seen along a whole lifecycle"),
    "domain/tables/": ("domain/test_tables.py", "one list of tables"),
    "orchestration/model_reporting.py": (
        "orchestration/assets/test_learn.py",
        "seen through the report",
    ),
    "service/bodies.py": ("service/test_app.py", "seen through the app"),
    "service/errors.py": ("service/test_app.py", "seen through the app"),
    "service/predicting.py": ("service/test_app.py", "seen through the app"),
}
"""Modules without a test file of their own: where they are tested, and why there."""

MOST_LINES = {PACKAGE: 300, TESTS: 400}
LONGER = {
    "btc_lifecycle/adapters/report_pdf/layout.py",
    "btc_lifecycle_tests/adapters/test_warehouse.py",
}
"""Files that grew beyond the bound; none may join them."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages that importing modules in a new process loads."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ended.stdout.split())


def test_no_import_crosses_the_rings() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_the_domain_is_imported_without_any_neighbour() -> None:
    """Import contracts cannot see an import in a package's __init__; a new process can."""
    names = [
        relative(path).removesuffix(".py").replace("/", ".")
        for path in MODULES
        if path.is_relative_to(PACKAGE / "domain")
    ]
    assert len(names) > 10
    neighbours = {"ccxt", "dagster", "duckdb", "fastapi", "lightgbm", "mlflow", "pandas"}
    assert loaded_by(*names) & neighbours == set()


def test_a_minute_run_loads_nothing_that_it_does_not_need() -> None:
    """LightGBM once came along with the settings, and scikit-learn, scipy and pandas with it."""
    heavy = {"ccxt", "fpdf", "lightgbm", "matplotlib", "mlflow", "pandas", "scipy", "sklearn"}
    assert loaded_by("btc_lifecycle.definitions") & heavy == set()


def test_the_service_is_imported_without_dagster() -> None:
    assert loaded_by("btc_lifecycle.service.app") & {"dagster", "duckdb", "ccxt"} == set()


def test_the_command_line_starts_without_dagster_and_mlflow() -> None:
    assert (
        loaded_by("btc_lifecycle.commands.cli") & {"ccxt", "dagster", "lightgbm", "mlflow"} == set()
    )


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_every_module_has_its_twin_test(module: Path) -> None:
    path = module.relative_to(PACKAGE)
    twin = TESTS / path.with_name(f"test_{path.name}")
    elsewhere = [
        TESTS / test
        for prefix, (test, _) in TESTED_ELSEWHERE.items()
        if path.as_posix().startswith(prefix)
    ]
    assert any(test.exists() for test in [twin, *elsewhere]), f"{relative(twin)} is missing"


def test_no_file_grows_beyond_what_can_be_read_at_once() -> None:
    too_long = {
        relative(path)
        for path in SOURCES
        for folder, most in MOST_LINES.items()
        if path.is_relative_to(folder) and len(path.read_text("utf-8").splitlines()) > most
    }
    assert too_long <= LONGER


def test_both_configuration_files_load() -> None:
    assert read_config(ROOT / "config" / "bitcoin_ingest.json", IngestSettings) == IngestSettings()
    read_config(ROOT / "config" / "lifecycle.json", LifecycleSettings)


@pytest.mark.parametrize("name", sorted(generated_docs.pages()))
def test_generated_pages_say_what_the_code_says(name: str) -> None:
    written = (generated_docs.PAGES_FOLDER / name).read_text("utf-8")
    assert written == generated_docs.pages()[name], "run ./task docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    inside = [link.partition("#")[0] for link in links if "://" not in link]
    broken = [link for link in inside if link and not (document.parent / link).exists()]
    assert broken == []


def test_the_lock_file_names_no_host() -> None:
    """Whoever installs from a mirror could not use it otherwise."""
    assert "://" not in LOCKED
    assert "index-url" not in LOCKED


def test_every_locked_file_is_named_by_its_hash() -> None:
    requirements = LOCKED.replace("\\\n", " ").splitlines()
    pinned = re.compile(
        r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
    )
    assert [line for line in requirements if not pinned.fullmatch(line)] == []


def test_uv_installs_what_the_lock_file_pins() -> None:
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == lock.constraints(LOCKED)


def test_pinning_again_with_the_same_pins_changes_nothing() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert lock.with_constraints(text, lock.constraints(LOCKED)) == text


def test_every_dependency_has_its_reason_and_every_reason_its_dependency() -> None:
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    rows = re.findall(
        r"^\| ([a-z][a-z0-9, -]*) \| (.+) \|$",
        (ROOT / "docs" / "dependencies.md").read_text("utf-8"),
        re.MULTILINE,
    )
    explained = [name for names, reason in rows if reason != "why" for name in names.split(", ")]
    assert sorted(explained) == sorted(re.split(r"[<>=\[]", text)[0] for text in wanted)
