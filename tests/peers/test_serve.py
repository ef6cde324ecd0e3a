"""``vllm serve`` behind the endpoint lane: kills, restarts, other models, a checkpoint's own settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cpt_bench.engines import Request, open_engine
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import evaluate
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite
from tests.support.peers import replies, transformers
from tests.support.serving import VLLMServer


@pytest.fixture(scope="module")
def penalised(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano's base as Qwen's checkpoints are: its makers ask for a repetition penalty."""
    folder = Path(shutil.copytree(base, tmp_path_factory.mktemp("penalised") / "base"))
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 1.3, "temperature": 0.1, "top_k": 1, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def server(penalised: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    running = VLLMServer(penalised, tmp_path_factory.mktemp("server") / "log")
    running.more = ("--enable-scale-out",)  # what TRL asks for pictures by
    running.start()
    try:
        yield running
    finally:
        running.kill()


def asked(server: VLLMServer, **settings: Any) -> Any:
    given = {"model": "nano", "nonce": "one", "retries": 1, **settings}
    return open_engine("endpoint", server.url, **given)


def test_replies_are_those_of_transformers(server: VLLMServer, base: Path, nano: Suite) -> None:
    """The words and the numbers of tokens, though the checkpoint asks for a repetition penalty."""
    engine = asked(server)
    own = replies(transformers(base), nano)
    assert replies(engine, nano) == own
    assert engine.server.program == "vllm" and not engine.server.warnings
    assert engine.server.served["root"] == {str(server.checkpoint)}
    penalty = asked(server, nonce="two", extra={"repetition_penalty": 1.3})
    assert replies(penalty, nano) != own, "the penalty would not be noticed"


def test_a_trainer_s_rollouts_by_a_server(
    server: VLLMServer, base: Path, nano: Suite, monkeypatch: Any
) -> None:
    """Unlike a vLLM in its own process, a server gets prompts with their image tokens expanded.

    How the policy's weights reach it (NCCL) needs a GPU, and is left out.
    """
    from accelerate import Accelerator
    from trl.generation.vllm_client import VLLMClient

    from cpt_bench.engines.hf import messages
    from cpt_bench.trainers.generation import Generation

    for name in ("init_communicator", "update_named_params"):
        monkeypatch.setattr(VLLMClient, name, lambda *args, **more: None)
    own = transformers(base)
    rollouts = Generation(
        own.model, Accelerator(cpu=True), own.processor, mode="server", temperature=0.0,
        server_base_url=server.url.removesuffix("/v1"), max_completion_length=20,
        dtype="float32", run_seed=7,
    )  # fmt: skip
    rollouts.sync_weights()
    samples = load_split(nano.card("counting"), "test")[:6]
    asked = [Request(s.id, nano.protocol.prompt(s.question), s.images) for s in samples]
    prompts, pictures = [], []
    for request in asked:
        turn = messages(request)
        prompts.append(own.processor.apply_chat_template(turn, tokenize=True, return_dict=True, add_generation_prompt=True)["input_ids"][0])  # fmt: skip
        pictures.append([part["image"] for part in turn[0]["content"] if part["type"] == "image"])
    assert [p.count(own.processor.image_token_id) for p in prompts] == [16] * 6
    seen, written, logprobs, _ = rollouts.generate(prompts, pictures, num_generations=1)
    assert seen == prompts and [len(told) for told in logprobs] == [len(w) for w in written]
    texts = own.processor.batch_decode(written, skip_special_tokens=True)
    assert [text.strip() for text in texts] == [reply.text for reply in own.generate(asked, 20)]

    other = f"{rollouts.vllm_client.base_url}/nowhere"
    monkeypatch.setattr(rollouts.vllm_client, "base_url", other)
    with pytest.raises(CptBenchError, match="VLLM_SERVER_DEV_MODE=1"):
        rollouts.forget_pictures()


def test_a_kill_a_restart_and_another_model_in_its_place(
    server: VLLMServer, base: Path, other: Path, nano: Suite, tmp_path: Path
) -> None:
    journal, card = tmp_path / "journal.jsonl", nano.card("counting")
    samples = load_split(card, "test")[:24]

    def kill_later(done: int) -> None:
        if done >= 6:
            server.kill()

    first = asked(server, journal=journal, concurrency=1)
    with pytest.raises(CptBenchError, match=r"no answer to counting.* repeat the same command"):
        evaluate(first, card, samples, nano.protocol, progress=kill_later)
    known = len(first.journal.known)
    assert 0 < known < len(samples)

    before = server.checkpoint
    server.checkpoint, server.more = other, ("--max-model-len", "42")
    server.start()  # under the same name
    with pytest.raises(CptBenchError, match="two models answered one evaluation") as caught:
        evaluate(asked(server, journal=journal), card, samples, nano.protocol)
    assert str(before) in str(caught.value) and len(str(caught.value).splitlines()) == 1

    # It lets prompts of 25 tokens pass, before it makes 15 more of a picture: 2 are left to reply.
    science = load_split(nano.card("science"), "test")[:3]
    pictures = [Request(s.id, nano.protocol.prompt(s.question), s.images) for s in science]
    with pytest.raises(CptBenchError, match=r"cut after 2 of 17 tokens.*--max-model-len") as caught:
        asked(server, nonce="two").generate(pictures, 17)
    assert len(str(caught.value).splitlines()) == 1

    server.kill()
    server.checkpoint, server.more = before, ()
    server.start()
    engine = asked(server, journal=journal)
    assert len(engine.journal.known) == known
    rows = evaluate(engine, card, samples, nano.protocol)
    assert rows == evaluate(transformers(base), card, samples, nano.protocol)
