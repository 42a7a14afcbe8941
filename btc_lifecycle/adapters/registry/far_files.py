"""Artifact folders that only MLflow's own clients reach, such as those in S3 or GCS.

A process of its own reads them, so that its caller needs no MLflow in memory; it takes seconds,
most of them to import MLflow. Standard input: a JSON object of ``tracking_uri``, ``folder_uri`` and
``wanted``, ``sizes`` or ``files``. Standard output: on its last line a JSON object of ``answer``,
by file name, content in base 64, or of ``problem``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode, b64encode
from typing import Any, Literal

from btc_lifecycle.adapters.registry.store import MlflowStore, unavailable
from btc_lifecycle.domain.errors import LifecycleError

WAIT_S = 90.0


def far_sizes(
    folder_uri: str, *, tracking_uri: str, wait_s: float = WAIT_S
) -> dict[str, int | None]:
    """Return how many bytes each file of a folder has, by name; None for what is no file.

    Raises:
        NeighbourUnavailableError: If MLflow cannot read the folder, or not in time.
    """
    return _asked("sizes", folder_uri, tracking_uri=tracking_uri, wait_s=wait_s)


def far_files(folder_uri: str, *, tracking_uri: str, wait_s: float = WAIT_S) -> dict[str, bytes]:
    """Return the content of each file that lies directly in a folder, by name.

    Raises:
        NeighbourUnavailableError: If MLflow cannot read the folder, or not in time.
    """
    found = _asked("files", folder_uri, tracking_uri=tracking_uri, wait_s=wait_s)
    return {name: b64decode(content) for name, content in found.items()}


def _asked(
    wanted: Literal["sizes", "files"], folder_uri: str, *, tracking_uri: str, wait_s: float
) -> dict[str, Any]:
    request = {"tracking_uri": tracking_uri, "folder_uri": folder_uri, "wanted": wanted}
    try:
        ended = subprocess.run(  # noqa: S603  # our own module by our own interpreter
            [sys.executable, "-m", __name__],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=wait_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise unavailable(folder_uri, f"no answer within {wait_s:g} s") from None
    if ended.returncode != 0:
        raise unavailable(folder_uri, f"its reader ended with status {ended.returncode}")
    told = json.loads(ended.stdout.rpartition(b"\n")[2])
    if "problem" in told:
        raise unavailable(folder_uri, told["problem"])
    return dict(told["answer"])


def answer(*, tracking_uri: str, folder_uri: str, wanted: str) -> dict[str, object]:
    """Return what was asked for, or why it cannot be had."""
    store = MlflowStore(tracking_uri, tracking_uri)
    try:
        if wanted == "sizes":
            return {"answer": store.file_sizes(folder_uri)}
        files = store.read_folder(folder_uri)
    except LifecycleError as error:
        return {"problem": error.message}
    return {"answer": {name: b64encode(files[name]).decode() for name in files}}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(answer(**json.load(sys.stdin))))
