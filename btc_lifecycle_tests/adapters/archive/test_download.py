from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from btc_lifecycle.adapters.archive.download import BINANCE_ARCHIVE_URL, Downloads
from btc_lifecycle.adapters.http import HttpClient
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError
from btc_lifecycle_tests.adapters.archive.fake_archive import FakeArchive, cut, reset, status

PATH = "/data/spot/file.zip"
ELSEWHERE = 'set `backfill_from` to "exchange"'


@pytest.fixture
def server() -> Iterator[FakeArchive]:
    with FakeArchive() as running:
        running.files[PATH] = b"whole"
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def downloads(server: FakeArchive, pauses: list[float]) -> Downloads:
    http = HttpClient(total=timedelta(seconds=5), max_bytes=1000)
    return Downloads(server.url, http=http, pause=pauses.append)


def test_a_file_comes_whole_and_a_missing_one_is_none(
    downloads: Downloads, pauses: list[float]
) -> None:
    assert downloads.get(PATH) == b"whole"
    assert downloads.get("/data/spot/other.zip") is None
    assert pauses == []


def test_addresses_begin_with_the_archive_of_binance_or_the_one_given() -> None:
    assert Downloads().url("/data") == f"{BINANCE_ARCHIVE_URL}/data"
    assert Downloads("http://127.0.0.1:1/").url("/data") == "http://127.0.0.1:1/data"


@pytest.mark.parametrize("odd", [status(500), status(503), status(429), cut, reset])
@pytest.mark.parametrize("count", [1, 3])
def test_a_passing_fault_is_tried_over_after_growing_pauses(
    server: FakeArchive, downloads: Downloads, pauses: list[float], odd: Callable, count: int
) -> None:
    server.odd[PATH] = [odd] * count
    assert downloads.get(PATH) == b"whole"
    means = [0.5, 1.5, 4.5][:count]
    assert len(pauses) == count
    assert all(mean / 2 <= pause <= mean * 1.5 for pause, mean in zip(pauses, means, strict=True))


def test_pauses_differ_from_client_to_client(
    server: FakeArchive, downloads: Downloads, pauses: list[float]
) -> None:
    server.odd[PATH] = [status(503), status(200, b"first"), status(503)]
    assert downloads.get(PATH) == b"first"
    assert downloads.get(PATH) == b"whole"
    assert pauses[0] != pauses[1]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (status(503), "answered 503 Service Unavailable, 4 times over"),
        (cut, r"the archive did not answer \(cut\): http"),
        (reset, r"the archive did not answer \(reset\): http"),
    ],
)
def test_a_fault_that_stays_is_an_error_after_four_tries(
    server: FakeArchive, downloads: Downloads, pauses: list[float], odd: Callable, said: str
) -> None:
    server.odd[PATH] = [odd] * 9
    with pytest.raises(NeighbourUnavailableError, match=said) as refusal:
        downloads.get(PATH)
    assert f"{server.url}{PATH}" in refusal.value.message
    assert refusal.value.hint.endswith(ELSEWHERE)
    assert len(pauses) == 3
    assert len(server.requested) == 4


def test_an_archive_that_does_not_answer_in_time_is_tried_over(server: FakeArchive) -> None:
    pauses: list[float] = []
    http = HttpClient(total=timedelta(milliseconds=40), max_bytes=1000)
    server.odd[PATH] = [lambda handler: handler.rfile.read(1)] * 4
    with pytest.raises(NeighbourUnavailableError, match=r"did not answer \(timeout\)"):
        Downloads(server.url, http=http, pause=pauses.append).get(PATH)
    assert len(pauses) == 3


@pytest.mark.parametrize("number", [403, 451])
def test_a_refusal_of_the_country_or_network_names_the_setting_at_once(
    server: FakeArchive, downloads: Downloads, pauses: list[float], number: int
) -> None:
    server.odd[PATH] = [status(number, b"<html>Request blocked</html>")]
    with pytest.raises(NeighbourUnavailableError, match=f"answered {number}") as refusal:
        downloads.get(PATH)
    assert "this country or this network" in refusal.value.message
    assert refusal.value.hint == (
        f"set `archive_url` to a mirror that this network may read, or {ELSEWHERE}"
    )
    assert pauses == []


@pytest.mark.parametrize("number", [400, 401, 405, 410])
def test_any_other_refusal_of_the_request_is_the_configurations_fault(
    server: FakeArchive, downloads: Downloads, pauses: list[float], number: int
) -> None:
    server.odd[PATH] = [status(number)]
    with pytest.raises(ConfigurationError, match=f"answered {number} .*mend `archive_url`"):
        downloads.get(PATH)
    assert pauses == []


@pytest.mark.parametrize("number", [204, 206, 302, 307])
def test_an_answer_that_is_neither_file_nor_error_is_no_file(
    server: FakeArchive, downloads: Downloads, pauses: list[float], number: int
) -> None:
    server.odd[PATH] = [status(number)]
    with pytest.raises(NeighbourUnavailableError, match=f"answered {number} .*log-in page"):
        downloads.get(PATH)
    assert pauses == []


def test_a_file_beyond_the_most_that_is_read_is_refused_at_once(
    server: FakeArchive, downloads: Downloads, pauses: list[float]
) -> None:
    server.files[PATH] = bytes(1001)
    with pytest.raises(NeighbourUnavailableError, match=r"did not answer \(too_large\)"):
        downloads.get(PATH)
    assert pauses == []
