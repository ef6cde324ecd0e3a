"""The examples work, and docs/trainer.md does what it says, command by command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

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


def test_the_conversion_is_what_llamafactory_documents(tiny_model: Path, tmp_path: Path) -> None:
    stage = make_stage("counting", tiny_model, tmp_path, config={"learning_rate": 5e-6})
    out = tmp_path / "lf"
    tool = tmp_path / "llamafactory-cli"
    tool.write_text(f"#!/bin/sh\ntest $1 = train && cp -r $(dirname $2) {out}\n")
    tool.chmod(0o755)
    environment = {**os.environ, "LLAMAFACTORY": str(tool), "PYTHON": sys.executable}
    script = ROOT / "examples/llamafactory/train.sh"
    subprocess.run(["bash", script, stage.document], env=environment, check=True)
    info = json.loads((out / "dataset_info.json").read_text())["cptbench"]
    assert info["formatting"] == "sharegpt" and info["columns"] == {
        "messages": "messages",
        "images": "images",
    }
    rows = json.loads((out / info["file_name"]).read_text())
    assert len(rows) == len(stage.samples)
    for row, sample in zip(rows, stage.samples, strict=True):
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        # As many <image> as files, or LLaMA-Factory refuses the row.
        assert user["content"].count("<image>") == len(row["images"]) == len(sample.image_files)
        assert user["content"] == "<image>" * len(row["images"]) + sample.prompt
        assert assistant["content"] == sample.target
        assert all(Path(image).is_file() for image in row["images"])
    settings = yaml.safe_load((out / "train.yaml").read_text())
    assert settings["model_name_or_path"] == str(tiny_model) and settings["learning_rate"] == 5e-6
    assert settings["output_dir"] == str(stage.output) and settings["dataset"] in json.loads(
        (out / "dataset_info.json").read_text()
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A new environment on top of this one, in which plug-ins can be installed: (folder, variables)."""
    folder = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    # A .pth that adds this environment's packages, its own .pth files included.
    (site / "base.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n"
    )
    scripts = folder / "env/bin"
    (scripts / "cptbench").write_text(
        f"#!{scripts}/python\nfrom cpt_bench.cli.main import entry\nif __name__ == '__main__':\n    entry()\n"
    )
    (scripts / "cptbench").chmod(0o755)
    variables = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    if "PYTHONPATH" not in variables:
        variables["PYTHONPATH"] = ""
    return folder, variables


def sh(command: str, home: tuple[Path, dict[str, str]], ok: bool = True) -> str:
    folder, variables = home
    if command.startswith("pip install"):
        command = command.replace("pip install", "pip install --quiet --no-deps")
    done = subprocess.run(
        command, shell=True, cwd=folder, env=variables, capture_output=True, text=True, timeout=900
    )
    assert (done.returncode == 0) == ok, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_guide_works_command_by_command(home: tuple[Path, dict[str, str]]) -> None:
    guide = (ROOT / "docs/trainer.md").read_text()
    block = re.search(r"```sh\n(cptbench trainer new.*?)```", guide, re.S)
    assert block is not None
    said = {}
    for line in block[1].strip().splitlines():
        command = line.split("  #")[0].strip()
        said[command] = sh(command, home)
    listed = said["cptbench list trainers"]
    assert re.search(r"my-method/my-method .*\[my-method 0\.1\.0\]", listed)
    table = said[next(c for c in said if c.startswith("cptbench compare"))]
    assert "my-method" in table and "sft" in table


@pytest.mark.long
def test_the_guide_to_a_suite_works_as_it_stands(home: tuple[Path, dict[str, str]]) -> None:
    """docs/suite.md, from data to a verified entry, in one shell as its reader has it."""
    pytest.importorskip("sklearn")
    guide = (ROOT / "docs/suite.md").read_text()
    script = re.search(r"```python title=\"make_data.py\"\n(.*?)```", guide, re.S)
    block = re.search(r"```sh\n(python make_data.py.*?)```", guide, re.S)
    assert script is not None and block is not None
    (home[0] / "make_data.py").write_text(script[1])
    lines = block[1].replace("pip install", "pip install --quiet --no-deps --no-build-isolation")
    done = sh(f"set -e\n{lines}", home)
    assert re.search(r"my-lab/my-lab +digits, then flowers, then shapes +\[my-lab 1\.0\]", done)
    assert "which digit is this?" in done
    assert "FAIL" not in done and re.search(r"verified: .*sft", done)
    matrix = json.loads((home[0] / "runs/sft/matrix.json").read_text())
    assert matrix["tasks"] == ["digits", "flowers", "shapes"]
    assert [len(row) for row in matrix["accuracy"]] == [3, 3, 3, 3]
    cards = [(home[0] / f"my-lab/src/my_lab/{t}.yaml").read_text() for t in matrix["tasks"]]
    assert all("null" not in card for card in cards)


def test_an_installed_package_is_found_and_a_broken_one_spoils_nothing(
    home: tuple[Path, dict[str, str]], tiny_model: Path
) -> None:
    folder, _ = home
    shutil.copytree(ROOT / "examples/plugin", folder / "plugin")
    sh("pip install ./plugin", home)
    sh("cptbench trainer new broken-one", home)
    (folder / "broken-one/src/broken_one/__init__.py").write_text("1 / 0\n")
    sh("pip install ./broken-one", home)
    listed = sh("cptbench list trainers", home)
    assert "cptbench-example/replay" in listed and "[cptbench-example 0.1.0]" in listed
    assert "broken-one/broken-one" in listed
    assert "ZeroDivisionError" in sh("cptbench list trainers --check", home)
    failed = sh("cptbench run --trainer broken-one/broken-one", home, ok=False)
    assert "broken-one/broken-one: importing 'broken_one' failed (ZeroDivisionError" in failed
    assert "Did you mean 'cptbench-example/replay'" in sh(
        "cptbench run --trainer cptbench-example/replai", home, ok=False
    )
    sh(f"cptbench run --trainer cptbench-example/replay --suite {TINY} --base {tiny_model} "
       "--set learning_rate=1e-3 --set max_steps=2 --set kept=3 --set device=cpu --out run", home)  # fmt: skip
    run = json.loads((folder / "run/run.json").read_text())
    assert (
        run["origin"]["distribution"] == "cptbench-example" and run["origin"]["version"] == "0.1.0"
    )
    assert run["privileges"]["replay_samples_per_task"] == 3
    kept = {
        f.stem: len(f.read_text().splitlines())
        for f in (folder / "run/stages/3-counting/memory").glob("*.jsonl")
    }
    assert kept == {"science": 3, "lowvision": 3, "counting": 3}
