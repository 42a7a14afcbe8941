"""What several processes do to one store at once."""

from __future__ import annotations

import subprocess
import sys


def test_processes_that_need_a_new_store_at_once_get_the_same_experiment(tmp_path):
    """Both created the tables, or the experiment, and the second failed."""
    uri = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    code = (
        "from btc_lifecycle.adapters.registry import Registry;"
        f"print(Registry({uri!r}, {uri!r}).ensure_experiment())"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1]
