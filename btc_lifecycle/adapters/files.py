"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content; a reader or a killed writer never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened as any new file, not by tempfile, which would let nobody but the owner read it.
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
