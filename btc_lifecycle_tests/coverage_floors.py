"""Run the tests with branch coverage and hold it to its floors: the domain 100 %, the package 90 %."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FLOORS = {"btc_lifecycle/domain/*": 100, "btc_lifecycle/*": 90}
"""Branch coverage in percent by pattern of files."""


def main() -> int:
    """Return 0 when all tests pass and every floor holds, else the first failure's status."""
    scripts = Path(sys.executable).parent
    coverage = str(scripts / "coverage")
    status = subprocess.call(
        [str(scripts / "pytest"), "-n", "2", "--cov", "--cov-report=", *sys.argv[1:]]
    )
    for pattern, floor in FLOORS.items():
        status = status or subprocess.call(
            [coverage, "report", f"--include={pattern}", f"--fail-under={floor}"]
        )
    return status


if __name__ == "__main__":
    raise SystemExit(main())
