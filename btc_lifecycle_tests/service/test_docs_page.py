"""The page of endpoints, which a browser shows with nothing but this service."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

from btc_lifecycle.service.docs_page import FILES_URL


def test_the_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there(client):
    page = client.get("/docs").text
    assert "://" not in page
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(loaded) == [
        f"{FILES_URL}/favicon.png",
        f"{FILES_URL}/swagger-ui-bundle.js",
        f"{FILES_URL}/swagger-ui.css",
    ]
    assert {client.get(path).status_code for path in loaded} == {200}
    assert "url: '/openapi.json'" in page


def test_its_policy_lets_its_own_script_run_and_no_other(client):
    answer = client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "http" not in policy


def test_files_come_whole_and_may_be_kept(client):
    """A part of one is refused in words and forms of its own."""
    whole = client.get(f"{FILES_URL}/swagger-ui.css")
    assert whole.headers["cache-control"] == "max-age=86400"
    assert whole.headers["x-content-type-options"] == "nosniff"
    for part in ("bytes=0-9", "bytes=abc", "bytes=99999999-"):
        answer = client.get(f"{FILES_URL}/swagger-ui.css", headers={"Range": part})
        assert (answer.status_code, len(answer.content)) == (200, len(whole.content))


def test_what_is_not_among_the_files_is_not_found(client):
    for path in ("nothing.js", "../core.py", "%2e%2e/core.py", "", "redoc/../../core.py"):
        answer = client.get(f"{FILES_URL}/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"


def test_the_examples_are_requests_that_the_serving_model_takes(client):
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert sorted(examples) == ["one row", "rows", "rows by name"]
    for example in examples.values():
        assert client.post("/predict", json=example["value"]).status_code == 200
