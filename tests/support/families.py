"""Two-layer models of many families with random weights, made by transformers, as anybody saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # of 32: vLLM on a CPU takes no smaller ones
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
}


def tokenizer(special: list[str], begin: str | None = None, **named: Any) -> Any:
    """A byte-level BPE of a few hundred tokens; one that begins a text does so by itself, as published ones do."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(
        ["what is the answer which larger letter of plus user assistant"] * 9, trainer
    )
    made.add_special_tokens([AddedToken(t, special=True) for t in special])
    if begin is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, made.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, **named)


def qwen3_text(folder: Path) -> None:
    """Qwen3: pads with another token than it ends with."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML,
    )  # fmt: skip
    ids = words.convert_tokens_to_ids
    save(
        folder,
        Qwen3ForCausalLM(
            Qwen3Config(**SIZES, head_dim=32, vocab_size=len(words), tie_word_embeddings=True)
        ),
        words,
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
    )


def llama(folder: Path) -> None:
    """Llama 3: no token to pad with, and a token that begins every text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        "<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=LLAMA,
    )  # fmt: skip
    end = words.convert_tokens_to_ids("<|eot_id|>")
    config = LlamaConfig(
        **SIZES, vocab_size=len(words), bos_token_id=words.bos_token_id, eos_token_id=end
    )
    save(folder, LlamaForCausalLM(config), words, eos_token_id=end)


def smollm2(folder: Path) -> None:
    """SmolLM2: a Llama that pads with the token that ends a reply, and has a system turn of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    system = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant"
        "<|im_end|>\n{% endif %}"
    )
    words = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=system + CHATML,
    )  # fmt: skip
    ids = words.convert_tokens_to_ids
    config = LlamaConfig(
        **SIZES, vocab_size=len(words), tie_word_embeddings=True,
        bos_token_id=ids("<|im_start|>"), eos_token_id=ids("<|im_end|>"),
    )  # fmt: skip
    save(folder, LlamaForCausalLM(config), words, eos_token_id=ids("<|im_end|>"))


def save(folder: Path, model: Any, processor: Any, **generation: Any) -> None:
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


TEXT: dict[str, Callable[[Path], None]] = {
    "Qwen3": qwen3_text,
    "Llama": llama,
    "SmolLM2": smollm2,
}
"""Models that read text alone."""
