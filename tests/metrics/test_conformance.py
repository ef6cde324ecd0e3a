"""Our metrics against other people's formulas, written here as loops from their papers.

GEM: Lopez-Paz & Ranzato 2017, section 3. RWalk: Chaudhry et al. 2018, section 3.1. Avalanche:
Lomonaco et al. 2021, its documented forgetting (first result minus last, a dictionary keyed by
experience). Rows and columns count from 1 as in the papers; row 0 is the untrained model.
"""

from __future__ import annotations

import numpy as np
import pytest

from cpt_bench.metrics import METRICS, Matrix, evaluate, matrix_from_json
from cpt_bench.metrics.definitions import BY_KEY

# ------------------------------------------------------------------------------------------- GEM


def gem_acc(r: np.ndarray, t: int) -> float:
    return sum(r[t, i] for i in range(1, t + 1)) / t


def gem_bwt(r: np.ndarray, t: int) -> float:
    return sum(r[t, i] - r[i, i] for i in range(1, t)) / (t - 1)


def gem_fwt(r: np.ndarray, t: int) -> float:
    return sum(r[i - 1, i] - r[0, i] for i in range(2, t + 1)) / (t - 1)


# ------------------------------------------------------------------------------------------ RWalk


def rwalk_f(r: np.ndarray, k: int, j: int) -> float:
    """f_j^k = max_{l in 1..k-1} a_{l,j} - a_{k,j}; a_{l,j} exists from l = j on."""
    return max(r[i, j] for i in range(j, k)) - r[k, j]


def rwalk_forgetting(r: np.ndarray, k: int) -> float:
    return sum(rwalk_f(r, k, j) for j in range(1, k)) / (k - 1)


# -------------------------------------------------------------------------------------- Avalanche


class AvalancheForgetting:
    """Keeps the first and the last result of each experience; forgetting is first minus last."""

    def __init__(self) -> None:
        self.initial: dict[int, float] = {}
        self.last: dict[int, float] = {}

    def update(self, experience: int, result: float, initial: bool) -> None:
        (self.initial if initial else self.last)[experience] = result

    def result(self) -> dict[int, float]:
        return {k: self.initial[k] - v for k, v in self.last.items() if k in self.initial}


def avalanche_stream_forgetting(r: np.ndarray, t: int) -> float:
    metric = AvalancheForgetting()
    for stage in range(1, t + 1):
        metric.last.clear()  # each evaluation of the stream starts anew
        for j in range(1, t + 1):
            if j == stage:
                metric.update(j, r[stage, j], initial=True)
            elif j < stage:
                metric.update(j, r[stage, j], initial=False)
    found = metric.result()
    return sum(found.values()) / len(found)


# ----------------------------------------------------------------------------------------- others


def mammoth_forgetting(r: np.ndarray, t: int) -> float:
    """mean_{j<T} (max over all results of j so far, the last included, - last)."""
    return sum(max(r[i, j] for i in range(j, t + 1)) - r[t, j] for j in range(1, t)) / (t - 1)


def paper_fm(r: np.ndarray, t: int, divisor: int) -> float:
    """arXiv 2507.05386: last accuracy minus the best over all rounds."""
    return sum(r[t, j] - max(r[i, j] for i in range(1, t + 1)) for j in range(1, t + 1)) / divisor


def diaz_bwt(r: np.ndarray, t: int) -> float:
    """Diaz-Rodriguez et al. 2018, eq. 3."""
    total = sum(r[i, j] - r[j, j] for i in range(2, t + 1) for j in range(1, i))
    return 2 * total / (t * (t - 1))


def cora_isolated(r: np.ndarray, t: int) -> float:
    pairs = [(i, j) for i in range(2, t + 1) for j in range(1, i)]
    return sum(r[i - 1, j] - r[i, j] for i, j in pairs) / len(pairs)


def mcitlib_maa(r: np.ndarray, t: int) -> float:
    return sum(gem_acc(r[:, : i + 1], i) for i in range(1, t + 1)) / t


def crg_tlg(r: np.ndarray, t: int) -> float:
    """Continual Reasoning Gym, arXiv 2608.18574: mean_i (R[i, i] - R[i-1, i])."""
    return sum(r[i, i] - r[i - 1, i] for i in range(1, t + 1)) / t


def crg_final(r: np.ndarray, t: int) -> float:
    """Its identity: Final = Base + (T-1)/T FWT + TLG + (T-1)/T BWT."""
    base = sum(r[0, i] for i in range(1, t + 1)) / t
    share = (t - 1) / t
    return base + share * gem_fwt(r, t) + crg_tlg(r, t) + share * gem_bwt(r, t)


REFERENCES = [
    ("AvgAcc", gem_acc, 1),
    ("BWT", gem_bwt, 1),
    ("FWT", gem_fwt, 1),
    ("FM_seen", rwalk_forgetting, -1),
    ("Forgetting", rwalk_forgetting, 1),
    ("Forgetting_diag", avalanche_stream_forgetting, 1),
    ("BWT", avalanche_stream_forgetting, -1),
    ("Forgetting_max", mammoth_forgetting, 1),
    ("FM_paper", lambda r, t: paper_fm(r, t, t), 1),
    ("FM_paper_T-1", lambda r, t: paper_fm(r, t, t - 1), 1),
    ("BWT_all", diaz_bwt, 1),
    ("Isolated", cora_isolated, -1),
    ("MAA", mcitlib_maa, 1),
    ("BWT_T", lambda r, t: gem_bwt(r, t) * (t - 1) / t, 1),
    ("FWT_T", lambda r, t: gem_fwt(r, t) * (t - 1) / t, 1),
    ("TLG", crg_tlg, 1),
    ("AvgAcc", crg_final, 1),
]


@pytest.mark.parametrize(("key", "reference", "sign"), REFERENCES)
def test_ten_thousand_random_matrices(key: str, reference: object, sign: int) -> None:
    rng = np.random.default_rng(list(key.encode()))
    checked = 0
    for tasks in range(2, 10):
        many = np.round(rng.uniform(0, 100, (1250, tasks + 1, tasks)), rng.integers(0, 3))
        many[:100] = np.round(many[:100] / 25) * 25  # ties
        names = Matrix(tuple(f"t{j}" for j in range(tasks)), many[0])
        ours = BY_KEY[key].number(many, names)
        papers = np.concatenate([np.full((1250, tasks + 1, 1), np.nan), many], axis=2)  # from 1
        theirs = [sign * reference(r, tasks) for r in papers]  # type: ignore[operator]
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
        # What a person is given is what was checked.
        assert evaluate(names)[key]["value"] == pytest.approx(theirs[0], abs=1e-9)
        checked += len(many)
    assert checked == 10_000


# Plain decay, and late gains: rows after stages 1 to 4, tasks seen so far. The values are those
# that the implementations in use gave when they were run.
A = [[80], [70, 90], [60, 85, 75], [50, 60, 70, 88]]
B = [[50], [62, 70], [66, 74, 80], [64, 78, 76, 60]]
ON_A_AND_B = [
    ("AvgAcc", 67.0, 69.5, 1),
    ("Learn", 83.25, 65.0, 1),
    ("BWT", -65 / 3, 6.0, 1),  # GEM, Mammoth
    ("FM", -65 / 3, -2 / 3, 1),  # RWalk, sign turned
    ("FM_seen", -65 / 3, -2 / 3, 1),
    ("Forgetting", 65 / 3, 2 / 3, 1),  # RWalk
    ("Forgetting_max", 65 / 3, 2.0, 1),  # Mammoth, PyCIL
    ("Forgetting_diag", 65 / 3, -6.0, 1),  # Avalanche over T-1
    ("BWT_T", 16.25, -4.5, -1),  # Avalanche over T
    ("FM_paper", -16.25, -1.5, 1),  # arXiv 2507.05386 over T; MLLM-CTBench's instruct_blip 'bwt'
    ("FM_paper_T-1", -65 / 3, -2.0, 1),  # over T-1
    ("Isolated", 10.83, -3.0, -1),  # CORA
]


@pytest.mark.parametrize(("key", "on_a", "on_b", "sign"), ON_A_AND_B)
def test_the_conformance_matrices(key: str, on_a: float, on_b: float, sign: int) -> None:
    for rows, expected in ((A, on_a), (B, on_b)):
        got = evaluate(matrix_from_json({"accuracy": rows}))[key]["value"]
        assert got == pytest.approx(sign * expected, abs=0.005)


def test_every_metric_names_its_direction_formula_and_source() -> None:
    for metric in METRICS:
        assert metric.title and metric.formula and metric.sign and metric.source
    signs = {m.key: m.sign for m in METRICS}
    assert all("positive = forgot" in signs[k] for k in signs if k.startswith("Forgetting"))
    assert all("negative = forgot" in signs[k] for k in signs if k.startswith(("FM", "BWT")))


def test_both_sides_of_each_dispute_have_names() -> None:
    """Sign, divisor, whether the last row and the base may be the peak, which rows count."""
    rng = np.random.default_rng(5)
    matrix = Matrix(("a", "b", "c", "d"), rng.uniform(0, 100, (5, 4)))
    v = {key: p["value"] for key, p in evaluate(matrix).items()}
    assert v["Forgetting"] == pytest.approx(-v["FM_seen"])
    assert v["Forgetting_diag"] == pytest.approx(-v["BWT"])
    assert v["FM_paper_T-1"] == pytest.approx(v["FM_paper"] * 4 / 3)
    assert v["BWT_T"] == pytest.approx(v["BWT"] * 3 / 4)
    assert v["FM_base"] <= v["FM"] <= v["FM_seen"] <= v["BWT"]
    assert len({round(v[k], 6) for k in ("BWT", "BWT_all", "Isolated", "FM_paper")}) == 4
