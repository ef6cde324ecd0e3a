"""The ten published tables in small: the same files, configs, columns and types as on the hub.

``build_hub`` writes ``<folder>/<owner>/<name>/`` with parquet files and a README whose YAML names them,
so that ``load_dataset(<folder>/<owner>/<name>, config, split=...)`` is the hub's own call. Pictures come
in the modes that break loaders. ``build_suite`` writes a copy of cpt7 whose counts are the fixtures'.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from cpt_bench.tasks.cpt7 import FOLDER

S, I8, I32, I64, B = (Value(t) for t in ("string", "int8", "int32", "int64", "bool"))
MODES = ("RGB", "CMYK", "P", "L", "RGBA", "LA", "1")
"""Modes the pictures take turns in: CMYK as JPEG, the others as PNG, RGB as either."""

TASKS = ["scienceqa", "textvqa", "vizwiz", "gqa", "geometry3k", "pathvqa", "superclevr"]
GENERAL = ["mmmu", "mmlu_pro", "pope"]
TRAIN, TEST = 8, 7
"""Samples in each split of the fixture ``cpt7``."""

_SMALL = ["max_steps=2", "device=cpu", "dtype=float32", "sharding=none", "gradient_checkpointing=false", "attention=eager", "learning_rate=1e-4", "max_pixels=4096", "min_pixels=4096"]  # fmt: skip
SFT = [*_SMALL, "batch_size=2", "gradient_accumulation=1"]
RFT = [*_SMALL, "use_vllm=false", "prompts_per_step=2", "rollouts=2", "gradient_accumulation=1", "updates_per_generation=2"]  # fmt: skip
"""Settings that make a recipe of cpt7 run on a CPU, in no time."""

Row = dict[str, Any]


def picture(number: int, size: tuple[int, int] = (56, 56)) -> dict[str, Any]:
    """An encoded picture as a hub table holds it; its colour and mode go with its number."""
    mode = MODES[number % len(MODES)]
    image = Pillow.new("RGB", size, ((37 * number) % 256, (91 * number) % 256, 120))
    image.paste((250, 250, 20), (number % 40, 8, number % 40 + 12, 30))
    stream = io.BytesIO()
    jpeg = mode == "CMYK" or (mode == "RGB" and number % 2)
    image.convert(mode).save(stream, "JPEG" if jpeg else "PNG")
    return {"bytes": stream.getvalue(), "path": f"{number}.{'jpg' if jpeg else 'png'}"}


def ten(answer: str, other: str, agreeing: int) -> list[str]:
    return [answer] * agreeing + [other] * (10 - agreeing)


# ------------------------------------------------------------------ one row of each table


def scienceqa(i: int, split: str, without_image: bool = False) -> Row:
    choices = [f"option {c}" for c in "wxyz"][: 2 + i % 3]
    return {
        "image": None if without_image else picture(i), "question": f"Which is number {i}?",
        "choices": choices, "answer": i % len(choices), "hint": f"Look at {i}." if i % 2 else "",
        "task": "closed choice", "grade": "grade4", "subject": "natural science", "topic": "physics",
        "category": "Magnets", "skill": "Compare", "lecture": "", "solution": "",
    }  # fmt: skip


SCIENCEQA = Features({
    "image": Image(), "question": S, "choices": List(S), "answer": I8, "hint": S, "task": S,
    "grade": S, "subject": S, "topic": S, "category": S, "skill": S, "lecture": S, "solution": S,
})  # fmt: skip


def textvqa(i: int, split: str) -> Row:
    question = f"what is written on sign {i}?"
    return {
        "image_id": f"{i:016x}", "question_id": i + (34602 if split == "validation" else 0),
        "question": question, "question_tokens": question.rstrip("?").split(), "image": picture(i),
        "image_width": 56, "image_height": 56, "flickr_original_url": "", "flickr_300k_url": "",
        "answers": ten(f"Stop {i}", "unanswerable", 1 + i % 10), "image_classes": ["Sign"],
        "set_name": split, "ocr_tokens": ["STOP", str(i)] if i % 3 else [],
    }  # fmt: skip


TEXTVQA = Features({
    "image_id": S, "question_id": I32, "question": S, "question_tokens": List(S), "image": Image(),
    "image_width": I32, "image_height": I32, "flickr_original_url": S, "flickr_300k_url": S,
    "answers": List(S), "image_classes": List(S), "set_name": S, "ocr_tokens": List(S),
})  # fmt: skip


def vizwiz_train(i: int, split: str) -> Row:
    return {
        "image": picture(i), "filename": f"VizWiz_train_{i:08d}.jpg", "question": f"What is this {i}?",
        "answers": ten("unanswerable" if i % 2 else "a can", "soup", 6), "answer_type": "other",
        "answerable": i % 2,
    }  # fmt: skip


VIZWIZ_TRAIN = Features({
    "image": Image(), "filename": S, "question": S, "answers": List(S), "answer_type": S,
    "answerable": I64,
})  # fmt: skip


def vizwiz(i: int, split: str) -> Row:
    return {
        "question_id": f"VizWiz_val_{i:08d}", "image": picture(i), "question": f"What is this {i}?",
        "answers": ten("unanswerable" if i % 2 else "a can", "soup", 6), "category": "other",
    }  # fmt: skip


VIZWIZ = Features(
    {"question_id": S, "image": Image(), "question": S, "answers": List(S), "category": S}
)


def gqa(i: int, split: str) -> Row:
    return {
        "id": f"{split[:2]}{i:08d}", "imageId": f"n{i % 3}", "question": f"Is thing {i} red?",
        "answer": ("yes", "no", "shirt")[i % 3], "fullAnswer": "It is.", "isBalanced": True,
        "groups": {"global": "", "local": "13-thing"}, "entailed": "[]", "equivalent": "[]",
        "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
        "annotations": {"question": [{"objectId": "2", "value": "681267"}], "answer": [],
                        "fullAnswer": [{"objectId": "1", "value": "681267"}]},
        "semantic": [{"operation": "select", "argument": "thing (1)", "dependencies": [0]}],
        "semanticStr": "select: thing (1)",
    }  # fmt: skip


_NOTE = List({"objectId": S, "value": S})
GQA = Features({
    "id": S, "imageId": S, "question": S, "answer": S, "fullAnswer": S, "isBalanced": B,
    "groups": {"global": S, "local": S}, "entailed": S, "equivalent": S,
    "types": {"structural": S, "semantic": S, "detailed": S},
    "annotations": {"question": _NOTE, "answer": _NOTE, "fullAnswer": _NOTE},
    "semantic": List({"operation": S, "argument": S, "dependencies": List(I32)}), "semanticStr": S,
})  # fmt: skip
GQA_IMAGES = Features({"id": S, "image": Image()})


def gqa_image(i: int, split: str) -> Row:
    return {"id": f"n{i}", "image": picture(i)}


GOLDS = ("2 \\sqrt { 221 }", "4 \\frac { 4 } { 11 }", "5", "48", "\\frac { 1 } { 2 }")


def geometry3k(i: int, split: str) -> Row:
    return {
        "images": [picture(i)], "problem": f"<image>Find $x$ when $m \\angle A = {i}$.",
        "answer": GOLDS[i % 5],
    }  # fmt: skip


GEOMETRY3K = Features({"images": List(Image()), "problem": S, "answer": S})


def pathvqa(i: int, split: str) -> Row:
    return {"image": picture(i // 2), "question": f"what is shown in {i}?",
            "answer": ("yes", "no", "liver")[i % 3]}  # fmt: skip


PATHVQA = Features({"image": Image(), "question": S, "answer": S})


def superclevr(i: int, split: str) -> Row:
    gold = ("3", "Yes", "True", "The bicycle is blue and brown")[i % 4]
    hint = "Hint: Please answer the question and provide the final answer at the end."
    return {
        "id": f"Super-CLEVR-{i}", "image": picture(i), "data_source": "Super-CLEVR(MathV360K)",
        "conversations": [{"from": "human", "value": f"<image>\n{hint}\nQuestion: How many are {i}?"},
                          {"from": "gpt", "value": gold}],
    }  # fmt: skip


SUPERCLEVR = Features({
    "id": S, "image": Image(), "conversations": List({"from": S, "value": S}), "data_source": S,
})  # fmt: skip


def mmmu(i: int, split: str, subject: str = "Art_Theory") -> Row:
    multiple = i % 4 != 3
    images = {f"image_{k}": picture(i + k) if k <= 1 + i % 2 else None for k in range(1, 8)}
    return {
        "id": f"{split}_{subject}_{i + 1}", "question": f"What does <image 1> show in case {i}?",
        "options": "['a $5', \"Theory's end\", 'None', '<image 2>']" if multiple else "[]",
        "explanation": "", **images, "img_type": "['Paintings']",
        "answer": "BCAD"[i % 4] if multiple else ("12.5" if i % 8 == 3 else "['zero', '0']"),
        "topic_difficulty": "Easy", "question_type": "multiple-choice" if multiple else "open",
        "subfield": "Art",
    }  # fmt: skip


MMMU = Features({
    "id": S, "question": S, "options": S, "explanation": S,
    **{f"image_{k}": Image() for k in range(1, 8)}, "img_type": S, "answer": S,
    "topic_difficulty": S, "question_type": S, "subfield": S,
})  # fmt: skip


def mmlu_pro(i: int, split: str) -> Row:
    options = [f" option {c}\n" for c in "abcdefghij"][: 3 + i % 8]
    return {
        "question_id": 70 + i, "question": f"What follows from {i}?", "options": options,
        "answer": "ABC"[i % 3], "answer_index": i % 3, "cot_content": "", "category": "law",
        "src": "ori_mmlu-law",
    }  # fmt: skip


MMLU_PRO = Features({
    "question_id": I64, "question": S, "options": List(S), "answer": S, "answer_index": I64,
    "cot_content": S, "category": S, "src": S,
})  # fmt: skip


def pope(i: int, split: str) -> Row:
    return {
        "id": str(i), "question_id": str(1 + i // 3), "question": f"Is there a dog {i} in the image?",
        "answer": "yes" if i % 2 else "no", "image_source": f"COCO_val2014_{i:012d}",
        "image": picture(i), "category": ("adversarial", "popular", "random")[i % 3],
    }  # fmt: skip


POPE = Features({
    "id": S, "question_id": S, "question": S, "answer": S, "image_source": S, "image": Image(),
    "category": S,
})  # fmt: skip


# ---------------------------------------------------------------------------------- files


def write_repo(
    folder: Path,
    repo: str,
    tables: dict[tuple[str, str], list[Row]],
    features: dict[str, Features] | Features,
) -> None:
    """One repository: ``{(config, split): rows}`` as parquet files, and the README that names them."""
    place = folder / repo
    configs: dict[str, list[dict[str, str]]] = {}
    for (config, split), rows in tables.items():
        file = place / config / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = features if isinstance(features, Features) else features[config]
        Dataset.from_list(rows, features=kind).to_parquet(str(file))
        configs.setdefault(config, []).append({"split": split, "path": f"{config}/{file.name}"})
    listed = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    front = yaml.safe_dump({"configs": listed}, sort_keys=False)
    (place / "README.md").write_text(f"---\n{front}---\n")


def make(row: Callable[..., Row], split: str, n: int, **options: Any) -> list[Row]:
    return [row(i, split, **options) for i in range(n)]


def build_hub(folder: Path, train: int = 8, test: int = 6, subjects: bool = False) -> Path:
    """All ten data sets under ``folder``.

    Args:
        folder: Give it to ``cptbench data prepare --from``.
        train: Training samples a task, at least 1.
        test: Test samples a task and general benchmark, at least 1.
        subjects: MMMU as thirty configs of one question each (slow to read) instead of the merged table.
    """
    d = "default"
    img = "ScienceQA-IMG"
    write_repo(folder, "lmms-lab/ScienceQA", {
        (img, "train"): make(scienceqa, "train", train), (img, "test"): make(scienceqa, "test", test),
    }, SCIENCEQA)  # fmt: skip
    write_repo(folder, "lmms-lab/textvqa", {
        (d, "train"): make(textvqa, "train", train), (d, "validation"): make(textvqa, "validation", test),
    }, TEXTVQA)  # fmt: skip
    write_repo(
        folder,
        "Multimodal-Fatima/VizWiz_train",
        {(d, "train"): make(vizwiz_train, "train", train)},
        VIZWIZ_TRAIN,
    )
    write_repo(folder, "lmms-lab/VizWiz-VQA", {(d, "val"): make(vizwiz, "val", test)}, VIZWIZ)
    instructions, images = "{}_balanced_instructions", "{}_balanced_images"
    tables, kinds = {}, {}
    for split, n in (("train", 2 * train), ("testdev", test)):
        tables[instructions.format(split), split] = make(gqa, split, n)
        tables[images.format(split), split] = make(gqa_image, split, 3)
        kinds[instructions.format(split)], kinds[images.format(split)] = GQA, GQA_IMAGES
    write_repo(folder, "lmms-lab/GQA", tables, kinds)
    write_repo(folder, "hiyouga/geometry3k", {
        (d, "train"): make(geometry3k, "train", train), (d, "test"): make(geometry3k, "test", test),
    }, GEOMETRY3K)  # fmt: skip
    write_repo(folder, "flaviagiammarino/path-vqa", {
        (d, "train"): make(pathvqa, "train", train), (d, "test"): make(pathvqa, "test", test),
    }, PATHVQA)  # fmt: skip
    write_repo(folder, "lmms-lab/LLaVA-OneVision-Data", {
        ("Super-CLEVR(MathV360K)", "train"): make(superclevr, "train", train + test),
    }, SUPERCLEVR)  # fmt: skip
    if subjects:
        names = _card("mmmu")["source"]["splits"]["test"]["tables"][0]["configs"]
        write_repo(folder, "MMMU/MMMU", {
            (name, "validation"): [mmmu(i, "validation", name)] for i, name in enumerate(names)
        }, MMMU)  # fmt: skip
    else:
        write_repo(
            folder, "lmms-lab/MMMU", {(d, "validation"): make(mmmu, "validation", test)}, MMMU
        )
    write_repo(folder, "TIGER-Lab/MMLU-Pro", {(d, "test"): make(mmlu_pro, "test", test)}, MMLU_PRO)
    write_repo(folder, "lmms-lab/POPE", {(d, "test"): make(pope, "test", test)}, POPE)
    return folder


# ---------------------------------------------------------------------------------- suite


def _card(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return data


def small_card(name: str, train: int, test: int, mini: tuple[int, int]) -> dict[str, Any]:
    """cpt7's card with the fixtures' counts; all else as it is."""
    card = _card(name)
    sizes = {"train": train, "test": test}
    for split, source in card["source"]["splits"].items():
        for table in source["tables"]:
            whole = {"gqa": 2 * train if split == "train" else test, "superclevr": train + test}
            table["rows"] = whole.get(name, sizes[split])
    for split, published in card["splits"].items():
        published["n"] = sizes[split]
        published.pop("ids", None)
        if published.get("draw", {}).get("skip"):
            published["draw"]["skip"] = train
    for split, published in card["tiers"]["mini"]["splits"].items():
        published["n"] = mini[0] if split == "train" else mini[1]
        published.pop("ids", None)
    return card


def build_suite(
    folder: Path, base_model: str, train: int = 8, test: int = 6, mini: tuple[int, int] = (4, 3),
    max_new_tokens: int | None = None, tasks: int = len(TASKS),
) -> Path:  # fmt: skip
    """A copy of cpt7 in ``folder`` for :func:`build_hub`'s data.

    Args:
        folder: Give it as ``--suite``; ``@paper``, ``@mini`` and so on work as for cpt7.
        base_model: A checkpoint's folder.
        train: As given to ``build_hub``.
        test: As given to ``build_hub``.
        mini: Train and test samples of the tier ``mini``.
        max_new_tokens: A shorter limit than cpt7's 1,024, for a small model that does not stop.
        tasks: How many of the sequence's tasks, from the first on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suite = yaml.safe_load((FOLDER / "suite.yaml").read_text())
    suite["base_model"] = base_model
    suite["sequence"] = suite["sequence"][:tasks]
    for protocol in suite["protocols"].values():
        protocol["decoding"]["max_new_tokens"] = (
            max_new_tokens or protocol["decoding"]["max_new_tokens"]
        )
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    for name in (*suite["sequence"], *suite["general"]):
        text = yaml.safe_dump(small_card(name, train, test, mini), sort_keys=False)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def rewrite(
    folder: Path, repo: str, config: str, split: str, change: Callable[[Dataset], Dataset]
) -> None:
    """Change one table of a fixture in place: to break it."""
    file = folder / repo / config / f"{split}-00000-of-00001.parquet"
    changed = change(Dataset.from_parquet(str(file), cache_dir=str(folder / ".rewrite")))
    changed.to_parquet(str(file))
    shutil.rmtree(folder / ".rewrite", ignore_errors=True)
