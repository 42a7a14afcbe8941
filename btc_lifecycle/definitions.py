"""The code location that Dagster loads: the only module that reads the environment at import."""

from btc_lifecycle.orchestration.build import build_defs
from btc_lifecycle.settings import load_settings

defs = build_defs(load_settings())
