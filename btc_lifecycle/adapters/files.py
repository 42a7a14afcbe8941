"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content, text as UTF-8; a reader or a killed writer never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened as any new file, not by tempfile, which would let nobody but the owner read it.
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
