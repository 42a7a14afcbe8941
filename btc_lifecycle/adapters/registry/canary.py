"""A process of its own that a LightGBM text is tried out in: it aborts instead of the caller.

It is run as a file by a bare interpreter, so it may import the standard library only; LightGBM's
package, which costs seconds, is not imported either, only its shared library is loaded.

Standard input: a JSON object of ``libpath`` (LightGBM's module that finds that library), ``text``
and ``rows``, null where a feature is missing. Standard output: a JSON object of ``predictions``, or
of ``problem``.
"""

from __future__ import annotations

import ctypes
import json
import math
import runpy
import sys
from collections.abc import Iterator

MOST_MEMORY_BYTES, MOST_CPU_S = 2**30, 20
_ALL_ITERATIONS, _FLOAT64, _ROW_MAJOR, _NORMAL, _IS_CATEGORICAL = -1, 1, 1, 0, 1

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


class Model:
    """A text as LightGBM's C API loaded it."""

    def __init__(self, library: ctypes.CDLL, text: str) -> None:
        self._library, self._handle = library, ctypes.c_void_p()
        library.LGBM_GetLastError.restype = ctypes.c_char_p
        self._call(
            "LoadModelFromString",
            text.encode(),
            ctypes.byref(ctypes.c_int()),
            ctypes.byref(self._handle),
            is_new=True,
        )

    def n_features(self) -> int:
        """Return how many numbers a row has."""
        n_features = ctypes.c_int()
        self._call("GetNumFeature", ctypes.byref(n_features))
        return n_features.value

    def predict(self, rows: Rows) -> list[float]:
        """Return one prediction for each row."""
        cells = [math.nan if cell is None else cell for row in rows for cell in row]
        n_rows, n_columns = len(rows), len(rows[0])
        n_predictions = ctypes.c_int64()
        how = (ctypes.c_int(_NORMAL), ctypes.c_int(0), ctypes.c_int(_ALL_ITERATIONS))
        self._call("CalcNumPredict", ctypes.c_int(n_rows), *how, ctypes.byref(n_predictions))
        if n_predictions.value != n_rows:
            raise Problem(f"it predicts {n_predictions.value} numbers for {n_rows} rows")
        predictions = (ctypes.c_double * n_rows)()
        self._call(
            "PredictForMat",
            (ctypes.c_double * len(cells))(*cells),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(n_rows),
            ctypes.c_int32(n_columns),
            ctypes.c_int(_ROW_MAJOR),
            *how,
            b"num_threads=1",
            ctypes.byref(n_predictions),
            predictions,
        )
        return list(predictions)

    def text(self) -> str:
        """Return what LightGBM understood, written anew."""
        how = (ctypes.c_int(0), ctypes.c_int(_ALL_ITERATIONS), ctypes.c_int(0))
        return self._long_answer("SaveModelToString", *how)

    def parameters(self) -> object:
        """Return what LightGBM says that the model was trained with; its package asks as well."""
        return json.loads(self._long_answer("GetLoadedParam"))

    def _long_answer(self, name: str, *arguments: object) -> str:
        length, buffer = ctypes.c_int64(1), ctypes.create_string_buffer(1)
        for _ in range(2):  # the first call only tells the length
            buffer = ctypes.create_string_buffer(length.value)
            room = ctypes.c_int64(length.value)
            self._call(name, *arguments, room, ctypes.byref(length), buffer)
        return buffer.value.decode()

    def _call(self, name: str, *arguments: object, is_new: bool = False) -> None:
        handle = () if is_new else (self._handle,)
        if getattr(self._library, f"LGBM_Booster{name}")(*handle, *arguments) != 0:
            said = self._library.LGBM_GetLastError().decode(errors="replace")
            raise Problem(f"LightGBM says: {said.partition(chr(10))[0][:200]}")


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


def answer(*, libpath: str, text: str, rows: Rows) -> dict[str, object]:
    """Return a text's predictions for rows, or what is wrong with it."""
    library = runpy.run_path(libpath)["_LIB"]
    # It would write its warnings between the numbers.
    be_quiet = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)
    library.LGBM_RegisterLogCallback(be_quiet)
    try:
        check_layout(text.encode())
        model = Model(library, text)
        check_trees(model.text(), n_features=model.n_features())
        model.parameters()
        return {"predictions": model.predict(rows)}
    except Problem as problem:
        return {"problem": str(problem)}


if __name__ == "__main__":
    limit_resources()
    json.dump(answer(**json.load(sys.stdin)), sys.stdout)
