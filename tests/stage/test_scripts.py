"""What a command's script uses is part of what the method is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.stage import scripts
from cpt_bench.stage.command import find
from cpt_bench.stage.scripts import used_by


@pytest.fixture
def method(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder with a script, a helper, a package, and what is none of the method's."""
    files = {
        "train.py": "import convert", "convert.py": "", "parts/loss.py": "",
        "parts/inner/deep.py": "", "template.json": "{}", "my-runs/old.py": "",
        "env/pyvenv.cfg": "", "env/lib/other.py": "", "parts/__pycache__/x.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digest_of(spec: str = "cmd:python train.py {stage}") -> str:
    return str(find(spec).origin["sha256"])


@pytest.mark.parametrize("name", ["train.py", "convert.py", "parts/loss.py", "parts/inner/deep.py"])
def test_another_line_in_what_a_script_imports_is_another_method(name: str, method: Path) -> None:
    before = digest_of()
    assert digest_of() == before
    (method / name).write_text("changed = 1")
    assert digest_of() != before


@pytest.mark.parametrize(
    "name", ["template.json", "my-runs/old.py", "env/lib/other.py", "parts/__pycache__/x.py"]
)
def test_what_it_cannot_import_is_not_the_method(name: str, method: Path) -> None:
    before = digest_of()
    (method / name).write_text("changed = 1")
    assert digest_of() == before


def test_a_new_helper_and_one_that_is_gone(method: Path) -> None:
    before = digest_of()
    (method / "more.py").write_text("")
    assert digest_of() != before
    (method / "more.py").unlink()
    assert digest_of() == before
    (method / "convert.py").unlink()
    assert digest_of() != before


def test_a_shell_script_declares_what_it_uses(method: Path) -> None:
    script = method / "train.sh"
    script.write_text("#!/bin/sh\n# cptbench-files: convert.py *.json\npython convert.py\n")
    assert [*used_by(script)] == ["convert.py", "template.json"]
    before = digest_of("cmd:sh train.sh {stage}")
    (method / "template.json").write_text("[]")
    changed = digest_of("cmd:sh train.sh {stage}")
    assert changed != before
    (method / "parts/loss.py").write_text("changed = 1")
    assert digest_of("cmd:sh train.sh {stage}") == changed
    script.write_text("# cptbench-files: convert.py nowhere.py\n")
    with pytest.raises(CptBenchError, match=r"declares 'nowhere\.py', which matches no file"):
        digest_of("cmd:sh train.sh {stage}")


def test_a_declaration_takes_the_place_of_the_folder(method: Path, monkeypatch: Any) -> None:
    (method / "train.py").write_text("# cptbench-files: convert.py\nimport convert\n")
    assert [*used_by(method / "train.py")] == ["convert.py"]
    monkeypatch.setattr(scripts, "MOST_FOLDERS", 2)
    digest_of()
    (method / "train.py").write_text("import convert\n")
    with pytest.raises(CptBenchError, match="Declare in the script what it uses"):
        digest_of()
