"""Addresses of the exchange and of its archive, from file and environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.settings import Places, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an environment without any of the lifecycle's variables."""
    for name in Places.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestExchangeAddress:
    def test_the_environment_wins_over_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (folder / "i.json").write_text('{"base_url": "http://127.0.0.1:1111"}')
        monkeypatch.setenv("INGEST_CONFIG", str(folder / "i.json"))
        assert load_settings().exchange_base_urls == ("http://127.0.0.1:1111",)
        monkeypatch.setenv("EXCHANGE_BASE_URL", "http://127.0.0.1:2222")
        assert load_settings().exchange_base_urls == ("http://127.0.0.1:2222",)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
            ("http://127.0.0.1:8765/", "http://127.0.0.1:8765"),
            ("https://api.example.com", "https://api.example.com"),
            ("http://[::1]:8765", "http://[::1]:8765"),
        ],
    )
    def test_scheme_host_and_port_are_kept(
        self, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("EXCHANGE_BASE_URL", value)
        assert load_settings().exchange_base_urls == (expected,)

    def test_several_addresses_are_kept_in_their_order(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("EXCHANGE_BASE_URL", "http://127.0.0.1:1/, https://b.example:8443")
        assert load_settings().exchange_base_urls == (
            "http://127.0.0.1:1",
            "https://b.example:8443",
        )

    def test_an_exchange_that_is_not_binances_is_its_own_archive(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("EXCHANGE_BASE_URL", "http://127.0.0.1:1,http://127.0.0.1:2")
        assert load_settings().archive_url == "http://127.0.0.1:1"
        (folder / "i.json").write_text('{"archive_url": "https://files.example.com/"}')
        monkeypatch.setenv("INGEST_CONFIG", str(folder / "i.json"))
        assert load_settings().archive_url == "https://files.example.com"

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("http://127.0.0.1:1,nowhere", "must be scheme, host and port"),
            (
                "http://127.0.0.1:8765/api/v3",
                "must end after the port; paths such as /api/v3/... are appended",
            ),
            ("http://127.0.0.1:8765?x=1", "must end after the port"),
            ("http://127.0.0.1:8765/#x", "must end after the port"),
            ("127.0.0.1:8765", "must be scheme, host and port"),
            ("localhost", "must be scheme, host and port"),
            ("ftp://127.0.0.1:8765", "must be scheme, host and port"),
            ("http://:8765", "must be scheme, host and port"),
            ("http://127.0.0.1:0", "must be scheme, host and port"),
            ("http://127.0.0.1:abc", "port could not be cast to integer"),
            ("http://127.0.0.1:99999", "port out of range"),
            ("http://[::1", "invalid IPv6 URL"),
        ],
    )
    def test_anything_else_is_refused_by_the_variables_name(
        self, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
    ):
        """A port that is none went through and failed only in the first request."""
        monkeypatch.setenv("EXCHANGE_BASE_URL", value)
        with pytest.raises(ConfigurationError) as refusal:
            load_settings()
        assert refusal.value.message.startswith(
            f"the environment is not valid: exchange_base_url: {problem}"
        )
        assert refusal.value.message.endswith(f"(was {value!r})")
        assert ".env.example" in refusal.value.hint
