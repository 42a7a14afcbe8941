"""The live page at /: one file with its own style and script, which loads nothing from elsewhere."""

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib import resources


def inline_hashes(page: str, *, tag: str) -> str:
    """Return what a Content-Security-Policy calls a page's own blocks of a tag, so that they may run."""
    blocks = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (hashlib.sha256(block.encode()).digest() for block in blocks)
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests)


@cache
def live_page() -> str:
    """Return the page; it asks GET /overview for what it shows."""
    return resources.files(__package__).joinpath("live_page.html").read_text("utf-8")


@cache
def content_security_policy() -> str:
    """Return the Content-Security-Policy that lets the page's own style and script run, no other."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {inline_hashes(live_page(), tag='style')}",
            f"script-src {inline_hashes(live_page(), tag='script')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
