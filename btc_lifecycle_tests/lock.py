"""Pin the dependencies: requirements.lock for the set-up, constraints in pyproject.toml for uv.

``./task lock`` resolves pyproject.toml for every Python and platform at once, writes each file's
hash and no address, and repeats the same pins as uv's constraints, so that ``uv run`` installs what
``./task`` installs. ``./task lock -- --upgrade`` takes newer versions.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
_SECTION = re.compile(r"\n\[tool\.uv\]\n.*?\n\]\n", re.DOTALL)
_PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)(\[[^]]+])?==(?P<rest>[^\\]+)", re.MULTILINE)


def constraints(lock: str) -> list[str]:
    """Return the pins of a lock file as constraints: no extras, no hashes, markers kept."""
    return [f"{pin['name']}=={pin['rest'].strip()}" for pin in _PIN.finditer(lock)]


def with_constraints(project: str, pins: list[str]) -> str:
    """Return pyproject.toml with the pins as uv's constraints, at its end."""
    # A literal string keeps a marker's own quotes as they are.
    lines = "".join(f"    {_quoted(pin)},\n" for pin in pins)
    section = f"\n[tool.uv]\nconstraint-dependencies = [\n{lines}]\n"
    return _SECTION.sub("", project).rstrip("\n") + "\n" + section


def main() -> None:
    """Resolve, then write both files."""
    PROJECT.write_text(with_constraints(PROJECT.read_text("utf-8"), []), "utf-8")
    subprocess.run(
        [
            *("uv", "pip", "compile", "pyproject.toml", "--group", "dev", "--universal"),
            *("--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras", "--quiet"),
            *("--python-version", "3.11", "--output-file", LOCK.name, *sys.argv[1:]),
        ],
        cwd=ROOT,
        check=True,
    )
    pins = constraints(LOCK.read_text("utf-8"))
    PROJECT.write_text(with_constraints(PROJECT.read_text("utf-8"), pins), "utf-8")


def _quoted(pin: str) -> str:
    return f'"{pin}"' if '"' not in pin else f"'{pin}'"


if __name__ == "__main__":
    main()
