"""The test itself: a model over documents, whole and with every mixer cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.select import find_mixers, lost_mixers
from statesize.check import require_count, require_real
from statesize.codes import Code, Note, joined
from statesize.errors import InputError, ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import reporting
from statesize.io.steps import Steps
from statesize.measurement.settings import LEAST_TOKENS, Settings, all_but, checked_cuts, given_settings
from statesize.models.capture import capture
from statesize.models.load import measured_model
from statesize.reduction.cache.result import CachePrices
from statesize.report.names import by_reason
from statesize.texts.documents import vocabulary_size
from statesize.texts.inputs import (
    Arguments,
    Given,
    Inputs,
    given_sequences,
    ids_of,
    inputs_of,
    numbered_excerpts,
    whole_texts,
)
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.curves import MeasuredCurves
from statesize.truncation.cutting import Cutting
from statesize.truncation.result import NEGLIGIBLE, CutDocument, CutRun, TruncationResult
from statesize.truncation.runs import PlannedRun, mean_numbers, runs

DOCUMENTS, TOKENS = 12, 512
"""Pieces of text that are read by default, and the tokens of each."""
_NO_KERNEL = Note(
    Code.NOT_CUT,
    "no kernel in it has a T of all that it mixes; a layer of your own needs methods operator(hidden), values(hidden) "
    "and mixed_values(hidden)",
)


@on_cpu_by_default
def truncate(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    documents: int = DOCUMENTS,
    tokens: int = TOKENS,
    number: int | None = None,
    expected: bool = False,
    curves: CachePrices | Mapping[str, Any] | None = None,
    at: float = NEGLIGIBLE,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    name: str | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> TruncationResult:
    """What a text loses if every mixer carries only k numbers per channel past a cut: the truncation test.

    The model runs over each document whole, and again with H_i = T[i:, :i] of all heads and channels at once replaced
    by its best approximation of rank k, everything behind computed from that. k is c times the entropy-ESS of each head
    in the whole run, c = ¼, ½, 1, 2; beside it as many numbers spread otherwise, and H_i = 0, by which the context's
    worth is known. The best basis knows the queries of the future, so a memory hardly does with less than here.
    Beside it stand choices that know the past only, for c = ¼ … 16: numbers, and whole tokens, by what queries of the
    past would read behind the cut. Numbers are of values; keys are kept.

    Short convolutions inside mixers stay whole, and so do mixers that compute what they mix inside one of their parts,
    and those without a kernel whose T is measured: `TruncationResult.whole` names these mixers.

    Args:
        model: A causal language model, or what `load` takes.
        inputs: Token ids, texts or files, or a mapping to the model's arguments, such as what an encoder reads beside
            `decoder_input_ids`; None reads the bundled documents. Frames, of which no next token is predicted, have no
            loss that could be compared.
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        number: One more run keeps this many numbers of every head.
        expected: Also choose tokens by expected attention; takes about a fifth more time.
        curves: What `cache` returned of the same model and other texts, or its JSON: also give tokens to caches by its
            curves, and choose them by its rule.
        at: Share of the divergence without context that counts as nothing lost.
        tokenizer: The model's, for texts.
        axis: The dimension of positions, as for `statesize.capture`.
        name: Name of the model, for the result.
        on_progress: Called as (done, total, what, seconds left) after each document.
        settings: `positions`, where each piece is cut (in its middle by default); others do not act here.

    Returns:
        Losses, shares of the context's worth, and divergences.

    Raises:
        InputError: A cut outside the pieces, no text of `tokens` tokens, positions without token ids, or curves of
            another model.
        ModelError: No mixer can be cut.

    Example:
        >>> result = truncate("recall-gla", [[7, 1, 2, 3, 9, 4] * 8], documents=1, tokens=32)
        >>> [round(row.scale, 2) for row in result.rows if row.rule == "ess"]
        [0.25, 0.5, 1.0, 2.0]
    """
    test = CutTest(
        model, inputs, documents=documents, tokens=tokens, number=number, expected=expected, curves=curves,
        tokenizer=tokenizer, axis=axis, name=name, settings=settings,
    )  # fmt: skip
    negligible = require_real("at", at, above=0, below=1)
    total, measured = len(test.pieces), list[CutDocument]()
    with reporting(on_progress, f"cutting {test.name}", total) as report:
        for index, (_, given) in enumerate(test.pieces):

            def on_run(what: str, index: int = index) -> None:
                report(index, total, f"text {index + 1} of {total}, {what}", test.steps.first_left)

            measured += [test.measured(index, given, cut, on_run=on_run) for cut in test.cuts]
            report(index + 1, total, f"{tokens} tokens", test.steps.left)
    return test.result(measured, negligible)


class CutTest:
    """A model and what it reads, checked; arguments are those of `truncate`.

    Attributes:
        pieces: Each with the number of its text.
        whole: Mixers that are left as they are, with the reason, by name.
        in_part: Mixers that mix by more than what is cut, with what that is, by name.
        own: Mixers with a method `operator`, by name.
        mixers: Names of those that are cut.
        unmoved: Those without hindsight whose queries nothing that is known moves behind a cut.
        shared: Those that read one cache, for each cache of several.
        steps: The runs of the test: "check", "whole", and those with every mixer cut.
    """

    def __init__(
        self,
        model: nn.Module | str,
        inputs: Inputs | None,
        *,
        documents: int = DOCUMENTS,
        tokens: int = TOKENS,
        number: int | None = None,
        expected: bool = False,
        curves: CachePrices | Mapping[str, Any] | None = None,
        tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
        axis: int | None = None,
        name: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        wanted, length = require_count("documents", documents), require_count("tokens", tokens, least=LEAST_TOKENS)
        self.number = None if number is None else require_count("number", number)
        settings = given_settings(settings).without("truncate", *all_but("positions"))
        self.cuts = checked_cuts(settings, length)
        self.expected, self.curves = expected, None if curves is None else MeasuredCurves.of(curves)
        self.model, tokenizer, self.name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
        texts = whole_texts(None, tokenizer) if inputs is None else given_sequences(self.model, inputs, tokenizer, axis)
        self.pieces = checked_pieces(list(texts), length, wanted, tokenizer)
        self.steps = Steps({"check": 1, "whole": len(self.pieces) * len(self.cuts)})
        inputs, axis = inputs_of(self.pieces[0][1])
        with self.steps.timed("check"):
            captured = capture(self.model, inputs, axis=axis)
            self.whole, self.in_part = dict.fromkeys(captured.without_kernel, _NO_KERNEL), dict[str, Note]()
            for item in captured:
                item.forget()
                if any(one.code is Code.PART for one in item.notes) and item.name.partition("@")[0] not in self.whole:
                    self.in_part[item.name] = Note(Code.NOT_CUT, joined(item.notes))
        self.whole |= captured.skipped
        self.run_difference = captured.run_difference
        self.own = _own_mixers(self.model, self.whole)
        self.mixers, self.unmoved = tuple[str, ...](), set[str]()
        self.shared = tuple(dict.fromkeys(captured.readers.values()))

    def result(self, documents: Sequence[CutDocument], at: float = NEGLIGIBLE) -> TruncationResult:
        """What these documents show."""
        whole = self.in_part | lost_mixers(self.whole, self.mixers)
        reasons = {name: str(note) for name, note in whole.items()}
        facts = reasons, len(self.mixers), self.run_difference, at, tuple(sorted(self.unmoved)), self.shared
        return TruncationResult(self.name, tuple(documents), *facts)

    def measured(
        self,
        index: int,
        given: Given,
        cut: int,
        *,
        on_run: Callable[[str], None] = lambda _: None,
    ) -> CutDocument:
        """All runs of one document at one cut; `on_run` is called before each."""
        model, own, whole = self.model, self.own, self.whole
        forward = Forward.of(model, *inputs_of(given))
        answers = cast("Tensor", ids_of(given))[cut + 1 :]
        cutting = Cutting(forward, cut, own, whole, self.curves, self.unmoved)
        with self.steps.timed("whole"):
            logits, spectra = cutting.logits(), cutting.spectra
        if logits.shape[-1] < max(vocabulary_size(model) or 0, int(answers.max()) + 1):
            head = (
                "Give the model with its head, such as AutoModelForCausalLM loads."
                if hasattr(model, "config")
                else "Add its head."
            )
            raise ModelError(
                f"{type(model).__name__} must return logits over its tokens, got {logits.shape[-1]} numbers per "
                f"position. {head}"
            )
        uncalled = Note(Code.NOT_CUT, "its forward does not call its mixed_values")
        whole |= dict.fromkeys(own.keys() - spectra.keys() - whole.keys(), uncalled)
        expected = functional.log_softmax(logits, -1)
        probabilities = expected.exp()
        if not spectra:
            causes = " ".join(f"{names}: {reason.removesuffix('.')}." for names, reason in by_reason(whole).items())
            raise ModelError(f"No mixer of {type(model).__name__} can be cut. {causes}")
        if self.shared:
            # Each layer chooses for itself, so what the cache must hold for all of them is in no run.
            spectra = {name: replace(one, joint=None) for name, one in spectra.items()}
        budgets = None if self.curves is None else self.curves.checked(spectra).budgets
        every = runs(spectra, self.number, expected=self.expected, budgets=budgets)
        cutting.causal = [run for run in every if run.causal]
        planned = [(_kind(run, cutting.causal), run) for run in every]
        documents, self.mixers = len(self.pieces) * len(self.cuts), tuple(spectra)
        self.steps.costs |= {kind: documents * times for kind, times in Counter(kind for kind, _ in planned).items()}
        made = list[CutRun]()
        for number, (kind, run) in enumerate(planned, 1):
            on_run(f"run {number} of {len(planned)}")
            with self.steps.timed(kind):
                predicted = cutting.logits(run)
            made.append(CutRun(run.rule, run.scale, run.kept, *scored(predicted, expected, probabilities, answers)))
        entropy = mean_numbers(spectra, {name: one.entropy for name, one in spectra.items()})
        ceiling = mean_numbers(spectra, {name: one.most + torch.zeros_like(one.norm) for name, one in spectra.items()})
        inputs = mean_numbers(spectra, {name: one.inputs + torch.zeros_like(one.norm) for name, one in spectra.items()})
        stored = mean_numbers(spectra, {name: one.inputs + torch.zeros(one.stored) for name, one in spectra.items()})
        sizes = entropy, ceiling, inputs, math.nan if self.shared else stored
        loss = scored(logits, expected, probabilities, answers)[0]
        return CutDocument(index, len(given), cut, loss, *sizes, tuple(made), self.pieces[index][0])


def fitting_tokens(texts: Sequence[Given], length: int) -> int:
    """The length of pieces: as asked for where a text has it, else so many that half of the texts are read, or more."""
    lengths = sorted(map(len, texts))
    half = lengths[len(lengths) // 2]
    return length if lengths[-1] >= length or half < LEAST_TOKENS else half


def checked_pieces(
    texts: Sequence[Given], length: int, most: int, tokenizer: AnyTokenizer | None
) -> list[tuple[int, Given]]:
    """Pieces of texts, of so many tokens, with the number of each text; of what has other arguments, the beginning."""
    ids = [given for given in texts if isinstance(given, Tensor)]
    # The same text given several times is one unit.
    first = dict[bytes, int]()
    same = [first.setdefault(one.cpu().numpy().tobytes(), number) for number, one in enumerate(ids)]
    beginnings = [
        (len(ids) + number, given.beginning(length))
        for number, given in enumerate(texts)
        if isinstance(given, Arguments) and len(given) >= length
    ]
    for _, given in beginnings:
        if ids_of(given) is None:
            raise InputError(
                "inputs must hold token ids, of which the test compares the loss of the next, got frames. "
                "Measure these by statesize.profile or statesize.network_ess."
            )
    excerpts = numbered_excerpts(ids, length, most, tokenizer)
    pieces: list[tuple[int, Given]] = [(same[number], piece) for number, piece in excerpts]
    pieces += evenly(beginnings, most)
    if not pieces:
        longest = max(map(len, texts))
        fewer = f", or --max-tokens {longest} (tokens={longest})" if longest >= LEAST_TOKENS else ""
        raise InputError(
            f"inputs must have a text of {length if fewer else LEAST_TOKENS} tokens, got {longest} in the longest. "
            f"Give longer texts{fewer}."
        )
    return pieces[:most]


def _own_mixers(model: nn.Module, whole: dict[str, Note]) -> dict[str, nn.Module]:
    """Mixers with a method `operator` that mix by a method `mixed_values`; others are left whole."""
    own = find_mixers(named_parts(model))
    for name, module in own.items():
        missing = [method for method in ("values", "mixed_values") if not callable(getattr(module, method, None))]
        if missing:
            methods = f"method{'s' if missing[1:] else ''} {' and '.join(f'{method}(hidden)' for method in missing)}"
            whole[name] = Note(Code.NOT_CUT, f"it has no {methods}, of which its forward is made")
    return {name: module for name, module in own.items() if name not in whole}


def _kind(run: PlannedRun, causal: Sequence[PlannedRun]) -> str:
    """Runs of a kind take the same time."""
    if run.causal:
        return "choice without hindsight" if run is causal[0] else "cut without hindsight"
    return "cut by groups" if run.grouped else "cut by heads"


def scored(logits: Tensor, expected: Tensor, probabilities: Tensor, answers: Tensor) -> tuple[float, float]:
    """Mean loss of logits (P, V), and their mean divergence from expected log-probabilities, whose exp is known."""
    predicted = functional.log_softmax(logits, -1)
    loss = functional.nll_loss(predicted, answers.to(logits.device), reduction="none").mean()
    # A dot product would add up so many tokens one after another, and lose four digits.
    return float(loss), float((expected - predicted).mul_(probabilities).sum(-1).mean())
