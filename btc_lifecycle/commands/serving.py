"""The service under uvicorn, refused where it would stand open to others without a key."""

from __future__ import annotations

import os
import tempfile

import uvicorn

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.service import server
from btc_lifecycle.service.front_door import is_loopback
from btc_lifecycle.settings import load_settings


def serve(*, host: str, port: int, workers: int) -> None:
    """Serve until the process is told to end.

    Raises:
        ConfigurationError: If others could reach the address and no key is set.
    """
    if load_settings().api_key is None and host != "localhost" and not is_loopback(host):
        raise ConfigurationError(
            f"without a key the service binds to this machine only, {host} was asked for",
            hint="set BTC_API_KEY, or leave --host out",
        )
    options = server.options(host=host, port=port, workers=workers)
    if workers == 1:
        uvicorn.run("btc_lifecycle.service.app:app", **options)
        return
    with tempfile.TemporaryDirectory(prefix="btc_lifecycle_metrics_") as folder:
        # Read when a worker imports its metrics, which are then summed over all of them.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run("btc_lifecycle.service.app:app", **options)
