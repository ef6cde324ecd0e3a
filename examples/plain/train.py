"""A whole method in plain PyTorch: cross-entropy on the gold answers, nothing of cptbench imported.

cptbench run --trainer "cmd:python examples/plain/train.py {stage}"
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2VLImageProcessorPil

stage = json.loads(Path(sys.argv[1]).read_text())
settings = {"learning_rate": 3e-4, "steps": 100, "batch_size": 16, **stage["config"]}
drawn, allowed = settings["batch_size"], stage["budget"]["samples"]
steps = min(settings["steps"], allowed // drawn) if allowed else settings["steps"]
torch.manual_seed(stage["seed"])
torch.set_num_threads(stage["threads"])

model = AutoModelForImageTextToText.from_pretrained(stage["policy"], attn_implementation="eager")
tokenizer = AutoTokenizer.from_pretrained(stage["policy"])
pictures = Qwen2VLImageProcessorPil.from_pretrained(stage["policy"])
folder = Path(stage["data"][0]).parent
samples = [json.loads(line) for line in Path(stage["data"][0]).read_text().splitlines()]
optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"])


def loss_on(sample):
    """Prompt with its image tokens, then the answer; the loss is on the answer alone."""
    inputs, content = {}, [{"type": "image"}] * len(sample["images"])
    content = [*content, {"type": "text", "text": sample["prompt"]}]
    turn = [{"role": "user", "content": content}]
    prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    if sample["images"]:
        images = [Image.open(folder / name).convert("RGB") for name in sample["images"]]
        inputs = dict(pictures(images=images, return_tensors="pt"))
        patches = int(inputs["image_grid_thw"][0].prod()) // pictures.merge_size**2
        prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * patches)
    asked = tokenizer(prompt, return_tensors="pt").input_ids
    answer = tokenizer(sample["target"] + "<|im_end|>", return_tensors="pt").input_ids
    tokens = torch.cat([asked, answer], dim=1)
    types = (tokens == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    labels = torch.cat([torch.full_like(asked, -100), answer], dim=1)
    return model(input_ids=tokens, mm_token_type_ids=types, labels=labels, **inputs).loss


with Path(stage["log"]).open("a") as log:
    for step in range(1, steps + 1):
        chosen = torch.randint(len(samples), (drawn,)).tolist()
        total = 0.0
        for i in chosen:
            loss = loss_on(samples[i]) / drawn
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        row = {"step": step, "steps": steps, "samples": step * drawn, "loss": total}
        print(json.dumps(row), file=log, flush=True)

shutil.copytree(stage["policy"], stage["output"], dirs_exist_ok=True)  # tokenizer, processor
model.save_pretrained(stage["output"])
