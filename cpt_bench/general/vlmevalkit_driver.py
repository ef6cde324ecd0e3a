"""Run by VLMEvalKit's own Python: ``driver.py prompts|score TASK FOLDER``; imports no cptbench.

``prompts`` writes every question in VLMEvalKit's form; ``score`` evaluates ``predictions.json`` as
VLMEvalKit does and writes the result with the outcome of each question.
"""

# mypy: ignore-errors
import hashlib
import json
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

UNITS = {"Y/N": 1.0, "MCQ": 100.0}
"""Factor that converts its headline to percent: yes/no tables are in percent, the others shares."""


def build(task):
    """The dataset: an official name, or Class/Name for a local file."""
    import vlmeval.dataset as datasets

    class_name, _, name = task.rpartition("/")
    if class_name and not hasattr(datasets, class_name):
        raise SystemExit(f"there is no dataset class {class_name!r}")
    make = getattr(datasets, class_name) if class_name else datasets.build_dataset
    found = make(name)
    if found is None:
        raise SystemExit(f"there is no dataset {name!r}")
    if found.TYPE not in UNITS:
        raise SystemExit(f"{name} is of type {found.TYPE}; exact matching is for {[*UNITS]}")
    return found


def prompts(dataset, folder):
    questions = []
    for i in range(len(dataset)):
        line = dataset.data.iloc[i]
        message = [{"type": m["type"], "value": m["value"]} for m in dataset.build_prompt(line)]
        questions.append({"index": str(line["index"]), "message": message})
    distribution = packages_distributions()["vlmeval"][0]
    file = Path(dataset.data_path)
    return {
        "distribution": distribution,
        "version": version(distribution),
        "class": type(dataset).__name__,
        "data_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "questions": questions,
    }


def score(dataset, folder):
    from vlmeval.smp import dump

    answers = json.loads((folder / "predictions.json").read_text())
    data = dataset.data.copy()
    data = data[[str(i) in answers for i in data["index"]]]
    data["prediction"] = [answers[str(i)] for i in data["index"]]
    if "image" in data:
        data.pop("image")
    file = folder / f"model_{dataset.dataset_name}.xlsx"  # its default
    dump(data, str(file))
    result = dataset.evaluate(str(file), model="exact_matching", nproc=1)
    table = json.loads(result.to_json(orient="records")) if hasattr(result, "to_json") else result
    first = table[0] if isinstance(table, list) else table
    metric = next(k for k in ("Overall", "overall", "acc", "score") if k in first)
    samples, extracted = outcomes(folder, file)
    missing = set(answers) - set(samples)
    if missing:
        raise SystemExit(f"no outcome of {len(missing)} questions in the files it wrote")
    return {
        "metric": metric,
        "headline": UNITS[dataset.TYPE] * first[metric],
        "result": table,
        "samples": samples,
        "extracted": extracted,
    }


def outcomes(folder, predictions):
    """Per-question outcome and extracted answer, from the tables that ``evaluate`` writes."""
    from vlmeval.smp import load

    for file in sorted(folder.glob(f"{predictions.stem}_*.xlsx")):
        table = load(str(file))
        columns = getattr(table, "columns", ())
        column = next((c for c in ("hit", "score") if c in columns), None)
        if column is None or "index" not in columns:
            continue
        samples = {str(i): float(v) for i, v in zip(table["index"], table[column], strict=True)}
        if "extracted" not in columns:
            return samples, {}
        found = zip(table["index"], table["extracted"], strict=True)
        return samples, {str(i): str(v) for i, v in found}
    return {}, {}


def main():
    verb, task, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    result = {"prompts": prompts, "score": score}[verb](build(task), folder)
    (folder / f"{verb}.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main()
