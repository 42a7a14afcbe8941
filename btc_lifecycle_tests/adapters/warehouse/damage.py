"""Stores to damage, and what tells whether a loss went unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import polars as pl
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.tables import CANDLES

CHILD = """
import os, resource, signal, sys
from pathlib import Path
import btc_lifecycle.adapters.warehouse.warehouse as module
from btc_lifecycle.adapters.warehouse import Warehouse, upsert_rows
from btc_lifecycle.domain.errors import LifecycleError
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles

path, candles = Path(sys.argv[1]), make_candles(int(sys.argv[2]))
warehouse = Warehouse(path)
"""
"""How a child process begins: with a store and candles."""

LIMITED = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    warehouse.upsert(CANDLES, candles, source="binance")
    print("stored", flush=True)
except LifecycleError as error:
    print(type(error).__name__, error.message, flush=True)
# Nothing may be written under the limit any more, such as a measurement of coverage.
os._exit(0)
"""
"""An upsert on a disk that takes no file beyond a size: what a full disk is to a program."""


def run_child(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD + code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


def cut(content: bytes, *, seed: int) -> bytes:
    return content[: Random(seed).randrange(len(content))]  # noqa: S311  # no secret


def flip(content: bytes, *, seed: int) -> bytes:
    rng = Random(seed)  # noqa: S311  # no secret
    place = rng.randrange(len(content))
    flipped = content[place] ^ (1 << rng.randrange(8))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def is_noticed_or_harmless(path: Path, truth: pl.DataFrame) -> bool:
    """Return whether a look at every row notices damage; if it does not, all rows must be right.

    A damaged index shows only when it is written to, so rows are written again as they are.
    """
    try:
        Warehouse(path).verify()
    except DataError:
        return True
    assert_frame_equal(Warehouse(path).read(CANDLES), truth)
    try:
        Warehouse(path).upsert(CANDLES, truth[::50])
    except DataError:
        return True
    assert_frame_equal(Warehouse(path).read(CANDLES), truth)
    return False


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Nothing at ``path`` may be written, by anybody; root is asked to be nobody meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0o400)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)
