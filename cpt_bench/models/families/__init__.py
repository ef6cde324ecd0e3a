"""All that differs between families of models: the one room that knows them apart.

A family is what transformers calls a ``model_type``. Its own auto classes say how it is opened;
what they do not say is here, a file for each question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.hub.shards import settings_of
from cpt_bench.suite.protocol import SPECIAL


def kind_of(folder: Path) -> str:
    """The ``model_type`` that a checkpoint's ``config.json`` names.

    Raises:
        CptBenchError: There is none.
    """
    file = folder / "config.json"
    if not file.is_file():  # a hub id, as the base of an adapter may be
        from transformers import AutoConfig

        return str(AutoConfig.from_pretrained(folder).model_type)
    kind = settings_of(file).get("model_type")
    if not isinstance(kind, str) or not kind:
        raise CptBenchError(
            "names no model_type, so that nobody knows what model it is",
            where=file,
            todo="Give a checkpoint in the format of Hugging Face transformers",
        )
    return kind


def reads_pictures(kind: str) -> bool:
    """Whether models of this type read pictures and text, or text alone.

    Raises:
        CptBenchError: The installed transformers opens neither.
    """
    from transformers.models.auto import modeling_auto as known

    if kind in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return True
    if kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    from transformers import __version__

    raise CptBenchError(
        f"transformers {__version__} knows no model that writes text by model_type {kind!r}",
        todo="Give a model that it knows, or install a transformers that knows this one",
    )


def auto_class(folder: Path) -> Any:
    """The class of transformers whose ``from_pretrained`` opens the model in ``folder``.

    Raises:
        CptBenchError: There is none.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = kind_of(folder)
    pictures = reads_pictures(kind)
    _require_parts(folder, kind)
    return AutoModelForImageTextToText if pictures else AutoModelForCausalLM


def _require_parts(folder: Path, kind: str) -> None:
    """Refuse a ``config.json`` that lacks the description of a part of the model.

    transformers would take a part of its own default size, of billions of weights, for it.

    Raises:
        CptBenchError: It names the part.
    """
    from transformers import CONFIG_MAPPING

    file = folder / "config.json"
    known = settings_of(file) if file.is_file() else None
    parts = {"text_config", "vision_config"} & set(CONFIG_MAPPING[kind].sub_configs)
    if known is None or not parts:
        return
    flat = {"text_config"} if "hidden_size" in known else set()  # as older versions wrote it
    for part in sorted(parts - flat):
        if not isinstance(known.get(part), dict):
            raise CptBenchError(
                f"has no {part}, which a model of model_type {kind!r} needs",
                where=file,
                todo="Restore it from where the model comes from",
            )


def open_processor(folder: Path) -> Any:
    """The processor saved in ``folder``; for a text-only model its tokenizer in that form.

    Raises:
        CptBenchError: transformers knows no such model, or the model has no chat template.
    """
    from transformers import AutoProcessor, AutoTokenizer

    # Here, because they import transformers, which is not needed to compute digests.
    from cpt_bench.models.families import image_only
    from cpt_bench.models.families.text import TextProcessor

    kind = kind_of(folder)
    if reads_pictures(kind):
        image_only.install(kind)
        processor = AutoProcessor.from_pretrained(folder)
        image_only.keep_video_settings(processor, folder)
    else:
        processor = TextProcessor(AutoTokenizer.from_pretrained(folder))
    if not processor.chat_template:
        raise CptBenchError(
            "has no chat template, so that it cannot be asked as a chat",
            where=folder,
            todo="Give the model that was tuned for chats (often named -Instruct or -it), or put "
            "its chat_template.jinja there",
        )
    written_chats(processor, [PLAIN], folder)
    if begins_by_itself(processor):
        # The default of every later call, TRL's among them; it is not saved.
        given = getattr(processor, "text_kwargs", {})
        processor.text_kwargs = {**given, "add_special_tokens": False}
    return processor


def written_chats(processor: Any, chats: list[Any], where: object) -> list[str]:
    """Chats as text, each up to where the reply begins.

    Args:
        processor: Its template writes them.
        chats: Lists of turns.
        where: The model, for errors.

    Raises:
        CptBenchError: The template cannot write one; it gives the template's own reason.
    """
    try:
        texts: list[str] = processor.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=True
        )
        return texts
    except CptBenchError:
        raise
    except Exception as error:  # a template is somebody's program
        reason = " ".join(str(error).split())
        raise CptBenchError(
            f"its chat template cannot write the question ({type(error).__name__}: {reason})",
            where=where,
            todo="Mend its chat_template.jinja, or give another model",
        ) from error


def reply_ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a reply: the model's own, or where it names none the tokenizer's.

    Raises:
        CptBenchError: Neither names one, so that no reply would end.
    """
    named = model.generation_config.eos_token_id
    if named is None:
        named = tokenizer.eos_token_id
    ends = [named] if isinstance(named, int) else list(named or ())
    words = model.get_input_embeddings().weight.shape[0]
    if not any(0 <= end < words for end in ends):
        what = f"ends its replies with {ends}, of {words} tokens" if ends else ""
        raise CptBenchError(
            what or "neither the model nor its tokenizer names a token that ends a reply",
            where=model.name_or_path,
            todo="Set eos_token_id in its generation_config.json",
        )
    return ends


def forget_sampling(model: Any) -> None:
    """Leave of a model's own settings for generation only the tokens that begin, end and pad.

    A checkpoint may ask for beams, penalties, a least length, tokens to suppress. transformers
    applies them wherever a call does not say otherwise, and refuses to save some combinations. How
    replies are written is for the protocol and the recipe to decide.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})


def padding(tokenizer: Any, ends: Sequence[int]) -> int:
    """The token that pads a batch: the tokenizer's, or where it has none one that ends a reply."""
    return ends[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that stand for something other than their letters.

    Those that the tokenizer names, and of its added ones those that look like one: transformers
    does not name every token of a picture. Others (``<think>``) may be meant in a prompt.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [*tokenizer.all_special_tokens, *(t for t in added if SPECIAL.fullmatch(t))]


def layers_to_shard(model: Any) -> list[str]:
    """The classes of layers that FSDP wraps: those that the model names and has.

    Models also name layers of parts that they may be without, and accelerate refuses those.
    """
    there = {type(module).__name__ for module in model.modules()}
    return sorted(there & set(model._no_split_modules or ()))


def vllm_arguments(processor: Any, most: int) -> dict[str, Any]:
    """The arguments of ``vllm.LLM`` for at most ``most`` pictures in a prompt.

    It refuses limits on pictures for a text-only model, and on videos for one that reads none.
    """
    if getattr(processor, "image_processor", None) is None:
        return {}
    video = {"video": 0} if getattr(processor, "video_token", None) else {}
    return {"limit_mm_per_prompt": {"image": most, **video}}


def begins_by_itself(processor: Any) -> bool:
    """Whether the chat template writes the token that begins a text, as Gemma's and Llama's do.

    Their tokenizers would put it there once more.
    """
    begin = processor.tokenizer.bos_token
    if not begin:
        return False
    chat: str = processor.apply_chat_template(PLAIN, tokenize=False, add_generation_prompt=True)
    return chat.startswith(begin)


PLAIN = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
"""A chat of one question, to look at a template."""
