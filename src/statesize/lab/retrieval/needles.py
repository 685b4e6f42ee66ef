"""`statesize.lab.needles`: does a model find what was said some tokens ago, and which heads carry it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters import capture
from statesize.adapters.captured import Captured
from statesize.adapters.models.held import device_of, logits_of, measuring
from statesize.check import refuse, require_count, whole_number
from statesize.errors import InputError
from statesize.io.progress import Bars
from statesize.lab.retrieval.layer import LayerNeedles, joined, layer_of
from statesize.lab.retrieval.result import Needles
from statesize.lab.trends.series import trend_facts
from statesize.models.load import measured_model
from statesize.spectra.spectrum import effective_rank
from statesize.texts.inputs import Inputs, begun_excerpts, whole_texts
from statesize.texts.tokens import AnyTokenizer, beginning_id, supported_tokenizer

DEPTHS, CONTEXT, FUTURE, EXCERPTS = (16, 64, 192), 256, 32, 32
"""Tokens from needle to question, before the question, and from it on, and pieces of text, by default."""

# Sequences that are captured at once, and bytes that their T may take.
_AT_ONCE, _MOST_BYTES = 8, 2**27
_linalg = cast("Any", torch.linalg)


def needles(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    depths: Sequence[int] = DEPTHS,
    context: int = CONTEXT,
    future: int = FUTURE,
    excerpts: int = EXCERPTS,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int, str], object] | None = None,
) -> Needles:
    """Puts a key and a value into pieces of text, repeats the key, and measures what reaches this question.

    The question stands after `context` tokens; the needle's two tokens replace others, `depth` tokens before
    it, and the value follows the question as it followed the key. For each depth the model reads each piece twice,
    with the needle and, as the control, without. At the cut before the question, H_i = T[i:, :i] with `future` rows,
    each head's entropy-ESS is measured with and without the two columns of the needle, and the share that these have
    in the squares of the row of the question.

    Args:
        model: As for `statesize.profile`.
        inputs: As for `statesize.profile`; None takes all bundled documents as one text.
        depths: Tokens from the needle to the question, 2 to `context` each.
        context: Tokens before the question.
        future: Tokens from the question on, the answer among them.
        excerpts: How many pieces of text are read at most, from all parts of the texts. They do not overlap.
        tokenizer: As for `statesize.profile`.
        name: Likewise.
        seed: Seed of the needles.
        on_progress: Called with how many haystacks were read, how many there are, and the depth, instead of a bar.

    Returns:
        Retrieval and ESS at each depth.

    Raises:
        InputError: If a number is out of range, or the texts are too short for two pieces.
        ModelError: If nothing of the model can be measured, as for `capture`.

    Example:
        >>> retrieved = needles("gla", depths=[4], context=12, future=4, excerpts=2, on_progress=lambda *_: None)
        >>> retrieved.depths, retrieved.layers[0].entropy.shape
        ((4,), (1, 2, 4))
    """
    context, future = require_count("context", context, least=NEEDLE), require_count("future", future, least=NEEDLE)
    checked_depths = _depths(depths, context)
    most = require_count("excerpts", excerpts, least=2)
    tokenizer = supported_tokenizer(tokenizer)
    model, tokenizer, name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    if beginning_id(tokenizer) is not None:
        # A needle stands in no place of the token that begins a text.
        checked_depths = _depths(depths, context - 1)
    pieces = begun_excerpts(whole_texts(inputs, tokenizer), context + future, most, tokenizer)
    if len(pieces) < 2:
        raise InputError(
            f"inputs must have two pieces of {context + future} tokens, got {len(pieces)}. Give longer texts, or a "
            "smaller context."
        )
    made = haystacks(pieces, context, checked_depths, require_count("seed", seed, least=0))
    skipped: dict[str, str] = {}
    right: list[Tensor] = []
    nats: list[Tensor] = []
    measured: list[dict[str, LayerNeedles]] = []
    with Bars(on_progress is not None, lines=False) as bars:
        report = on_progress or bars.begin(f"asking {name} for needles", len(made)).update
        for done, haystack in enumerate(made, 1):
            answered = [_answers(model, tokens, haystack) for tokens in (haystack.needle, haystack.plain)]
            right.append(torch.stack([right_here for right_here, _ in answered]))
            nats.append(answered[1][1] - answered[0][1])
            measured.append(_measured(model, haystack, skipped))
            report(done, len(made), f"depth {haystack.depth}")
    return Needles(
        model=name,
        depths=checked_depths,
        context=context,
        future=future,
        retrieved=torch.stack([right_here[0] for right_here in right]).numpy(),
        guessed=torch.stack([right_here[1] for right_here in right]).numpy(),
        gain=torch.stack(nats).numpy(),
        layers=tuple(joined([one[layer] for one in measured], 0) for layer in measured[0] if layer not in skipped),
        skipped=skipped,
        facts=trend_facts(pieces, {"seed": seed}),
    )


def _depths(values: Sequence[int], context: int) -> tuple[int, ...]:
    numbers = [whole_number(depth) for depth in values]
    known = sorted({number for number in numbers if number is not None and NEEDLE <= number <= context})
    if not known or len(known) < len(numbers):
        refuse("depths", f"different numbers of tokens from {NEEDLE} to {context}, within the context", list(values))
    return tuple(known)


def _answers(model: nn.Module, tokens: Tensor, haystack: Haystack) -> tuple[Tensor, Tensor]:
    """Whether the most probable token after the question is the answer, and the nats that the answer costs, (S,)."""
    right_here: list[Tensor] = []
    with measuring(model):
        for part in torch.split(tokens[:, : haystack.context + 1], _AT_ONCE):
            right_here.append(logits_of(model, part.to(device_of(model)), last=1)[:, 0].double().cpu())
    logits = torch.cat(right_here)
    nats = nn.functional.cross_entropy(logits, haystack.answers, reduction="none")
    return logits.argmax(-1) == haystack.answers, nats


def _measured(model: nn.Module, haystack: Haystack, skipped: dict[str, str]) -> dict[str, LayerNeedles]:
    """What each layer carries across the border, by name."""
    right_here: dict[str, list[LayerNeedles]] = {}
    for first in range(0, len(haystack.answers), _AT_ONCE):
        read = torch.cat([part[first : first + _AT_ONCE] for part in (haystack.needle, haystack.plain)])
        captured = capture(model, read, checks="read" if first else "all")
        for mixer in captured:
            units = [_figures(block, haystack) for block in _blocks(mixer, haystack, len(read))]
            figures = [torch.cat(parts, 1) for parts in zip(*units, strict=True)]
            right_here.setdefault(mixer.name, []).append(
                layer_of(mixer.name, mixer.kind, figures, _joint(mixer, haystack, len(read) // 2))
            )
        skipped |= captured.skipped
    return {name: joined(parts, 1) for name, parts in right_here.items()}


def _figures(block: Tensor, haystack: Haystack) -> tuple[Tensor, ...]:
    """What `LayerNeedles` holds of some units, (S, U) each, from H_i (2S, U, F, i) with the needle and without."""
    block, plain = block.chunk(2)
    rest = block.clone()
    rest[..., haystack.place] = 0
    return _entropy(block), _entropy(rest), _share(block, haystack), _share(plain, haystack)


def _entropy(block: Tensor) -> Tensor:
    return effective_rank(_linalg.svdvals(block))


def _share(block: Tensor, haystack: Haystack) -> Tensor:
    """What the columns of the needle have in the squares of the question's row, (S, U)."""
    squares = block[..., 0, :].square()
    return squares[..., haystack.place].sum(-1) / squares.sum(-1).clamp(min=torch.finfo(squares.dtype).tiny)


def _blocks(mixer: Captured, haystack: Haystack, sequences: int) -> Iterator[Tensor]:
    """H_i at the question, of some heads or channels at once, (2S, U, F, i) in float64."""
    count = max(1, _MOST_BYTES // (8 * sequences * haystack.needle.shape[1] ** 2))
    for first in range(0, mixer.units, count):
        T = mixer.units_operator(slice(first, min(first + count, mixer.units))).to(torch.float64).dense()
        yield T[..., haystack.context :, : haystack.context].cpu()
    mixer.forget()


def _joint(mixer: Captured, haystack: Haystack, sequences: int) -> Tensor | None:
    """Entropy-ESS of what heads that share a cache carry together, (S, groups); None where none does."""
    if mixer.group is None:
        return None
    T = mixer.group.to(torch.float64).dense()[:sequences, :, haystack.context :, :, : haystack.context]
    mixer.forget()
    return _entropy(T.flatten(-3, -2).cpu())


NEEDLE = 2
"""Tokens of a needle: a key and its value."""


@dataclass(frozen=True, eq=False)
class Haystack:
    """S pieces of text whose key comes again at position `context`; what follows it is the answer.

    Attributes:
        needle: With key and value `depth` tokens before the question, (S, L) int64.
        plain: The same texts as they were there, (S, L) int64.
        answers: The values, (S,) int64.
        context: Tokens before the question.
        depth: Tokens from the key to the question.
    """

    needle: Tensor
    plain: Tensor
    answers: Tensor
    context: int
    depth: int

    @property
    def place(self) -> slice:
        """The positions of the needle."""
        return slice(self.context - self.depth, self.context - self.depth + NEEDLE)


def haystacks(pieces: Sequence[Tensor], context: int, depths: Sequence[int], seed: int) -> list[Haystack]:
    """One haystack a depth, of pieces (L,) of one length; each piece has the same needle at all depths."""
    # Key and value are tokens of the other pieces that this one lacks, so that nothing else in it points to them.
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.nonzero(torch.bincount(torch.cat(list(pieces))))[:, 0]
    pairs: list[Tensor] = []
    for piece in pieces:
        lacking = vocabulary[~torch.isin(vocabulary, piece)]
        if len(lacking) < NEEDLE:
            raise InputError(
                "inputs must have tokens that are in some excerpts and not in others, for keys and values; got the "
                "same tokens in all. Give more or other texts."
            )
        pairs.append(lacking[torch.randperm(len(lacking), generator=generator)[:NEEDLE]])
    drawn, plain = torch.stack(pairs), torch.stack(list(pieces))
    plain[:, context : context + NEEDLE] = drawn
    made: list[Haystack] = []
    for depth in depths:
        haystack = Haystack(plain.clone(), plain, drawn[:, 1], context, depth)
        haystack.needle[:, haystack.place] = drawn
        made.append(haystack)
    return made
