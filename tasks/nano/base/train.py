"""Teach nano's base model, stage by stage (see ``stages.yaml``).

The order matters more than the amount: matching an option to its letter, finding a thing and
reading a place are circuits that form in a minute or two when they are nearly the whole diet, and
not at all when they are a tenth of it. So the language model practises them on words first, then on
image tokens made of words; only then does the vision tower learn to write those words from pixels.

``python -m cpt_bench.tasks.nano.base.train --out FOLDER`` does it, in about an hour on two cores.
With ``--seed 2 --direct 0.6`` it makes a sister of the shipped base: other first weights, other
practice, and another share of thinking. ``benchmarks/nano_base.py`` checks whether it will do.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.tasks.nano import world
from cpt_bench.tasks.nano.base.architecture import MERGE, PATCH, build_model, build_processor
from cpt_bench.tasks.nano.base.curriculum import Practice, darken
from cpt_bench.tasks.nano.base.schedule import Schedule
from cpt_bench.tasks.nano.questions import GENERAL, TASKS, Draft

IGNORE = -100
PLAN = Path(__file__).parent / "stages.yaml"
SUFFIX = {"neutral": "", "direct": " answer directly.", "reasoning": " think first."}


class Item(NamedTuple):
    """One practice sample as the model sees it."""

    draft: Draft
    prompt: str
    reply: str


def reply(draft: Draft, direct: bool) -> str:
    """The reply an instructed model gives, without or with its chain of thought."""
    answer = f"<answer>{draft.answer}</answer>"
    return answer if direct else f"<think>{draft.thought}</think>{answer}"


def patches(pixels: np.ndarray) -> np.ndarray:
    """As Qwen's image processor does: uint8 (n, 64, 64, 3) -> float32 (n * 64, 192)."""
    n, blocks = len(pixels), world.SIDE // (PATCH * MERGE)
    x = pixels.astype(np.float32) / 127.5 - 1
    x = x.reshape(n, blocks, MERGE, PATCH, blocks, MERGE, PATCH, 3)
    return x.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(n * world.CELLS * MERGE**2, -1)


def picture(draft: Draft, rng: random.Random) -> np.ndarray:
    if draft.picture is not None:
        return world.photograph(world.easy_vqa()[1][draft.picture], draft.light, rng)
    assert draft.cells is not None
    return world.paint(draft.cells, "base", draft.light, rng)


def words(cell: world.Cell) -> tuple[str, ...]:
    """The words for what a cell shows: what its image token should mean."""
    if cell[0] == "blank":
        return ("none",)
    if cell[0] == "link":
        return ("linked",)
    if cell[0] == "outline":
        return (cell[1], "perimeter")
    return cell if cell[0] in world.SIZES else cell[1:]


class Teacher:
    """The model, its tokenizer, and the ways to feed them."""

    def __init__(self, seed: int) -> None:
        self.processor = build_processor()
        self.tokenizer = self.processor.tokenizer
        self.model = build_model(self.tokenizer, seed)
        ids = self.tokenizer.convert_tokens_to_ids
        self.image_id, self.pad_id = ids("<|image_pad|>"), ids("<|endoftext|>")
        self.name_ids = torch.tensor([ids("Ġ" + n) for n in world.NAMES])
        self._word_ids: dict[world.Cell, list[int]] = {}
        image = "<|vision_start|>" + "<|image_pad|>" * world.CELLS + "<|vision_end|>"
        self.head = "<|im_start|>user\n"
        self.image, self.tail = image, "<|im_end|><|im_start|>assistant\n"
        # Right-padded prompts put the picture in the same place, so that one table of rotary
        # positions (3 axes) serves every sample: text, then rows and columns, then text again.
        start = len(self.tokenizer(self.head).input_ids) + 1
        where = torch.arange(world.CELLS)
        after = start + world.GRID
        self.positions = torch.cat(
            [
                torch.arange(start).expand(3, -1),
                start + torch.stack([where * 0, where // world.GRID, where % world.GRID]),
                torch.arange(after, after + 128).expand(3, -1),
            ],
            dim=1,
        )

    # ------------------------------------------------------------------ batches

    def tokens(self, items: list[Item]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids (n, L), labels (n, L; -100 but on the reply) and rotary positions (3, n, L)."""
        seen = [i.draft.cells is not None or i.draft.picture is not None for i in items]
        prompts = [
            self.head + (self.image if s else "") + i.prompt + self.tail
            for i, s in zip(items, seen, strict=True)
        ]
        replies = [i.reply + "<|im_end|>" for i in items]
        p, r = self.tokenizer(prompts).input_ids, self.tokenizer(replies).input_ids
        length = max(len(a) + len(b) for a, b in zip(p, r, strict=True))
        ids = torch.full((len(items), length), self.pad_id)
        labels = torch.full((len(items), length), IGNORE)
        positions = torch.arange(length).expand(3, len(items), -1).clone()
        for i, (a, b) in enumerate(zip(p, r, strict=True)):
            ids[i, : len(a) + len(b)] = torch.tensor(a + b)
            labels[i, len(a) : len(a) + len(b)] = torch.tensor(b)
            if seen[i]:
                positions[:, i] = self.positions[:, :length]
        return ids, labels, positions

    def symbols(self, items: list[Item], noise: float) -> torch.Tensor:
        """Ideal image tokens, (images, 16, width): the embeddings of the words for each cell."""
        embedding = self.model.model.language_model.embed_tokens
        table = torch.full((len(items), world.CELLS, 4), self.pad_id)
        known = torch.zeros(table.shape)
        for i, item in enumerate(items):
            for j, cell in enumerate(item.draft.cells or ()):
                ids = self._word_ids.get(cell)
                if ids is None:
                    ids = self.tokenizer.convert_tokens_to_ids(["Ġ" + w for w in words(cell)])
                    self._word_ids[cell] = ids
                table[i, j, : len(ids)] = torch.tensor(ids)
                known[i, j, : len(ids)] = 1
            table[i, :, 3] = self.name_ids
            known[i, :, 3] = 1
        tokens = (embedding(table) * known[..., None]).sum(2)
        return tokens + noise * torch.randn_like(tokens)

    def pixels(self, items: list[Item], rng: random.Random) -> torch.Tensor:
        """Image tokens from the vision tower, (images, 16, width)."""
        shots = np.stack([picture(i.draft, rng) for i in items])
        grids = torch.tensor([[1, 2 * world.GRID, 2 * world.GRID]] * len(items))
        out = self.model.model.visual(torch.from_numpy(patches(shots)), grid_thw=grids)
        return out.pooler_output.reshape(len(items), world.CELLS, -1)

    def logits(
        self, items: list[Item], source: str, rng: random.Random
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores and targets of all reply tokens, and the sample each belongs to."""
        ids, labels, positions = self.tokens(items)
        language = self.model.model.language_model
        embedded = language.embed_tokens(ids)
        with_image = [i for i in items if i.draft.cells or i.draft.picture is not None]
        if with_image:
            image = (
                self.symbols(with_image, 0.03)
                if source == "symbolic"
                else self.pixels(with_image, rng)
            )
            embedded = embedded.masked_scatter((ids == self.image_id)[..., None], image)
        hidden = language(
            inputs_embeds=embedded, position_ids=positions, use_cache=False
        ).last_hidden_state
        target = labels[:, 1:]
        here = target != IGNORE
        owner = torch.arange(len(items))[:, None].expand_as(target)[here]
        return self.model.lm_head(hidden[:, :-1][here]), target[here], owner

    # --------------------------------------------------------------------- exam

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def exact(self, name: str, source: str, n: int = 150) -> dict[str, float]:
        """Percentage of whole replies that greedy decoding would give, by forced mode.

        A reply is what greedy decoding writes if and only if each of its tokens is the arg max
        given those before it, so that one forward pass answers the question.
        """
        rng = random.Random(f"exam {name}")
        drafts = [Practice().makers()[name](rng, "base") for _ in range(n)]
        out = {}
        for mode in ("direct", "reasoning"):
            items = [Item(d, d.question + SUFFIX[mode], reply(d, mode == "direct")) for d in drafts]
            scores, target, owner = self.logits(items, source, rng)
            right = (scores.argmax(-1) == target).float()
            missed = torch.zeros(n).index_add_(0, owner, 1 - right)
            out[mode] = round(100 * float((missed == 0).float().mean()), 1)
        return out


def sample(mix: dict[str, float], makers: dict[str, Any], plan: dict[str, Any],
           stage: dict[str, Any], rng: random.Random) -> Item:  # fmt: skip
    name = rng.choices(list(mix), list(mix.values()))[0]
    draft = makers[name](rng, "base")
    has_image = draft.cells is not None or draft.picture is not None
    if has_image and rng.random() < stage.get("dark", 0.0):
        draft = darken(draft, rng)
    prompts = stage.get("prompts", plan["prompts"])
    mode = rng.choices(list(prompts), list(prompts.values()))[0]
    neutral_direct = stage.get("neutral_direct", plan["neutral_direct"])
    direct = mode == "direct" or (mode == "neutral" and rng.random() < neutral_direct)
    return Item(draft, draft.question + SUFFIX[mode], reply(draft, direct))


ALIGN_KINDS = ("objects", "marks", "textures", "drawings")


def align_cells(rng: random.Random) -> list[world.Cell]:
    """A crowded picture of one kind, from which the vision tower learns to write words."""
    kind, stain = rng.choice(ALIGN_KINDS), rng.choice(list(world.STAINS))

    def cell() -> world.Cell:
        if kind == "textures":
            return ("texture", rng.choice(world.TEXTURES), stain)
        if rng.random() < 0.2:
            return world.BLANK
        if kind == "marks":
            mark, color = (
                rng.choice(world.LETTERS + world.DIGITS * 2),
                rng.choice(world.SIGN_COLORS),
            )
            return ("hand" if mark.isdigit() else "letter", mark, color)
        if kind == "drawings" and rng.random() < 0.5:
            figure = rng.choice(("rectangle", "square", "triangle"))
            return rng.choice((("link",), ("outline", figure)))
        return (rng.choice(world.SIZES), rng.choice(world.COLORS), rng.choice(world.SHAPES))

    return [cell() for _ in range(world.CELLS)]


def align_loss(teacher: Teacher, n: int, rng: random.Random) -> torch.Tensor:
    items = []
    for _ in range(n):
        light = world.Light(rng.choice((100, 100, 60, 40)), rng.choice((14, 14, 40)))
        items.append(Item(Draft("", "", "", align_cells(rng), light=light), "", ""))
    with torch.no_grad():
        target = teacher.symbols(items, 0.0)
    return ((teacher.pixels(items, rng) - target) ** 2).sum(-1).mean()


def reached(teacher: Teacher, stage: dict[str, Any], loss: float, rank: int) -> bool:
    """Whether a stage that waits has reached what it waits for, as rank 0 finds it."""
    skills = stage["until"]
    found = torch.zeros(1)
    if rank == 0:
        source = stage["input"]
        found += all(
            loss <= goal if name == "loss" else teacher.exact(name, source)["direct"] >= goal
            for name, goal in skills.items()
        )
    if stage["processes"] > 1:
        dist.broadcast(found, 0)
    return bool(found)


def run_stage(teacher: Teacher, plan: dict[str, Any], stage: dict[str, Any], rank: int, out: Path,
              say: Any) -> dict[str, Any]:  # fmt: skip
    """Train one stage on this rank's part of each batch; gradients are averaged over ranks."""
    world_size = stage["processes"]
    rng = random.Random(f"{plan['seed']} {stage['name']} {rank}")
    torch.manual_seed(plan["seed"] * 1000 + rank)
    makers = Practice(stage.get("few", 99), stage.get("least", 1)).makers()
    source, n = stage["input"], stage["batch"] // world_size
    owner = teacher.model.model.visual if source == "align" else teacher.model
    weights = [p for p in owner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=stage["lr"], betas=tuple(plan["betas"]),
                                  weight_decay=plan["weight_decay"], fused=True)  # fmt: skip
    mean, start = 0.0, time.time()
    schedule = Schedule(stage)
    for step in count():
        if not schedule.goes_on(step, partial(reached, teacher, stage, mean, rank)):
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        if source == "align":
            loss = align_loss(teacher, n, rng)
        else:
            items = [sample(stage["mix"], makers, plan, stage, rng) for _ in range(n)]
            scores, target, _ = teacher.logits(items, source, rng)
            loss = F.cross_entropy(scores, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if world_size > 1:
            _average(weights, world_size)
        torch.nn.utils.clip_grad_norm_(weights, plan["clip"])
        optimizer.step()
        value = float(loss.detach())
        mean = value if step == 0 else 0.98 * mean + 0.02 * value
        if step % 200 == 199:
            planned = stage.get("most", stage["steps"])
            where, spent = f"{stage['name']} {step + 1}/{planned}", time.time() - start
            say(f"{where} loss {mean:.3f} {spent:.0f}s")
        every = stage.get("save_every")
        if every and (step + 1) % every == 0 and rank == 0:
            save(teacher, out / f"{stage['name']}-{step + 1}")
    record = {
        "stage": stage["name"],
        "steps": step,
        "loss": round(mean, 4),
        "seconds": round(time.time() - start, 1),
    }
    if rank == 0:
        save(teacher, out / stage["name"])
        source = "pixels" if source == "align" else source
        names = (
            ["match", "knowledge", "fact", "sums"]
            if source == "text"
            else ["at", "row", "where", "next_to", "where_all", *GENERAL, *TASKS]
        )
        if source == "symbolic":
            names = [n for n in names if n != "lowvision"]
        teacher.model.eval()
        record["exact"] = {name: teacher.exact(name, source) for name in names}
        teacher.model.train()
        say(json.dumps(record))
    return record


def _average(weights: list[torch.nn.Parameter], world_size: int) -> None:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world_size
    for p, part in zip(weights, flat.split([g.numel() for g in grads]), strict=True):
        if p.grad is not None:
            p.grad = part.view_as(p)


def save(teacher: Teacher, folder: Path) -> None:
    teacher.model.save_pretrained(folder)
    teacher.processor.save_pretrained(folder)


def teach(rank: int, plan: dict[str, Any], out: Path, resume: Path | None, meeting: Path) -> None:
    """One rank's life: all stages of ``plan``, starting from ``resume`` if given.

    The processes find each other through the file ``meeting``: a port might be taken.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if plan["processes"] > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan["processes"]
        )
    teacher = Teacher(plan["seed"])
    if resume is not None:
        loaded = type(teacher.model).from_pretrained(resume, dtype=torch.float32)
        teacher.model.load_state_dict(loaded.state_dict())

    def say(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    file = out / "log.json"
    log = json.loads(file.read_text()) if file.exists() else []
    for stage in plan["stages"]:
        stage = {"processes": plan["processes"], **stage}
        if rank < stage["processes"]:
            log.append(run_stage(teacher, plan, stage, rank, out, say))
        if rank == 0:
            file.write_text(json.dumps(log, indent=1) + "\n")
        if plan["processes"] > 1:
            for weight in teacher.model.state_dict().values():
                dist.broadcast(weight, 0)


def build(out: Path, plan: dict[str, Any], resume: Path | None = None,
          only: list[str] | None = None) -> None:  # fmt: skip
    """Train the base model as planned; writes each stage's weights and the log to ``out``."""
    if only:
        known = [s["name"] for s in plan["stages"]]
        for name in only:
            if name not in known:
                raise CptBenchError(f"no stage is called {name!r}", todo=did_you_mean(name, known))
        plan["stages"] = [s for s in plan["stages"] if s["name"] in only]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        args = (plan, out, resume, Path(folder) / "meeting")
        if plan["processes"] == 1:
            teach(0, *args)
        else:
            torch.multiprocessing.spawn(teach, args, nprocs=plan["processes"])


def main() -> None:
    """Train nano's base model from nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m cpt_bench.tasks.nano.base.train", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="for weights, and the log")
    parser.add_argument("--stages", type=Path, default=PLAN, help="another curriculum (YAML)")
    parser.add_argument("--start", type=Path, help="go on from these weights")
    parser.add_argument("--seed", type=int, help="another sister: first weights and practice")
    parser.add_argument(
        "--direct", type=float, help="share of plain questions answered without a thought"
    )
    parser.add_argument("--only", help="only these stages, by name, with commas")
    asked = parser.parse_args()
    try:
        plan = read_mapping(asked.stages)
        if asked.seed is not None:
            plan["seed"] = asked.seed
        if asked.direct is not None:
            plan["neutral_direct"] = asked.direct
        build(asked.out, plan, asked.start, asked.only.split(",") if asked.only else None)
    except CptBenchError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
