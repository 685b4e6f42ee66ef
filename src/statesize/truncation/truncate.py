"""Is a memory of the size of ESS enough? A model over documents, whole and with every mixer cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any

from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.select import find_mixers, is_own_code, lost_mixers
from statesize.check import require_count, require_real
from statesize.codes import Code, Note, joined
from statesize.errors import ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import reporting
from statesize.io.steps import Steps
from statesize.measurement.settings import LEAST_TOKENS, Settings, all_but, checked_cuts, given_settings
from statesize.models.capture import capture
from statesize.models.load import measured_model
from statesize.report.names import by_reason
from statesize.texts.inputs import Inputs, given_sequences, inputs_of, tokens_sha256, whole_texts
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.choices import RULES
from statesize.truncation.cutting import INSIDE, Cutting
from statesize.truncation.memory_size import NEGLIGIBLE, TruncationResult
from statesize.truncation.pieces import Piece, cut_ids, pieces_of
from statesize.truncation.plan import Mixer, mean_sizes, planned_runs
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import Documents, Keep, Scores, check_head, finish, kept_parts
from statesize.truncation.traced import OwnLayers

DOCUMENTS, TOKENS = 12, 512
"""Pieces of text that are read by default, and the tokens of each."""
_LOOK = 128
"""Tokens by which layers of libraries are found: their kinds do not go with the length of a text."""
_NO_T = Note(Code.NOT_CUT, "it has no T")
_AROUND = Note(Code.NOT_CUT, "it mixes positions around mixers inside it")


@on_cpu_by_default
def truncate(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    documents: int = DOCUMENTS,
    tokens: int = TOKENS,
    at: float = NEGLIGIBLE,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    name: str | None = None,
    output: str | PathLike[str] | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> TruncationResult:
    """Measure what a text loses if every mixer carries only k numbers per channel past a cut: the truncation test.

    The model runs over each document whole, and again with H_i = T[i:, :i] of all heads and channels at once replaced
    by one of rank k, everything behind computed from that. k is c times the entropy-ESS of each head. The best basis,
    with hindsight, knows the queries of the future, so a memory hardly does with less. Beside it stand choices that
    know the past only, with sizes of this text and with those of other texts. Numbers are of values; keys are kept.

    Short convolutions inside mixers stay whole, and so do layers without a T and those that mix positions around other
    mixers: `TruncationResult.whole` names them.

    Args:
        model: A causal language model, or what `load` takes.
        inputs: Token ids, texts or files, or a mapping to the model's arguments, such as what an encoder reads beside
            `decoder_input_ids`; None reads the bundled documents. Frames, of which no next token is predicted, have no
            loss that could be compared.
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        at: Share of the divergence without context that counts as nothing lost.
        tokenizer: The model's, for texts.
        axis: The dimension of positions, as for `statesize.capture`.
        name: Name of the model, for the result.
        output: JSON file for the result. Finished documents are kept beside it until then, and are not read again.
        on_progress: Called as (done, total, what, seconds left) after each document.
        settings: `positions`, where each piece is cut (in its middle by default); others do not act here.

    Returns:
        Losses, shares of the context's worth, and divergences.

    Raises:
        InputError: A cut outside the pieces, no text of `tokens` tokens, or positions without token ids.
        ModelError: No mixer can be cut.

    Example:
        >>> result = truncate("recall-gla", [[7, 1, 2, 3, 9, 4] * 8], documents=1, tokens=32)
        >>> [round(row.scale, 2) for row in result.rows if row.rule == "ess"]
        [0.5, 1.0, 2.0]
    """
    wanted, length = require_count("documents", documents), require_count("tokens", tokens, least=LEAST_TOKENS)
    settings = given_settings(settings).without("truncate", *all_but("positions"))
    cuts, negligible = checked_cuts(settings, length), require_real("at", at, above=0, below=1)
    model, tokenizer, name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    texts = whole_texts(None, tokenizer) if inputs is None else given_sequences(model, inputs, tokenizer, axis)
    test = CutTest.of(model, pieces_of(list(texts), length, wanted, tokenizer), cuts, axis)
    about = tokens_sha256([piece for _, piece in test.pieces]), cuts, [(one.name, one.scales) for one in RULES.values()]
    with kept_parts(output, model, *about) as kept, reporting(on_progress, f"cutting {name}") as report:
        made = [CutDocument.of(one) for one in test.documents(kept, report)]
    result = test.result(name, made, negligible)
    finish(output, result)
    return result


@dataclass(eq=False)
class CutTest:
    """A model and what it reads."""

    model: nn.Module
    pieces: list[Piece]  # each with the number of its text
    cuts: tuple[int, ...]  # positions at which each is cut
    whole: dict[str, Note]  # mixers that are left as they are, with the reason, by name
    in_part: dict[str, Note]  # mixers that mix by more than what is cut, with what that is, by name
    own: OwnLayers
    shared: tuple[tuple[str, ...], ...]  # those that read one cache, for each cache of several
    unmoved: set[str] = field(default_factory=set[str], init=False)  # whose queries nothing moves behind a cut
    mixers: tuple[str, ...] = field(default=(), init=False)  # names of those that are cut
    _sure: bool = field(default=False, init=False)  # whether runs behind a cut were seen to be those of the model
    # A single piece is read once.
    _last: tuple[int, int, Cutting, Tensor] | None = field(default=None, init=False)

    @classmethod
    def of(cls, model: nn.Module, pieces: list[Piece], cuts: tuple[int, ...], axis: int | None = None) -> CutTest:
        """Find what can be cut, in a run over the first piece."""
        parts, first = named_parts(model), pieces[0][1]
        if not any(is_own_code(part) for _, part in parts):
            first = first[:_LOOK] if isinstance(first, Tensor) else first.beginning(min(len(first), _LOOK))
        inputs, axis = inputs_of(first)
        captured = capture(model, inputs, axis=axis)
        found, in_part = captured.own_mixing, dict[str, Note]()
        whole = dict.fromkeys(found.derivatives, _NO_T)
        whole |= dict.fromkeys([name for name, layer in found.layers.items() if layer.held], _AROUND)
        for item in captured:
            item.forget()
            if (part := [one for one in item.notes if one.code is Code.PART]) and item.name not in whole:
                in_part[item.name] = Note(Code.NOT_CUT, joined(part))
        whole |= captured.skipped
        named = {name or type(part).__name__: part for name, part in parts}
        declared = {name: part for name, part in find_mixers(parts).items() if name not in whole}
        # Those that say what they mix, and mix by a method.
        by = "values", "mixed_values"
        methods = {
            name: part for name, part in declared.items() if all(callable(getattr(part, one, None)) for one in by)
        }
        traced = {name: named[name] for name in (*found.layers, *declared) if name not in whole | methods}
        own = OwnLayers(methods, traced, found)
        return cls(model, pieces, cuts, whole, in_part, own, tuple(dict.fromkeys(captured.readers.values())))

    def documents(self, kept: Keep, report: Callable[..., None]) -> list[dict[str, Any]]:
        """What `measured` gives of all pieces at all cuts, as JSON values; sizes of all are measured before."""
        places = [(index, cut) for index in range(len(self.pieces)) for cut in self.cuts]
        run, sizes = Documents(kept, report, Steps(dict.fromkeys(("sizes", "cut"), len(places)))), dict[Any, Any]()
        for index, cut in places:
            found = run.made("sizes", f"{index:06d}-{cut}", partial(self._sizes, index, cut))
            sizes[index, cut] = {one: Mixer(**values) for one, values in found["mixers"].items()}
            self.whole |= {one: Note.from_json(note) for one, note in found["whole"].items()}
            self.unmoved.update(found["unmoved"])
        self.mixers = tuple(sizes[places[0]])
        made: list[dict[str, Any]] = []
        for index, cut in places:
            own = self.pieces[index][0]
            others = [sizes[other, cut] for other, (text, _) in enumerate(self.pieces) if text != own]
            measured = partial(self.measured, index, cut, sizes[index, cut], others)
            made.append(run.made("cut", f"{index:06d}-{cut}", measured))
        return made

    def _read(self, index: int, cut: int, mixers: dict[str, Mixer]) -> tuple[Cutting, Tensor]:
        if self._last is None or self._last[:2] != (index, cut):
            forward = Forward.of(self.model, *inputs_of(self.pieces[index][1]))
            self._last = None
            cutting = Cutting(forward, cut, self.own, self.whole, self.unmoved, mixers)
            logits = cutting.read(compare=not self._sure)
            if inside := [name for name, note in self.whole.items() if note is INSIDE]:
                # What cannot be replaced where it is computed may be so in a trace.
                named = dict(named_parts(self.model))
                self.own = replace(self.own, traced={**self.own.traced, **{name: named[name] for name in inside}})
                for name in inside:
                    del self.whole[name]
                return self._read(index, cut, mixers)
            self._last = index, cut, cutting, logits
            self._sure = cutting.behind.sure
        return self._last[2:]

    def _sizes(self, index: int, cut: int) -> dict[str, Any]:
        """What the whole run shows of the mixers of one piece."""
        given = self.pieces[index][1]
        cutting, logits = self._read(index, cut, {})
        check_head(self.model, logits, cut_ids(given, cut))
        uncalled = Note(Code.NOT_CUT, "its forward does not call its mixed_values")
        self.whole |= dict.fromkeys(self.own.by_method.keys() - cutting.mixers.keys() - self.whole.keys(), uncalled)
        if not cutting.mixers:
            causes = (f"{names}: {reason.removesuffix('.')}." for names, reason in by_reason(self.whole).items())
            raise ModelError(f"No mixer of {type(self.model).__name__} can be cut. {' '.join(causes)}")
        # Where layers share a cache each chooses for itself, so what it must hold for all of them is in no run.
        mixers = {name: replace(one, joint=None) if self.shared else one for name, one in cutting.mixers.items()}
        whole = {name: note.to_json() for name, note in self.whole.items()}
        return {"mixers": mixers, "whole": whole, "unmoved": [*self.unmoved]}

    def measured(self, index: int, cut: int, mixers: dict[str, Mixer], others: list[dict[str, Mixer]]) -> CutDocument:
        """All runs of one piece at one cut, given what its whole run, and those of other texts, showed."""
        text, given = self.pieces[index]
        cutting, logits = self._read(index, cut, dict(mixers))
        scores, runs = Scores(logits, cut_ids(given, cut)), planned_runs(mixers, others)
        made = zip(runs, map(scores.of, cutting.logits(runs)), strict=True)
        every = tuple(CutRun(run.rule.name, run.scale, run.kept, *found) for run, found in made)
        entropy, most, inputs, stored = mean_sizes(mixers)
        sizes = entropy, most, inputs, math.nan if self.shared else stored
        return CutDocument(index, len(given), cut, scores.loss, *sizes, every, text)

    def result(self, name: str, documents: Sequence[CutDocument], at: float = NEGLIGIBLE) -> TruncationResult:
        """What these documents show."""
        whole, unmoved = self.in_part | lost_mixers(self.whole, self.mixers), tuple(sorted(self.unmoved))
        return TruncationResult(name, tuple(documents), whole, len(self.mixers), at, unmoved, self.shared)
