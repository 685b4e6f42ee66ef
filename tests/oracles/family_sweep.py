"""A family of models against three oracles: its own attention maps, impulses inside its mixers, unobserved logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from oracles.module_impulses import (
    difference,
    impulse_matrices,
    impulse_responses,
    kernel_calls,
    module_calls,
    reach,
    relative_error,
)
from oracles.tiny_families import answers, token_ids
from oracles.tiny_settings import CAUSAL_WITH
from torch import Tensor, nn

from statesize import capture
from statesize.adapters import Captured
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.sources import sources_of
from statesize.codes import joined
from statesize.errors import StatesizeError

LENGTH = 23
# Relative to the largest entry, in float32.
TOLERANCE = 1e-5
# Rows of a map have this mean distance in total variation from a uniform one, or they show nothing.
UNEVEN = 0.1
# Recurrences that are functions of a model's file, which are given impulses as values.
KERNELS = {
    "mamba": "mamba_selective_scan",
    "mamba2": "mamba2_chunk_scan",
    "gated delta rule": "torch_chunk_gated_delta_rule",
    "kimi delta attention": "chunk_kimi_delta_attention",
}
MAPPED = ("attention", "sliding attention")
# What they mix depends on the values in one function: tests of their own compare them with a loop.
WITHOUT_PARTS = ("rg-lru",)


@dataclass
class Row:
    """What the sweep found of one family, whose name is its `model_type`, or one of a class beyond the registry."""

    family: str
    model: str = ""  # its class
    status: str = "not built"  # or "measured", "refused" or "wrong"
    mixers: dict[str, int] = field(default_factory=dict[str, int])  # how many layers of each kind were measured
    maps: float | None = None  # largest difference of T from the maps that the model returns, where it returns some
    impulses: float | None = None  # largest difference of T from responses to impulses, where a part carries values
    gated: bool = False  # rows of the responses are compared up to a factor, because an output gate follows
    unchecked: int = 0  # mixers that neither oracle reaches
    logits: float | None = None  # largest difference of the observed logits from those of the model alone
    faithfulness: float | None = None  # the largest one that the package itself states
    unevenness: float | None = None  # the least mean distance of the rows of T from uniform ones
    reason: str = ""  # why it is not measured, or not whole

    def to_dict(self) -> dict[str, Any]:
        return {
            name: float(f"{value:.1e}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }


def sweep(family: str, build: Callable[[], nn.Module]) -> Row:
    """Build a family's tiny model, measure it, and compare."""
    row = Row(family)
    try:
        model, ids = build(), token_ids(1)
        # Some run on what another model hands them only.
        plain = answers(model, ids)
    except Exception as error:  # whatever a version raises that cannot build or run it
        row.reason = _line(error)
        return row
    row.model = type(model).__name__
    try:
        captured = capture(model, ids)
        items = list(captured)
    except StatesizeError as error:
        row.status, row.reason = "refused", _line(error)
        return row
    row.reason = " ".join(
        str(reason) if name in str(reason) else f"{name}: {reason}." for name, reason in captured.skipped.items()
    )
    if family in CAUSAL_WITH:
        row.reason = f"Counts with {CAUSAL_WITH[family]}; by default it sees later positions. {row.reason}".strip()
    row.logits = relative_error(observed_answers(model, ids), plain)
    row.faithfulness = max((item.faithfulness or 0.0 for item in items), default=0.0)
    row.mixers = dict(Counter(item.kind for item in items))
    errors = _compared(row, model, build, items, ids)
    row.unevenness = min(map(_unevenness, items))
    right = all(error <= TOLERANCE for error in errors) and errors and row.logits <= TOLERANCE
    row.status = "measured" if right and row.unevenness >= UNEVEN else "wrong"
    return row


def observed_answers(model: nn.Module, ids: Tensor) -> Tensor:
    """What a model says while every source watches it."""
    with ExitStack() as stack:
        running = stack.enter_context(ModuleStack(named_parts(model), ids.shape[1]).watching())
        for source in sources_of(named_parts(model)):
            stack.enter_context(source(running, lambda make, product=None: None))
        return answers(model, ids)


def _compared(row: Row, model: nn.Module, build: Callable[[], nn.Module], items: list[Captured], ids: Tensor) -> list:
    """The error of each mixer that an oracle reaches: by impulses, else by maps."""
    maps = dict(zip([item.name for item in items if item.kind in MAPPED], attention_maps(build(), ids), strict=False))
    if len(maps) != sum(item.kind in MAPPED for item in items):
        maps = {}
    kernels = {kind: kernel_calls(model, ids, name) for kind, name in KERNELS.items() if kind in row.mixers}
    errors: list[float] = []
    for item in items:
        matrices, by_map = item.operator.dense()[0].float(), maps.get(item.name)
        mapped = by_map is not None and by_map.shape == matrices.shape
        if mapped:
            row.maps = max(row.maps or 0.0, found := relative_error(matrices, by_map))
            errors.append(found)
        if item.kind in kernels:
            responses = impulse_responses(*kernels[item.kind].pop(0))[0]
            by_impulses = (relative_error(matrices, responses.expand_as(matrices)),) * 2
        else:
            by_impulses = None if item.kind in WITHOUT_PARTS else _by_impulses(model, item, ids)
        if by_impulses and not (joined(item.notes) and mapped):
            row.gated = row.gated or by_impulses[0] > TOLERANCE
            row.impulses = max(row.impulses or 0.0, found := min(by_impulses))
            # Maps that a model returns may be scaled after: what it does with impulses decides. Where values are
            # changed before they are mixed, the maps do.
            errors[len(errors) - mapped :] = [found]
        elif by_map is None:
            row.unchecked += 1
    return errors


def _by_impulses(model: nn.Module, item: Captured, ids: Tensor) -> tuple[float, float] | None:
    name, _, number = item.name.partition("@")
    module = model.get_submodule(name) if name != type(model).__name__ else model
    responses = impulse_matrices(module, *module_calls(model, ids, module)[int(number or 0)], item.units)
    covered, sources = reach(responses) if responses else (0, 0)
    # A softmax is linear in values alone.
    several = sources > 1 and item.kind.endswith("attention") and item.kind != "lightning attention"
    return None if covered < 1 or several else difference(item.operator.dense()[0], responses)


def attention_maps(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """The maps (H, L, L) that a model with eager attention returns, of the layers that have square ones."""
    if not hasattr(model, "set_attn_implementation"):
        return []
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=False, output_attentions=True)
    maps = [found for found in (getattr(output, "attentions", None) or ()) if isinstance(found, Tensor)]
    return [found[0].float() for found in maps if found.ndim == 4 and found.shape[2:] == (LENGTH, LENGTH)]


def _unevenness(item: Captured) -> float:
    matrices = item.operator.dense()[0].abs()[:, 5:]
    seen = matrices > 0
    rows = matrices / matrices.sum(-1, keepdim=True).clamp(min=1e-30)
    distance = (rows - seen / seen.sum(-1, keepdim=True).clamp(min=1)).abs().sum(-1) / 2
    # A row that sees a single position is as uneven as one can be.
    return float(torch.where(seen.sum(-1) > 1, distance, 1.0).mean())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
