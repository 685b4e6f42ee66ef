"""Intervals of small random models against their Jacobians, written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from networks.nonlinear import language
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from statesize.networks.network import network_ess
from statesize.spectra.spectrum import effective_rank


@dataclass(frozen=True)
class Outcome:
    """One cut: whether the interval holds the exact value, and how wide it is, relative to its middle."""

    kind: str
    dimension: int
    products: int
    held: bool
    half_width: float


def tokens(length: int, vocabulary: int = 12, seed: int = 0) -> Tensor:
    """Random ids, (1, L)."""
    return torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(seed))


def transformer(layers: int = 2, seed: int = 0, width: int = 16) -> GPT2LMHeadModel:
    """A small GPT-2 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=12, n_positions=32, n_embd=width, n_layer=layers, n_head=2, initializer_range=0.3
        )
        return GPT2LMHeadModel(config).eval()


def jacobian(model: nn.Module, ids: Tensor, i: int) -> Tensor:
    """Derivatives of what the model's last module takes from i on, by the embeddings before i, in float64."""
    model = model.double().eval()
    if isinstance(model, GPT2LMHeadModel):
        embedding, last = model.transformer.wte, model.transformer.ln_f
    else:
        embedding, last = model.embedding, model.logits
    embedded = embedding(ids).detach()
    seen: list[Tensor] = []

    def future(past: Tensor) -> Tensor:
        whole = torch.cat([past, embedded[:, i:]], 1)
        hooks = [
            embedding.register_forward_hook(lambda *_: whole),
            last.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
        ]
        model(ids)
        for hook in hooks:
            hook.remove()
        return seen.pop()[:, i:]

    matrix = torch.autograd.functional.jacobian(future, embedded[:, :i])
    width = embedded.shape[2]
    return matrix.reshape((ids.shape[1] - i) * width, i * width)


def outcomes(count: int, accuracy: float) -> Iterator[Outcome]:
    """Outcomes for models of several kinds, widths and depths, one text and one cut each."""
    g = torch.Generator().manual_seed(5)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=g))

    for seed in range(count):
        kind, length, width = ("gru", "lstm", "slstm", "gpt2")[seed % 4], draw(8, 24), 2 * draw(4, 12)
        i = draw(2, length - 2)
        model = transformer(draw(1, 3), seed, width) if kind == "gpt2" else language(kind, width, 12, seed)
        ids = tokens(length, seed=seed)
        end = None if kind == "gpt2" else "mixer"
        found = network_ess(model, ids, [i], end=end, accuracy=accuracy, method="lanczos")
        exact = float(effective_rank(torch.linalg.svdvals(jacobian(model, ids, i))))
        low, high = found.interval[0].tolist()
        half = (high - low) / 2 / found.entropy.item()
        yield Outcome(kind, found.dimension.item(), found.products.item(), low <= exact <= high, half)
