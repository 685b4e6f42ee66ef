"""T that a trace has read out of a layer, as an Observation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.plain_attention import AttentionCall
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing
from statesize.adapters.models.own_cache import UNEVEN
from statesize.adapters.models.precision import BOUNDS, relative_difference, stored_dtype
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import EXACT, FoundMixer, Observation, Units, random_like
from statesize.adapters.trace.channels import Around, Softmax, TracedMixing
from statesize.adapters.trace.states import Kept
from statesize.adapters.trace.trace import Trace
from statesize.adapters.watch import named_state_size
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.io.text import counted
from statesize.operators import Dense

_IN_SINGLE = Note(Code.ROUNDED, "Its code does not run in float64: its T is that of float32, to 1e-5.")


def mixing_around(around: Around) -> Note | None:
    """The note on mixing of positions around T, which T lacks; None where there is none."""
    sides = zip(around, ("before it (in its values or weights)", "behind it", "beside it"), strict=True)
    outside = [f"a mixing of {others + 1} positions {side}" for others, side in sides if others]
    return Note(Code.PART, f"T is without {' and '.join(outside)}.") if outside else None


def _states(said: float | None, call: ModuleCall, mixing: TracedMixing) -> int | None:
    """The numbers that a layer keeps for a channel, by its class if T keeps no more, or by T; None if unknown."""
    if said == math.inf or not mixing.in_double:
        return said if isinstance(said, int) else None
    kept = _kept(mixing)
    # A class speaks of its recurrence, and T may hold more, such as a convolution behind that.
    is_right = isinstance(said, int) and kept.largest_rank(said) <= said
    return cast("int", said) if is_right else _shown_state(call, kept)


def _kept(mixing: TracedMixing) -> Kept:
    matrix, channels = mixing.matrix, mixing.channels
    order = [*channels.order] or slice(None)
    return Kept(matrix[:, order], channels.groups or matrix.shape[1])


def _shown_state(call: ModuleCall, kept: Kept) -> int | None:
    """The size of a fixed state that T shows; of random numbers where a text has too few different tokens to tell."""
    found = kept.state()
    placed = next(((tensor, axis) for tensor, axis in call.with_positions if tensor.is_floating_point()), None)
    if found is None or placed is None:
        return found
    texts = placed[0].movedim(placed[1], 0).reshape(call.length, call.texts, -1).unbind(1)
    if found < min(len(cast("Tensor", text.unique(dim=0))) for text in texts):
        return found
    other = call.with_tensors(lambda tensor: random_like(tensor, 6) if tensor.is_floating_point() else tensor)
    try:
        again = Trace(other).mixing()
    except ModelError:
        return None
    return None if again is None else _kept(again).state()


def observe(name: str, call: ModuleCall, mixing: TracedMixing, found: FoundMixer | None) -> Observation:
    """Observe what a module mixed and by which T, of the size that an earlier call has shown, if any has."""
    softmax, channels, is_attention = mixing.softmax, mixing.channels, isinstance(call.module, nn.MultiheadAttention)
    # The numbers that a layer's class says it keeps for a channel, inf for every token; None without a word.
    said = math.inf if is_attention else named_state_size(name, call.module)
    if softmax is not None and (attention := _attention(name, call, mixing, softmax)) is not None:
        return attention
    states = _states(said, call, mixing) if found is None else found.state_size
    sequences, units, length, shared = mixing.mixed.shape
    state_size = torch.arange(length)
    if states is not None:
        # A state that has more room than the text has tokens is no cache of these.
        state_size = state_size.clamp(max=states) if states < length - 1 else torch.full((length,), states)
    # Attention stores keys beside the values.
    stored = (channels.groups or units) * shared * (length if states is None else states) * (1 + is_attention)

    def operator(chosen: Units) -> Dense:
        return Dense.of_causal(mixing.matrix[:, chosen], state_size)

    def passed_on(applied: Tensor, chosen: Units) -> Tensor:
        return applied + mixing.offset[:, chosen].to(applied)

    return Observation(
        name=name,
        kind="attention" if is_attention else str(getattr(call.module, "kind", type(call.module).__name__)),
        operator=operator,
        values=mixing.values,
        mixed=mixing.mixed,
        state_size=states,
        state_bytes=None if states is None and said != math.inf else stored * stored_dtype(call.module).itemsize,
        passed_on=passed_on,
        notes=tuple(_notes(call.length, mixing, states, said)),
        groups=channels.groups,
        order=channels.order,
        stored_channels=shared,
        map_bytes=sequences * units * length**2 * torch.float64.itemsize,
        stored=mixing.values,
        forget=mixing.forget,
        in_double=mixing.in_double,
        largest_score=lambda: 0.0 if softmax is None else softmax.largest_score,
        attends=softmax is not None,
    )


def _attention(name: str, call: ModuleCall, mixing: TracedMixing, softmax: Softmax) -> Observation | None:
    """What was mixed by the weights of a softmax themselves; None where T is made of them in another way."""
    (sequences, units, length, shared), heads = mixing.values.shape, softmax.weights.shape[1]
    if units * shared % heads or bool(mixing.offset.any()):
        return None

    def by_head(numbers: Tensor) -> Tensor:
        # Heads of equal T are one unit of a trace.
        return numbers.transpose(2, 3).reshape(sequences, heads, -1, length).transpose(2, 3)

    # Other numbers, the same for heads that read the same ones.
    other = (7 * mixing.values + 1).cos() * random_like(mixing.values[0, 0, :, :1])
    values, answers = by_head(other), by_head(mixing.respond(other).double())
    expected = softmax.weights.double() @ values
    if not relative_difference(answers, expected) <= (EXACT if mixing.in_double else BOUNDS[torch.float32]):
        return None
    attended = AttentionCall(
        name=name,
        module=call.module,
        values=by_head(mixing.values),
        mixed=by_head(mixing.mixed),
        keys=softmax.keys,
        window=softmax.window,
        probed=lambda: (values, answers),
        largest_score=lambda: softmax.largest_score,
    )
    maps = Mixing(lambda: softmax.weights, cast("tuple[int, int, int, int]", tuple(softmax.weights.shape)))
    found = observed_mixing(attended, maps, call.length)
    notes = [*found.notes, *filter(None, [mixing_around(mixing.around)]), *([_IN_SINGLE] * (not mixing.in_double))]
    return replace(found, in_double=mixing.in_double, notes=tuple(notes))


def _notes(length: int, mixing: TracedMixing, states: int | None, said: float | None) -> list[Note]:
    """What limits the numbers of a layer."""
    notes = list[Note]()
    if states is None and said != math.inf:
        # A state must hold less than a quarter of the tokens, and be told from rounding.
        most = max(0, length // 4 - 1) if mixing.in_double else 0
        shown = f"{length} tokens show a state of up to {most} numbers (n take 4n + 4 tokens) if no decay forgets them"
        less = "" if said is None else f"T has a higher rank than its `state_size`, {said:g}; "
        advice = f"{less}set its `state_size`, the numbers that it keeps per channel, math.inf for those of every token"
        notes = [Note(Code.UNKNOWN_SIZE, f"{advice}; {shown}.")]
    if states is not None and states != said:
        notes.append(Note(Code.COUNTED, f"half of the text shows a state of {counted(states, 'number')}, as does all."))
    notes += filter(None, [mixing_around(mixing.around)])
    return notes + [UNEVEN] * mixing.channels.shares_unevenly + [_IN_SINGLE] * (not mixing.in_double)
