"""LightGBM's C interface without LightGBM's package, whose import costs seconds and pulls in others.

The trial process runs this file by its path in a bare interpreter: at the top it imports the
standard library only.
"""

from __future__ import annotations

import ctypes
import json
import runpy
import threading
import weakref
from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.float64]

_ALL_ITERATIONS, _FLOAT64, _ROW_MAJOR = -1, 1, 1
_NORMAL = (ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(_ALL_ITERATIONS))
_ONE_THREAD = b"num_threads=1"


class LightGbmError(Exception):
    """What LightGBM said in place of an answer."""


@cache
def find_library() -> str:
    """Return the path of the shared library that belongs to the installed package."""
    from importlib.metadata import distribution  # noqa: PLC0415  # a trial process is told the path

    # Not by the import system: asked for a module inside, that would import the package.
    libpath = distribution("lightgbm").locate_file("lightgbm/libpath.py")
    return str(runpy.run_path(str(libpath))["_find_lib_path"]()[0])


class NativeModel:
    """A model's text as LightGBM's C interface loaded it; threads may share one.

    Damaged texts end the process that loads them: only what was tried out may come here.

    Attributes:
        n_features: How many numbers a row has.
    """

    def __init__(self, library_path: str, text: str) -> None:
        """Load a text; what LightGBM holds for it is freed with the object.

        Args:
            library_path: LightGBM's shared library, as ``find_library`` finds it.
            text: What a booster wrote of itself.

        Raises:
            LightGbmError: If LightGBM refuses it, or it predicts more than one number for a row.
        """
        self._library = _opened(library_path)
        # A table sets up anew what single rows read: each kind has its own, so that a row, which
        # takes microseconds, never waits for a table. Single rows share one buffer.
        self._predicting_row, self._predicting_table = threading.Lock(), threading.Lock()
        self._booster, self._tables = ctypes.c_void_p(), ctypes.c_void_p()
        self._row_config = ctypes.c_void_p()
        boosters = (self._booster, self._tables)
        freed = weakref.finalize(self, _free, self._library, boosters, self._row_config)
        # At the interpreter's end another thread may still be predicting.
        freed.atexit = False
        for booster in boosters:
            self._call(
                "BoosterLoadModelFromString",
                text.encode(),
                ctypes.byref(ctypes.c_int()),
                ctypes.byref(booster),
            )
        self.n_features = self._told(ctypes.c_int, "BoosterGetNumFeature")
        n_predictions = self._told(
            ctypes.c_int64, "BoosterCalcNumPredict", ctypes.c_int(1), *_NORMAL
        )
        if n_predictions != 1:
            raise LightGbmError(f"it predicts {n_predictions} numbers for a row")
        self._row = (ctypes.c_double * self.n_features)()
        self._row_prediction = ctypes.c_double()
        self._predict_row = self._prepared()

    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the model's inputs in order."""
        length, buffers = ctypes.c_size_t(1), []
        for _ in range(2):  # the first call only tells the length
            buffers = [ctypes.create_string_buffer(length.value) for _ in range(self.n_features)]
            self._call(
                "BoosterGetFeatureNames",
                self._booster,
                ctypes.c_int(len(buffers)),
                ctypes.byref(ctypes.c_int()),
                ctypes.c_size_t(length.value),
                ctypes.byref(length),
                (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers)),
            )
        return tuple(buffer.value.decode() for buffer in buffers)

    def predict(self, rows: Table) -> Table:
        """Return one prediction for each row, the same to the bit as LightGBM's package.

        Args:
            rows: Features in the model's order, shape (n, features), C-contiguous, NaN where one
                is missing.

        Raises:
            ValueError: If the rows have another shape, type or order in memory.
        """
        row, row_prediction = self._row_arrays
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"rows have the shape {rows.shape}, not (n, {self.n_features})")
        if rows.dtype != row.dtype or not rows.flags.c_contiguous:
            raise ValueError(f"rows of {rows.dtype} are not contiguous rows of float64")
        if len(rows) == 1:
            with self._predicting_row:
                row[:] = rows
                self._predict_row()
                return row_prediction.copy()
        predictions = row_prediction.repeat(len(rows))
        self.predict_into(predictions.ctypes, rows.ctypes, n_rows=len(rows))
        return predictions

    def predict_into(self, predictions: object, cells: object, *, n_rows: int) -> None:
        """Write a prediction for each of some rows, both where ctypes finds float64 in a row."""
        with self._predicting_table:
            self._call(
                "BoosterPredictForMat",
                self._tables,
                cells,
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(n_rows),
                ctypes.c_int32(self.n_features),
                ctypes.c_int(_ROW_MAJOR),
                *_NORMAL,
                _ONE_THREAD,
                ctypes.byref(ctypes.c_int64()),
                predictions,
            )

    def text(self) -> str:
        """Return what LightGBM understood, written anew."""
        how = (ctypes.c_int(0), ctypes.c_int(_ALL_ITERATIONS), ctypes.c_int(0))
        return self._long_answer("BoosterSaveModelToString", *how)

    def parameters(self) -> object:
        """Return what LightGBM says that the model was trained with; its package asks as well."""
        return json.loads(self._long_answer("BoosterGetLoadedParam"))

    @cached_property
    def _row_arrays(self) -> tuple[Table, Table]:
        """The buffers of a single row, shape (1, features), and of its prediction, shape (1,)."""
        import numpy as np  # noqa: PLC0415  # the trial process has none

        row = np.frombuffer(memoryview(self._row), dtype=np.float64).reshape(1, self.n_features)
        return row, np.frombuffer(memoryview(self._row_prediction), dtype=np.float64)

    def _prepared(self) -> Callable[[], None]:
        """Return what predicts the row in the buffer."""
        self._call(
            "BoosterPredictForMatSingleRowFastInit",
            self._booster,
            *_NORMAL,
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(self.n_features),
            _ONE_THREAD,
            ctypes.byref(self._row_config),
        )
        # Two microseconds are not worth giving the interpreter away, which may take 5 ms to return.
        call = ctypes.PyDLL(self._library._name).LGBM_BoosterPredictForMatSingleRowFast
        arguments = (
            self._row_config,
            self._row,
            ctypes.byref(ctypes.c_int64()),
            ctypes.byref(self._row_prediction),
        )

        library = self._library  # to hold the model itself here would keep it from being freed

        def predict_row() -> None:
            if call(*arguments) != 0:
                raise _last_error(library)

        return predict_row

    def _told(self, kind: type[Any], name: str, *arguments: object) -> int:
        number = kind()
        self._call(name, self._booster, *arguments, ctypes.byref(number))
        return int(number.value)

    def _long_answer(self, name: str, *arguments: object) -> str:
        length, buffer = ctypes.c_int64(1), ctypes.create_string_buffer(1)
        for _ in range(2):  # the first call only tells the length
            buffer = ctypes.create_string_buffer(length.value)
            room = ctypes.c_int64(length.value)
            self._call(name, self._booster, *arguments, room, ctypes.byref(length), buffer)
        return buffer.value.decode()

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, f"LGBM_{name}")(*arguments) != 0:
            raise _last_error(self._library)


@cache
def _opened(library_path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(library_path)
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _last_error(library: ctypes.CDLL) -> LightGbmError:
    said = library.LGBM_GetLastError().decode(errors="replace")
    return LightGbmError(f"LightGBM says: {said.partition(chr(10))[0][:200]}")


def _free(
    library: ctypes.CDLL, boosters: tuple[ctypes.c_void_p, ...], row_config: ctypes.c_void_p
) -> None:
    if row_config:
        library.LGBM_FastConfigFree(row_config)
    for booster in boosters:
        if booster:
            library.LGBM_BoosterFree(booster)
