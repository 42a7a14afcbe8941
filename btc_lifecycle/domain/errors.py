"""The errors that the lifecycle raises on purpose.

Four kinds, by what the reader must do: mend the configuration, look at the data, wait for a
neighbour, or make something first that is not there yet. Every message says what happened, where,
and what to do next; ``hint`` carries the last part alone, for callers that show it apart.
"""

from __future__ import annotations


class LifecycleError(Exception):
    """Base of all errors raised on purpose; ``str()`` is the message followed by the hint."""

    def __init__(self, message: str, *, hint: str) -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}; {hint}")


class ConfigurationError(LifecycleError):
    """A setting is wrong; nothing was started, and trying again without a change cannot help."""


class DataError(LifecycleError):
    """Data broke a rule; nothing of the offending batch was stored."""


class NeighbourUnavailableError(LifecycleError):
    """An exchange, a store or a registry did not answer properly; the same call may work later."""


class NothingToServeError(LifecycleError):
    """Something that an earlier stage makes is not there yet: candles, a candidate, a champion."""
