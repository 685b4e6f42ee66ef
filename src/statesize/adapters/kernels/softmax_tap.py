"""Attention that a model computes by itself: a softmax, and the product that takes its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn, overrides
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from statesize.adapters.kernels.plain_attention import UNSEEN, PlainAttention, is_band, relative_to_last
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing, of_identity, of_random
from statesize.adapters.models.model_state import sequences_in
from statesize.adapters.models.precision import arithmetic_of, at_least, is_low
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Product, Units
from statesize.errors import ModelError
from statesize.operators import Operator

SOFTMAX: frozenset[Callable[..., Any]] = frozenset({torch.softmax, functional.softmax, Tensor.softmax})
PRODUCT: frozenset[Callable[..., Any]] = frozenset(
    {torch.matmul, cast("Any", torch.linalg).matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}
)
SUM_WITH_PRODUCT: frozenset[Callable[..., Any]] = frozenset({torch.baddbmm, Tensor.baddbmm})
# The arguments of torch's fused attention that may be given by their place.
_FUSED = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_Pair = tuple[Tensor, Tensor]  # what goes into a map, and what comes out
# Attributes of bloom, falcon and mpt.
SCALES = ("inv_norm_factor", "softmax_scale")


class SoftmaxTap(TorchFunctionMode):
    """Watches the softmax of square maps whose result is multiplied with values, and torch's own fused attention."""

    # For the models of transformers from before its registry of attention functions (bloom, falcon, gptj, mpt, gpt_neo,
    # codegen), and for any other module that computes attention by torch's public functions.
    def __init__(self, _: nn.Module, running: ModuleStack, record: OnObservation) -> None:
        super().__init__()
        self.running = running
        self.record = record
        self.probabilities: Tensor | None = None
        self.largest_score: Callable[[], float] = float
        self.factors: Sequence[Tensor] = ()
        self.scores: _Scores | None = None
        # What may be its keys: the last two products of square shape, since a position may be scored by itself.
        self.keys: Sequence[Tensor] = ()
        self.keys_of_probabilities: Sequence[Tensor] = ()

    def __exit__(self, *error: object) -> None:
        # Torch takes a mode off while it works, and an interrupt then leaves it off.
        if self in overrides._get_current_function_mode_stack():  # pyright: ignore[reportPrivateUsage]
            super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # Inside torch.vmap there are no numbers of the whole.
        mapped = isinstance(result, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(result)  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage, reportUnknownVariableType]
        if self.running.closed or not self.running.frames or mapped:
            return result
        held = None
        if func in SOFTMAX:
            self.probabilities = result if _is_map(result) else None
            scores = args[0] if args else (kwargs or {})["input"]
            self.scores = None
            if self.probabilities is not None:
                self.scores = _scores_of(self.factors, scores, self.running.frame.module)
                self.largest_score = lambda: float(scores.where(scores > UNSEEN, 0).abs().max())
            self.factors = ()
            self.keys_of_probabilities, self.keys = self.keys, ()
        elif func is functional.scaled_dot_product_attention:
            held = self._observe_fused(dict(zip(_FUSED, args, strict=False)) | (kwargs or {}), result)
        elif func is torch.einsum:
            product, arranged = _Einsum.of(args), None
            if product is not None and self.probabilities is not None:
                arranged = product.mixed(self.probabilities, result)
            if arranged is not None:
                held = self._observe_product(*arranged, result)
            elif product is not None and _is_map(result):
                self._keep(product.scored())
        elif func in PRODUCT or func in SUM_WITH_PRODUCT:
            factors = [part for part in (*args, *(kwargs or {}).values()) if isinstance(part, Tensor)][-2:]
            if self.probabilities is not None and _mixes(factors, self.probabilities):
                held = self._observe_product(factors[1], result, -2, result)
            elif _is_map(result):
                self._keep(factors)
        return result if held is None else held

    def _keep(self, factors: Sequence[Tensor]) -> None:
        """Queries (…, L, d) and keys (…, d, L), if the map that they make is one of scores."""
        if factors:
            self.factors, self.keys = factors, (*self.keys[-1:], factors[1].mT)

    def _observe_fused(self, options: dict[str, Any], mixed: Tensor) -> Tensor | None:
        query, key, values = (options[name] for name in _FUSED[:3])
        if query.ndim < 3:
            return None
        shape = (*query.shape[:-1], values.shape[-2])
        ways = _by_queries_and_keys(options)
        self.largest_score = ways[0].largest_score if ways else float
        self.keys_of_probabilities = (key,)
        options = at_least(options, torch.float32)
        answers = partial(_answers, options)
        values = at_least(values, torch.float32)
        maps, others = partial(of_identity, answers, values), partial(of_random, answers, values)
        taken = [part for part in options.values() if isinstance(part, Tensor)]
        return self._observe(maps, shape, values, mixed, Product(values, -2, mixed, -2), taken, ways, others)

    def _observe_product(self, values: Tensor, by_head: Tensor, axis: int, mixed: Tensor) -> Tensor | None:
        """The product of the map with values, as the heads have it and as the model does: positions along an axis."""
        probabilities, self.probabilities = cast("Tensor", self.probabilities), None
        scores, self.scores = self.scores, None
        plain = () if scores is None else scores.plain(_sequences(self.running, probabilities.shape))
        product = Product(values, -2, mixed, axis)
        return self._observe(
            lambda: probabilities, probabilities.shape, values, by_head, product, [probabilities, values], plain
        )

    def _observe(
        self,
        maps: Callable[[], Tensor],
        shape: Sequence[int],
        values: Tensor,
        mixed: Tensor,
        product: Product,
        taken: Sequence[Tensor],
        ways: Sequence[PlainAttention] = (),
        others: Callable[[], _Pair] | None = None,
    ) -> Tensor | None:
        # taken: What T is made of once the model has run.
        # others: Random values and what the fused function makes of them; None where the map itself is there.
        frame, exact, largest_score = self.running.frame, self.running.exact, self.largest_score
        keys, self.keys_of_probabilities = self.keys_of_probabilities, ()
        sequences = _sequences(self.running, shape)
        versions = [_version(part) for part in taken]

        def by_head(pair: _Pair) -> _Pair:
            # Some flatten sequences and heads into one dimension before they multiply.
            first, second = (part.reshape(sequences, -1, *part.shape[-2:]) for part in pair)
            return first, second

        probed = None if others is None else cache(lambda: by_head(others()))

        def kept(found: Observation) -> Observation:
            def operator(units: Units) -> Operator:
                if [_version(part) for part in taken] != versions:
                    raise ModelError(
                        f"Mixer {frame.name} must leave what its attention took as it was, got a map, queries, keys, "
                        "values or a mask that are changed in place after it. Change a copy."
                    )
                return found.operator(units)

            return replace(found, operator=operator)

        def observation() -> Observation:
            model = by_head((values, mixed))
            whole = (sequences, math.prod(shape[:-2]) // sequences, *shape[-2:])
            window = _window(frame.module)
            for way in ways if window is None and whole[2] == self.running.length else ():
                if probed is None:
                    difference = way.explained_maps(maps().reshape(whole), exact=exact)
                else:
                    difference = way.explained(*(probed() if exact else model), exact=exact)
                if difference is not None:
                    # Its queries and keys are copies.
                    return way.observation(frame.name, *model, frame.module, difference)
            found = observed_mixing(
                frame.name,
                Mixing([lambda: maps().reshape(whole)], cast("tuple[int, int, int, int]", whole)),
                *model,
                module=frame.module,
                seen=None,
                window=window,
                # What has entries for the sequences and positions of the map.
                keys=[
                    part.reshape(sequences, -1, *part.shape[-2:])
                    for part in keys
                    if part.shape[-2] == whole[-1] and part.shape[:-2].numel() % whole[0] == 0
                ],
                text=self.running.length,
                probed=probed,
                largest_score=largest_score,
            )
            return kept(found)

        return self.record(observation, product)


def _sequences(running: ModuleStack, shape: Sequence[int]) -> int:
    """Sequences of a map, whose first dimension counts sequences, or those times heads."""
    frame = running.frame
    sequences = sequences_in((frame.args, frame.kwargs), running.sequences, running.length)
    is_by_both = len(shape) > 3 and sequences > 1
    return shape[0] if is_by_both or shape[0] % sequences else sequences


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place, where that is counted."""
    return -1 if tensor.is_inference() else tensor._version


def _is_map(result: object) -> bool:
    return isinstance(result, Tensor) and result.ndim in (3, 4) and result.shape[-1] == result.shape[-2] > 1


def _mixes(factors: Sequence[Tensor], probabilities: Tensor) -> bool:
    """Whether a product is that of a map and values, of as many heads or of one head for all (multi-query)."""
    if len(factors) != 2 or not _is_same(factors[0], probabilities):
        return False
    heads, stored = probabilities.shape[:-2], factors[1].shape[:-2]
    return math.prod(stored) == math.prod(heads) or stored == (*heads[:-1], 1)


def _is_same(factor: object, probabilities: Tensor) -> bool:
    if not isinstance(factor, Tensor) or factor.numel() != probabilities.numel():
        return False
    if factor.shape[-2:] != probabilities.shape[-2:]:
        return False
    if factor.data_ptr() == probabilities.data_ptr():
        return True
    return torch.equal(factor.reshape(probabilities.shape), probabilities.to(factor.dtype))


class _Einsum(NamedTuple):
    """An einsum of two tensors."""

    labels: tuple[str, str]
    tensors: tuple[Tensor, Tensor]
    output: str

    @classmethod
    def of(cls, args: tuple[Any, ...]) -> Self | None:
        """What is called with an equation that names its output; None where it is called otherwise."""
        operands = cast("Sequence[Tensor]", args[1] if len(args) == 2 else args[1:])
        if not isinstance(args[0], str) or len(operands) != 2 or "->" not in args[0]:
            return None
        inputs, _, output = args[0].replace(" ", "").partition("->")
        first, _, second = inputs.partition(",")
        return cls((first, second), (operands[0], operands[1]), output)

    def mixed(self, probabilities: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor, int] | None:
        """Values and what a map mixes of them, (S, H, L, P), and where that has its positions; None if it does not."""
        # Such as "bnij,jbnd->ibnd".
        at = next((at for at in (0, 1) if _is_same(self.tensors[at], probabilities)), None)
        if at is None:
            return None
        by_map, by_value = self.labels[at], self.labels[1 - at]
        *heads, query, key = by_map
        channels = [label for label in by_value if label not in by_map]
        # Values without the dimension of heads are one head for all (multi-query).
        stored = [label for label in heads if label in by_value or label == heads[0]]
        if len(channels) != 1 or {*stored, key} != set(by_value) - {*channels}:
            return None
        if {*heads, query, *channels} != set(self.output):
            return None
        values = torch.einsum(f"{by_value}->{''.join((*stored, key, *channels))}", self.tensors[1 - at])
        if len(stored) < len(heads):
            values = values[:, None]
        by_head = torch.einsum(f"{self.output}->{''.join((*heads, query, *channels))}", mixed)
        return values, by_head, self.output.index(query) - len(self.output)

    def scored(self) -> Sequence[Tensor]:
        """Queries (…, L, d) and keys (…, d, L) that are multiplied to a map; none where their labels are no such."""
        # Such as "ibnd,jbnd->bnij".
        *heads, query, key = self.output
        at = int(query in self.labels[1])
        by_query, by_key = self.labels[at], self.labels[1 - at]
        summed = "".join(label for label in by_query if label in by_key and label not in self.output)
        if not summed or {*by_query} - {*heads, *summed} != {query} or {*by_key} - {*heads, *summed} != {key}:
            return ()
        queries, keys = (
            torch.einsum(f"{own}->{''.join(one for one in heads if one in own)}{position}{summed}", self.tensors[place])
            for own, position, place in ((by_query, query, at), (by_key, key, 1 - at))
        )
        return queries.flatten(-len(summed)), keys.flatten(-len(summed)).mT


@dataclass(frozen=True, eq=False)
class _Scores:
    """What a softmax took, as a product of queries and keys and its last row, which sees all keys."""

    query: Tensor  # (…, L, d)
    key: Tensor  # (…, L, d)
    last: Tensor  # (…, L)
    scale: float

    def plain(self, sequences: int) -> Sequence[PlainAttention]:
        """Queries and keys alone, and with what the last row has beside their product as a bias of the keys."""
        if any(part.shape[:-2].numel() % sequences for part in (self.query, self.key)):
            # One factor for all sequences, such as embeddings of positions.
            return ()
        query, key = (part.reshape(sequences, -1, *part.shape[-2:]) for part in (self.query, self.key))
        last = self.last.reshape(sequences, -1, self.last.shape[-1]).to(query.dtype)
        if last.shape[1] != query.shape[1] or query.shape[1] % key.shape[1]:
            return ()
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        product = (query[:, :, -1:] @ keys.mT)[:, :, 0] * self.scale
        bias = relative_to_last(last - product)
        return tuple(PlainAttention.of(query, key, self.scale, None, key_bias=beside) for beside in (None, bias))


def _scores_of(factors: Sequence[Tensor], scores: Tensor, module: nn.Module) -> _Scores | None:
    """What is known of masked scores from the last product before them; its scale is a guess that T u must confirm."""
    if is_low(scores) or len(factors) != 2 or any(part.ndim not in (3, 4) for part in factors):
        return None
    query, key = factors[0], factors[1].mT
    if query.shape[-2] != scores.shape[-1] or key.shape[-2] != scores.shape[-1]:
        return None
    scale = next((getattr(module, name) for name in SCALES if hasattr(module, name)), query.shape[-1] ** -0.5)
    return _Scores(query, key, scores[..., -1, :].clone(), float(scale))


def _by_queries_and_keys(options: dict[str, Any]) -> Sequence[PlainAttention]:
    """Queries and keys of a fused call that is causal, and the bias of keys that its mask holds."""
    query, key = cast("Tensor", options["query"]), cast("Tensor", options["key"])
    mask, bias = options.get("attn_mask"), None
    if query.ndim != 4 or key.ndim != 4 or query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        return ()
    if isinstance(mask, Tensor) and mask.is_floating_point() and mask.ndim == 4:
        last = mask[..., -1, :]
        bias = relative_to_last(at_least(last, torch.float32)) if bool(last.any()) else None
        mask = mask - last[..., None, :]
    if (mask is None and not options.get("is_causal")) or not is_band(mask, query.shape[2], None):
        return ()
    scale = options.get("scale")
    query, key = at_least((query, key), torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return (PlainAttention.of(query, key, scale, None, key_bias=bias),)


def _answers(options: dict[str, Any], values: Tensor) -> Tensor:
    """What the same fused call makes of other values."""
    others: dict[str, Any] = {**options, "value": values}
    with arithmetic_of(values):
        return functional.scaled_dot_product_attention(**others)


def _window(module: nn.Module) -> int | None:
    if window := getattr(module, "sliding_window", None):
        return int(window)
    # GPT-Neo keeps its window only as a mask over all positions.
    mask = getattr(module, "bias", None)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 4:
        return None
    window = int(mask[0, 0, -1].sum())
    return window if 0 < window < mask.shape[-1] else None
