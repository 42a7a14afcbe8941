"""A process of its own that a LightGBM text is tried out in: it aborts instead of the caller.

It is run as a file by a bare interpreter, so it may import the standard library only, and the module
beside it by its path.

Standard input: a JSON object of ``library`` (the path of LightGBM's shared library), ``text`` and
``rows``, null where a feature is missing. Standard output: a JSON object of ``predictions``, or of
``problem``.
"""

from __future__ import annotations

import ctypes
import json
import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btc_lifecycle.adapters.registry.native import LightGbmError, NativeModel
else:
    _native = runpy.run_path(str(Path(__file__).with_name("native.py")))
    LightGbmError, NativeModel = _native["LightGbmError"], _native["NativeModel"]

MOST_MEMORY_BYTES, MOST_CPU_S = 2**30, 20
_IS_CATEGORICAL = 1
_NO_CATEGORIES = {b"pandas_categorical:null", b"pandas_categorical:[]"}

Rows = list[list[float | None]]


class Problem(Exception):  # noqa: N818  # it is an answer, not a failure
    """Why the text must not be loaded."""


def limit_resources() -> None:
    """Let the system end this process where a text asks for more than any model needs."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return
    limits = {"AS": MOST_MEMORY_BYTES, "CPU": MOST_CPU_S, "CORE": 0, "FSIZE": 0}
    for name, limit in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
        except (OSError, ValueError):
            continue  # macOS has no limit of the address space


def check_layout(text: bytes) -> None:
    """Raise where the sizes in a text's header are not those of its trees.

    LightGBM steps through the trees by these sizes, past the end of a text that was cut short.
    """
    header, _, trees = text.partition(b"\nTree=")
    sizes = [
        line.split(b"=")[1].split() for line in header.splitlines() if line[:11] == b"tree_sizes="
    ]
    if len(sizes) != 1 or not all(size.isdigit() for size in sizes[0]):
        raise Problem("its header has no sizes of trees")
    trees, start = b"Tree=" + trees, 0
    for number, size in enumerate(map(int, sizes[0])):
        tree = trees[start : start + size]
        if not tree.startswith(b"Tree=%d\n" % number) or not tree.endswith(b"\n\n"):
            raise Problem(f"tree {number} is not where its header says")
        start += size
    if not trees.startswith(b"end of trees\n", start):
        raise Problem(f"its trees do not end after {len(sizes[0])}")
    if b"\nend of parameters\n" not in trees[start:]:
        raise Problem("it is cut short after its trees")
    if trees.rstrip().rpartition(b"\n")[2] not in _NO_CATEGORIES:
        raise Problem("it does not end by saying that it knows no categories")


def check_trees(text: str, *, n_features: int) -> None:
    """Raise where a row could lead beyond a tree's arrays, or round in a circle.

    LightGBM itself does not look: such a tree ends or stops a process at the first row that gets
    there. A path from the root ends at a leaf when every other node has exactly one parent.
    """
    for number, tree in enumerate(_trees(text)):
        n_leaves = int(tree["num_leaves"])
        if int(tree["num_cat"]) or int(tree["is_linear"]):
            raise Problem(f"tree {number} has categorical splits or linear leaves")
        if any(int(it) & _IS_CATEGORICAL for it in tree["decision_type"].split()):
            raise Problem(f"tree {number} has categorical splits")
        children = [int(it) for side in ("left", "right") for it in tree[f"{side}_child"].split()]
        # A leaf is told by the complement of its number. A tree that is one leaf tells no children.
        nodes = [*range(-n_leaves, 0), *range(1, n_leaves - 1)] if n_leaves > 1 else []
        if n_leaves < 1 or sorted(children) != nodes:
            raise Problem(f"tree {number} is not a tree")
        if not all(0 <= int(it) < n_features for it in tree["split_feature"].split()):
            raise Problem(f"tree {number} splits by a feature that the model has not")
        if not all(math.isfinite(float(it)) for it in tree["leaf_value"].split()):
            raise Problem(f"tree {number} predicts no finite number")


def _trees(text: str) -> Iterator[dict[str, str]]:
    for block in text.partition("\nend of trees")[0].split("\nTree=")[1:]:
        lines = block.splitlines()[1:]
        yield {
            key: value
            for key, is_field, value in (line.partition("=") for line in lines)
            if is_field
        }


def predictions(model: NativeModel, *, rows: Rows) -> list[float]:
    """Return one prediction for each row.

    Raises:
        Problem: If the rows are not the model's.
    """
    if any(len(row) != model.n_features for row in rows):
        raise Problem(f"its golden rows have not the {model.n_features} numbers that it takes")
    cells = [math.nan if cell is None else cell for row in rows for cell in row]
    told = (ctypes.c_double * len(rows))()
    model.predict_into(told, (ctypes.c_double * len(cells))(*cells), n_rows=len(rows))
    return list(told)


def answer(*, library: str, text: str, rows: Rows) -> dict[str, object]:
    """Return a text's predictions for rows, or what is wrong with it."""
    # LightGBM would write its warnings between the numbers.
    be_quiet = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)
    ctypes.CDLL(library).LGBM_RegisterLogCallback(be_quiet)
    try:
        check_layout(text.encode())
        model = NativeModel(library, text)
        check_trees(model.text(), n_features=model.n_features)
        model.parameters()
        return {"predictions": predictions(model, rows=rows)}
    except (Problem, LightGbmError) as problem:
        return {"problem": str(problem)}


if __name__ == "__main__":
    limit_resources()
    json.dump(answer(**json.load(sys.stdin)), sys.stdout)
