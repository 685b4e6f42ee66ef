"""Tokens that the rules of `cache` keep, and how many of them each cache gets by its measured curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast, get_args

import torch
from torch import Tensor

from statesize.adapters.kernels.rotation import Rotation
from statesize.check import refuse
from statesize.operators import SoftmaxAttention
from statesize.reduction.cache.budgets import GRID, at_curves
from statesize.reduction.cache.prefix import PrefixLayer
from statesize.reduction.cache.result import CachePrices
from statesize.reduction.cache.rules import Rule, expected_attention, kept_first
from statesize.truncation.runs import MixerSpectra


@dataclass(frozen=True, eq=False)
class MeasuredCurves:
    """What `cache` measured on other texts: how each layer's output errs as its caches keep fewer tokens.

    Attributes:
        rule: The rule by which tokens were kept.
        errors: Curves of the caches of each mixer, by name, (caches, points of GRID).
    """

    rule: Rule
    errors: dict[str, Tensor]

    @classmethod
    def of(cls, found: CachePrices | Mapping[str, Any]) -> Self:
        """The curves of what `cache` returned, or of its JSON values."""
        document = found.to_dict() if isinstance(found, CachePrices) else found
        errors: dict[str, list[list[float]]] = {}
        try:
            rule = document["rule"]
            for head in document["heads"]:
                errors.setdefault(head["layer"], []).append([float(error) for error in head["curve"]])
            curves = {layer: torch.tensor(each, dtype=torch.float64) for layer, each in errors.items()}
        except (KeyError, TypeError, ValueError):
            rule, curves = None, {}
        if rule not in get_args(Rule) or not curves or any(each.shape[1:] != (len(GRID),) for each in curves.values()):
            advice = "Give what `statesize cache MODEL --json` printed of the same model."
            refuse("curves", "what statesize.cache returns, or its JSON", type(found).__name__, advice)
        return cls(cast("Rule", rule), curves)

    def checked(self, spectra: Mapping[str, MixerSpectra]) -> Self:
        """The curves, if they are of the caches of these mixers."""
        for name, errors in self.errors.items():
            if name not in spectra or spectra[name].stored != len(errors):
                advice = "Give what `statesize cache` measured of the same model."
                refuse("curves", "of the model that is cut", f"{len(errors)} caches of {name}", advice)
        return self

    def budgets(self, held: Mapping[str, int], tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """About as many tokens together as these, (caches,) of each mixer, given to caches where they help most."""
        # Each cache keeps at least the first and last tokens that all rules keep.
        available = torch.tensor([held[name] for name, errors in self.errors.items() for _ in errors])
        wanted = torch.cat([tokens[name].ceil() for name in self.errors]).minimum(available)
        kept = at_curves(available, torch.cat(list(self.errors.values())), float(wanted.sum() / available.sum()))
        parts = torch.split(kept, [len(errors) for errors in self.errors.values()])
        return dict(zip(self.errors, parts, strict=True))

    def order(self, layer: PrefixLayer) -> Tensor:
        """Tokens before the cut in the order in which each cache keeps them, (caches, i)."""
        # Those that a window does not show come last.
        unseen = torch.arange(layer.key.shape[1] - layer.available, device=layer.key.device)
        order = kept_first(self.rule, layer) + len(unseen)
        return torch.cat([order, unseen.expand(len(order), -1)], -1)


def expected_tokens(layer: PrefixLayer) -> Tensor:
    """Tokens before the cut, (units, i), those first that the queries of the next positions are expected to read."""
    scores = expected_attention(layer)
    scores[:, : scores.shape[-1] - layer.available] = -torch.inf
    return scores.argsort(dim=-1, descending=True, stable=True)


def prefix_layer(
    name: str, attention: SoftmaxAttention, values: Tensor, cut: int, rotation: Rotation | None, caches: int
) -> PrefixLayer:
    """What a layer of attention, batch shape (1, units), holds before a cut, with so many caches."""
    query, key = attention.query[0, :, :cut].float(), attention.key[0, :, :cut].float()
    readers = len(query) // caches
    if rotation is not None:
        rotation = Rotation(rotation.cos[:cut], rotation.sin[:cut], rotation.J)
    return PrefixLayer(
        name,
        0,
        query.reshape(caches, readers, *query.shape[1:]),
        key.expand(len(query), -1, -1)[::readers],
        values[0, ::readers, :cut].float(),
        attention.scale,
        attention.window,
        rotation,
        cut if attention.window is None else min(cut, attention.window - 1),
    )
