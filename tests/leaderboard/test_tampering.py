"""Every way to spoil a good entry that we could think of is caught, with a line that names it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from cpt_bench.leaderboard.findings import Level, Refused
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.strict import row_of
from cpt_bench.leaderboard.verify import verify
from tests.support.entries.make import TASKS, resign, rows

Case = Callable[[Path], None]
TABLE = "predictions/2-counting/science.jsonl.zst"


# ------------------------------------------------------------------------------------ helpers


def pack_rows(file: Path, new: list[dict[str, Any]]) -> None:
    zst(file, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in new))


def edit_rows(change: Callable[[list[dict[str, Any]]], Any], sign: bool = True) -> Case:
    def spoil(entry: Path) -> None:
        file = entry / "seed-0" / TABLE
        old = rows(file)
        new = change(old)
        pack_rows(file, old if new is None else new)
        if sign:
            resign(entry / "seed-0")

    return spoil


def edit_text(change: Callable[[bytes], bytes], **options: Any) -> Case:
    """Change the unpacked bytes of a table; compress as ``options`` say."""

    def spoil(entry: Path) -> None:
        file = entry / "seed-0" / TABLE
        raw = change(zstandard.ZstdDecompressor().decompress(file.read_bytes()))
        settings = {"level": 3, "write_checksum": True, **options}
        file.write_bytes(zstandard.ZstdCompressor(**settings).compress(raw))
        resign(entry / "seed-0")

    return spoil


def edit_file(path: str, change: Callable[[bytes], bytes], sign: bool = True) -> Case:
    def spoil(entry: Path) -> None:
        file = entry / path
        file.write_bytes(change(file.read_bytes()))
        if sign and path.startswith("seed-"):
            resign(entry / path.partition("/")[0])

    return spoil


def edit_json(path: str, change: Callable[[Any], Any], sign: bool = True) -> Case:
    def edit(data: bytes) -> bytes:
        value = json.loads(data)
        new = change(value)
        return (
            json.dumps(value if new is None else new, indent=1, ensure_ascii=False) + "\n"
        ).encode()

    return edit_file(path, edit, sign=sign and not path.endswith("manifest.json"))


def edit_yaml(**changes: Any) -> Case:
    def edit(data: bytes) -> bytes:
        value = yaml.safe_load(data)
        for key, new in changes.items():
            value[key] = new(value[key]) if callable(new) else new
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()

    return edit_file("entry.yaml", edit)


def edit_ledger(change: Callable[[list[dict[str, Any]]], Any]) -> Case:
    def spoil(entry: Path) -> None:
        file = entry / "seed-0/ledger.jsonl.zst"
        records = rows(file)
        new = change(records)
        pack_rows(file, records if new is None else new)
        resign(entry / "seed-0")

    return spoil


def add(path: str, data: bytes = b"x", sign: bool = False) -> Case:
    def spoil(entry: Path) -> None:
        (entry / path).parent.mkdir(parents=True, exist_ok=True)
        (entry / path).write_bytes(data)
        if sign:
            resign(entry / path.partition("/")[0])

    return spoil


def remove(path: str, sign: bool = False) -> Case:
    def spoil(entry: Path) -> None:
        (entry / path).unlink()
        if sign:
            resign(entry / path.partition("/")[0])

    return spoil


def put(target: dict[str, Any], key: str, value: Any) -> None:
    target[key] = value


def swap_seeds(entry: Path) -> None:
    (entry / "seed-0").rename(entry / "x")
    (entry / "seed-1").rename(entry / "seed-0")
    (entry / "x").rename(entry / "seed-1")


def swap_predictions(entry: Path) -> None:
    for seed, other in ((0, 1), (1, 0)):
        (entry / f"seed-{seed}/predictions").rename(entry / f"p{other}")
    for seed in (0, 1):
        (entry / f"p{seed}").rename(entry / f"seed-{seed}/predictions")
        resign(entry / f"seed-{seed}")


def clone_seed(entry: Path, honest_manifest: bool = False) -> None:
    """Seed 0 three times, under the names of all three."""
    for other in (1, 2):
        target = entry / f"seed-{other}"
        kept = json.loads((target / "manifest.json").read_text())
        shutil.rmtree(target)
        shutil.copytree(entry / "seed-0", target)
        if not honest_manifest:
            file = target / "manifest.json"
            manifest = json.loads(file.read_text()) | {"seed": other, "weights": kept["weights"]}
            file.write_text(json.dumps(manifest))
            resign(target)


def never_lose(entry: Path) -> None:
    """Once right, always right: pass@k dressed up as stages. Scores and claims are made to fit."""
    from cpt_bench.leaderboard.recompute import stage_name

    seed = entry / "seed-0"
    for name in (*TASKS, "knowledge"):
        best: list[dict[str, Any]] = []
        for t in range(len(TASKS) + 1):
            file = seed / "predictions" / stage_name(TASKS, t) / f"{name}.jsonl.zst"
            now = rows(file)
            best = [a if a["score"] else b for a, b in zip(best, now, strict=True)] if best else now
            pack_rows(file, best)
    resign(seed)


def base_row_off(entry: Path) -> None:
    file = entry / "seed-0/predictions/0-base/knowledge.jsonl.zst"
    new = rows(file)
    for row in new:
        row.update(
            reply="<answer>zz</answer>", extracted="zz", score=0.0, lenient=0.0, format_ok=True
        )
    pack_rows(file, new)
    resign(entry / "seed-0")


def foresight(entry: Path) -> None:
    """The third task is solved after the first stage."""
    file = entry / "seed-0/predictions/1-science/text.jsonl.zst"
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    gold = load_split(load_suite(SUITE[0]).card("text"), "test")
    new = rows(file)
    for row, sample in zip(new, gold, strict=True):
        answer = sample.answers[0]
        row.update(
            reply=f"<answer>{answer}</answer>",
            extracted=answer,
            score=1.0,
            lenient=1.0,
            format_ok=True,
        )
    pack_rows(file, new)
    resign(entry / "seed-0")


SUITE: list[Path] = []


def limited(records: list[dict[str, Any]]) -> None:
    from cpt_bench.run.ledger import step_key

    for record in records:
        record["inputs"]["limit"] = 8
        record["key"] = step_key(record["step"], record["inputs"])


def rekey(change: Callable[[dict[str, Any]], Any], step: str) -> Case:
    from cpt_bench.run.ledger import step_key

    def edit(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["step"] == step:
                change(record)
                record["key"] = step_key(record["step"], record["inputs"])

    return edit_ledger(edit)


def quiet(**used: Any) -> Case:
    """The ledger of seed 0 says what every stage used; ``entry.yaml`` and manifests do not."""
    from cpt_bench.run.ledger import step_key

    def edit(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["step"].endswith("/train"):
                record["inputs"]["privileges"].update(used)
                record["key"] = step_key(record["step"], record["inputs"])

    return edit_ledger(edit)


def trained_on_test(entry: Path) -> None:
    from cpt_bench.leaderboard.gold import sample_hash
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    sample = load_split(load_suite(SUITE[0]).card("science"), "test")[0]
    mark = sample_hash(sample.question.upper(), sample.images)  # reformatted, still found
    edit_yaml(extra_data="forty books", division="open")(entry)
    zst(entry / "seed-0/extra-data.txt.zst", [f"{mark}\n".encode()])
    resign(entry / "seed-0")


def many_files(entry: Path) -> None:
    for i in range(4001):
        (entry / f"seed-0/f{i}").touch()


def bomb(entry: Path) -> None:
    settings = {"level": 19, "write_checksum": True}
    data = zstandard.ZstdCompressor(**settings).compress(b"\0" * (64 << 20))
    add(f"seed-0/{TABLE}", data, sign=True)(entry)


def lying_bomb(entry: Path) -> None:
    """A frame that states a small size and holds many run-length blocks of 128 KiB."""
    raw = bytearray(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"\0" * 300))
    says = zstandard.get_frame_parameters(bytes(raw))
    assert says.content_size == 300
    start = zstandard.frame_header_size(bytes(raw))
    block = ((131072 << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    last = ((131072 << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"\0"
    add(f"seed-0/{TABLE}", bytes(raw[:start]) + block * 200 + last + bytes(4), sign=True)(entry)


def wide_window(entry: Path) -> None:
    settings = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=27, write_checksum=True, write_content_size=True
    )
    packer = zstandard.ZstdCompressor(compression_params=settings)
    raw = zstandard.ZstdDecompressor().decompress((entry / "seed-0" / TABLE).read_bytes())
    writer = packer.compressobj(size=-1)  # streaming: the frame keeps the whole window
    data = writer.compress(raw) + writer.flush()
    add(f"seed-0/{TABLE}", data, sign=True)(entry)


def checkpointless(data: dict[str, Any]) -> None:
    data["weights"]["2-counting"] = "0" * 64


def decomposed(data: bytes) -> bytes:
    return unicodedata.normalize("NFD", data.decode().replace("A. Uthor", "Ünïcødé")).encode()


def pipe(entry: Path) -> None:
    os.mkfifo(entry / "seed-0/fifo")


def absolute(entry: Path) -> None:
    edit_json(
        "seed-0/manifest.json", lambda m: put(m["files"], "/etc/passwd", m["files"]["matrix.json"])
    )(entry)


def dotdot(entry: Path) -> None:
    edit_json(
        "seed-0/manifest.json",
        lambda m: put(m["files"], "../seed-1/matrix.json", m["files"]["matrix.json"]),
    )(entry)


def flip_one(new: list[dict[str, Any]]) -> None:
    row = next(r for r in new if not r["score"])
    row.update(score=1.0, lenient=1.0)


def truncate_reply(new: list[dict[str, Any]]) -> None:
    row = next(r for r in new if r["score"])
    row.update(reply="<answer>zz</answer>", extracted="zz", score=0.0, lenient=0.0)


REPRO = {
    "format": 1, "by": "B. Other", "date": "2026-11-23", "kind": "checkpoints", "seed": 0,
    "sample": 0.1, "weights": {}, "versions": {}, "hardware": {}, "files": {},
}  # fmt: skip

A = "a" * 64
CASES: dict[str, tuple[Case, str, str]] = {
    # one file is changed, its signature is not
    "one changed prediction": (edit_rows(truncate_reply, sign=False), "digest", TABLE),
    "one bit flipped": (edit_file(f"seed-0/{TABLE}", lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], sign=False), "digest", TABLE),
    "a file grown": (edit_file("seed-0/matrix.json", lambda b: b + b"\n", sign=False), "size", "seed-0/matrix.json"),
    "edited environment": (edit_file("seed-0/environment.json", lambda b: b.replace(b"abacus", b"genius"), sign=False), "digest", "environment.json"),
    "unsigned extra file": (add("seed-0/predictions/0-base/extra.jsonl.zst"), "unsigned-file", "seed-0/predictions/0-base/extra.jsonl.zst"),
    "a file is gone": (remove(f"seed-0/{TABLE}"), "missing-file", TABLE),
    "manifest is gone": (remove("seed-1/manifest.json"), "missing-file", "seed-1/manifest.json"),
    "entry.yaml is gone": (remove("entry.yaml"), "missing-file", "entry.yaml"),
    # changed and signed anew
    "one prediction changed, manifest recomputed": (edit_rows(truncate_reply), "predictions-changed", "stage-2/evaluate/science"),
    "a grade improved, manifest recomputed": (edit_rows(flip_one), "grade", "claims score 1.0"),
    "edited matrix, manifest recomputed": (edit_json("seed-0/matrix.json", lambda m: put(m["accuracy"][3], 0, 99.0)), "matrix", "accuracy[3][0]: claims 99.0"),
    "edited sample count": (edit_json("seed-0/matrix.json", lambda m: put(m["n"], 0, 5000)), "matrix", "n[0]"),
    "edited metric": (edit_json("seed-0/metrics.json", lambda m: put(m["AvgAcc"], "value", 99.0)), "metric", "AvgAcc.value: claims 99.0"),
    "edited interval": (edit_json("seed-0/metrics.json", lambda m: put(m["FM"]["interval"], "low", -0.9)), "metric", "FM.interval.low"),
    "edited probe": (edit_json("seed-0/metrics.json", lambda m: put(m["GeneralDelta"]["benchmarks"]["knowledge"], "after", 90.0)), "metric", "benchmarks.knowledge.after"),
    "a row hidden from the matrix": (edit_json("seed-0/matrix.json", lambda m: put(m, "accuracy", m["accuracy"][:-1])), "matrix", "accuracy"),
    "predictions swapped between seeds": (swap_predictions, "predictions-changed", "seed-0/ledger"),
    "predictions swapped between stages": (lambda e: (shutil.copy(e / "seed-0" / TABLE, e / "seed-0/predictions/3-text/science.jsonl.zst"), resign(e / "seed-0"))[0], "predictions-changed", "stage-3/evaluate/science"),
    "predictions of another task": (lambda e: (shutil.copy(e / "seed-0/predictions/2-counting/text.jsonl.zst", e / "seed-0" / TABLE), resign(e / "seed-0"))[0], "unknown-id", "'text-test-00000' is not in the test split"),
    # samples
    "dropped sample": (edit_rows(lambda r: r[:7] + r[8:]), "missing-id", "science-test-00007"),
    "duplicated id": (edit_rows(lambda r: r.append(r[3])), "duplicate-id", "science-test-00003"),
    "one id in place of another": (edit_rows(lambda r: put(r[4], "id", "science-test-00003")), "duplicate-id", "science-test-00003"),
    "a sample nobody asked": (edit_rows(lambda r: put(r[4], "id", "science-test-99999")), "unknown-id", "science-test-99999"),
    "a train sample": (edit_rows(lambda r: put(r[4], "id", "science-train-00004")), "unknown-id", "science-train-00004"),
    "samples in another order": (edit_rows(lambda r: r.reverse()), "id-order", "from line 1 on"),
    "an id in another unicode form": (edit_rows(lambda r: put(r[5], "id", "science-test-0000\uff15")), "unicode-form", "\\uff15"),
    "a cell without answers": (remove(f"seed-0/{TABLE}", sign=True), "incomplete", "science after stage 2"),
    "a probe without answers": (remove("seed-2/predictions/3-text/knowledge.jsonl.zst", sign=True), "incomplete", "knowledge after stage 3"),
    "a cell the suite does not have": (add("seed-0/predictions/9-more/science.jsonl.zst", sign=True), "not-zstd", "9-more/science"),
    # spellings
    "NaN among predictions": (edit_rows(lambda r: put(r[0], "score", float("nan"))), "not-finite", "line 1 holds NaN"),
    "infinity spelt 1e999": (edit_text(lambda b: b.replace(b'"score": 0.0', b'"score": 1e999', 1)), "not-finite", "1e999"),
    "NaN in the matrix": (edit_json("seed-0/matrix.json", lambda m: put(m["accuracy"][0], 0, float("nan"))), "not-finite", "seed-0/matrix.json"),
    "huge integer": (edit_rows(lambda r: put(r[0], "tokens", 10**400)), "huge-number", "line 1"),
    "huge integer in the manifest": (edit_json("seed-0/manifest.json", lambda m: put(m, "seed", 10**30)), "huge-number", "manifest.json"),
    "negative tokens": (edit_rows(lambda r: put(r[0], "tokens", -1)), "tokens", "-1 tokens"),
    "more tokens than allowed": (edit_rows(lambda r: put(r[0], "tokens", 21)), "tokens", "21 tokens"),
    "a reply that is no text": (edit_rows(lambda r: put(r[0], "reply", None)), "schema", "line 1"),
    "a row without a reply": (edit_rows(lambda r: [{"id": r[0]["id"], "tokens": 5}, *r[1:]]), "schema", "has no 'reply'"),
    "a list inside a row": (edit_rows(lambda r: put(r[0], "more", [1])), "schema", "'more'"),
    "a key twice in a row": (edit_text(lambda b: b.replace(b'"tokens": 5', b'"tokens": 5, "tokens": 5', 1)), "duplicate-key", "'tokens' twice"),
    "a key twice in the matrix": (edit_file("seed-0/matrix.json", lambda b: b.replace(b'{\n', b'{\n "unit": "percent",\n', 1)), "duplicate-key", "'unit' twice"),
    "byte-order mark among predictions": (edit_text(lambda b: b"\xef\xbb\xbf" + b), "bom", TABLE),
    "byte-order mark in metrics": (edit_file("seed-0/metrics.json", lambda b: b"\xef\xbb\xbf" + b), "bom", "metrics.json"),
    "UTF-16": (edit_file("seed-0/recipe.json", lambda b: b.decode().encode("utf-16")), "bom", "recipe.json"),
    "Latin-1": (edit_file("seed-0/environment.json", lambda b: b.replace(b"abacus", b"ab\xe4cus")), "not-utf8", "environment.json"),
    "carriage returns": (edit_text(lambda b: b.replace(b"\n", b"\r\n")), "line-ends", "carriage returns"),
    "another spacing": (edit_text(lambda b: b.replace(b'": ', b'":', 1)), "not-canonical", "line 1"),
    "escaped characters": (edit_text(lambda b: b.replace(b"<answer>", b"\\u003canswer>", 1)), "not-canonical", "line 1"),
    "half a character": (edit_text(lambda b: b.replace(b"<answer>", b"<answer>\\ud800", 1)), "lone-surrogate", "line 1"),
    "broken JSON": (edit_file("seed-0/matrix.json", lambda b: b[:-9]), "not-json", "seed-0/matrix.json"),
    "JSON nested a thousand deep": (edit_file("seed-0/recipe.json", lambda b: b'{"config": ' + b"[" * 5000 + b"]" * 5000 + b"}"), "too-deep", "recipe.json"),
    "wrong unicode form in entry.yaml": (edit_file("entry.yaml", decomposed), "unicode-form", "entry.yaml"),
    "text that turns direction": (edit_yaml(name="SFT \u202elleps"), "not-yaml|control-character", "entry.yaml"),
    # packing
    "bomb": (bomb, "bomb", "times its size"),
    "bomb that lies about its size": (lying_bomb, "broken-zstd", TABLE),
    "window of 128 MiB": (wide_window, "zstd-size-unknown|bomb", TABLE),
    "truncated zstd": (edit_file(f"seed-0/{TABLE}", lambda b: b[:-20]), "truncated-zstd", "is cut off"),
    "half a header": (edit_file(f"seed-0/{TABLE}", lambda b: b[:5]), "broken-zstd", TABLE),
    "data after the frame": (edit_file(f"seed-0/{TABLE}", lambda b: b + b"more"), "zstd-trailing-data", "4 bytes after"),
    "a second frame": (edit_file(f"seed-0/{TABLE}", lambda b: b + b), "zstd-trailing-data", TABLE),
    "no checksum": (edit_text(lambda b: b, write_checksum=False), "zstd-no-checksum", TABLE),
    "broken checksum": (edit_file(f"seed-0/{TABLE}", lambda b: b[:-1] + bytes([b[-1] ^ 1])), "broken-zstd", "does not unpack"),
    "plain text called zstd": (edit_file(f"seed-0/{TABLE}", lambda b: b'{"id": 1}\n'), "not-zstd", TABLE),
    "the last line has no end": (edit_text(lambda b: b[:-1]), "truncated-zstd", "last line"),
    # files and paths
    "symlink": (lambda e: (e / "seed-0/matrix.json").unlink() or (e / "seed-0/matrix.json").symlink_to("/etc/hostname"), "symlink", "seed-0/matrix.json"),
    "a folder that is a symlink": (lambda e: (e / "seed-3").symlink_to(e / "seed-0"), "symlink", "seed-3"),
    "../ in the manifest": (dotdot, "path", "../seed-1/matrix.json"),
    "absolute path in the manifest": (absolute, "path", "/etc/passwd"),
    "backslash path in the manifest": (edit_json("seed-0/manifest.json", lambda m: put(m["files"], "..\\x", m["files"]["matrix.json"])), "path", "..\\\\x"),
    "names that differ in case": (add("seed-0/Matrix.json"), "name-collision", "seed-0/matrix.json"),
    "a name of another system": (add("seed-0/CON.json"), "name", "seed-0/CON.json"),
    "a name with a line break": (add("seed-0/a\nb"), "name", "a\\nb"),
    "a hidden file": (add("seed-0/.hidden"), "name", ".hidden"),
    "a pickle": (add("seed-0/state.pt", pickle.dumps([1])), "pickle", "state.pt"),
    "an archive": (add("seed-0/all.zip"), "archive", "all.zip"),
    "code": (add("trainer.py"), "code", "trainer.py"),
    "a page": (add("index.html"), "code", "index.html"),
    "an executable": (lambda e: (e / "entry.yaml").chmod(0o755), "executable", "entry.yaml"),
    "a pipe": (pipe, "not-a-file", "seed-0/fifo"),
    "an unknown file": (add("README.txt"), "unknown-file", "README.txt"),
    "an unknown folder": (lambda e: (e / "more").mkdir(), "unknown-folder", "more"),
    "folders without end": (lambda e: (e / "/".join("abcdefghijk")).mkdir(parents=True), "too-deep", "a/b/c"),
    "a file of 11 MB": (add("seed-0/environment.json", b"1" * (11 << 20)), "too-big", "environment.json"),
    "4001 files": (many_files, "too-many-files", "4000"),
    # the manifest and entry.yaml
    "swapped seeds": (swap_seeds, "seed-mismatch", "'seed-1', not 'seed-0'"),
    "the same seed thrice": (clone_seed, "seed-identical", "seed-0, seed-1"),
    "the same seed thrice, unchanged": (lambda e: clone_seed(e, True), "seed-mismatch", "seed-1/manifest.json"),
    "two seeds with one set of weights": (lambda e: edit_json("seed-1/manifest.json", lambda m: put(m, "weights", json.loads((e / "seed-0/manifest.json").read_text())["weights"]))(e), "seed-same-weights", "seed-0, seed-1"),
    "a seed listed twice": (edit_yaml(seeds=[0, 1, 1]), "seed-repeated", "[0, 1, 1]"),
    "a seed not listed": (edit_yaml(seeds=[0, 1]), "seeds", "[0, 1, 2]"),
    "two seeds only": (lambda e: (shutil.rmtree(e / "seed-2"), edit_yaml(seeds=[0, 1])(e))[1], "too-few-seeds", "at least 3"),
    "chosen seeds": (lambda e: ((e / "seed-2").rename(e / "seed-7"), edit_json("seed-7/manifest.json", lambda m: put(m, "seed", 7))(e), edit_yaml(seeds=[0, 1, 7])(e))[2], "seeds-chosen", "[0, 1, 7]"),
    "another suite version": (edit_yaml(suite=lambda s: s | {"version": "2.0"}), "suite-version", "2.0"),
    "another suite version, one seed": (edit_json("seed-0/manifest.json", lambda m: put(m["suite"], "version", "0.9")), "suite-version", "0.9"),
    "another fingerprint": (edit_yaml(suite=lambda s: s | {"fingerprint": A}), "suite-fingerprint", "aaaaaaaaaaaa"),
    "a suite nobody knows": (edit_yaml(suite=lambda s: s | {"name": "large"}), "suite-name", "'large'"),
    "a suite that is a path": (edit_yaml(suite=lambda s: s | {"name": "../evil"}), "schema", "suite.name"),
    "base model mismatch": (edit_yaml(model=lambda m: m | {"weights": A}), "base-model", "aaaaaaaaaaaa"),
    "base model mismatch everywhere": (lambda e: (edit_yaml(model=lambda m: m | {"weights": A})(e), [edit_json(f"seed-{s}/manifest.json", lambda m: (put(m["base"], "weights", A), put(m["weights"], "0-base", A))[0])(e) for s in range(3)])[0], "base-model", "the suite's are"),
    "base model by another name": (edit_yaml(model=lambda m: m | {"name": "GPT-9"}), "base-model", "GPT-9"),
    "another prompt": (edit_json("seed-0/manifest.json", lambda m: put(m["protocol"], "prompt", "{question} hint: B")), "prompt", "hint: B"),
    "another protocol": (edit_json("seed-0/manifest.json", lambda m: put(m["protocol"], "sha256", A)), "protocol", "seed-0/manifest.json"),
    "another test split": (edit_json("seed-0/manifest.json", lambda m: put(m["data"]["text"], "test", A)), "data", "text: test"),
    "fewer test samples": (edit_json("seed-0/manifest.json", lambda m: put(m["data"]["text"], "n", 40)), "sample-count", "text: n is 40"),
    "another order": (edit_json("seed-0/manifest.json", lambda m: m["order"].reverse()), "order", "seed-0|entry.yaml"),
    "a privilege kept quiet": (edit_yaml(privileges=lambda p: p | {"replay_samples_per_task": 9}), "privilege", "'replay_samples_per_task': 0"),
    "joint training in the closed division": (lambda e: (edit_yaml(privileges=lambda p: p | {"joint": True})(e), [edit_json(f"seed-{s}/manifest.json", lambda m: put(m["privileges"], "joint", True))(e) for s in range(3)])[0], "privilege", "does not allow the privilege 'joint'"),
    "another lane": (edit_yaml(lane="predictions"), "lane", "'predictions'"),
    "an unknown key": (edit_yaml(rank=1), "schema", "rank"),
    "a link that is code": (edit_yaml(paper="javascript:alert(1)"), "schema", "paper"),
    "a date that is none": (edit_yaml(date="2026-13-01"), "schema", "date"),
    "another date than the folder's": (edit_yaml(date="2025-01-01"), "folder-name", "2025-01-01__sft-small"),
    "another division than the folder's": (edit_yaml(division="open"), "place", "small/1.0/open"),
    "a correction of a path": (edit_yaml(supersedes="../../evil"), "schema", "supersedes"),
    "a correction of nothing": (edit_yaml(supersedes="2026-01-01__sft__small-base"), "supersedes", "not an entry of the same board"),
    "a correction of somebody else's entry": (lambda e: corrects(e, "B. Other"), "supersedes", "(B. Other) are others"),
    "a format of the future": (edit_yaml(format=3), "format", "3"),
    "rules nobody wrote": (edit_yaml(rules="9"), "rules-version", "'9'"),
    "a style of answering that is not so": (edit_yaml(response_style="thinking"), "response-style", "'thinking'"),
    "YAML aliases": (edit_file("entry.yaml", lambda b: b"notes: &a [x]\nmore: [*a, *a]\n" + b), "yaml-alias", "entry.yaml"),
    "a YAML tag": (edit_file("entry.yaml", lambda b: b"x: !!python/object/apply:os.system [id]\n" + b), "yaml-tag", "python/object"),
    "a key twice in entry.yaml": (edit_file("entry.yaml", lambda b: b + b"notes: again\n"), "duplicate-key", "'notes' twice"),
    # the ledger
    "no ledger": (remove("seed-0/ledger.jsonl.zst", sign=True), "missing-file", "ledger.jsonl.zst"),
    "a step without its record": (edit_ledger(lambda r: [x for x in r if x["step"] != "stage-2/train"]), "ledger-step", "stage-2/train"),
    "inputs of a step edited": (edit_ledger(lambda r: put(r[0]["inputs"], "threads", 9)), "ledger-key", "hash of its inputs"),
    "a limited run": (edit_ledger(limited), "limited", "8 samples only"),
    "a chain that does not hang together": (rekey(lambda r: put(r["inputs"], "parent", A), "stage-2/train"), "chain", "stage-2/train"),
    "evaluated other weights": (rekey(lambda r: put(r["inputs"], "weights", A), "stage-2/evaluate/science"), "chain", "stage-2/evaluate/science"),
    "weights of a stage edited": (edit_json("seed-0/manifest.json", checkpointless), "chain", "stage-2"),
    "trained with another seed": (rekey(lambda r: put(r["inputs"], "seed", 5), "stage-1/train"), "seed-mismatch", "stage-1/train"),
    "another recipe than the run's": (edit_json("seed-0/recipe.json", lambda r: put(r["config"], "learning_rate", 1.0)), "recipe", "recipe.json"),
    "replay kept quiet in entry.yaml and the manifest": (quiet(replay_samples_per_task=32), "privilege", "stage-1/train: ran with other privileges"),
    "joint training kept quiet everywhere": (quiet(joint=True), "privilege", "stage-3/train: ran with other privileges"),
    "privileges cut out of the ledger": (rekey(lambda r: r["inputs"].pop("privileges"), "stage-1/train"), "privilege", "stage-1/train"),
    "another budget than the recipe's": (rekey(lambda r: put(r["inputs"], "budget", {"samples": 9}), "stage-2/train"), "recipe", "stage-2/train: its budget is {'samples': 9}, not {'samples': None}"),
    "a launcher kept quiet": (rekey(lambda r: put(r["inputs"], "launch", "torchrun"), "stage-2/train"), "recipe", "stage-2/train: its launch is 'torchrun', not None"),
    "an engine kept quiet": (rekey(lambda r: put(r["inputs"], "engine_chosen", {"name": "vllm", "settings": {}}), "stage-2/evaluate/science"), "recipe", "stage-2/evaluate/science: another engine answered"),
    # plausibility
    "predictions that never lose an item": (never_lose, "never-loses", "0 were lost"),
    "stage 0 is not the base row": (base_row_off, "base-row", "knowledge"),
    "knows a task before it is trained": (foresight, "knows-the-future", "text scores 100.0"),
    "trained on a test question": (trained_on_test, "trained-on-test", "science"),
    "extra data in the closed division": (edit_yaml(extra_data="forty books"), "extra-data", "entry.yaml"),
    # reproductions
    "a reproduction with a loose file": (lambda e: (add("reproductions/2026-11-23__b/report.json", json.dumps(REPRO).encode())(e), add("reproductions/2026-11-23__b/predictions/0-base/text.jsonl.zst")(e))[1], "unsigned-file", "reproductions/2026-11-23__b"),
    "a reproduction of no seed": (add("reproductions/2026-11-23__b/report.json", json.dumps(REPRO | {"seed": 9}).encode()), "seed-mismatch", "no seed 9"),
    "a reproduction that chose its question": (lambda e: reproduced(e, {"id": "text-test-00003", "reply": "y"}), "sample", "1-science/text.jsonl.zst: answers 0 of the 0 questions drawn, and 1 others"),
    "a reproduction that states its own verdict": (add("reproductions/2026-11-23__b/report.json", json.dumps(REPRO | {"reproduced": True}).encode()), "schema", "reproduced"),
}  # fmt: skip


MALFORMED: dict[str, tuple[Case, str]] = {
    "a format that is a list": (edit_yaml(format=[1]), "entry.yaml: has format [1]"),
    "a format that is true": (edit_json("seed-0/manifest.json", lambda m: put(m, "format", True)), "seed-0/manifest.json: has format True"),
    "a manifest of format 1 with a list of files": (edit_json("seed-0/manifest.json", lambda m: m.update(format=1, files=[1])), "seed-0/manifest.json: files: "),
    "a KL row of a list": (lambda e: ((e / "seed-0/kl").mkdir(), zst(e / "seed-0/kl/1-science.jsonl.zst", [b'{"name": ["a"]}\n']), resign(e / "seed-0"))[0], "line 1 is of no benchmark"),
    "data without a task": (edit_json("seed-0/manifest.json", lambda m: put(m, "data", {k: v for k, v in m["data"].items() if k != "science"})), "the list of benchmarks"),
    "facts that are a list": (edit_ledger(lambda r: put(r[0], "facts", [1])), "line 1 is not a step's record"),
    "outputs that are a list": (edit_ledger(lambda r: put(r[-1], "outputs", ["x"])), "is not a step's record"),
    "a budget that is a list": (rekey(lambda r: put(r["inputs"], "budget", [1]), "stage-1/train"), "its budget is [1]"),
    "tasks of a mapping": (rekey(lambda r: put(r["inputs"], "tasks", {"a": 1}), "stage-1/train"), "trained another task"),
    "an id of a reproduction that is a list": (lambda e: reproduced(e, {"id": ["x"], "reply": "y"}), "answers ['x'], not in the test split"),
    "a reproduction that is a list": (add("reproductions/2026-11-23__b/report.json", b"[1]"), "reproductions/2026-11-23__b/report.json"),
}  # fmt: skip


def corrects(entry: Path, author: str) -> None:
    """Let ``entry`` supersede an earlier one of ``author``."""
    old = entry.parent / entry.name.replace("sft-small", "old")
    old.mkdir()
    shutil.copy(entry / "entry.yaml", old)
    edit_yaml(authors=[author])(old)
    edit_yaml(supersedes=old.name)(entry)


def reproduced(entry: Path, row: dict[str, Any]) -> None:
    folder = entry / "reproductions/2026-11-23__b"
    file = folder / "predictions/1-science/text.jsonl.zst"
    file.parent.mkdir(parents=True)
    pack_rows(file, [row])
    data = file.read_bytes()
    ref = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    said = REPRO | {"files": {"predictions/1-science/text.jsonl.zst": ref}}
    (folder / "report.json").write_text(json.dumps(said))


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_a_finding(name: str, good: tuple[Path, Path], entry: Path) -> None:
    spoil, words = MALFORMED[name]
    spoil(entry)
    lines = [f.line() for f in verify(entry, str(good[0])).report.errors]
    assert any(words in line for line in lines), lines
    assert not any("cannot be checked" in line for line in lines)


def test_a_shape_nobody_foresaw_is_a_finding(
    good: tuple[Path, Path], entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpt_bench.leaderboard import checks_ledger

    monkeypatch.setattr(checks_ledger, "check_ledger", lambda *_: {}["x"])
    report = verify(entry, str(good[0])).report
    assert report.verdict == "refuted"
    assert "error: schema: seed-1: cannot be checked (KeyError: 'x')" in [
        f.line() for f in report.errors
    ]


@pytest.mark.parametrize(
    "number", ["9007199254740992", "-9007199254740992", "999999999999999", "0.1234567890123456"]
)
def test_numbers_up_to_2_to_the_53_are_read(number: str) -> None:
    assert row_of(f'{{"tokens": [1, {number}]}}'.encode())["tokens"] == [1, float(number)]


@pytest.mark.parametrize("number", ["9007199254740993", "-9007199254740993", "99999999999999999"])
def test_numbers_beyond_are_not(number: str) -> None:
    with pytest.raises(Refused, match="beyond 2"):
        row_of(f'{{"tokens": [1, {number}]}}'.encode())


def test_there_are_at_least_sixty_kinds() -> None:
    assert len(CASES) >= 60


def test_the_good_entry_passes(good: tuple[Path, Path], entry: Path) -> None:
    report = verify(entry, str(good[0])).report
    assert [f.line() for f in report.findings()] == []
    assert report.verdict == "verified"
    assert report.counts()["refuted"] == report.counts()["unverifiable"] == 0


def test_authors_may_correct_their_own(good: tuple[Path, Path], entry: Path) -> None:
    corrects(entry, yaml.safe_load((entry / "entry.yaml").read_text())["authors"][0].upper())
    assert verify(entry, str(good[0])).report.verdict == "verified"


@pytest.mark.parametrize("name", CASES)
def test_tampering_is_caught(name: str, good: tuple[Path, Path], entry: Path) -> None:
    spoil, codes, words = CASES[name]
    SUITE[:] = [good[0]]
    before = snapshot(entry)
    spoil(entry)
    assert snapshot(entry) != before, "the case changes nothing"
    report = verify(entry, str(good[0])).report
    lines = [f.line() for f in report.findings() if f.level is Level.error]
    assert report.verdict == "refuted"
    hits = [
        f for f in report.errors
        if f.code in codes.split("|") and any(w in f.line() for w in words.split("|"))
    ]  # fmt: skip
    assert hits, lines
    assert all("\n" not in line for line in lines)


def snapshot(entry: Path) -> list[Any]:
    out = []
    for p in sorted(entry.rglob("*")):
        info = p.lstat()
        data = p.read_bytes() if p.is_file() and not p.is_symlink() else b""
        out.append((str(p), info.st_mode, data))
    return out
