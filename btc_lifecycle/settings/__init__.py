"""Configuration files and environment as frozen values; unknown keys are refused with their path.

The environment (and a ``.env`` file in the working folder) holds places and secrets; the JSON files
under ``config/`` hold numbers. The environment wins over a file where both name the same thing.
"""

from __future__ import annotations

from btc_lifecycle.settings.loading import (
    ROOT,
    Places,
    Settings,
    dagster_dir,
    load_settings,
    read_config,
    read_places,
)
from btc_lifecycle.settings.sections import (
    IngestSettings,
    LearnSettings,
    LifecycleSettings,
    ServeSettings,
)

__all__ = [
    "ROOT",
    "IngestSettings",
    "LearnSettings",
    "LifecycleSettings",
    "Places",
    "ServeSettings",
    "Settings",
    "dagster_dir",
    "load_settings",
    "read_config",
    "read_places",
]
