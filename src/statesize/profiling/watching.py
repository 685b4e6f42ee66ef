"""Greedy continuation of a text by a model's own cache, and whether the full pass says the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters import Captured, CheckPolicy
from statesize.adapters.models.held import device_of, measuring
from statesize.adapters.models.wrapped import pretrained_models
from statesize.check import require_count
from statesize.errors import InputError, ModelError
from statesize.measurement.settings import check_settings
from statesize.measurement.statistics import draw, estimate
from statesize.profiling.measuring import captured_mixers, measure_captured


def generate(model: nn.Module, prompt: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest next tokens one after another; fewer where the model ends its text."""
    if not prompt:
        raise InputError("prompt must hold at least one token, got none. Write a text to standard input.")
    ids = torch.tensor(prompt, device=device_of(model))[None]
    with measuring(model):
        if callable(getattr(model, "initial_caches", None)):
            return _by_steps(model, ids[0], require_count("count", count))
        if pretrained_models(model):
            options = {"do_sample": False, "max_new_tokens": require_count("count", count), "use_cache": True}
            tokens: Tensor = cast("Any", model).generate(ids, attention_mask=torch.ones_like(ids), **options)
            return [int(token) for token in tokens[0, len(prompt) :]]
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


def _by_steps(model: Any, prompt: Tensor, count: int) -> list[int]:
    caches, generated = model.initial_caches(1), list[int]()
    logits = prompt.new_zeros(())
    for token in prompt:
        logits, caches = model.step(token[None], caches)
    while True:
        generated.append(int(logits[0].argmax()))
        if len(generated) == count:
            return generated
        logits, caches = model.step(prompt.new_tensor([generated[-1]]), caches)


@dataclass(frozen=True)
class LayerReading:
    """One layer at one cut, averaged over its heads or channels."""

    name: str  # the mixer's name
    kind: str  # what it is
    entropy: float  # entropy-ESS
    count: float  # number of Hankel singular values above 0.01 σ_1
    ceiling: int  # the most that TSS, past and future allow
    norm: float  # frobenius norm of the block


@dataclass(frozen=True)
class Reading:
    """All layers at one cut."""

    position: int  # the cut: tokens before it, from the beginning of the stream
    token: int  # id of the token that follows it
    layers: tuple[LayerReading, ...]  # one entry a mixer, in the order of their calls


@dataclass(eq=False)
class Watch:
    """A model that reads a stream of tokens.

    A cut is measured as soon as the `future` tokens after it are there, and once: T of a causal model does not change
    in the rows that were there. The block is T[i:i+future, :i], with all that the model has read as its past. Once
    `context` tokens are read, the older half is forgotten and the model reads the other half as its beginning.

    Attributes:
        model: As for `statesize.profile`.
        future: Rows of each block.
        channels: Heads or channels that are measured of each mixer, at most.
        context: Most tokens that the model reads at once, at least four times `future`.
        seed: Seed of the choice of heads or channels.

    Example:
        >>> from statesize.lab import zoo
        >>> watch = Watch(zoo.load("gla")[0], future=4)
        >>> [reading.position for reading in watch.read([5, 6, 7, 8, 9, 10])]
        [1, 2]
        >>> [reading.position for reading in watch.read([11])]
        [3]
    """

    model: nn.Module
    future: int = 16
    channels: int = 8
    context: int = 512
    seed: int = 0
    _window: list[int] = field(default_factory=list[int], init=False)
    _start: int = field(default=0, init=False)
    _next: int = field(default=1, init=False)
    _checking: CheckPolicy = field(default_factory=lambda: CheckPolicy("none"), init=False)

    def __post_init__(self) -> None:
        for name, least in (("future", 1), ("channels", 1), ("seed", 0)):
            require_count(name, getattr(self, name), least)
        if self.context < max(4 * self.future, 8):
            raise InputError(
                f"context must be at least 8 tokens and four times the future of {self.future}, so that a past is left "
                f"after half of it was forgotten, got {self.context}."
            )

    def read(self, ids: Sequence[int]) -> Iterator[Reading]:
        """More tokens; the model runs once for each eighth of a context of them, and for what is left."""
        # Errors are those of `statesize.profile`.
        step = self.context // 8
        for first in range(0, len(ids), step):
            self._window += ids[first : first + step]
            if len(self._window) > self.context:
                forgotten = len(self._window) - self.context // 2
                self._start += forgotten
                del self._window[:forgotten]
            yield from self._measured()

    def _measured(self) -> Iterator[Reading]:
        cuts = list(range(self._next - self._start, len(self._window) - self.future + 1))
        if not cuts:
            return
        checks = self._checking.for_run(self.model)
        captured = captured_mixers(self.model, torch.tensor(self._window)[None], None, checks, sequence=0)
        layers = [self._layer(item, cuts) for item in captured]
        for cut, at in zip(cuts, zip(*layers, strict=True), strict=True):
            yield Reading(self._start + cut, self._window[cut], at)
        self._next += len(cuts)

    def _layer(self, item: Captured, cuts: list[int]) -> list[LayerReading]:
        sample = draw(item.units, self.channels, self.seed, item.name)
        # A few rows of T each: the definition is as fast as any engine.
        settings = check_settings((), (0.01,), cuts, "dense", future=self.future)
        (measurement,) = measure_captured(item, sample.units, settings, sequence=0)
        entropy, counts = measurement.entropy, measurement.relative_count
        if entropy is None or counts is None:
            raise ModelError("the measurement lacks an output that a reading holds")
        by_unit = [entropy, counts[..., 0], measurement.norm]

        def mean(values: Tensor) -> float:
            return estimate(values.double().cpu().numpy(), sample).mean

        return [
            LayerReading(
                item.name,
                item.kind,
                *(mean(values[0, :, index]) for values in by_unit[:2]),
                ceiling=int(measurement.ceiling[index]),
                norm=mean(by_unit[2][0, :, index]),
            )
            for index in range(len(cuts))
        ]
