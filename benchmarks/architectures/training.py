"""Training: every architecture reads the same batches, and its loss is taken on the same held-out documents."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from benchmarks import prose
from benchmarks.architectures.scan import quick_scan
from benchmarks.architectures.shapes import Architecture
from statesize.io.files import replace_file
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.text import EOS, TextTask
from statesize.lab.training.config import TrainingConfig

LENGTH = 256
TRAINING = TrainingConfig(steps=1200, batch_size=3, rate=3e-3)
"""Fixed before the first run, and the same for all; no rate was tuned."""
RECORD = "training.json"
_EVERY = 100


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits (S, L, V) after ids (S, L)."""
    return model(ids) if isinstance(model, LanguageModel) else model(input_ids=ids, use_cache=False).logits


def train_missing(architecture: Architecture, task: TextTask, place: Path) -> None:
    """Trains one architecture and writes it to a folder; nothing happens where the folder is."""
    if place.exists():
        return
    model = architecture.build().train()
    started = time.process_time()
    with quick_scan():
        losses = _train(model, task)
    record = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "losses": losses,
        "processor_seconds": time.process_time() - started,
    }
    unfinished = place.with_name(f"{place.name}.unfinished-{os.getpid()}")
    if isinstance(model, LanguageModel):
        save_checkpoint(model, unfinished)
        prose.tokenizer().save(str(unfinished / "tokenizer.json"))
    else:
        saved: Any = model.eval()
        saved.save_pretrained(unfinished)
        PreTrainedTokenizerFast(tokenizer_object=prose.tokenizer(), eos_token=EOS).save_pretrained(unfinished)
    replace_file(unfinished / RECORD, json.dumps(record, indent=1).encode())
    unfinished.rename(place)


def load(place: Path) -> nn.Module:
    """A trained model."""
    if not (place / "config.json").exists() or "model_type" not in json.loads((place / "config.json").read_text()):
        return load_checkpoint(place).eval()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager").eval()


def _train(model: nn.Module, task: TextTask) -> list[float]:
    """Mean training loss of each hundred steps."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": TRAINING.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=TRAINING.rate, betas=(0.9, 0.98), fused=True)
    generator, losses, total = torch.Generator().manual_seed(TRAINING.seed), list[float](), 0.0
    for step in range(1, TRAINING.steps + 1):
        inputs, targets = task.sample(TRAINING.batch_size, generator)
        loss = functional.cross_entropy(logits_of(model, inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        nn.utils.clip_grad_norm_(model.parameters(), TRAINING.clip)
        for group in optimizer.param_groups:
            group["lr"] = TRAINING.rate_at(step)
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        total += loss.item()
        if step % _EVERY == 0:
            losses.append(total / _EVERY)
            total = 0.0
            print(f"  step {step:5,}: {losses[-1]:.3f}", flush=True)
    return losses
