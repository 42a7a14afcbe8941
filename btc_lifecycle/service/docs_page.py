"""The page at /docs: FastAPI's own, with Swagger UI from this machine, loading nothing from elsewhere."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from btc_lifecycle.service.page import inline_hashes

FILES_URL = "/docs/files"


class _Files(StaticFiles):
    """Whole files, which a browser may keep for a day."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a part of a file is refused in forms of its own, so none is given."""
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "max-age=86400"
        return response


def add_docs_page(app: FastAPI) -> None:
    """Let an app show its endpoints at /docs, where they can be tried."""
    files = Path(str(resources.files("fastapi_offline"))) / "static"
    app.mount(FILES_URL, _Files(directory=files), name="docs-files")
    app.add_api_route("/docs", get_docs, include_in_schema=False)


async def get_docs(request: Request) -> HTMLResponse:
    """Return the page."""
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=request.app.title,
        swagger_js_url=f"{root}{FILES_URL}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{FILES_URL}/swagger-ui.css",
        swagger_favicon_url=f"{root}{FILES_URL}/favicon.png",
        swagger_ui_parameters={"defaultModelsExpandDepth": -1, "validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())
    return page


def with_examples(
    openapi: dict[str, Any], examples: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return an OpenAPI document whose requests for predictions are these."""
    body = openapi["paths"]["/predict"]["post"]["requestBody"]
    body["content"]["application/json"]["examples"] = examples
    return openapi


def _policy(page: str) -> str:
    """Return the policy that lets the page's own script run and Swagger UI style itself."""
    scripts = inline_hashes(page, tag="script")
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
