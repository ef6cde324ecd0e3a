"""Batched generation with transformers, on CPU or one GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.engines import GREEDY, Reply, Request, Sampling, refuse_special_in
from cpt_bench.engines.swapping import frame, put_in, require_same, require_whole
from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode
from cpt_bench.models import batches, families, quick
from cpt_bench.models.checkpoint import load_model, load_processor, weights_digest


def messages(request: Request) -> list[dict[str, Any]]:
    """The chat of a request: the system's turn if there is one, then its images and its text."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": decode(request.images[part], request.id)}
        for part in request.parts()
    ]
    return [*system_turn(request), {"role": "user", "content": content}]


def system_turn(request: Request) -> list[dict[str, Any]]:
    """The system's turn of a request; nothing where the chat template decides."""
    words = [{"type": "text", "text": request.system}]
    return [{"role": "system", "content": words}] if request.system else []


def choosing(temperature: float, top_p: float) -> dict[str, Any]:
    """How ``generate`` picks tokens, overriding the checkpoint's generation_config."""
    drawn = temperature > 0
    return {
        "do_sample": drawn,
        "temperature": temperature if drawn else None,
        "top_k": 0 if drawn else None,  # transformers' own default is 50
        "top_p": top_p if drawn else None,
        "min_p": None,
        "repetition_penalty": 1.0,  # Qwen's checkpoints set 1.05, which changes greedy replies too
        "no_repeat_ngram_size": 0,
    }


def written(row: Sequence[int], ends: Sequence[int], padding: int) -> int:
    """How many tokens a reply has, its end included.

    Args:
        row: Token ids, padded after the reply's end.
        ends: Tokens that end a reply.
        padding: The token that pads; many tokenizers pad with a token that also ends a reply.
    """
    if padding not in ends:
        return sum(token != padding for token in row)
    end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
    return end + 1


class TransformersEngine:
    """One checkpoint that answers in batches of prompts of similar length.

    Args:
        folder: The checkpoint.
        batch_size: Prompts per batch.
        device: ``auto``, ``cpu``, ``cuda``.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        attention: The attention implementation of transformers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 64,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "eager",
    ) -> None:
        self.weights = weights_digest(folder)
        self.frame = frame(folder)
        self.processor = load_processor(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = load_model(folder, device=device, dtype=dtype, attention=attention).eval()
        self.batch_size = batch_size
        self.stops()

    def swap(self, folder: Path) -> None:
        """Load the weights of another checkpoint into the model, in place.

        Raises:
            CptBenchError: It differs in more than its weights, is broken, or the model does not
                have its weights after loading. The engine then refuses to answer.
        """
        self.weights = ""  # a half-loaded model must not answer under either digest
        require_same(self.frame, folder)
        weights = weights_digest(folder)
        put_in(self.model, folder)
        self.weights = weights

    def stops(self) -> None:
        """Find the tokens that end a reply, those it never has, and the one that pads rows."""
        tokenizer = self.processor.tokenizer
        self.ends = families.reply_ends(self.model, tokenizer)
        self.never: list[int] = []
        self.padding = families.padding(tokenizer, self.ends)

    def generate(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        progress: Callable[[int], None] = lambda done: None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """Replies, in the order of ``requests``.

        Sampled replies are reproducible with the same requests, batch size and machine.
        """
        require_whole(self.weights)
        if sampling.temperature > 0:
            import torch

            torch.manual_seed(sampling.seed)
        replies: list[Reply | None] = [None] * len(requests)
        pictures, lengths = [len(r.images) for r in requests], [len(r.prompt) for r in requests]
        done = 0
        for batch in batches.of_equal_pictures(pictures, lengths, self.batch_size):
            answered = self._batch([requests[i] for i in batch], max_new_tokens, sampling)
            for i, reply in zip(batch, answered, strict=True):
                replies[i] = reply
            done += len(batch)
            progress(done)
        return [reply for reply in replies if reply is not None]

    def encode(self, requests: Sequence[Request]) -> Any:
        """The model's inputs for prompts (with their replies' prefixes), padded on the left."""
        refuse_special_in(requests, families.special_tokens(self.processor.tokenizer))
        turns = [messages(r) for r in requests]
        pictures = [
            [part["image"] for part in turn[0]["content"] if part["type"] == "image"]
            for turn in turns
        ]
        inputs = self.processor(
            text=self.texts(turns, [r.prefix for r in requests]),
            images=pictures if any(pictures) else None,
            padding=True,
            return_tensors="pt",
        )
        words = self.model.get_input_embeddings().weight.shape[0]
        most = int(inputs["input_ids"].max())
        if most >= words:  # on a GPU nobody could tell what went wrong
            token = self.processor.tokenizer.convert_ids_to_tokens(most)
            raise CptBenchError(
                f"its tokenizer writes token {most} ({token}), and the model has {words}",
                where=self.model.name_or_path,
                todo="Give the tokenizer that the model was trained with",
            )
        return inputs.to(self.model.device)

    def texts(self, turns: list[list[dict[str, Any]]], replies: Sequence[str]) -> list[str]:
        """Chats as text, up to and including the given beginning of each reply."""
        prompts = families.written_chats(self.processor, turns, self.model.name_or_path)
        return [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]

    def write(self, inputs: Any, most: int, sampling: Sampling, replies: int = 1) -> Any:
        """Generate ``replies`` replies to each prompt of ``inputs``, at most ``most`` tokens long.

        Returns:
            Token ids (prompts * replies, longest), a prompt's replies one after the other, padded
            at the end.
        """
        import torch

        model = quick.of(self.model)
        if model is None:
            output = self.model.generate(
                **inputs,
                max_new_tokens=most,
                num_return_sequences=replies,
                use_cache=True,  # training with gradient checkpointing switches it off
                eos_token_id=self.ends,
                pad_token_id=self.padding,
                suppress_tokens=self.never or None,
                **choosing(sampling.temperature, sampling.top_p),
            )
            return output[:, inputs["input_ids"].shape[1] :]
        reading = model.read(inputs)
        if replies > 1:
            prompts = torch.arange(len(inputs["input_ids"]))
            reading = reading.rows(prompts.repeat_interleave(replies))
        return reading.write(
            most,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            ends=self.ends,
            padding=self.padding,
            never=self.never,
        )

    def _batch(
        self, requests: list[Request], max_new_tokens: int, sampling: Sampling
    ) -> list[Reply]:
        import torch

        with torch.inference_mode():
            new = self.write(self.encode(requests), max_new_tokens, sampling)
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        counts = [written(row, self.ends, self.padding) for row in new.tolist()]
        return [
            Reply((r.prefix + text).strip(), n)
            for r, text, n in zip(requests, texts, counts, strict=True)
        ]
