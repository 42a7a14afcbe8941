"""The trial process: what it answers, what it refuses, and that it ends instead of its caller.

In this process only texts that LightGBM wrote itself are loaded.
"""

from __future__ import annotations

import re
import subprocess
import sys

import lightgbm
import numpy as np
import pandas as pd
import pytest

from btc_lifecycle.adapters.registry import canary, loading
from btc_lifecycle.adapters.registry.golden import Golden
from btc_lifecycle.adapters.registry.native import find_library
from btc_lifecycle_tests.model_builders import GOLDEN_ROWS, make_booster

LIBRARY = find_library()
BOOSTER = make_booster()
TEXT = BOOSTER.model_to_string()
GOLDEN = Golden.of(BOOSTER, GOLDEN_ROWS)


def resized(text: str) -> str:
    """Return a text whose header tells the sizes that its trees have now."""
    header, trees = text.split("\nTree=", 1)
    trees = f"Tree={trees}".partition("end of trees")[0]
    starts = [match.start() for match in re.finditer(r"^Tree=", trees, re.MULTILINE)]
    sizes = [end - start for start, end in zip(starts, [*starts[1:], len(trees)], strict=True)]
    sized = re.sub(r"(?<=tree_sizes=).*", " ".join(map(str, sizes)), header)
    return sized + text[len(header) :]


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return resized(TEXT.replace(old, new, 1))


def one_leaf() -> str:
    """Return the text of a model that never splits."""
    rows = np.arange(20.0).reshape(20, 1)
    data = lightgbm.Dataset(rows, label=np.ones(20))
    return lightgbm.train({"verbosity": -1}, data, num_boost_round=2).model_to_string()


DAMAGES = {
    "empty": "",
    "foreign": "Dear reader,\n\nthis is a letter.\n",
    "first half": TEXT[: len(TEXT) // 3],
    "cut in its parameters": TEXT[: TEXT.index("[objective: binary]")],
    "cut in its parameters after a line": TEXT[: TEXT.index("[objective: binary]")] + "\n",
    "a line lost": re.sub(r"threshold=.*\n", "", TEXT, count=1),
    "a line lost, sizes told": resized(re.sub(r"threshold=.*\n", "", TEXT, count=1)),
    "a tree fewer told": re.sub(r"(tree_sizes=\d+ \d+) \d+", r"\1", TEXT),
    "a huge tree told": re.sub(r"(tree_sizes=\d+ \d+) \d+", r"\1 99999999999", TEXT),
    "a negative size": re.sub(r"(tree_sizes=)", r"\1-", TEXT),
    "no sizes": re.sub(r"tree_sizes=.*\n", "", TEXT),
    "more leaves than there are": changed("num_leaves=4", "num_leaves=9"),
    "leaves beyond memory": changed("num_leaves=4", "num_leaves=2147483647"),
    "a child beyond the tree": changed("right_child=1 -3 -4", "right_child=1 -3 99999999"),
    "a circle": changed("left_child=-1 2 -2", "left_child=-1 2 0"),
    "a feature beyond the row": changed("split_feature=0 0 1", "split_feature=0 0 99999999"),
    "a feature just beyond the row": changed("split_feature=0 0 1", "split_feature=0 0 3"),
    "an infinite leaf": changed("leaf_value=-0.2", "leaf_value=1e999 -0.2"),
    "a leaf that is no number": resized(re.sub(r"leaf_value=\S+", "leaf_value=nan", TEXT, count=1)),
    "categories without bounds": changed("num_cat=0", "num_cat=1"),
    "a categorical split": changed("decision_type=2 2 2", "decision_type=1 2 2"),
    "linear leaves": changed("is_linear=0", "is_linear=1"),
    "classes beyond memory": changed("num_class=1\n", "num_class=100000000\n"),
    "no tree per iteration": changed("num_tree_per_iteration=1", "num_tree_per_iteration=0"),
    "features beyond memory": changed("max_feature_idx=2", "max_feature_idx=2000000000"),
    "an objective out of range": changed("binary sigmoid:1", "binary sigmoid:-1"),
    "another objective": changed("objective=binary sigmoid:1", "objective=regression"),
    "a bit flipped in a leaf": changed("leaf_value=-0.2", "leaf_value=-0.3"),
}


def test_an_unharmed_text_predicts_as_it_did():
    assert loading.try_out(TEXT, golden=GOLDEN) is None


def test_a_text_without_splits_is_tried_out_as_well():
    golden = Golden(rows=((1.0,),), predictions=(1.0,))
    assert loading.try_out(one_leaf(), golden=golden) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_text_passes_and_none_ends_the_caller(damage):
    assert DAMAGES[damage] != TEXT
    assert loading.try_out(DAMAGES[damage], golden=GOLDEN) is not None


def test_several_of_them_abort_a_process_that_loads_them_directly():
    """Why there is a trial process: no except clause can stop it."""
    code = (
        "import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]);"
        "lib.LGBM_BoosterLoadModelFromString("
        "sys.stdin.buffer.read(), ctypes.byref(ctypes.c_int()), ctypes.byref(ctypes.c_void_p()))"
    )
    for damage in ("more leaves than there are", "a line lost", "categories without bounds"):
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, LIBRARY],
            input=DAMAGES[damage].encode(),
            capture_output=True,
            check=False,
        )
        assert ended.returncode < 0, damage


def test_an_endless_trial_is_given_up(monkeypatch, tmp_path):
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass")
    monkeypatch.setattr(loading, "_CANARY", endless)
    assert loading.try_out(TEXT, golden=GOLDEN, wait_s=0.05) == "no answer within 0.05 s"


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"predictions": 1}', "[" * 100_000])
def test_an_answer_that_cannot_be_read_is_no_pass(monkeypatch, tmp_path, said):
    odd = tmp_path / "odd.py"
    odd.write_text(f"print({said!r})")
    monkeypatch.setattr(loading, "_CANARY", odd)
    assert loading.try_out(TEXT, golden=GOLDEN) == "its answer cannot be read"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_the_trial_process_may_not_eat_the_machine(monkeypatch, tmp_path):
    greedy = tmp_path / "greedy.py"
    greedy.write_text(
        f"import json, runpy, resource\nrunpy.run_path({canary.__file__!r})['limit_resources']()\n"
        "try: bytearray(2**31)\n"
        "except MemoryError: pass\n"
        "else: raise SystemExit\n"
        "print(json.dumps({'problem': str(resource.getrlimit(resource.RLIMIT_CPU))}))"
    )
    monkeypatch.setattr(loading, "_CANARY", greedy)
    assert loading.try_out(TEXT, golden=GOLDEN) == str((canary.MOST_CPU_S, canary.MOST_CPU_S))


def test_it_imports_the_standard_library_only():
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, canary.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    tops = {name.partition(".")[0] for name in ended.stdout.split()}
    assert tops - {"__main__"} <= {*sys.stdlib_module_names, "__mp_main__"}


def test_its_answer_is_what_the_package_predicts():
    rows = [[0.5, None, -1.0], [1e308, -1e308, 0.0]]
    told = canary.answer(library=LIBRARY, text=TEXT, rows=rows)
    table = np.array(rows, dtype=float)
    assert told == {"predictions": BOOSTER.predict(table, num_threads=1).tolist()}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("empty", "its header has no sizes of trees"),
        ("no sizes", "its header has no sizes of trees"),
        ("a negative size", "its header has no sizes of trees"),
        ("first half", "tree 2 is not where its header says"),
        ("a line lost", "tree 0 is not where its header says"),
        ("a tree fewer told", "its trees do not end after 2"),
        ("cut in its parameters after a line", "it is cut short after its trees"),
    ],
)
def test_a_text_with_another_layout_is_not_even_loaded(damage, problem):
    with pytest.raises(canary.Problem, match=problem):
        canary.check_layout(DAMAGES[damage].encode())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("a child beyond the tree", "tree 0 is not a tree"),
        ("a circle", "tree 0 is not a tree"),
        ("a feature beyond the row", "tree 0 splits by a feature that the model has not"),
        ("a feature just beyond the row", "tree 0 splits by a feature that the model has not"),
        ("a leaf that is no number", "tree 0 predicts no finite number"),
        ("categories without bounds", "tree 0 has categorical splits or linear leaves"),
        ("a categorical split", "tree 0 has categorical splits"),
        ("linear leaves", "tree 0 has categorical splits or linear leaves"),
    ],
)
def test_trees_that_a_row_could_get_lost_in_are_refused(damage, problem):
    canary.check_trees(TEXT, n_features=3)
    canary.check_trees(one_leaf(), n_features=1)
    with pytest.raises(canary.Problem, match=problem):
        canary.check_trees(DAMAGES[damage], n_features=3)


def test_a_missing_feature_goes_the_way_that_the_model_learnt_for_it():
    rng = np.random.default_rng(0)
    table = np.where(rng.random((200, 1)) < 0.5, np.nan, rng.normal(size=(200, 1)))
    data = lightgbm.Dataset(table, label=np.isnan(table[:, 0]))
    booster = lightgbm.train({"verbosity": -1}, data, num_boost_round=2)
    golden = Golden.of(booster, [[np.nan], [0.0]])
    assert golden.predictions[0] != golden.predictions[1]
    assert loading.try_out(booster.model_to_string(), golden=golden) is None


def test_more_predictions_than_rows_are_not_waited_for():
    told = loading.try_out(DAMAGES["classes beyond memory"], golden=GOLDEN)
    assert told == "it predicts 100000000 numbers for a row"


def test_rows_of_another_width_are_not_read_beyond_their_end():
    golden = Golden(rows=((0.1, 0.2, 0.3), (0.1, 0.2, 0.3)), predictions=(0.5, 0.5))
    assert "it predicts" in loading.try_out(TEXT, golden=golden)
    for row in ((), (0.1, 0.2), (0.1, 0.2, 0.3, 0.4)):
        told = loading.try_out(TEXT, golden=Golden(rows=(row,), predictions=(0.5,)))
        assert told == "its golden rows have not the 3 numbers that it takes"


@pytest.mark.parametrize("last", ["{", '[["a", "b"]]', "nul", ""])
def test_a_last_line_that_names_categories_or_cannot_be_read_is_refused(last):
    """LightGBM's package parses it as JSON after its library was content with the rest."""
    told = loading.try_out(TEXT.replace("categorical:null", f"categorical:{last}"), golden=GOLDEN)
    assert told == "it does not end by saying that it knows no categories"


def test_a_booster_that_learnt_from_a_data_frame_passes():
    frame = pd.DataFrame(GOLDEN_ROWS, columns=["a", "b", "c"])
    booster = lightgbm.train(
        {"verbosity": -1, "min_data_in_leaf": 2},
        lightgbm.Dataset(frame, label=GOLDEN_ROWS[:, 0]),
        num_boost_round=2,
    )
    golden = Golden.of(booster, GOLDEN_ROWS)
    assert loading.try_out(booster.model_to_string(), golden=golden) is None


def test_a_refusal_of_lightgbm_is_passed_on():
    told = loading.try_out(DAMAGES["an objective out of range"], golden=GOLDEN)
    assert told.startswith("LightGBM says: Sigmoid parameter -1.0")


def test_what_the_trial_process_itself_cannot_read_is_no_pass():
    too_long = re.sub(r"tree_sizes=\d+", f"tree_sizes={'9' * 5000}", TEXT)
    assert loading.try_out(too_long, golden=GOLDEN) == "its answer cannot be read"
