"""Keeps the files of a checkpoint that decide how prompts and pictures are read.

The suite's protocol fixes prompts. A trainer that saves another chat template, tokenizer or image
processor would have its checkpoint evaluated on other prompts than every other method, and no
number would show it. So those files are the start checkpoint's, whatever the trainer wrote.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cpt_bench.engines.swapping import VIDEO, meaning
from cpt_bench.errors import TrainerFault
from cpt_bench.models.files import ADAPTER

PROMPT_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja",
    "chat_template.json", "*.model", "processor_config.json", "preprocessor_config.json",
)  # fmt: skip

REQUIRED = {
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "processor": ("processor_config.json", "preprocessor_config.json"),
}
"""What a whole checkpoint has, where its start has it; under which name depends on the version."""


def keep_prompt_files(policy: Path, output: Path, trainer: str) -> list[str]:
    """Make the prompt files in ``output`` those of ``policy``.

    Args:
        policy: The checkpoint that the stage started from.
        output: The checkpoint that the trainer wrote. An adapter reads prompts as its base does.
        trainer: The trainer, for the message.

    Returns:
        The names of the files that differed; settings that change no prompt are no difference.

    Raises:
        TrainerFault: There is no tokenizer or no processor: the checkpoint is not whole.
    """
    if (output / ADAPTER).is_file():
        return []
    for part, names in REQUIRED.items():
        if any((policy / n).is_file() for n in names) and not any(
            (output / n).is_file() for n in names
        ):
            raise TrainerFault(
                "broken",
                f"trainer {trainer} wrote a checkpoint without a {part}",
                where=output,
                todo="Save the model, its settings, tokenizer and processor to stage.output",
            )
    wanted, written = _prompt_files(policy), _prompt_files(output)
    differ = [
        name
        for name in sorted(wanted.keys() | written.keys())
        if name not in wanted
        or name not in written
        or meaning(wanted[name]) != meaning(written[name])
    ]
    for name in differ:
        (output / name).unlink(missing_ok=True)
        if name in wanted:
            shutil.copyfile(wanted[name], output / name)
    return differ


def _prompt_files(folder: Path) -> dict[str, Path]:
    found = (file for pattern in PROMPT_FILES for file in folder.glob(pattern))
    return {file.name: file for file in found if file.is_file() and file.name != VIDEO}
