"""A model by its name on the hub: where it is found, what is fetched, and all that may go wrong."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("datasets")

from cpt_bench.advice import doctor
from cpt_bench.advice.plan import architecture
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.hub import snapshots
from cpt_bench.hub.names import HubName, parse
from cpt_bench.models import base
from cpt_bench.models.checkpoint import adapter_base, weights_digest
from cpt_bench.models.start import start_of, title
from cpt_bench.suite import Suite, open_suite
from tests.support import hub as fake

ID = "Org/Small-3B"


def write_model(folder: Path, seed: int = 0) -> Path:
    """Files with a model's names; what is in them does not matter to whoever fetches them."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for shard in shards:
        (folder / shard).write_bytes(draw.randbytes(60_000))
    index = {"metadata": {}, "weight_map": {f"layer.{i}": s for i, s in enumerate(shards)}}
    files = {"model.safetensors.index.json": index, "config.json": {"model_type": "small"},
             "tokenizer.json": {"a": 1}, "tokenizer_config.json": {}, "preprocessor_config.json": {}}  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "README.md").write_text("# Small\n")
    (folder / "pytorch_model.bin").write_bytes(b"the same again")
    (folder / "onnx").mkdir()
    (folder / "onnx/model.safetensors").write_bytes(b"and again")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.Hub]:
    write_model(tmp_path / "served/models" / ID)
    with fake.serving(tmp_path / "served") as server:
        fake.point_at(server.url, tmp_path / "home", monkeypatch)
        yield server


@pytest.fixture(scope="module")
def nano() -> Suite:
    return open_suite("nano")


def found(suite: Suite, given: str | None = ID, lines: list[str] | None = None) -> Any:
    return start_of(suite, given, (lines if lines is not None else []).append)


def test_a_model_is_fetched_once_and_known_by_its_commit(hub: fake.Hub, nano: Suite) -> None:
    lines: list[str] = []
    start = found(nano, lines=lines)
    commit = hub.commit("models", ID)
    assert (start.name, start.revision, start.given) == (ID, commit, ID)
    assert {p.name for p in start.folder.iterdir()} == {
        "config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
        "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (
        weights_digest(start.folder) == weights_digest(hub.folder / "models" / ID) == start.sha256
    )
    assert lines == [
        f"{ID}: 8 files to fetch, 180.2 KB; commit {commit[:12]}, into {snapshots.cache()}"
    ]
    hub.log.clear()
    assert found(nano) == start and hub.log == [], "what is there is not asked for again"


def test_a_name_means_the_commit_that_was_first_fetched(hub: fake.Hub, nano: Suite) -> None:
    first = found(nano)
    shutil.rmtree(hub.folder / "models" / ID)
    write_model(hub.folder / "models" / ID, seed=1)
    hub.forget()
    assert found(nano) == first, "the main branch has moved since"
    new = found(nano, f"{ID}@{hub.commit('models', ID)}")
    assert new.revision != first.revision and new.sha256 != first.sha256
    assert found(nano) == first


def test_the_hubs_own_cache_is_used_without_asking(
    hub: fake.Hub, nano: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    snapshot_download(ID)  # by somebody else: all files, under the name of the branch
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert found(nano).revision == hub.commit("models", ID) and hub.log == []


def test_a_suite_declares_its_base_model(hub: fake.Hub, nano: Suite) -> None:
    own = nano.base_model.model_copy(update={"id": ID})
    suite = nano.model_copy(update={"base_model": own})
    digest = weights_digest(hub.folder / "models" / ID)
    start = found(suite, None)
    assert (start.name, start.given, start.sha256) == (ID, None, digest)
    assert found(suite, ID) == start, "by its name it is the suite's own"
    wrong = own.model_copy(update={"sha256": "0" * 64})
    start = found(nano.model_copy(update={"base_model": wrong}), None)
    with pytest.raises(
        CptBenchError, match=rf"base model {ID} in .*: its weights \(sha256 {digest[:12]}…\) are "
    ):
        start.require(digest)


def test_a_fingerprint_covers_the_base_by_its_name(nano: Suite) -> None:
    """A digest that becomes known later, or is added to a suite, makes no other suite of it."""
    own = nano.base_model.model_copy(update={"sha256": "0" * 64, "revision": "main"})
    assert nano.model_copy(update={"base_model": own}).fingerprint() == nano.fingerprint()
    assert nano.fingerprint().startswith("55706c6c")
    other = nano.model_copy(update={"base_model": own.model_copy(update={"id": "other"})})
    assert other.fingerprint() != nano.fingerprint()


# ------------------------------------------------------------------------------------- what goes wrong


class Case(NamedTuple):
    """How the hub misbehaves; the line that is shown; what mends it for the second try."""

    breaks: Callable[[fake.Hub, pytest.MonkeyPatch], Any]
    line: str
    given: str = ID
    mends: bool = True


def ruled(pattern: str, act: fake.Act, times: int | None = None) -> Callable[..., None]:
    return lambda hub, patch: hub.rule(pattern, act, times)


def dead(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


def offline(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def hurried(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshots, "SECONDS", 0.2)
    hub.rule("/api/models", fake.slow(1))


def logged_in(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HF_TOKEN", "hf_old")
    hub.rule(
        "/api/models",
        fake.status(401, X_Error_Message="Invalid credentials in Authorization header"),
    )


def without(*names: str) -> Callable[..., None]:
    def remove(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
        for name in names:
            (hub.folder / "models" / ID / name).unlink()

    return remove


def huge(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    patch.setattr(snapshots.shutil, "disk_usage", lambda place: usage._replace(free=1000))


def read_only(hub: fake.Hub, patch: pytest.MonkeyPatch) -> None:
    """A file where the cache would be made."""
    snapshots.cache().parent.mkdir(parents=True)
    snapshots.cache().touch()


SHARD = "model-00002-of-00003.safetensors"
ALL = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
CASES = {
    "no such model": Case(ruled("/api/models", fake.status(404, X_Error_Code="RepoNotFound")),
        r"there is no such folder here, and the hub has no model of this name \(404\). Correct the name"),
    "no such model, without a token": Case(ruled("/api/models", fake.status(401, X_Error_Message="Invalid username or password.")),
        r"the hub has no public model of this name \(401\). Correct the name, or if it is private, log in with: hf auth login"),
    "an old token": Case(logged_in, r"the hub refuses your token \(401\). Renew it: log in with: hf auth login"),
    "gated, not logged in": Case(ruled("/api/models", fake.status(401, X_Error_Code="GatedRepo")),
        r"is gated, and you are not logged in \(401\). Accept its terms at http://127.0.0.1:\d+/Org/Small-3B, then log in"),
    "gated, no access": Case(ruled("resolve", fake.status(403, X_Error_Code="GatedRepo")),
        r"is gated, and your account has no access to it \(403\). Accept its terms at http://127.0.0.1:\d+/Org/Small-3B"),
    "forbidden": Case(ruled("/api/models", fake.status(403, X_Error_Message="Your organisation blocks it")),
        r"the hub does not allow access \(403: Your organisation blocks it\). Look at http"),
    "no such revision": Case(lambda hub, patch: None, r"Org/Small-3B@v9: the hub has it, but not at this revision \(404\). Take one of .*/commits/main",
        given=f"{ID}@v9", mends=False),
    "too many requests": Case(ruled("/api/models", fake.status(429, Retry_After="41")),
        r"the hub was asked too often from here \(429\). Run the same command again after 41 s"),
    "the hub is broken": Case(ruled("/api/models", fake.status(500)), r"the hub answered 500 \(Internal Server Error\). Run the same command again"),
    "the store of large files is away": Case(ruled(r"GET /cdn", fake.status(503)), r"the hub answered 503 \(Service Unavailable\). Run the same command again"),
    "an expired address": Case(ruled(r"GET /cdn", fake.status(403)), r"the hub does not allow access \(403\)"),
    "nobody listens": Case(dead, r"the hub at http://127.0.0.1:\d+ cannot be reached .*Check the network and HF_ENDPOINT, or bring the files \(elsewhere: hf download Org/Small-3B"),
    "no answer": Case(hurried, r"the hub at http://127.0.0.1:\d+ does not answer in time. Check the network"),
    "offline": Case(offline, r"is not in the hub's cache here, and HF_HUB_OFFLINE forbids asking the hub. Unset HF_HUB_OFFLINE, or bring the files"),
    "a page to log in": Case(ruled(".", fake.html), r"what answers at http://127.0.0.1:\d+ is not the hub. Correct HF_ENDPOINT"),
    "cut off": Case(ruled("GET /cdn", fake.cut(1000)), r"the download was cut off. Run the same command again: what has arrived whole is not fetched twice"),
    "damaged": Case(ruled("GET /cdn", fake.spoilt, 1), r"model-0000\d-of-00003.safetensors arrived damaged: its hash is not the one that the hub gives, and it was removed. Run the same"),
    "a shard is missing": Case(without(SHARD), rf"model.safetensors.index.json names {SHARD}, which the repository does not hold"),
    "other weights only": Case(without("model.safetensors.index.json", *ALL), r"holds no weights as \*.safetensors, only pytorch_model.bin"),
    "no model": Case(without("config.json"), r"holds no config.json: it is not a model for transformers"),
    "a small disk": Case(huge, r"there is no room for it in .*/hub: 180.2 KB to fetch, 1.0 KB free. Make room, or set HF_HOME"),
    "a cache that is a file": Case(read_only, r"cannot be written to .*/hub.* \(.*\). Mend its rights, or set HF_HOME"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_thing_that_goes_wrong_is_one_line_and_the_next_try_goes_on(
    name: str, hub: fake.Hub, nano: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        case.breaks(hub, patch)
        with pytest.raises(CptBenchError, match=case.line) as caught:
            found(nano, case.given)
        assert str(caught.value).startswith(f"{case.given}: ") and "\n" not in str(caught.value)
        assert not base.recorded(HubName(ID)), "what failed is not recorded"
    if not case.mends:
        return
    shutil.rmtree(hub.folder / "models" / ID)
    write_model(hub.folder / "models" / ID)
    snapshots.cache().is_file() and snapshots.cache().unlink()
    hub.forget()
    there = {p.name for p in (tmp_path / "home").rglob("*.safetensors")}
    start = found(nano)
    assert weights_digest(start.folder) == weights_digest(hub.folder / "models" / ID)
    assert len(hub.asked("GET /cdn")) == 3 - len(there), "what had arrived is not fetched again"


def test_a_download_that_ended_goes_on_with_the_files_that_are_missing(
    hub: fake.Hub, nano: Suite
) -> None:
    hub.rule("GET /cdn", fake.status(404))
    with pytest.raises(CptBenchError):
        found(nano)
    snapshot = HubName(ID, hub.commit("models", ID))
    arrived = [p for p in snapshots.cache().glob("*/snapshots/*/*") if p.is_file()]
    assert snapshots.cached(snapshot) is None, "it is not whole"
    hub.forget()
    lines: list[str] = []
    found(nano, lines=lines)
    found_absent = re.match(rf"{ID}: (\d) files to fetch, ", lines[0])
    assert found_absent is not None
    fetched = int(found_absent[1])
    # The last small file may have arrived while the first try was ending.
    assert 3 <= fetched <= 8 - len(arrived)
    assert len(hub.asked("GET .*(resolve|cdn)")) == fetched
    assert snapshots.cached(snapshot) is not None


def test_an_error_that_nobody_knows_is_one_line_too(
    hub: fake.Hub, nano: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(*args: Any, **options: Any) -> None:
        raise RuntimeError("Data processing error:\n  reconstruction of the xorb")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", strange)
        with pytest.raises(
            CptBenchError, match=r"the download failed \(RuntimeError: Data processing error: rec"
        ):
            found(nano)
    assert found(nano).name == ID


def test_an_adapter_on_the_hub_brings_its_base(hub: fake.Hub, nano: Suite) -> None:
    adapter = hub.folder / "models/Org/Adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"low rank")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": ID}))
    hub.forget()
    start = found(nano, "Org/Adapter")
    assert start.sha256 == weights_digest(start.folder)
    assert adapter_base(start.folder) == str(found(nano).folder)


def test_a_plan_needs_a_model_s_settings_alone(hub: fake.Hub) -> None:
    cpt7 = open_suite("cpt7")
    config = read_json(cpt7.folder / "base_config.json")
    (hub.folder / "models" / ID / "config.json").write_text(json.dumps(config))
    assert architecture(cpt7, ID) == architecture(cpt7)
    assert len(hub.asked("^GET .*/resolve/")) == 1, "config.json"
    hub.rule(".", fake.status(404, X_Error_Code="RepoNotFound"))
    with pytest.raises(CptBenchError, match=r"Org/Other: .*the hub has no model of this name"):
        architecture(cpt7, "Org/Other")


def test_doctor_tells_whether_a_base_model_is_here(hub: fake.Hub) -> None:
    name = HubName("Qwen/Qwen2.5-VL-7B-Instruct")

    def state() -> str:
        return next(found.state for found in doctor.models() if found.topic == "base cpt7")

    assert state() == "missing"
    shutil.copytree(hub.folder / "models" / ID, hub.folder / "models" / name.id)
    hub.forget()
    base.local_folder(name)
    assert state() == "ok"


def test_data_sets_in_the_hub_s_cache_are_hidden_from_trainers(hub: fake.Hub) -> None:
    """They hold the test questions."""
    (snapshots.cache() / "datasets--lmms-lab--POPE/blobs").mkdir(parents=True)
    (snapshots.cache() / "models--a--b").mkdir()
    assert [p.name for p in snapshots.cached_data_sets()] == ["datasets--lmms-lab--POPE"]


# --------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", ("Qwen/Qwen2.5-VL-3B-Instruct", None)),
        ("a/b@main", ("a/b", "main")),
        ("a/b@refs/pr/3", ("a/b", "refs/pr/3")),
        ("a/b@" + "0" * 40, ("a/b", "0" * 40)),
        *((text, None) for text in ("a", "./a/b", "/a/b", "a/b/c", "../b", "a/..", "a/b@", "a b/c", "~/b", "")),
    ],
)  # fmt: skip
def test_what_is_a_name_on_the_hub(text: str, name: Any) -> None:
    assert parse(text) == name


def test_a_folder_goes_before_a_name(
    hub: fake.Hub, nano: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / ID)
    start = found(nano)
    assert (start.folder, start.name, start.revision) == (
        Path(ID),
        "Small-3B",
        None,
    ) and not hub.log
    with pytest.raises(
        CptBenchError, match="no such folder, and no name of a model on the hub either"
    ):
        found(nano, "./nowhere")
    assert title(tmp_path / "mine-seed0/stages/3-gqa/checkpoint") == "mine-seed0/3-gqa"
    assert title(tmp_path / "final/checkpoint") == "final"


def test_a_folder_of_the_hubs_cache_keeps_its_name(hub: fake.Hub, nano: Suite) -> None:
    folder = found(nano).folder
    again = found(nano, str(folder))
    assert (again.name, again.revision) == (ID, hub.commit("models", ID))


# ----------------------------------------------------------------------------------------- adapters


def test_an_adapter_is_keyed_by_what_its_base_is(hub: fake.Hub, tmp_path: Path) -> None:
    """Not by the base's name: the same adapter on another revision gives other answers."""
    adapter, whole = tmp_path / "adapter", hub.folder / "models" / ID
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"low rank")

    def digest(named: str, revision: str | None = None) -> str:
        settings = {"base_model_name_or_path": named, "revision": revision}
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        return weights_digest(adapter)

    first = hub.commit("models", ID)
    by_name, by_commit = digest(ID), digest(ID, first)
    assert adapter_base(adapter) == str(snapshots.cached(HubName(ID, first)))
    shutil.rmtree(whole)
    write_model(whole, seed=1)
    hub.forget()
    second = digest(ID, hub.commit("models", ID))
    settings = (adapter / "adapter_config.json").read_bytes()
    assert by_name != second != by_commit and digest(ID, first) == by_commit
    assert settings != (adapter / "adapter_config.json").read_bytes()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/gone/model"})
    )
    with pytest.raises(
        CptBenchError, match=r"base model '/gone/model' is no longer there. Set base_model_name"
    ):
        weights_digest(adapter)


def test_the_record_is_a_file_to_read(hub: fake.Hub, nano: Suite, tmp_path: Path) -> None:
    start = found(nano)
    assert read_json(tmp_path / "home/data/models.json") == {
        ID: {"commit": start.revision, "sha256": start.sha256}
    }
