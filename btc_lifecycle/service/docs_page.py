"""The page at /docs: every endpoint with examples, as plain HTML without script or download."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px; }
pre { padding: .75rem; overflow-x: auto; }
code { padding: .1rem .3rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  code, pre { background: #161b22; }
  h2 { border-color: #30363d; }
}
"""


def docs_page(openapi: Mapping[str, Any], *, base_url: str) -> str:
    """Return an HTML page made from an OpenAPI document.

    Args:
        openapi: The document, as FastAPI makes it.
        base_url: Where the service is reached, for the commands to copy.
    """
    title = escape(openapi["info"]["title"])
    summary = escape(openapi["info"].get("summary", ""))
    sections = [
        _section(path, method, operation, base_url=base_url.rstrip("/"))
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{summary}</p>"
        '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. Where a key is set, send it '
        "as <code>X-API-Key</code>. Every error is "
        '<code>{"error": {"code", "message", "hint"}}</code>.</p>'
        f"{''.join(sections)}</body></html>"
    )


def _section(path: str, method: str, operation: Mapping[str, Any], *, base_url: str) -> str:
    command = f"curl {base_url}{path}"
    parts = [
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}</p>",
    ]
    content = operation.get("requestBody", {}).get("content", {})
    examples = content.get("application/json", {}).get("examples", {})
    for example in examples.values():
        body = json.dumps(example["value"])
        parts.append(f"<p>{escape(example['summary'])}:</p>")
        parts.append(
            f"<pre>{escape(command)} -H 'Content-Type: application/json' -d '{escape(body)}'</pre>"
        )
    return "".join(parts) if examples else "".join([*parts, f"<pre>{escape(command)}</pre>"])
