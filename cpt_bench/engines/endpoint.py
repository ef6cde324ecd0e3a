"""Any OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, a paid service.

A request is either answered or it fails: requests to a server that is busy or unreachable are
retried with back-off, and if they still fail the evaluation stops with a one-line error. An error
text, empty body or placeholder is never taken for a model's reply. Answers are stored in a journal,
so that the same command resumes where it stopped.

The weights behind a server cannot be identified from outside: the model has a name, not a digest.
Results of an endpoint are therefore keyed by URL, model name and the *nonce* of one evaluation,
never shared between evaluations, and marked ``endpoint:`` in place of a digest.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any

from cpt_bench.engines import GREEDY, Reply, Request, Sampling, cut_short, miscounted, refuse_prefix
from cpt_bench.engines.client import NoAnswerError, complete, open_client, refused_key
from cpt_bench.engines.server import Known, Server
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest_json, parsed, whole_characters
from cpt_bench.images import decode
from cpt_bench.suite.protocol import as_words

FINISHED = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("stop_token", "end_of_text", "complete", "completed", "finished"), "stop"),
    **dict.fromkeys(("done", "none", "null", ""), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_new_tokens"), "length"),
    "max_output_tokens": "length",
}
"""Finish reasons of several servers that mean a usable reply, and OpenAI's name for each.

A content filter, a tool call or an abort does not. Without any reason the text must not be empty,
since nothing shows that the model ended at once.
"""

PLAIN = {"frequency_penalty": 0, "presence_penalty": 0}
"""Sent to every server: OpenAI's defaults, since some servers have others."""

OWN = ("model", "nonce", "journal")
"""Settings of the engine that the evaluation sets itself."""


def named(url: str | Path, model: str, nonce: str, extra: dict[str, Any] | None = None) -> str:
    """A substitute for the digest of the weights: names the server, the model and the evaluation.

    Args:
        url: The server's URL.
        model: The name of the model that it serves.
        nonce: The evaluation's nonce.
        extra: Fields added to each request, which may change replies.
    """
    asked = [base_url(str(url)), model, nonce, *([extra] if extra else [])]
    return f"endpoint:{digest_json(asked)}"


class EndpointEngine:
    """A model behind a chat-completions URL, queried with many requests at a time.

    Args:
        url: The server's base, with or without ``/v1``: ``http://127.0.0.1:8000/v1``.
        model: The name under which it serves the model.
        nonce: Names one evaluation of one model. Change it whenever the server may have loaded
            other weights; results and journal entries of another nonce are never used.
        journal: A file that stores each answer at once, to resume after a failure.
        concurrency: Number of simultaneous requests.
        retries: How often to retry a failed request, or one whose answer is not a completion,
            waiting 0.5 s, 1 s, 2 s … 8 s in between, or as long as the server asks for.
        timeout: Seconds that one request may take.
        key: The API key; by default ``$OPENAI_API_KEY``, which local servers ignore and which may
            be empty for them.
        extra: Further fields of the request body.

    Attributes:
        weights: ``endpoint:`` and a hash of URL, model and nonce; not a digest of weights.
        server: The server's description of itself.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        model: str,
        nonce: str,
        journal: Path | None = None,
        concurrency: int = 16,
        retries: int = 6,
        timeout: float = 600.0,
        key: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.url, self.model = base_url(str(url)), model
        self.weights = named(url, model, nonce, extra)
        self.extra = extra or {}
        self.concurrency, self.retries = concurrency, retries
        self.journal = Journal(journal, self.weights)
        self.server = Server(self.url, model, self.journal.served, self.journal.keep)
        self._client = open_client(self.url, key, timeout, retries)

    def generate(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        progress: Callable[[int], None] = lambda done: None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """Replies, in the order of ``requests``.

        Raises:
            CptBenchError: A request was not answered; earlier answers are in the journal.
        """
        refuse_prefix(requests, "endpoint")
        keys = [self._key(r, max_new_tokens, sampling) for r in requests]
        open_ = [i for i, key in enumerate(keys) if key not in self.journal]
        progress(len(requests) - len(open_))
        if open_:
            self.server.meet(self._client)

        def ask(i: int) -> None:
            self.journal.add(keys[i], self._ask(requests[i], max_new_tokens, sampling))

        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(ask, i) for i in open_]
            try:
                for more, future in enumerate(as_completed(futures), 1):
                    future.result()
                    progress(len(requests) - len(open_) + more)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [self.journal[key] for key in keys]

    def _key(self, request: Request, max_new_tokens: int, sampling: Sampling) -> str:
        images = [sha256(image).hexdigest() for image in request.images]
        asked = [request.id, request.parts(), images, max_new_tokens, sampling, self.extra]
        asked += [request.system] if request.system else []
        return digest_json(asked)

    def _ask(self, request: Request, max_new_tokens: int, sampling: Sampling) -> Reply:
        import openai

        drawn = {"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {}
        neutral = self.server.neutral()
        try:
            answer = complete(
                self._client,
                self.retries,
                model=self.model,
                messages=message(request),
                temperature=sampling.temperature,
                max_tokens=max_new_tokens,
                **drawn,
                extra_body={**PLAIN, **neutral, **self.extra},
            )
        except NoAnswerError as error:
            raise self._failed(request, str(error)) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: an impossible header
            raise self._failed(request, error) from error
        reply = self._read(request, answer, max_new_tokens)
        if self.server.neutral() != neutral:  # the reply reveals a server that needs other fields
            return self._ask(request, max_new_tokens, sampling)
        return reply

    def _read(self, request: Request, answer: Any, asked: int) -> Reply:
        """The reply in a response; a response without a valid one is a failed request."""
        message = answer.choices[0].message
        given = getattr(answer.choices[0], "finish_reason", None)
        why = FINISHED.get(str(given if given is not None else "").strip().lower())
        if why is None:
            raise self._failed(request, f"the reply ended with {given!r}")
        for field in ("reasoning_content", "reasoning"):
            if getattr(message, field, None):
                raise CptBenchError(
                    "the server removes the reasoning from replies, so they cannot be graded",
                    where=self.url,
                    todo="Start it without a reasoning parser, or use cpt_bench.engines.serve",
                )
        text = getattr(message, "content", None)
        if not isinstance(text, str):
            raise self._failed(request, f"the reply is {text!r}, not text")
        if given != why:
            if not text.strip():
                raise self._failed(request, f"the reply is empty and ended with {given!r}")
            self.server.ended(given, why)
        tokens = getattr(getattr(answer, "usage", None), "completion_tokens", None)
        if wrong := miscounted(tokens, text, asked):
            raise self._failed(request, f"the reply {wrong}")
        if why == "length" and tokens is not None and tokens < asked:
            limit = "the server's limit (vllm serve --max-model-len, --generation-config vllm)"
            raise cut_short(request, tokens, asked, limit)
        self.server.heard(answer, self._client)
        return Reply(whole_characters(text).strip(), tokens)

    def _failed(self, request: Request, reason: object) -> CptBenchError:
        kind = f"{type(reason).__name__}: " if isinstance(reason, Exception) else ""
        cause = " ".join(f"{kind}{reason}".split())[:250]
        key = refused_key(reason) if isinstance(reason, Exception) else ""
        return CptBenchError(
            f"no answer to {request.id} ({cause})",
            where=self.url,
            todo=f"The server wants another key: set {key}, or --engine-set key=…"
            if key
            else "The cell is left empty; when the server works again, repeat the same command",
        )


class Journal:
    """Answers by the hash of their request, and the server's description of itself.

    Without a file they are lost when the process ends. A line that is incomplete after a kill is
    dropped, and its question is asked again.
    """

    def __init__(self, file: Path | None, weights: str) -> None:
        self.file, self.weights = file, weights
        self.lock = threading.Lock()
        self.known: dict[str, Reply] = {}
        self.served: Known = {}
        if file is None or not file.exists():
            return
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = parsed(line)
            except ValueError:
                continue
            if not isinstance(row, dict) or row.get("weights") != weights:
                continue
            if "served" in row:
                for field, value in row["served"].items():
                    self.served.setdefault(field, set()).add(value)
            else:
                self.known[row["key"]] = Reply(row["reply"], row["tokens"])

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __getitem__(self, key: str) -> Reply:
        return self.known[key]

    def add(self, key: str, reply: Reply) -> None:
        """Store an answer; thread-safe."""
        row = {"weights": self.weights, "key": key, "reply": reply.text, "tokens": reply.tokens}
        with self.lock:
            self.known[key] = reply
            if self.file is not None:
                self._append(self.file, row)

    def keep(self, field: str, value: str) -> None:
        """Store a part of the server's description of itself."""
        with self.lock:
            if self.file is not None:
                self._append(self.file, {"weights": self.weights, "served": {field: value}})

    def _append(self, file: Path, row: dict[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            # The line break comes first: it also ends a line left incomplete by a kill.
            stream.write("\n" + json.dumps(row, ensure_ascii=False))


def base_url(url: str) -> str:
    """``url`` as the client needs it: with a scheme, ending in ``/v1`` unless it has a path."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CptBenchError(
            f"{url!r} is not a URL", where="endpoint", todo="Give one like http://127.0.0.1:8000/v1"
        )
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def message(request: Request) -> list[Any]:
    """The chat turn of a request: its images, as data URLs, and its text, in order.

    Pictures are sent as PNG with exactly the pixels that the in-process engines see. If sent as
    they are, some servers would rotate them (EXIF) or convert them differently (palette, CMYK,
    alpha). Which special tokens the server's model has is unknown, so that those of common models
    are written as words, in a harness's text and in the system's turn too.
    """
    content = [
        {"type": "text", "text": as_words(part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(request.images[part], request.id)}}
        for part in request.parts()
    ]
    system = [{"role": "system", "content": as_words(request.system)}] if request.system else []
    return [*system, {"role": "user", "content": content}]


def data_url(image: bytes, where: object) -> str:
    """An encoded image as a ``data:image/png`` URL of its RGB pixels."""
    png = io.BytesIO()
    decode(image, where).save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
