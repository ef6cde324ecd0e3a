"""Engines: prompts with images -> replies, always tied to a digest of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from cpt_bench.errors import CptBenchError
    from cpt_bench.plugins import Resolved


class Request(NamedTuple):
    """One question to a model.

    Attributes:
        id: The sample's id.
        prompt: The user's text.
        images: Encoded images.
        prefix: How the reply must begin; the model continues from there, and the reply's text
            includes it. An engine that cannot do so refuses.
        layout: For harnesses that put images between words: text, and indices into ``images``, in
            order. Empty: the images, then the prompt.
        system: The system's turn before it; empty leaves it to the chat template.
    """

    id: str
    prompt: str
    images: Sequence[bytes]
    prefix: str = ""
    layout: tuple[str | int, ...] = ()
    system: str = ""

    def parts(self) -> tuple[str | int, ...]:
        """Text, and indices of images, in the order that the model sees them."""
        return self.layout or (*range(len(self.images)), self.prompt)

    def texts(self) -> list[str]:
        """Everything in words that the model sees."""
        return [self.system, *(p for p in self.parts() if isinstance(p, str)), self.prefix]


class Reply(NamedTuple):
    """A model's reply: text without special tokens, and its number of tokens (None: unknown)."""

    text: str
    tokens: int | None


class Sampling(NamedTuple):
    """How replies are sampled; temperature 0 is greedy.

    Attributes:
        temperature: Divides the logits.
        top_p: Nucleus, in (0, 1]; 1 leaves the distribution whole.
        seed: The same seed and requests give the same replies on the same engine.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


class Engine(Protocol):
    """A loaded model that answers requests.

    Attributes:
        weights: SHA-256 of the loaded weights. Results are keyed by it: harnesses that cache by
            name or path return the previous stage's answers for the current one. An endpoint's
            weights cannot be read; its value begins with ``endpoint:`` and is not a digest of
            weights (see :mod:`cpt_bench.engines.endpoint`).

    An engine may also have ``swap(folder: Path) -> None``, which replaces the loaded checkpoint by
    another one that differs only in its weights. Afterwards ``weights`` is the new digest, and the
    loaded weights have been compared with the files; if that fails, the method raises and the
    engine refuses to answer from then on. Without ``swap``, an evaluation opens a new engine for
    each checkpoint.
    """

    weights: str

    def generate(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        progress: Callable[[int], None] = lambda done: None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """Replies in the order of ``requests``; calls ``progress`` with how many are done."""
        ...


def refuse_prefix(requests: Sequence[Request], engine: str) -> None:
    """Refuse requests with a prefix, for an engine that cannot force how a reply begins.

    Raises:
        CptBenchError: A request has a prefix.
    """
    from cpt_bench.errors import CptBenchError

    if any(request.prefix for request in requests):
        raise CptBenchError(f"engine {engine} cannot force how a reply begins")


def refuse_special(texts: Iterable[tuple[str, Sequence[str]]], special: Iterable[str]) -> None:
    """Refuse text that a tokenizer would read as one of its special tokens.

    Prompts of suites contain none of Qwen's (:func:`cpt_bench.suite.protocol.as_words`); this
    catches those of a tokenizer that has others, those of a harness, and those of a system turn.

    Args:
        texts: What to name in the error, and its texts.
        special: The tokenizer's special tokens.

    Raises:
        CptBenchError: The message names the text's owner and the token.
    """
    from cpt_bench.errors import CptBenchError

    known = [*special]
    for name, parts in texts:
        found = next((t for t in known if any(t in part for part in parts)), None)
        if found is not None:
            raise CptBenchError(
                f"its text has {found!r}, which this model's tokenizer reads as a special token",
                where=name,
                todo="Leave it out, or write the token in another way",
            )


def refuse_special_in(requests: Iterable[Request], special: Iterable[str]) -> None:
    """:func:`refuse_special` for requests.

    Raises:
        CptBenchError: The message names the request and the token.
    """
    refuse_special(((f"request {request.id}", request.texts()) for request in requests), special)


def cut_short(request: Request, tokens: int, asked: int, setting: str) -> CptBenchError:
    """The error for a reply that an engine's own limit cut off before the protocol's limit.

    Args:
        request: The request.
        tokens: How many tokens the reply has.
        asked: How many the protocol allows.
        setting: The setting for the engine's limit.
    """
    from cpt_bench.errors import CptBenchError

    return CptBenchError(
        f"the reply was cut after {tokens} of {asked} tokens: prompt and reply are longer than "
        "the engine's limit",
        where=request.id,
        todo=f"Raise {setting}",
    )


def miscounted(tokens: object, reply: str, most: int) -> str | None:
    """Why ``tokens`` cannot be a reply's number of tokens; None if it can.

    Args:
        tokens: The number; None if it is unknown.
        reply: The text.
        most: How many the protocol allows.
    """
    if tokens is None:
        return None
    if type(tokens) is not int or not 0 <= tokens <= most:
        return f"has tokens {tokens!r}, not a whole number from 0 to {most}"
    return "has text but 0 tokens" if tokens == 0 and reply.strip() else None


def open_engine(name: str, place: Path | str, **settings: Any) -> Engine:
    """Open the engine called ``name`` on a checkpoint folder or, for ``endpoint``, a URL.

    Args:
        name: ``transformers``, ``vllm``, ``endpoint``, or a plug-in's spelling.
        place: The checkpoint folder or URL.
        settings: The engine's own keyword arguments.

    Raises:
        CptBenchError: No engine has that name, it lacks a package, or refuses a setting.
    """
    opened: Engine = find_engine(name, settings).value(place, **settings)
    return opened


def find_engine(name: str, settings: Iterable[str]) -> Resolved:
    """The class that :func:`open_engine` would open, after checking the settings' names.

    Raises:
        CptBenchError: No engine has that name, or it lacks one of the settings.
    """
    from cpt_bench.errors import CptBenchError, did_you_mean
    from cpt_bench.plugins import resolve

    engine = resolve("engines", name)
    known = [*setting_types(engine.value)]
    for key in settings:
        if key not in known:
            raise CptBenchError(
                f"engine {name} has no setting {key!r}", todo=did_you_mean(key, known)
            )
    return engine


def setting_types(engine: Any) -> dict[str, Any]:
    """An engine's settings (its keyword-only arguments) and their types; Any if not annotated."""
    import inspect
    from typing import get_type_hints

    try:
        hints = get_type_hints(engine.__init__)
    except (AttributeError, NameError, TypeError):  # a function, or a name only under TYPE_CHECKING
        hints = {}
    parameters = inspect.signature(engine).parameters.values()
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY}
