"""What the model's own cache holds for a mixer at the end of one sequence."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import is_a
from statesize.adapters.models.precision import stored_dtype
from statesize.codes import Code, Note

SHORT_CONVOLUTION = "short convolution"
# They compute in float32 what they store, whatever the dtype of their weights.
_IN_SINGLE = (
    "InklingShortConvolution",
    "Inkling2ShortConvolution",
    "Inkling2DynamicShortConvolution",
    "Dots3NoteTextIndexer",
)
# Their caches hold as many inputs of a short convolution as it has taps; the next step needs one less.
_KEEP_ALL_TAPS = ("transformers", "fla", "mamba_ssm", "xlstm")


# Numbers that caches hold beside what kernels keep: half of each value of the token before, or that token, with which
# each is mixed.
_BESIDE: dict[str, Callable[[Any], int]] = {
    "Inkling2DynamicShortConvolution": lambda part: part.static_weight.numel(),
    "ZayaCCAProjection": lambda part: part.v_proj_delayed.out_features,
    "RwkvSelfAttention": lambda part: part.config.hidden_size,
    "RWKV6Attention": lambda part: part.hidden_size,
    "RWKV7Attention": lambda part: part.hidden_size,
}
UNEVEN = Note(
    Code.COUNTED,
    "Some of its units read the same input, but not as many each: totals count what they read more than once.",
)
"""The note of a mixer whose units share what is stored, but form no groups."""


class AttentionCache(NamedTuple):
    """The stored inputs of attention over a text, by the names of the fields of an `Observation`."""

    groups: int
    order: tuple[int, ...]
    stored_channels: int
    notes: tuple[Note, ...]  # what is said of heads that share an input in no groups
    state_bytes: int
    key_bytes: int  # without those that are values too


def attention_cache(
    module: nn.Module, keys: Iterable[Tensor], values: Tensor, readers: int, state_size: int | None
) -> AttentionCache:
    """What a module of attention stores of values (S, K, L, P), of which `readers` query heads read as many each."""
    # keys: What may be its keys, (S, K, L, d); the largest counts, and without any they are taken to be as values.
    # state_size: How many earlier positions may be seen at most, or None for all.
    count, channels, beside = values.shape[1], values.shape[-1], 0
    alike = _first_alike(values)
    stored, order = grouped_by(alike)
    notes, each = (UNEVEN,) if len(set(alike)) < stored else (), readers // count
    if hasattr(module, "expand_kv"):
        # Multi-head latent attention: the latent of which keys and values of all heads are made, and the rotated part
        # of the keys.
        latent = cast("Any", module)
        stored, order, notes, channels = 1, (), (), int(latent.kv_lora_rank)
        numbers = channels + int(latent.qk_rope_head_dim)
    elif is_a(module, ("XLNetRelativeAttention",)):
        # Its memory is of hidden states, of which it makes keys and values anew.
        numbers = int(cast("Any", module).d_model)
    elif is_a(module, ("FalconAttention",)):
        # It stores what it has copied for further queries.
        own = cast("Any", module)
        numbers = 2 * (readers if own.new_decoder_architecture else int(own.num_kv_heads)) * channels
    else:
        held = _distinct_numbers(values, alike)
        beside = max(map(_distinct_numbers, keys), default=held)
        if not type(module).__module__.startswith("transformers.") and bool(values.any()):
            # Absorbed multi-head latent attention, or one tensor as keys and values; caches of transformers hold both.
            ends = (end for key in keys for end in (key[..., :channels], key[..., -channels:]))
            beside -= held if any(_are_proportional(end.to(values), values) for end in ends) else 0
        numbers = held + beside
    # As many positions of the text as the model's own cache keeps, or else as may be seen.
    kept = _cache_bound(module, math.inf if state_size is None else state_size)
    # Some layers read the cache of an earlier one.
    kept = 0 if getattr(module, "is_kv_shared_layer", False) else int(min(values.shape[2], kept))
    size = kept * stored_dtype(module).itemsize
    groups = stored if stored < readers else 0
    order = tuple(head * each + reader for head in order for reader in range(each))
    return AttentionCache(groups, order, channels, notes, numbers * size, beside * size)


def _are_proportional(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same but for a factor, such as a scale of scores."""
    if tensor.shape != other.shape or not bool(tensor.any()):
        return False
    return torch.allclose(tensor * other.abs().max(), other * tensor.abs().max())


def grouped_by(inputs: Sequence[Hashable]) -> tuple[int, tuple[int, ...]]:
    """The number of groups of as many units that read one input, and their units if these are not consecutive."""
    # As many groups as units where there are none such.
    count, places = len(inputs), {source: place for place, source in enumerate(dict.fromkeys(inputs))}
    order = sorted(range(count), key=lambda unit: places[inputs[unit]])
    readers = set(Counter(inputs).values())
    if len(readers) == 1:
        return len(places), () if order == [*range(count)] else tuple(order)
    runs = [0, *(unit for unit in range(1, count) if inputs[unit] != inputs[unit - 1])]
    even = count % len(runs) == 0 and runs == [*range(0, count, count // len(runs))]
    return len(runs) if even else count, ()


def _first_alike(stored: Tensor) -> list[int]:
    """The first of the heads (S, K, L, d) that hold the same as each."""
    # Heads that differ do so at the last position already, nearly always.
    last = cast("Tensor", torch.unique(stored[:, :, -1].transpose(0, 1), dim=0, return_inverse=True)[1])
    first: list[int] = []
    for head, place in enumerate(cast("list[int]", last.tolist())):
        others = (other for other in dict.fromkeys(first) if last[other] == place)
        first.append(next((other for other in others if torch.equal(stored[:, other], stored[:, head])), head))
    return first


def _distinct_numbers(stored: Tensor, alike: Sequence[int] | None = None) -> int:
    """Numbers per position of the heads (S, K, L, d) that are not copies of others, made for further queries."""
    # Zeros tell nothing.
    heads = len(set(alike or _first_alike(stored))) if bool(stored.any()) else stored.shape[1]
    return heads * stored.shape[-1]


def _cache_bound(module: nn.Module, other: float) -> float:
    """How many positions the cache of a model holds for a module; `other` where only its window tells."""
    names = [kind.__module__ for kind in type(module).__mro__]
    file = next((name for name in names if name.startswith("transformers.models.")), None)
    index = getattr(module, "layer_idx", getattr(module, "layer_id", None))
    if file is None or index is None:
        # The cache of fla keeps the last position of a window too, which the next step pushes out.
        return other + type(module).__module__.startswith("fla.")
    library: Any = sys.modules["transformers.cache_utils"]
    own = [kind for kind in vars(sys.modules[file]).values() if isinstance(kind, type) and kind.__module__ == file]
    config = getattr(module, "config", None)
    if config is None or any(issubclass(kind, library.DynamicCache) for kind in own):
        # A cache that a model's file makes for itself, as MiniMax does, is told no configuration, so no window.
        return math.inf
    try:
        layers = library.DynamicCache(config=config).layers
    except AttributeError:
        # A configuration without a number of layers, such as that of BLT.
        return math.inf
    window = getattr(layers[index], "sliding_window", None) if index < len(layers) else None
    return math.inf if window is None else window - 1


def convolution_bytes(module: nn.Module, channels: int, taps: int) -> int:
    """Bytes that the cache holds for a short convolution of a module: the last inputs of each channel."""
    keeps_all = type(module).__module__.split(".")[0] in _KEEP_ALL_TAPS
    if not keeps_all or is_a(module, ("RecurrentGemmaRecurrentBlock",)):
        taps -= 1
    if is_a(module, ("ZayaCCAProjection",)):
        # Another convolution follows, and both go on from the inputs of the first.
        taps = int(cast("Any", module).conv_kernel_size)
    return channels * taps * _element_size(module)


def bytes_beside(module: nn.Module, length: int, counted: Collection[nn.Module] = ()) -> int:
    """Bytes that the cache holds for a mixer beside what its kernels keep of a text, without those of some modules."""
    beside, elsewhere = 0, {inner for part in counted for inner in part.modules()}
    for part in module.modules():
        if part in elsewhere:
            continue
        for convolution in short_convolutions(part):
            if convolution not in elsewhere:
                taps = convolution.dilation[0] * (convolution.kernel_size[0] - 1) + 1
                beside += convolution_bytes(part, convolution.groups, taps)
        for kind, numbers in _BESIDE.items():
            beside += numbers(part) * _element_size(part) if is_a(part, (kind,)) else 0
        if is_a(part, ("ForgettingAttention",), "fla"):
            # The logarithm of each head's gate at each position.
            attention = cast("Any", part)
            beside += min(length, attention.window_size or length) * attention.num_heads * torch.float32.itemsize
        if type(part).__name__.endswith("Indexer"):
            beside += length * _indexed_bytes(part)
    return beside


def short_convolutions(module: nn.Module) -> list[nn.Conv1d]:
    """The depthwise convolutions that a module holds itself."""
    convolutions = (part for part in module.children() if isinstance(part, nn.Conv1d))
    return [part for part in convolutions if part.groups == part.in_channels > 1]


def _indexed_bytes(indexer: nn.Module) -> int:
    """Bytes of one position of the keys by which a sparse attention chooses positions."""
    heads, positions = 1, 0
    if is_a(indexer, ("Qwen4ExpTextQSAIndexer",)):
        # Its keys are rotated anew in each step, by three positions each.
        heads, positions = cast("Any", indexer).index_kv_heads, 3 * torch.int64.itemsize
    width = getattr(indexer, "index_head_dim", getattr(indexer, "head_dim", 0))
    return heads * width * _element_size(indexer) + positions


def _element_size(module: nn.Module) -> int:
    return torch.float32.itemsize if is_a(module, _IN_SINGLE) else stored_dtype(module).itemsize
