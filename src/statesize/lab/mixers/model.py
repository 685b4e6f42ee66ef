"""A small causal language model whose every mixer knows its operator."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.check import require_count, require_kind
from statesize.errors import InputError
from statesize.lab.mixers.base import NORM_EPSILON, Mixer
from statesize.lab.mixers.config import ModelConfig, mixer


class GatedMLP(nn.Module):
    """SwiGLU: W₂ (silu(W_g x) ⊙ W_u x), without biases, of hidden width mlp_factor · width (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.mlp_factor * config.width
        self.input_projection = nn.Linear(config.width, 2 * hidden, bias=False)
        self.output_projection = nn.Linear(hidden, config.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the MLP to each position, (..., d) to (..., d)."""
        gate, up = self.input_projection(hidden).chunk(2, dim=-1)
        return self.output_projection(functional.silu(gate) * up)


class LocalDropout(nn.Module):
    """Dropout that draws from a generator of its own, so that no global random state is read or changed."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None
        """Source of the masks; None is torch's default generator."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Drops entries in training mode, of any shape; returns `hidden` itself otherwise."""
        if not self.training or self.probability == 0:
            return hidden
        mask = torch.empty_like(hidden).bernoulli_(1 - self.probability, generator=self.generator)
        return hidden * mask / (1 - self.probability)


class Block(nn.Module):
    """One layer, counted from 0: h ← h + mixer(norm(h)), then h ← h + mlp(norm(h))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self.mixer: Any = mixer[config.mixer_of(layer)](config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=NORM_EPSILON) if config.mlp_factor else None
        self.mlp = GatedMLP(config) if config.mlp_factor else None
        self.dropout = LocalDropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the layer to whole sequences, (S, L, d) to (S, L, d)."""
        return self._with_mlp(hidden + self.dropout(self.mixer(self.mixer_norm(hidden))))

    def step(self, hidden: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Applies the layer to one token of every sequence, (S, d); returns the output and the mixer's next cache."""
        mixed, cache = self.mixer.step(self.mixer_norm(hidden), cache)
        return self._with_mlp(hidden + self.dropout(mixed)), cache

    def _with_mlp(self, hidden: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return hidden
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))


class LanguageModel(nn.Module):
    """Token embedding, `config.layers` blocks, a norm, and an output layer: the embedding again if `config.tied`.

    Order is seen by the short convolutions, the causal mixing and the decays; with `config.positions` a learned
    positional embedding is added to that of the tokens.

    Args:
        config: Shape of the model.
        generator: Source of the initial parameters; None draws from torch's default generator.

    Example:
        >>> model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=10, layers=1))
        >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 10])
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        shapes_only = torch.get_default_device().type == "meta"
        with torch.device("meta" if shapes_only else "cpu"), _drawing_as(generator):
            self.embedding = _embedding(config.vocabulary_size, config.width)
            self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
            self.norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)
            self.position_embedding = _embedding(config.positions, config.width) if config.positions else None
            self.output = None if config.tied else nn.Linear(config.width, config.vocabulary_size, bias=False)
        if not shapes_only:
            self._initialise(generator)

    @property
    def blocks(self) -> Sequence[Block]:
        """The layers, typed."""
        return cast("Sequence[Block]", self.layers)

    def forward(self, input_ids: Tensor, scored: Tensor | None = None) -> Tensor:
        """Next-token logits at every position, or at the scored ones.

        Args:
            input_ids: (S, L), int64.
            scored: (S, L), bool; None for all positions.

        Returns:
            Logits (S, L, V), in the model's dtype; (N, V) at the N scored positions.

        """
        self._check(input_ids, "(S, L)", 2)
        hidden = self._embed(input_ids, slice(0, input_ids.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        return self._logits(hidden if scored is None else hidden[scored])

    def step(self, input_ids: Tensor, caches: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """Logits after one more token of every sequence; equals `forward` on the whole sequence.

        Args:
            input_ids: (S,), int64.
            caches: From `initial_caches` or the previous step.

        Returns:
            Logits (S, V) and the next caches.

        """
        self._check(input_ids, "(S,)", 1)
        position, *layer_caches = caches
        hidden = self._embed(input_ids, position)
        following: list[Any] = [position + 1]
        for block, cache in zip(self.blocks, layer_caches, strict=True):
            hidden, cache = block.step(hidden, cache)
            following.append(cache)
        return self._logits(hidden), following

    def initial_caches(self, batch: int) -> list[Any]:
        """The caches of `step` for so many sequences before the first token: the position 0, and one of each layer."""
        require_count("batch", batch)
        for block in self.blocks:
            if not hasattr(block.mixer, "initial_cache"):
                raise InputError(
                    f"mixer must have a step form to run token by token, got {type(block.mixer).__name__}. Run the "
                    "model over whole sequences."
                )
        return [0, *(block.mixer.initial_cache(batch) for block in self.blocks)]

    def set_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Makes every dropout draw from one generator on the model's device; None is torch's default generator."""
        for module in self.modules():
            if isinstance(module, LocalDropout):
                module.generator = generator

    def _check(self, input_ids: Tensor, expected: str, dimensions: int) -> None:
        require_kind("input_ids", input_ids, Tensor, "a tensor of token numbers")
        if input_ids.dim() != dimensions or input_ids.numel() == 0:
            raise InputError(f"input_ids must have shape {expected} and not be empty, got {tuple(input_ids.shape)}.")
        if input_ids.dtype not in (torch.int64, torch.int32):
            raise InputError(f"input_ids must be token numbers of dtype torch.int64, got dtype {input_ids.dtype}.")
        low, high = (int(bound) for bound in torch.aminmax(input_ids))
        if low < 0 or high >= self.config.vocabulary_size:
            raise InputError(
                f"input_ids must be in this model's vocabulary, 0 to {self.config.vocabulary_size - 1}, got {low} to "
                f"{high}. Was the text encoded with another tokenizer?"
            )

    def _embed(self, input_ids: Tensor, positions: int | slice) -> Tensor:
        # The output layer wants rows of norm about 1, the residual stream entries of about 1: the factor gives both.
        embedded = self.embedding(input_ids) * self.config.width**0.5
        if self.position_embedding is None:
            return embedded
        length = positions.stop if isinstance(positions, slice) else positions + 1
        if length > self.config.positions:
            raise InputError(
                f"input_ids must be at most {self.config.positions} tokens, the positional embedding of the model, got "
                f"at least {length}. Give shorter sequences, or a model with more positions."
            )
        return embedded + self.position_embedding.weight[positions] * self.config.width**0.5

    def _logits(self, hidden: Tensor) -> Tensor:
        output = self.embedding if self.output is None else self.output
        return functional.linear(self.norm(hidden), output.weight)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Weights normal with variance 1 / fan-in; what writes to the residual stream is scaled by its depth."""
        depth_scale = (2 * self.config.layers) ** -0.5
        kept = set[Tensor]()
        for block in self.blocks:
            own = block.mixer
            kept.update(map(own.get_parameter, own.kept) if isinstance(own, Mixer) else own.parameters())
        for name, parameter in self.named_parameters():
            if parameter in kept:
                continue
            part = name.removesuffix(".weight").rpartition(".")[2]
            if part == "convolution":
                bound = parameter.shape[-1] ** -0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            elif part.endswith("norm") or name.endswith("norm_weight"):
                nn.init.ones_(parameter)
            else:
                scale = depth_scale if part == "output_projection" else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)


def _embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding that draws nothing: on the meta device that would import torch's compiler, which takes a second."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


@contextmanager
def _drawing_as(generator: torch.Generator | None) -> Generator[None]:
    """Lets modules that draw from torch's default generator draw what follows from the seed of another."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        yield
