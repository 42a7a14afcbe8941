"""The live page at /: one file with its own style and script, which loads nothing from elsewhere."""

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib import resources

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


@cache
def live_page() -> str:
    """Return the page; it asks GET /overview for what it shows."""
    return resources.files(__package__).joinpath("live_page.html").read_text("utf-8")


@cache
def content_security_policy() -> str:
    """Return the Content-Security-Policy that lets the page's own style and script run, no other."""
    hashes: dict[str, str] = {"style": "", "script": ""}
    for kind, content in _INLINE.findall(live_page()):
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind] += f" 'sha256-{digest}'"
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src{hashes['style']}",
            f"script-src{hashes['script']}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
