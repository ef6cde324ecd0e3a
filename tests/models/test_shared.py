"""What a CPU computes in fewer steps is what stock transformers and TRL compute."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

torch = pytest.importorskip("torch")

from PIL import Image

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.models.qwen_cpu import decoding, path
from cpt_bench.models.qwen_cpu.layers import Attention, Norm, arrange
from cpt_bench.models.qwen_cpu.vision import PatchEmbedding, VisionAttention
from cpt_bench.trainers.sft import SFT
from tests.support.stages import make_stage

CONFIG = SFT.Config(learning_rate=1e-3, device="cpu")


def stock(folder: Path) -> Any:
    """The model as transformers loads it."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> bytes:
    pixels = torch.randint(0, 255, (size[1], size[0], 3), generator=torch.manual_seed(seed))
    out = io.BytesIO()
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(out, "PNG")
    return out.getvalue()


def requests(images: bool) -> list[Request]:
    words = ["what is it?", "how many things are there beside the red one?", "which?", "why not?"]
    return [
        Request(str(i), text, (picture(i % 3),) if images else ()) for i, text in enumerate(words)
    ]


@pytest.mark.parametrize("images", [True, False])
def test_replies_are_those_of_generate(tiny_model: Path, images: bool) -> None:
    engine = TransformersEngine(tiny_model)
    inputs = engine.encode(requests(images))
    assert not bool(inputs["attention_mask"].all())  # some are padded
    with torch.inference_mode():
        # Without an end, so that an untrained model's replies are long; then ended at its choice.
        free = stock(tiny_model).generate(
            **inputs, max_new_tokens=12, do_sample=False, eos_token_id=-1
        )[:, inputs["input_ids"].shape[1] :]
        ends = [int(free[0, 3]), int(free[1, 7])]
        for stops in ([-1], ends):
            reading = path.QuickQwen(engine.model).read(inputs)
            got = reading.write(12, temperature=0, ends=stops, padding=0)
            for ours, theirs in zip(got.tolist(), free.tolist(), strict=True):
                until = next((i + 1 for i, t in enumerate(theirs) if t in stops), 12)
                assert ours == theirs[:until] + [0] * (12 - until)


def test_a_checkpoint_s_own_penalties_do_not_act(tiny_model: Path, tmp_path: Path) -> None:
    """Qwen2.5-VL's generation_config has a repetition penalty; greedy is greedy all the same."""
    from cpt_bench.trainers.rollouts import Rollouts

    def told(**penalties: Any) -> Any:
        engine = TransformersEngine(tiny_model, device="cpu", attention="sdpa")
        assert not decoding.fits(engine.model)
        engine.model.generation_config.update(**penalties)
        stage = make_stage("science", tiny_model, tmp_path / str(len(penalties)))
        drawn = Rollouts(engine.model, stage, CONFIG).draw(stage.samples[:2], 2, seed=0)
        return engine.generate(requests(False), 12), drawn

    assert told() == told(repetition_penalty=5.0, no_repeat_ngram_size=1, min_p=0.9)


def test_vision_is_that_of_transformers(tiny_model: Path) -> None:
    """Pictures of one size, and of two; features and gradients."""
    plain, ours = stock(tiny_model), arrange(stock(tiny_model))
    kinds = {type(m) for m in ours.modules()}
    assert {PatchEmbedding, VisionAttention} <= kinds
    for grid in ([[1, 8, 8]] * 3, [[1, 8, 8], [1, 4, 8]]):
        grid_thw = torch.tensor(grid)
        patches = torch.randn(int(grid_thw.prod(-1).sum()), 192, generator=torch.manual_seed(0))
        out = [m.model.visual(patches, grid_thw=grid_thw).pooler_output for m in (plain, ours)]
        assert torch.allclose(out[0], out[1], atol=1e-5)
        for model, features in zip((plain, ours), out, strict=True):
            model.zero_grad()
            features.square().sum().backward()
        same_gradients(plain, ours)


def same_gradients(plain: Any, ours: Any) -> None:
    pairs = zip(plain.named_parameters(), ours.parameters(), strict=True)
    for (name, a), b in pairs:
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("images", [True, False])
def test_the_model_is_that_of_transformers(images: bool, tiny_model: Path) -> None:
    """Logits and gradients of padded rows, with gradients and without."""
    plain, ours = stock(tiny_model), arrange(stock(tiny_model))
    assert {Attention, Norm} <= {type(m) for m in ours.modules()}
    inputs = TransformersEngine(tiny_model).encode(requests(images))
    seen = inputs["attention_mask"] == 1
    logits = []
    for model in (plain, ours):
        logits.append(model(**inputs).logits[seen])
        torch.log_softmax(logits[-1], -1).square().mean().backward()
        with torch.no_grad():
            assert torch.allclose(model(**inputs).logits[seen], logits[-1], atol=1e-5)
    assert torch.allclose(*logits, atol=1e-5)
    same_gradients(plain, ours)
    assert max(float(p.grad.abs().max()) for p in ours.parameters() if p.grad is not None) > 1e-3


def test_norms_and_rotations_have_the_gradients_of_their_formulas() -> None:
    """In double precision, by finite differences."""
    from cpt_bench.models.qwen_cpu.kernels import rms_norm, rotated_heads

    torch.manual_seed(0)
    states, weight = torch.randn(2, 3, 8).double(), torch.randn(8).double()
    angles = torch.randn(2, 1, 3, 2).double()
    angles = torch.cat([angles, angles], -1)
    known = (states.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5), known)
    heads = torch.randn(2, 3, 2, 4).double().requires_grad_()
    turn = lambda x: rotated_heads(x, angles.cos(), angles.sin(), 0.3)  # noqa: E731
    assert torch.autograd.gradcheck(turn, (heads,))
    expected = stock_rotation(heads.transpose(1, 2), angles) * 0.3
    assert torch.allclose(turn(heads), expected) and turn(heads).is_contiguous()


def stock_rotation(states: Any, angles: Any) -> Any:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half

    return states * angles.cos() + rotate_half(states) * angles.sin()


@pytest.mark.parametrize(
    "sizes", [[(64, 64)] * 3, [(64, 32), (64, 32)], [(64, 64), (100, 50)], [(100, 50), (100, 50)]]
)
def test_pictures_are_prepared_as_by_transformers(
    sizes: list[tuple[int, int]], tiny_model: Path, tmp_path: Path
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from cpt_bench.models.checkpoint import load_processor

    processor = load_processor(tiny_model)
    plain = Qwen2VLImageProcessorPil.from_pretrained(tiny_model)
    assert type(processor.image_processor) is not type(plain)
    pictures = [Image.open(io.BytesIO(picture(i, s))).convert("RGB") for i, s in enumerate(sizes)]
    ours = processor.image_processor(images=pictures, return_tensors="pt")
    theirs = plain(images=pictures, return_tensors="pt")
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(ours[name], theirs[name])
    processor.save_pretrained(tmp_path / "ours")
    kept = (tmp_path / "ours/processor_config.json").read_text()
    assert kept == (tiny_model / "processor_config.json").read_text()


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_those_of_transformers(
    images: bool, side: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chats and pictures, tensor by tensor; once again when they are known."""
    from cpt_bench.models.checkpoint import load_processor
    from cpt_bench.models.qwen_cpu import encoding

    processor = load_processor(tiny_model)
    asked = requests(images)
    pictures = [[Image.open(io.BytesIO(i)).convert("RGB") for i in r.images] for r in asked]
    chats = [
        [
            {"role": "user", "content": [*({"type": "image", "image": i} for i in shown),
                                         {"type": "text", "text": request.prompt}]},
            {"role": "assistant", "content": [{"type": "text", "text": "<answer>7</answer>"}]},
        ]
        for request, shown in zip(asked, pictures, strict=True)
    ]  # fmt: skip

    def made() -> list[Any]:
        texts = processor.apply_chat_template(chats, tokenize=False)
        first = processor.apply_chat_template(
            chats[0][:1], tools=None, tokenize=False, add_generation_prompt=True
        )
        batch = processor(
            images=pictures if images else None, text=texts, padding=True, padding_side=side,
            return_tensors="pt", add_special_tokens=False,
        )  # fmt: skip
        return [texts, first, dict(batch)]

    ours, again = made(), made()
    monkeypatch.setattr(encoding, "batch", lambda *args: None)
    monkeypatch.setattr(encoding, "turns", lambda chat: None)
    theirs = made()
    for found in (ours, again):
        assert found[:2] == theirs[:2] and list(found[2]) == list(theirs[2])
        for name, tensor in theirs[2].items():
            assert found[2][name].dtype == tensor.dtype, name
            assert torch.equal(found[2][name], tensor), name
    assert not bool(theirs[2]["attention_mask"].all())


def test_what_is_no_plain_batch_is_left_to_transformers(tiny_model: Path) -> None:
    from cpt_bench.models.checkpoint import load_processor
    from cpt_bench.models.qwen_cpu import encoding

    processor = load_processor(tiny_model)
    text = [processor.image_token, processor.image_token]
    whole, small = Image.new("RGB", (64, 64)), Image.new("RGB", (100, 50))
    for images in (
        [[whole], []],
        [[whole], [small]],
        [whole, whole],
        [[whole], [Image.new("L", (64, 64))]],
    ):
        assert encoding.batch(processor, text, images, "left", True) is None
    with pytest.raises(ValueError, match="image"):
        processor(text=text, images=[[whole], []], padding=True, return_tensors="pt")
    spoken = [{"role": "assistant", "content": None, "tool_calls": []}]
    assert encoding.turns(spoken) is None
    assert encoding.turns([{"role": "user", "content": [{"type": "video"}]}]) is None


def test_kinds_of_tokens_are_those_of_transformers(tiny_model: Path) -> None:
    from transformers.processing_utils import ProcessorMixin

    from cpt_bench.models.checkpoint import load_processor

    processor = load_processor(tiny_model)
    rows = [[5, processor.image_token_id, processor.video_token_id, 7], [processor.image_token_id]]
    ours = processor.create_mm_token_type_ids(rows)
    assert ours == ProcessorMixin.create_mm_token_type_ids(processor, rows) == [[0, 1, 2, 0], [1]]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_losses_and_gradients_are_those_of_trl(
    algorithm: str, tiny_model: Path, tmp_path: Path
) -> None:
    """One batch of rollouts, some groups of which teach nothing, with TRL's own code and with ours."""
    from cpt_bench.trainers.policy import load
    from cpt_bench.trainers.rft import RFT

    torch.manual_seed(3)
    stage = make_stage("science", tiny_model, tmp_path)
    config = RFT.Config(learning_rate=1e-3, max_steps=1, prompts_per_step=3, rollouts=4,
                        device="cpu", algorithm=algorithm)  # fmt: skip
    model, processor = load(stage, config)
    trainer = RFT(config).build(stage, [], model, processor, tmp_path / "scratch")
    assert trainer.sharing.losses
    samples = [trainer.train_dataset[i // 4] for i in range(12)]
    batch = trainer._generate_and_score_completions(samples)
    batch["advantages"] = torch.tensor([1.0, -1, 0, 0.5] + [0.0] * 4 + [0.0, 0, 0, -2])

    def gradients(shared: bool) -> tuple[float, dict[str, Any]]:
        trainer.sharing = trainer.sharing._replace(losses=shared)
        model.zero_grad()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return loss.item(), found

    theirs, ours = gradients(False), gradients(True)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert torch.allclose(ours[1][name], gradient, rtol=1e-3, atol=1e-5), name
    assert max(float(g.abs().max()) for g in theirs[1].values()) > 1e-3
    batch["advantages"] = torch.zeros(12)
    assert all(float(g.abs().max()) == 0 for g in gradients(True)[1].values())


@pytest.mark.slow
def test_sft_s_loss_and_gradients_are_those_of_trl(tiny_model: Path, tmp_path: Path) -> None:
    """Prompts and answers of different lengths."""
    from cpt_bench.trainers.policy import load
    from cpt_bench.trainers.rollouts import encoded
    from cpt_bench.trainers.sft import SFT

    stage = make_stage("lowvision", tiny_model, tmp_path)
    config = SFT.Config(learning_rate=1e-3, max_steps=1, batch_size=6, device="cpu")
    model, processor = load(stage, config)
    trainer: Any = SFT(config).build(stage, [], model, processor, tmp_path / "scratch")
    model.train()
    quick_path = trainer.quick
    assert quick_path is not None
    replies = ["yes", "two of them", "no", "the one that is red", "3", ""]
    batch = encoded(processor)(list(zip(stage.samples[:6], replies, strict=True)))
    assert len(set((batch["labels"] != -100).sum(1).tolist())) > 1

    def told(path: Any) -> tuple[float, dict[str, Any], dict[str, Any]]:
        trainer.quick = path
        model.zero_grad()
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0
        loss = trainer.compute_loss(model, dict(batch), num_items_in_batch=40)
        loss.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return loss.item(), found, {k: v[-1] for k, v in trainer._metrics["train"].items()}

    theirs, ours = told(None), told(quick_path)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert ours[2] == pytest.approx(theirs[2], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert torch.allclose(ours[1][name], gradient, rtol=1e-3, atol=1e-5), name
    assert max(float(g.abs().max()) for g in theirs[1].values()) > 1e-3


def test_methods_that_hook_into_the_model_get_trl_s_own_loss(tmp_path: Path) -> None:
    """Without it, the weights of FLOW would be left out without a word."""
    from cpt_bench.plugins import builtin, resolve
    from cpt_bench.trainers.parts.choice import parts_of

    hooked = set()
    stage = MagicMock(state=tmp_path)
    for name in builtin("trainers"):
        kind = resolve("trainers", name).value
        trainer = kind(kind.Config(learning_rate=1e-3))
        parts = parts_of(trainer.config, stage)
        if trainer.needs_trl_loss(parts):
            hooked.add(name)
    assert hooked == {"flow", "lwf", "pretrain", "rft-lwf"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "losses", "rollouts"),
    [
        ({}, True, True),
        ({"ewc": 1.0}, True, True),
        ({"lwf": 1.0}, False, True),
        ({"attention": "sdpa"}, False, False),
        ({"dtype": "bfloat16"}, False, False),
        ({"lora_rank": 2}, False, False),
        ({"gradient_checkpointing": True}, False, False),
    ],
)
def test_the_quick_path_is_chosen_when_a_trainer_is_built(
    setting: dict[str, Any], losses: bool, rollouts: bool, tiny_model: Path, tmp_path: Path
) -> None:
    from cpt_bench.trainers.parts.choice import parts_of
    from cpt_bench.trainers.policy import load
    from cpt_bench.trainers.rft import RFT

    stage = make_stage("science", tiny_model, tmp_path)
    known: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 1, "device": "cpu", **setting}
    for kind in (SFT, RFT):
        config = kind.Config(**known)
        parts = parts_of(config, stage)
        built = kind(config).build(stage, parts, *load(stage, config), tmp_path / kind.__name__)
        if kind is SFT:
            assert (built.quick is not None) == losses
        else:
            assert (built.sharing is not None) == rollouts
            assert not rollouts or built.sharing.losses == losses


def test_a_saved_processor_has_what_stock_ones_ask_for(tiny_model: Path, tmp_path: Path) -> None:
    """Without torchvision stock transformers has no video processor to load it with; its settings."""
    import json

    from cpt_bench.models.checkpoint import load_processor
    from cpt_bench.suite import open_suite

    processor = load_processor(tiny_model)
    processor.save_pretrained(tmp_path)
    for folder, images in (
        (tmp_path, processor.image_processor),
        (
            open_suite("nano").base_path(),
            load_processor(open_suite("nano").base_path()).image_processor,
        ),
    ):
        told = json.loads((folder / "video_preprocessor_config.json").read_text())
        assert told.pop("video_processor_type") == "Qwen2VLVideoProcessor"
        assert told["size"] == dict(images.size) and told["image_mean"] == list(images.image_mean)
        assert told["patch_size"] == images.patch_size and told["merge_size"] == images.merge_size
