"""Greedy continuation of a text by a model's own cache, and whether the full pass says the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.held import device_of, measuring
from statesize.adapters.models.wrapped import pretrained_models
from statesize.check import require_count
from statesize.errors import InputError
from statesize.lab.mixers.model import LanguageModel


def generate(model: nn.Module, prompt: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest next tokens one after another; fewer where the model ends its text."""
    if not prompt:
        raise InputError("prompt must hold at least one token, got none. Write a text to standard input.")
    ids = torch.tensor(prompt, device=device_of(model))[None]
    with measuring(model):
        if isinstance(model, LanguageModel):
            return _by_steps(model, ids[0], require_count("count", count))
        if pretrained_models(model):
            options = {"do_sample": False, "max_new_tokens": require_count("count", count), "use_cache": True}
            found: Tensor = cast("Any", model).generate(ids, attention_mask=torch.ones_like(ids), **options)
            return [int(token) for token in found[0, len(prompt) :]]
    raise InputError(f"generate needs a language model of statesize or transformers, got {type(model).__name__}.")


def disagreements(model: nn.Module, prompt: Sequence[int], generated: Sequence[int]) -> int:
    """How many generated tokens are not the likeliest ones of a full pass over prompt and tokens, without a cache."""
    ids = torch.tensor([*prompt, *generated], device=device_of(model))[None]
    options = {"use_cache": False} if pretrained_models(model) else {}
    with measuring(model):
        output = model(ids, **options)
    logits: Tensor = getattr(output, "logits", output)
    likeliest = logits[0, len(prompt) - 1 : -1].argmax(-1)
    return int((likeliest != ids[0, len(prompt) :]).sum())


def _by_steps(model: LanguageModel, prompt: Tensor, count: int) -> list[int]:
    caches, generated = model.initial_caches(1), list[int]()
    logits = prompt.new_zeros(())
    for token in prompt:
        logits, caches = model.step(token[None], caches)
    while True:
        generated.append(int(logits[0].argmax()))
        if len(generated) == count:
            return generated
        logits, caches = model.step(prompt.new_tensor([generated[-1]]), caches)
