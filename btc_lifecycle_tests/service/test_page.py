"""The live page: nothing from elsewhere, a policy that fits it, and what a browser makes of it."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from btc_lifecycle.service.overview import OverviewBody
from btc_lifecycle.service.page import content_security_policy, live_page
from btc_lifecycle_tests.service.overview_states import NO_MODEL, SPOILT, overviews

BROWSER = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SINGULAR = {
    "overview": "",
    "shown": "",
    "market": "market",
    "candle": "market.candles",
    "newest": "market.candles",
    "prediction": "prediction",
    "model": "model",
    "baseline": "model.baselines",
    "version": "versions",
    "monitoring": "monitoring",
    "outcome": "monitoring.outcomes",
    "score": "monitoring.score",
    "drift": "monitoring.drift",
}
"""What the script calls a part of the overview, and where the overview has it."""


class Blocks(HTMLParser):
    """Collects the inline blocks of a page and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._open in {"style", "script"}:
            self.blocks.append((self._open, data))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def parsed() -> Blocks:
    blocks = Blocks()
    blocks.feed(live_page())
    return blocks


def script() -> str:
    return "".join(content for kind, content in parsed().blocks if kind == "script")


def body_at(path: str) -> type[BaseModel]:
    """Return the body that lies at a path of the overview, through lists and nulls."""
    body: type[BaseModel] = OverviewBody
    for name in filter(None, path.split(".")):
        found = [body.model_fields[name].annotation]
        while not (isinstance(found[0], type) and issubclass(found[0], BaseModel)):
            found = [*get_args(found[0]), *found[1:]]
        body = found[0]
    return body


def test_the_page_refers_to_no_other_host() -> None:
    assert "//" not in re.sub(r"\s//[^\n]*", "", script())
    assert not re.search(r"https?:|url\(|@import", live_page())
    links = {value for _, name, value in parsed().attributes if name in {"src", "href", "action"}}
    assert links == {"data:,", "/docs"}


def test_the_policy_names_each_inline_block_by_its_hash_and_allows_nothing_else() -> None:
    policy = dict(part.split(" ", 1) for part in content_security_policy().split("; "))
    blocks = parsed().blocks
    assert sorted(kind for kind, _ in blocks) == ["script", "style"]
    for kind, content in blocks:
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "data:"
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}


def test_nothing_in_the_page_needs_what_the_policy_forbids() -> None:
    names = {name for _, name, _ in parsed().attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    assert not re.search(r"\beval\(|new Function|setAttribute\(\"style\"", script())


def test_text_is_never_made_into_markup() -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser", script()
    )


def test_every_key_that_the_script_reads_is_in_the_overview() -> None:
    read = re.findall(rf"\b({'|'.join(SINGULAR)})\.([a-z][a-z_0-9]*)\b(?!\()", script())
    assert {part for part, _ in read} == set(SINGULAR)
    unknown = {
        f"{part}.{key}" for part, key in read if key not in body_at(SINGULAR[part]).model_fields
    }
    assert unknown == set()


def test_every_element_that_the_script_looks_for_is_there_once() -> None:
    ids = [value for _, name, value in parsed().attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"(?:\$|put)\(\"([a-z-]+)\"", script()))
    explained = set(re.findall(r"explain\(\"([a-z-]+)\"", script()))
    assert len(wanted) > 20
    assert wanted | {f"{name}-problem" for name in explained} <= set(ids)


def test_sections_are_named_and_the_prediction_is_read_out() -> None:
    attributes = parsed().attributes
    ids = {value for _, name, value in attributes if name == "id"}
    labelled = [
        value for tag, name, value in attributes if (tag, name) == ("section", "aria-labelledby")
    ]
    assert len(labelled) == 6
    assert set(labelled) <= ids
    assert ("div", "aria-live", "polite") in attributes
    assert ("html", "lang", "en") in attributes


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page and its overviews on loopback; ``?symbol=`` names the state, an unknown one is refused.

    The state "lost" is told once, and then the connection breaks.
    """
    states = overviews(tmp_path_factory.mktemp("online"))
    once = {"lost": states["full"]}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("symbol=")[2].replace("+", " ")
            if self.path.startswith("/overview"):
                refusal = (
                    b'{"error": {"code": "unauthorized", "message": "no key", "hint": "send it"}}'
                )
                known = states.get(name) or once.pop(name, None)
                if name == "lost" and known is None:
                    self.close_connection = True
                    return
                body = refusal if known is None else known.model_dump_json().encode()
                self._answer(401 if known is None else 200, body, "application/json")
            else:
                self._answer(200, live_page().encode(), "text/html; charset=utf-8")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", content_security_policy())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH, and CHROMIUM names none")
@pytest.mark.parametrize(
    ("state", "told", "untold"),
    [
        ("full", ["52.1 % chance of a higher close in 15 minutes", "SYNTHETIC DATA", "1 of 2 right", "&lt;img"], []),
        ("one day", ["69.0 % chance of a fall within 15 minutes", "outcomes of one day bound"], []),
        ("stale", ["look whether the minute schedule runs", "The registry does not answer"], []),
        ("fresh", [NO_MODEL[1:], "No candle of BTC/USDT was ingested yet"], ["52.1 %"]),
        ("lost", ["Connection lost since", '<main id="main" class="old">', "52.1 % chance"], []),
        ("locked", ["No key; send it", "<dialog id=\"ask\" aria-labelledby=\"ask-title\" open"], []),
    ],
)  # fmt: skip
def test_a_browser_shows_each_state_in_words(
    address: str, tmp_path: Path, state: str, told: list[str], untold: list[str]
) -> None:
    dom = dom_of(f"{address}/?symbol={state.replace(' ', '+')}", profile=tmp_path)
    assert [text for text in told if text not in dom] == []
    assert [text for text in untold if text in dom] == []
    assert SPOILT not in dom


def dom_of(url: str, *, profile: Path) -> str:
    """Return the page's markup as a browser has it after some seconds of its own time."""
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=8000",
        "--dump-dom",
        url,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout
