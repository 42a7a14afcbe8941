from __future__ import annotations

import pytest

from btc_lifecycle.domain.errors import (
    ConfigurationError,
    DataError,
    LifecycleError,
    NeighbourUnavailableError,
    NothingToServeError,
)

KINDS = [ConfigurationError, DataError, NeighbourUnavailableError, NothingToServeError]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_happened_and_then_what_to_do(kind: type[LifecycleError]):
    error = kind("the cup is empty", hint="fill it")
    assert str(error) == "the cup is empty; fill it"
    assert (error.message, error.hint) == ("the cup is empty", "fill it")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_caught_as_a_lifecycle_error_and_as_no_other_kind(kind: type[LifecycleError]):
    error = kind("what", hint="do")
    assert isinstance(error, LifecycleError)
    assert [other for other in KINDS if isinstance(error, other)] == [kind]


def test_an_error_without_a_hint_cannot_be_made():
    with pytest.raises(TypeError, match="hint"):
        DataError("something went wrong")  # type: ignore[call-arg]
