"""Random calls of the functions that make numbers of singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.arguments import good_thresholds, number, real, several
from campaigns.fuzz.call import Call, Refusal
from campaigns.fuzz.hostile import Source


def numbers_call(name: str) -> Callable[[Source], Call]:
    """`tolerance_ess`, `entropy_ess`, `energy_ess` on any numbers."""

    def make(source: Source) -> Call:
        values = source.tensor(*source.batch(), source.whole(0, 9))
        if values.dtype.is_floating_point and values.layout == torch.strided and not values.is_meta:
            if source.maybe(0.9) and not source.poisoned:
                values = source.tensors[-1] = values.detach().abs().sort(-1, descending=True).values
        else:
            source.poisoned = True
        negative = not source.poisoned and bool((values < 0).any())
        threshold: Any = source.no_number() if source.maybe(0.1) else source.chance.choice((0.0, 1e-3, 0.5, 0.999))
        relative = source.maybe(0.3)
        wrong = negative or source.poisoned
        extra: tuple[Any, ...] = ()
        if name == "tolerance_ess":
            extra = (threshold, relative)
            listed = isinstance(threshold, torch.Tensor) or not isinstance(threshold, Iterable)
            wrong |= not good_thresholds([threshold] if listed and not several(threshold) else threshold)
        elif name == "energy_ess":
            extra = (threshold,)
            wrong |= not real(threshold) or several(threshold) or not 0 <= threshold < 1
        doubtful = isinstance(
            threshold, torch.Tensor | np.ndarray | bool | str | list | range | tuple | dict | bytes | set
        )
        doubtful |= threshold is None or isinstance(threshold, np.generic)

        def check(found: torch.Tensor) -> list[str]:
            if not answers.finite(found.double()):
                return [f"answer is {found}"]
            if doubtful and extra:
                return []
            return _wrong_number(name, values, number(threshold) if real(threshold) else 0.0, relative, found)

        refusal: Refusal = "always" if wrong else "never"
        if doubtful and extra and not source.poisoned:
            refusal = "maybe"
        if source.extreme and refusal == "never":
            refusal = "maybe"
        names = ("values", "tolerance", "epsilon")
        function = getattr(ss.metrics, name)
        return Call(lambda: function(values, *extra), check, refusal, names, f"{values.shape} {values.dtype} {extra}")

    return make


def _wrong_number(name: str, values: torch.Tensor, threshold: float, relative: bool, found: torch.Tensor) -> list[str]:
    sigma = np.sort(exact.wide(values))[..., ::-1]
    top = sigma.max(-1, initial=0)
    if name == "entropy_ess":
        right = exact.effective_rank(sigma)
        eps = torch.finfo(values.dtype).eps
        off = np.abs(found.detach().double().numpy() - right) > 20 * eps * (1 + right * sigma.shape[-1])
        return [f"{found} for {right}"] if off.any() else []
    if name == "tolerance_ess":
        near = torch.finfo(values.dtype).eps * 4 + 1
        level = np.longdouble(threshold) * (top if relative else 1)
        least, most = ((sigma > np.expand_dims(level * f, -1)).sum(-1) for f in (near, 1 / near))
    else:
        scaled = sigma / np.where(top > 0, top, 1)[..., None]
        energy = (scaled**2)[..., ::-1].cumsum(-1)[..., ::-1]
        near = torch.finfo(values.dtype).eps * 8 * (1 + sigma.shape[-1])
        total = energy[..., :1]
        least = (energy > (threshold + near) * total).sum(-1)
        most = (energy > max(0.0, threshold - near) * total).sum(-1)
        most = np.where(top > 0, most, 0)
    count = found.detach().numpy()
    return [] if ((least <= count) & (count <= most)).all() else [f"{count} for {least} … {most}"]
