"""LightGBM by its C interface: the package's own numbers, from threads as well, and nothing leaks."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.registry import native
from btc_lifecycle.adapters.registry.native import LightGbmError, NativeModel, find_library
from btc_lifecycle_tests.model_builders import FEATURES, make_booster

LIBRARY = find_library()
OBJECTIVES = ("binary", "regression", "huber", "cross_entropy")
WIDTH = 5


@cache
def trained(objective: str) -> tuple[lightgbm.Booster, NativeModel]:
    """Return a booster that learnt where features are missing, and the same by its text."""
    rng = np.random.default_rng(len(objective))
    rows = rng.normal(size=(400, WIDTH))
    label = rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=400)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    binary = objective in {"binary", "cross_entropy"}
    booster = lightgbm.train(
        {"objective": objective, "num_leaves": 12, "num_threads": 1, "verbosity": -1},
        lightgbm.Dataset(rows, label=label > 0 if binary else label),
        num_boost_round=20,
    )
    return booster, NativeModel(LIBRARY, booster.model_to_string())


cells = st.floats(width=64) | st.sampled_from([math.nan, 0.0, -0.0, 1e-36, 5e-324])


@given(
    objective=st.sampled_from(OBJECTIVES),
    rows=st.lists(st.lists(cells, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=4),
)
def test_it_predicts_as_the_package_to_the_bit(objective, rows):
    booster, model = trained(objective)
    table = np.array(rows, dtype=np.float64)
    assert model.predict(table).tobytes() == booster.predict(table, num_threads=1).tobytes()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_row_alone_is_predicted_as_among_others(objective):
    booster, model = trained(objective)
    table = np.random.default_rng(1).normal(size=(300, WIDTH))
    together = model.predict(table)
    assert together.tobytes() == booster.predict(table, num_threads=1).tobytes()
    alone = np.concatenate([model.predict(table[row : row + 1]) for row in range(len(table))])
    assert alone.tobytes() == together.tobytes()


def test_a_text_that_never_splits_predicts_its_one_leaf():
    data = lightgbm.Dataset(np.arange(20.0).reshape(20, 1), label=np.ones(20))
    booster = lightgbm.train({"verbosity": -1}, data, num_boost_round=2)
    model = NativeModel(LIBRARY, booster.model_to_string())
    assert model.predict(np.zeros((1, 1))).tolist() == booster.predict([[0.0]]).tolist() == [1.0]


def test_it_tells_its_features_in_order():
    names = ("a_long_name_of_a_feature_that_no_small_buffer_holds", "ü", "c")
    model = NativeModel(LIBRARY, make_booster(feature_names=names).model_to_string())
    assert (model.n_features, model.feature_names()) == (3, names)
    assert NativeModel(LIBRARY, make_booster().model_to_string()).feature_names() == FEATURES


def test_no_rows_have_no_predictions():
    assert trained("binary")[1].predict(np.empty((0, WIDTH))).shape == (0,)


def test_an_answer_is_not_written_over_by_the_next():
    booster, model = trained("binary")
    rows = np.random.default_rng(2).normal(size=(2, WIDTH))
    first = model.predict(rows[:1])
    model.predict(rows[1:])
    assert first.tolist() == booster.predict(rows[:1], num_threads=1).tolist()


def test_rows_are_read_not_kept_nor_written():
    booster, model = trained("binary")
    row = np.random.default_rng(3).normal(size=(1, WIDTH))
    row.flags.writeable = False
    expected = booster.predict(row, num_threads=1).tolist()
    assert [model.predict(row).tolist() for _ in range(2)] == [expected, expected]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (np.zeros(WIDTH), r"shape \(5,\), not \(n, 5\)"),
        (np.zeros((1, WIDTH - 1)), r"shape \(1, 4\), not \(n, 5\)"),
        (np.zeros((3, WIDTH + 1)), r"shape \(3, 6\), not \(n, 5\)"),
        (np.zeros((1, 1, WIDTH)), r"shape \(1, 1, 5\)"),
        (np.zeros((1, WIDTH), dtype=np.float32), "float32 are not contiguous rows of float64"),
        (np.zeros((2, WIDTH), dtype=np.int64), "int64 are not contiguous rows of float64"),
        (np.zeros((2, WIDTH), dtype=">f8"), ">f8|float64"),
        (np.zeros((1, WIDTH), dtype=object), "object are not contiguous"),
        (np.zeros((2, WIDTH), order="F"), "not contiguous"),
        (np.zeros((1, 2 * WIDTH))[:, ::2], "not contiguous"),
        (np.zeros((4, WIDTH))[::2], "not contiguous"),
    ],
)
def test_other_arrays_are_refused(rows, problem):
    with pytest.raises(ValueError, match=problem):
        trained("binary")[1].predict(rows)


def test_threads_get_each_its_own_answer():
    booster, model = trained("regression")
    table = np.random.default_rng(4).normal(size=(400, WIDTH))
    expected = booster.predict(table, num_threads=1)

    def wrong(start: int) -> int:
        n_rows = 1 + start % 3
        part = slice(start, start + n_rows)
        return sum(
            model.predict(table[part]).tobytes() != expected[part].tobytes() for _ in range(20)
        )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(wrong, range(390))) == 0
    finally:
        sys.setswitchinterval(interval)


class _Counting:
    """LightGBM's library, counting what it is told to free."""

    def __init__(self, library) -> None:
        self.library, self.freed = library, []

    def __getattr__(self, name):
        if name.endswith("Free"):
            self.freed.append(name)
        return getattr(self.library, name)


def test_what_the_library_holds_is_freed_with_the_object_at_once(monkeypatch):
    counting = _Counting(native._opened(LIBRARY))
    monkeypatch.setattr(native, "_opened", lambda path: counting)
    gc.disable()
    try:
        model = NativeModel(LIBRARY, make_booster().model_to_string())
        model.predict(np.zeros((1, 3)))
        gone = weakref.ref(model)
        del model
    finally:
        gc.enable()
    assert gone() is None
    assert counting.freed == ["LGBM_FastConfigFree", "LGBM_BoosterFree", "LGBM_BoosterFree"]


def test_a_text_that_is_refused_leaves_nothing_behind(monkeypatch):
    counting = _Counting(native._opened(LIBRARY))
    monkeypatch.setattr(native, "_opened", lambda path: counting)
    many = make_booster().model_to_string().replace("num_class=1\n", "num_class=3\n", 1)
    with pytest.raises(LightGbmError, match="it predicts 3 numbers for a row"):
        NativeModel(LIBRARY, many)
    gc.collect()
    assert counting.freed == ["LGBM_BoosterFree"] * 2


def test_hundreds_of_models_one_after_another_take_no_more_memory_than_a_few():
    code = (
        "import resource, sys; import numpy as np\n"
        "from btc_lifecycle.adapters.registry.native import NativeModel, find_library\n"
        "text, rows = sys.stdin.read(), np.zeros((1, 5))\n"
        "def load(times):\n"
        "    for _ in range(times): NativeModel(find_library(), text).predict(rows)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = load(20); after = load(300)\n"
        "print(after - before)\n"
        "assert not {'lightgbm', 'scipy', 'sklearn', 'pandas', 'mlflow'} & set(sys.modules)"
    )
    text = trained("binary")[0].model_to_string()
    ended = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
    )
    # Each holds more than 30 kB: 300 of them would be 9 MB.
    assert int(ended.stdout) < 3_000


def test_a_text_that_lightgbm_refuses_is_told_with_its_words():
    with pytest.raises(LightGbmError, match="LightGBM says: "):
        NativeModel(LIBRARY, "")


def test_its_file_needs_the_standard_library_only():
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, native.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    tops = {name.partition(".")[0] for name in ended.stdout.split()}
    assert tops - {"__main__"} <= {*sys.stdlib_module_names, "__mp_main__"}


def test_the_library_is_the_one_of_the_installed_package():
    assert Path(LIBRARY).samefile(lightgbm.libpath._find_lib_path()[0])
