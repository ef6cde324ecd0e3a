"""The examples that need no framework work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.support.places import ROOT, TINY
from tests.support.stages import make_stage


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An environment with torch and transformers and without cptbench: (its python, variables)."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", with_pip=False)
    # Site folders named on PYTHONPATH run no .pth files, so that an editable cptbench stays out;
    # what is installed for good is left out by name.
    site = folder / "site"
    site.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(("cpt_bench", "cptbench", "__editable__")):
            (site / entry.name).symlink_to(entry)
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return folder / "env/bin/python", {**variables, "PYTHONPATH": str(site)}


def test_plain_pytorch_without_cptbench_completes_a_suite(
    bare: tuple[Path, dict[str, str]], tiny_model: Path, tmp_path: Path
) -> None:
    python, variables = bare
    absent = subprocess.run(
        [python, "-c", "import torch, cpt_bench"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "No module named 'cpt_bench'" in absent.stderr
    script = f"env PYTHONPATH={variables['PYTHONPATH']} {python} {ROOT}/examples/plain/train.py {{stage}}"
    command = [sys.executable, "-m", "cpt_bench", "run", "--trainer", f"cmd:{script}",
               "--suite", str(TINY), "--base", str(tiny_model), "--set", "steps=2",
               "--set", "batch_size=2", "--no-share", "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "run/stages/3-counting/train.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2]
    assert None not in json.loads((tmp_path / "run/matrix.json").read_text())["accuracy"][3]


def test_plain_pytorch_computes_the_loss_that_trl_computes(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The first step's loss, before any update, over the same samples."""
    import torch

    from cpt_bench.models.checkpoint import load_model, load_processor
    from cpt_bench.scaffold import scaffold

    stage = make_stage("counting", tiny_model, tmp_path, config={"steps": 1, "batch_size": 4})
    subprocess.run([sys.executable, ROOT / "examples/plain/train.py", stage.document], check=True)
    logged = json.loads((tmp_path / "log.jsonl").read_text())["loss"]
    torch.manual_seed(stage.seed)
    chosen = torch.randint(len(stage.samples), (4,)).tolist()
    folder = scaffold("probe", tmp_path)
    namespace: dict[str, object] = {}
    exec((folder / "src/probe/__init__.py").read_text(), namespace)
    model = load_model(tiny_model, device="cpu", attention="eager")
    encode = namespace["encode"]
    with torch.no_grad():
        losses = [
            model(**encode(load_processor(tiny_model), [stage.samples[i]])).loss for i in chosen
        ]
    assert logged == pytest.approx(float(sum(losses)) / 4, abs=1e-4)
