"""What a written report holds: its pages' drawing commands, their texts, the images beside it."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

AMBER_FILL = b"0.7216 0.4118 0.0588 rg"


def page_contents(report: Path) -> list[bytes]:
    """Return the drawing commands of each page."""
    document = report.read_bytes()
    assert document.startswith(b"%PDF-")
    texts = [_inflated(stream) for stream in _streams(document)]
    pages = [text for text in texts if b" Tf" in text and b" Tj" in text]
    assert len(pages) == len(re.findall(rb"/Type /Page\b(?!s)", document))
    return pages


def page_texts(report: Path) -> list[str]:
    """Return the text of each page, one line for each piece that was drawn."""
    # The fonts are embedded in the order of their names, F1 and F2.
    letters = [
        _letters(stream) for stream in _streams(report.read_bytes()) if b"begincmap" in stream
    ]
    drawn = re.compile(rb"/F(\d+) [\d.]+ Tf|\(((?:\\.|[^\\)])*)\) Tj", re.DOTALL)
    pages = []
    for page in page_contents(report):
        font, lines = 0, []
        for selected, text in drawn.findall(page):
            if selected:
                font = int(selected) - 1
            else:
                lines.append(_decoded(text, letters[font]))
        pages.append("\n".join(lines))
    return pages


def images_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.png"))


def _streams(document: bytes) -> list[bytes]:
    return re.findall(rb"stream\r?\n(.*?)\r?\nendstream", document, flags=re.DOTALL)


def _letters(character_map: bytes) -> dict[int, str]:
    pairs = re.findall(rb"^<([0-9A-F]{4})> <([0-9A-F]+)>$", character_map, flags=re.MULTILINE)
    return {
        int(glyph, 16): bytes.fromhex(text.decode()).decode("utf-16-be") for glyph, text in pairs
    }


def _decoded(escaped: bytes, letters: dict[int, str]) -> str:
    glyphs = re.sub(
        rb"\\(.)", lambda found: {b"r": b"\r"}.get(found[1], found[1]), escaped, flags=re.DOTALL
    )
    return "".join(
        letters[int.from_bytes(glyphs[place : place + 2])] for place in range(0, len(glyphs), 2)
    )


def _inflated(stream: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        return inflate.decompress(stream)
    except zlib.error:
        return b""
