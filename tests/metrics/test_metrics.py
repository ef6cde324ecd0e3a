"""The conformance matrices, missing cells, and properties any definition must have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt_bench.errors import CptBenchError
from cpt_bench.metrics import (
    Matrix,
    bootstrap_means,
    evaluate,
    general_delta,
    matrix_from_json,
    matrix_to_json,
    missing_cells,
)

# Plain decay, and late gains: rows after stages 1 to 4, tasks seen so far. Implementations in use
# score B's forgetting between -7.3 and +2.0.
A = [[80], [70, 90], [60, 85, 75], [50, 60, 70, 88]]
B = [[50], [62, 70], [66, 74, 80], [64, 78, 76, 60]]

CONFORMANCE = [
    # key, on A, on B, whose value it is
    ("AvgAcc", 67.0, 69.5),
    ("Learn", 83.25, 65.0),
    ("BWT", -65 / 3, 6.0),  # GEM and Mammoth
    ("FM", -65 / 3, -2 / 3),  # RWalk, sign turned
    ("FM_paper", -16.25, -1.5),  # arXiv 2507.05386 over T
    ("FM_paper_T-1", -65 / 3, -2.0),  # over T-1; Mammoth's and PyCIL's 'forgetting', sign turned
]


@pytest.mark.parametrize(("key", "on_a", "on_b"), CONFORMANCE)
def test_conformance_matrices(key: str, on_a: float, on_b: float) -> None:
    for rows, expected in ((A, on_a), (B, on_b)):
        got = evaluate(matrix_from_json({"accuracy": rows}))[key]
        assert got["value"] == pytest.approx(expected, abs=1e-9)


def test_metrics_that_need_the_base_row_say_so() -> None:
    values = evaluate(matrix_from_json({"accuracy": A}))
    for key in ("BaseAcc", "FM_base", "FWT", "Gain"):
        assert values[key]["value"] is None
        assert any("by the base model" in cell for cell in values[key]["missing"])


FULL = {
    "tasks": ["a", "b", "c"],
    "accuracy": [[10, 20, 30], [50, 25, 30], [45, 70, 20], [55, 60, 90]],
}


def test_by_hand() -> None:
    values = {k: v["value"] for k, v in evaluate(matrix_from_json(FULL)).items()}
    assert values["AvgAcc"] == pytest.approx((55 + 60 + 90) / 3)
    assert values["BaseAcc"] == pytest.approx(20)
    assert values["Learn"] == pytest.approx((50 + 70 + 90) / 3)
    assert values["FM"] == pytest.approx(((55 - 50) + (60 - 70)) / 2)
    assert values["FM_base"] == pytest.approx(((55 - 50) + (60 - 70)) / 2)
    assert values["FM_paper"] == pytest.approx((0 - 10 + 0) / 3)
    assert values["FM_paper_T-1"] == pytest.approx(-10 / 2)
    assert values["BWT"] == pytest.approx(((55 - 50) + (60 - 70)) / 2)
    assert values["FWT"] == pytest.approx(((25 - 20) + (20 - 30)) / 2)
    assert values["Gain"] == pytest.approx(((55 - 10) + (60 - 20) + (90 - 30)) / 3)


def test_a_missing_cell_is_named_and_nothing_is_averaged_over_the_rest() -> None:
    data = json.loads(json.dumps(FULL))
    data["accuracy"][3][0] = None  # R[T][1]
    matrix = matrix_from_json(data)
    assert list(missing_cells(matrix)) == ["R[3][1]: a after stage 3 (c)"]
    values = evaluate(matrix)
    for key in ("AvgAcc", "FM", "FM_base", "FM_paper", "FM_paper_T-1", "BWT", "Gain"):
        assert values[key]["value"] is None
        assert values[key]["missing"] == ["R[3][1]: a after stage 3 (c)"]
    assert values["Learn"]["value"] == pytest.approx(70)  # does not read that cell


def test_one_task_has_no_forgetting() -> None:
    values = evaluate(matrix_from_json({"accuracy": [[10], [60]]}))
    assert values["AvgAcc"]["value"] == 60
    for key in ("FM", "FM_base", "FM_paper_T-1", "BWT", "FWT"):
        assert values[key]["value"] is None
        assert "two tasks" in values[key]["missing"][0]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([], "not a matrix"),
        ({"accuracy": []}, "not a list of rows"),
        ({"accuracy": [[1, 2], [3]]}, "expected"),
        ({"accuracy": [[1, 2], [3, 4], [5, "6"]]}, "'6', not a number"),
        ({"accuracy": [[1, 2], [3, 4], [5, True]]}, "True, not a number"),
        ({"accuracy": [[1, 2], [3, 4], [5, math.inf]]}, "not a finite number"),
        ({"tasks": ["a", "a"], "accuracy": [[1, 2], [3, 4], [5, 6]]}, "different names"),
        ({"tasks": ["a"], "accuracy": [[1, 2], [3, 4], [5, 6]]}, "1 tasks but rows"),
        ({"accuracy": [[1, 2]]}, "expected 3, row 0 the base"),
        ({"accuracy": [[1, 2], [3, 4], [5, 6]], "evaluated": "some"}, "'all' or 'seen'"),
    ],
)
def test_what_is_no_matrix_is_refused_with_the_reason(data: object, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        matrix_from_json(data, where="matrix.json")


@given(st.integers(1, 8).flatmap(
    lambda t: st.lists(
        st.lists(st.floats(0, 100), min_size=t, max_size=t), min_size=t + 1, max_size=t + 1
    )
))  # fmt: skip
def test_relations_that_hold_for_every_matrix(rows: list[list[float]]) -> None:
    matrix = matrix_from_json({"accuracy": rows})
    value = {k: v["value"] for k, v in evaluate(matrix).items()}
    assert value["Gain"] == pytest.approx(value["AvgAcc"] - value["BaseAcc"], abs=1e-6)
    assert value["FM_paper"] <= 1e-9
    if len(rows) > 2:
        assert value["FM_base"] <= value["FM"] + 1e-9
        assert value["FM_paper_T-1"] <= value["FM_paper"] + 1e-9
        assert value["FM"] <= value["BWT"] + 1e-9  # a peak is at least the diagonal
    assert matrix_from_json(matrix_to_json(matrix)).accuracy == pytest.approx(
        matrix.accuracy, abs=1e-9
    )


def test_intervals_are_paired_and_reproducible() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((4, 3, 200)) < 0.6).astype(float)
    accuracy = 100 * right.mean(axis=-1)
    matrix = Matrix(("a", "b", "c"), accuracy)

    def draw() -> np.ndarray:
        means = [bootstrap_means(100 * right[:, j], 500, seed=f"t{j}") for j in range(3)]
        return np.stack(means, axis=-1)

    first = evaluate(matrix, [200] * 3, draw())
    assert first == evaluate(matrix, [200] * 3, draw())
    for key in ("AvgAcc", "FM", "BWT", "Gain"):
        bounds = first[key]["interval"]
        assert bounds["low"] < first[key]["value"] < bounds["high"]
    # Paired: where the base and the last row are the same samples right, Gain does not vary at all.
    right[3] = right[0]
    same = Matrix(("a", "b", "c"), 100 * right.mean(axis=-1))
    bounds = evaluate(same, [200] * 3, draw())["Gain"]["interval"]
    assert (bounds["low"], bounds["high"]) == (0, 0)


def test_general_delta_is_paired_and_fails_closed() -> None:
    before = {"x": np.array([1.0, 1, 0, 0]), "y": np.array([1.0, 0])}
    after = {"x": np.array([1.0, 0, 0, 0]), "y": np.array([1.0, 0])}
    delta = general_delta(before, after, 200)
    assert delta["value"] == pytest.approx((-25 + 0) / 2)
    assert delta["benchmarks"]["y"]["interval"]["low"] == 0
    assert general_delta(before, {"x": after["x"]}, 200)["value"] is None
    assert general_delta({}, {}, 200)["value"] is None
    # What neither side has is missing all the same, where it is called for.
    lacking = general_delta(before, after, 200, names=("x", "y", "z"))
    assert lacking["value"] is None and lacking["missing"] == ["z"]


@given(
    st.integers(2, 9).flatmap(
        lambda tasks: st.lists(
            st.lists(st.floats(0, 100), min_size=tasks, max_size=tasks),
            min_size=tasks + 1,
            max_size=tasks + 1,
        )
    )
)
def test_the_parts_of_the_decomposition_add_up_to_the_end(rows: list[list[float]]) -> None:
    values = evaluate(matrix_from_json({"accuracy": rows}))
    found, share = values["Decomposition"], (len(rows) - 2) / (len(rows) - 1)
    assert sum(found["parts"].values()) == pytest.approx(found["value"], abs=1e-7)
    assert found["value"] == values["AvgAcc"]["value"]
    # As it is published, with FWT and BWT over T-1.
    published = values["BaseAcc"]["value"] + values["TLG"]["value"]
    published += share * (values["FWT"]["value"] + values["BWT"]["value"])
    assert published == pytest.approx(found["value"], abs=1e-7)


def test_each_part_of_the_decomposition_by_hand() -> None:
    found = evaluate(matrix_from_json(FULL))["Decomposition"]
    assert found["parts"]["BaseAcc"] == pytest.approx(20)
    assert found["parts"]["FWT_T"] == pytest.approx(((25 - 20) + (20 - 30)) / 3)
    assert found["parts"]["TLG"] == pytest.approx(((50 - 10) + (70 - 25) + (90 - 20)) / 3)
    assert found["parts"]["BWT_T"] == pytest.approx(((55 - 50) + (60 - 70)) / 3)


def test_a_decomposition_with_a_missing_cell_names_it_and_has_no_part() -> None:
    for cell in ((0, 1), (1, 1), (2, 1), (3, 1)):  # each in another part of one task
        data = json.loads(json.dumps(FULL))
        data["accuracy"][cell[0]][cell[1]] = None
        found = evaluate(matrix_from_json(data))["Decomposition"]
        assert found["value"] is None and set(found["parts"].values()) == {None}
        assert [c.split(":")[0] for c in found["missing"]] == [f"R[{cell[0]}][{cell[1] + 1}]"]


def test_one_task_has_transfer_of_neither_kind() -> None:
    found = evaluate(matrix_from_json({"accuracy": [[10], [60]]}))
    assert found["TLG"]["value"] == 50 and found["BWT_T"]["value"] == 0
