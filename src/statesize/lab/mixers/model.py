"""A small causal language model whose every mixer knows its operator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.check import require_count, require_kind
from statesize.errors import InputError
from statesize.lab.mixers.block import Block, LocalDropout, residual_norm
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import Mixer


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
        require_kind("config", config, ModelConfig, "a ModelConfig")
        require_kind("generator", generator, (torch.Generator, type(None)), "a torch.Generator or None")
        self.config = config
        # The modules draw their own first values when built; on the meta device that touches no random state.
        with torch.device("meta"), _drawing_as(generator):
            self.embedding = _embedding(config.vocabulary_size, config.width)
            self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
            self.norm = residual_norm(config)
            self.position_embedding = _embedding(config.positions, config.width) if config.positions else None
            self.output = None if config.tied else nn.Linear(config.width, config.vocabulary_size, bias=False)
        if torch.get_default_device().type == "meta":
            # Shapes only.
            return
        for module in self.modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                module.to_empty(device="cpu", recurse=False)
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

        Raises:
            InputError: `input_ids` is not of shape (S, L) with L ≥ 1, holds tokens outside the vocabulary, or is longer
                than the positional embedding.
        """
        self._check(input_ids, "(S, L)", 2)
        return self._logits(self._hidden(input_ids), scored)

    def compiled_forward(self) -> Callable[..., Tensor]:
        """`forward`, compiled for each shape of inputs; torch keeps what it compiled for later processes.

        Returns:
            What takes the arguments of `forward`; `forward` itself where a layer does not gain by it.

        Raises:
            InputError: At the first call, if torch cannot compile here, such as without a C++ compiler.
        """
        if not all(getattr(block.mixer, "compiles", True) for block in self.blocks):
            return self.forward
        # What torch warns of while it compiles is its own.
        with warnings.catch_warnings(action="ignore"):
            compiled = cast("Callable[[Tensor], Tensor]", torch.compile(self._hidden, dynamic=False))

        def forward(input_ids: Tensor, scored: Tensor | None = None) -> Tensor:
            self._check(input_ids, "(S, L)", 2)
            try:
                with warnings.catch_warnings(action="ignore"):
                    hidden = compiled(input_ids)
            except RuntimeError as error:
                raise InputError(
                    f"compiled must be False here: torch cannot compile the model ({str(error).splitlines()[0]})."
                ) from error
            return self._logits(hidden, scored)

        return forward

    def step(self, input_ids: Tensor, caches: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """Logits after one more token of every sequence; equals `forward` on the whole sequence.

        Args:
            input_ids: (S,), int64.
            caches: From `initial_caches` or the previous step.

        Returns:
            Logits (S, V) and the next caches.

        Raises:
            InputError: `input_ids` is not of shape (S,), holds tokens outside the vocabulary, or the sequence is longer
                than the positional embedding.
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
        """The caches of `step` before the first token.

        Args:
            batch: Number of sequences S.

        Returns:
            The position 0, and one cache per layer.

        Raises:
            InputError: `batch` is no positive whole number, or a mixer of one's own has no step form.
        """
        require_count("batch", batch)
        for block in self.blocks:
            if not hasattr(block.mixer, "initial_cache"):
                raise InputError(
                    f"mixer must have a step form to run token by token, got {type(block.mixer).__name__}. Run the "
                    "model over whole sequences."
                )
        return [0, *(block.mixer.initial_cache(batch) for block in self.blocks)]

    def set_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Makes every dropout draw from one generator.

        Args:
            generator: On the model's device; None is torch's default generator.
        """
        for module in self.modules():
            if isinstance(module, LocalDropout):
                module.generator = generator

    def _check(self, input_ids: Tensor, expected: str, dimensions: int) -> None:
        require_kind("input_ids", input_ids, Tensor, "a tensor of token numbers")
        if input_ids.dim() != dimensions or input_ids.numel() == 0:
            raise InputError(f"input_ids must have shape {expected} and not be empty, got {tuple(input_ids.shape)}.")
        if input_ids.is_meta or input_ids.layout != torch.strided:
            problem = "the device meta" if input_ids.is_meta else f"layout {input_ids.layout}"
            raise InputError(f"input_ids must be a dense tensor of token numbers, got {problem}.")
        if input_ids.dtype not in (torch.int64, torch.int32):
            raise InputError(f"input_ids must be token numbers of dtype torch.int64, got dtype {input_ids.dtype}.")
        low, high = (int(bound) for bound in torch.aminmax(input_ids))
        if low < 0 or high >= self.config.vocabulary_size:
            raise InputError(
                f"input_ids must be in this model's vocabulary, 0 to {self.config.vocabulary_size - 1}, got {low} to "
                f"{high}. Was the text encoded with another tokenizer?"
            )

    def _hidden(self, input_ids: Tensor) -> Tensor:
        """What the layers write to the residual stream, (S, L, d)."""
        hidden = self._embed(input_ids, slice(0, input_ids.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        return hidden

    def _logits(self, hidden: Tensor, scored: Tensor | None = None) -> Tensor:
        output = self.embedding if self.output is None else self.output
        return functional.linear(self.norm(hidden if scored is None else hidden[scored]), output.weight)

    def _embed(self, input_ids: Tensor, positions: int | slice) -> Tensor:
        # The output layer wants rows of norm about 1, the residual stream entries of about 1: the factor gives both.
        embedded = self.embedding(input_ids) * self.config.width**0.5
        if self.position_embedding is None:
            return embedded
        length = positions.stop if isinstance(positions, slice) else positions + 1
        if length > self.config.positions:
            raise InputError(
                f"the sequence has at least {length} tokens and the positional embedding {self.config.positions};"
                " give shorter sequences, or a model with more positions"
            )
        return embedded + self.position_embedding.weight[positions] * self.config.width**0.5

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Weights normal with variance 1 / fan-in; what writes to the residual stream is scaled by its depth."""
        depth_scale = (2 * self.config.layers) ** -0.5
        own = set[Tensor]()
        for block in self.blocks:
            mixer = block.mixer
            own.update(mixer.set_initial_values() if isinstance(mixer, Mixer) else mixer.parameters())
        for name, parameter in self.named_parameters():
            if parameter in own:
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
