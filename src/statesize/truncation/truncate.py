"""Is a memory of the size of ESS enough? A model over documents, whole and with every mixer cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward, few_threads
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.select import find_mixers, is_own_code, lost_mixers
from statesize.check import require_count, require_real
from statesize.codes import Code, Note, joined
from statesize.errors import ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import Bar
from statesize.measurement.settings import LEAST_TOKENS, Settings, all_but, checked_cuts, given_settings
from statesize.models.capture import capture
from statesize.models.load import measured_model
from statesize.report.words import by_reason
from statesize.texts.inputs import Inputs, tokens_sha256, whole_texts
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.choices import RULES
from statesize.truncation.cutting import INSIDE, Cutting, Mixer, PlannedRun, mean_sizes, planned_runs
from statesize.truncation.memory_size import NEGLIGIBLE, TruncationResult
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import READ, Documents, Keep, Piece, Scores, check_head, kept_result, pieces_of
from statesize.truncation.traced import Known

DOCUMENTS, TOKENS = 12, 512
"""Pieces of text that are read by default, and the tokens of each."""
_LOOK = 32
"""Tokens by which layers of libraries are found: their kinds do not go with the length of a text."""
_Place = tuple[int, int]
"""The number of a piece, and the cut."""


@on_cpu_by_default
def truncate(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    documents: int = DOCUMENTS,
    tokens: int = TOKENS,
    at: float = NEGLIGIBLE,
    tokenizer: AnyTokenizer | None = None,
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
        inputs: Token ids, texts or files; None reads the bundled documents.
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        at: Share of the divergence without context that counts as nothing lost.
        tokenizer: The model's, for texts.
        name: Name of the model, for the result.
        output: JSON file for the result. Finished documents are kept beside it until then, and are not read again.
        on_progress: Called as (done, total, what) after some documents.
        settings: `positions`, where each piece is cut (in its middle by default); others do not act here.

    Returns:
        Losses, shares of the context's worth, and divergences.

    Raises:
        InputError: A cut outside the pieces, or no text of `tokens` tokens.
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
    test = CutTest.of(model, pieces_of(whole_texts(inputs, tokenizer), length, wanted, tokenizer), cuts)
    about = tokens_sha256([ids for _, ids in test.pieces]), cuts, [(rule.name, rule.scales) for rule in RULES.values()]
    with Bar(f"cutting {name}", on_progress is not None, lines=False) as bar, few_threads(named_parts(model)):
        report = on_progress or bar.update
        return kept_result(
            lambda keep: test.result(name, test.documents(keep, report), negligible), output, model, *about
        )


@dataclass(eq=False)
class CutTest:
    """A model and what it reads."""

    model: nn.Module
    pieces: list[Piece]
    cuts: tuple[int, ...]  # positions at which each is cut
    known: Known  # which mixers are left as they are
    in_part: dict[str, Note]  # mixers that mix by more than what is cut, with what that is, by name
    unmoved: set[str] = field(default_factory=set[str], init=False)  # whose queries nothing moves behind a cut
    mixers: tuple[str, ...] = field(default=(), init=False)  # names of those that are cut
    # What is read twice in a row is read once.
    _last: tuple[list[_Place], Cutting, Tensor] | None = field(default=None, init=False)

    @classmethod
    def of(cls, model: nn.Module, pieces: list[Piece], cuts: tuple[int, ...]) -> CutTest:
        """Find what can be cut, in a run over the first piece."""
        parts, first = named_parts(model), pieces[0][1][None]
        is_own = any(is_own_code(part) for _, part in parts)
        captured = capture(model, first if is_own else first[:, :_LOOK])
        own_mixing, in_part = captured.own_mixing, dict[str, Note]()
        around = [name for name, layer in own_mixing.layers.items() if layer.held]
        whole = dict.fromkeys(own_mixing.derivatives, Note(Code.NOT_CUT, "it has no T"))
        whole |= dict.fromkeys(around, Note(Code.NOT_CUT, "it mixes positions around mixers inside it"))
        for item in captured:
            item.forget()
            if (part := [note for note in item.notes if note.code is Code.PART]) and item.name not in whole:
                in_part[item.name] = Note(Code.NOT_CUT, joined(part))
        whole |= captured.skipped
        named = {name or type(part).__name__: part for name, part in parts}
        declared = find_mixers(parts)
        # Those that say what they mix, and mix by a method.
        by = "values", "mixed_values"
        methods = {
            name: part
            for name, part in declared.items()
            if name not in whole and all(callable(getattr(part, method, None)) for method in by)
        }
        traced = {name: named[name] for name in (*own_mixing.layers, *declared) if name not in whole | methods}
        shared = tuple(dict.fromkeys(captured.readers.values()))
        return cls(model, pieces, cuts, Known(methods, traced, own_mixing, whole=whole, shared=shared), in_part)

    def documents(self, keep: Keep, report: Callable[..., None], tokens: int = READ) -> list[CutDocument]:
        """All pieces at all cuts, in order, so many tokens at once; what the whole runs show of all comes before."""
        places, length = [(at, cut) for cut in self.cuts for at in range(len(self.pieces))], len(self.pieces[0][1])
        # Layers of one's own read texts one after another: what they do with several is not known.
        own = any(is_own_code(part) for _, part in named_parts(self.model))
        run = Documents(keep, report, 2 * len(places), 0 if own else tokens)
        texts, sizes = [(length, cut) for _, cut in places], dict[_Place, dict[str, Mixer]]()
        for place, facts in zip(places, run.made("sizes", texts, lambda some: self._sizes(places[some])), strict=True):
            sizes[place] = {name: Mixer(**values) for name, values in facts["mixers"].items()}
            self.known.whole |= {name: Note.from_json(note) for name, note in facts["whole"].items()}
            self.unmoved.update(facts["unmoved"])
        self.mixers = tuple(sizes[places[0]])
        measured = run.made("cut", texts, lambda some: self._measured(places[some], sizes))
        return sorted(map(CutDocument.of, measured), key=lambda document: (document.document, document.cut))

    def _read(self, some: list[_Place], mixers: list[dict[str, Mixer]]) -> tuple[Cutting, Tensor]:
        if self._last is None or self._last[0] != some:
            self._last = None
            texts, known = torch.stack([self.pieces[at][1] for at, _ in some]), self.known
            cutting = Cutting(Forward.of(self.model, texts), some[0][1], known, mixers)
            logits = cutting.read()
            # What cannot be replaced where it is computed, or is computed otherwise, may be so in a trace.
            uncalled = known.by_method.keys() - cutting.mixers[0].keys()
            again = {name for name, note in known.whole.items() if note is INSIDE} | uncalled
            if again:
                named = dict(named_parts(self.model))
                known.by_method = {name: part for name, part in known.by_method.items() if name not in again}
                known.traced = {**known.traced, **{name: named[name] for name in again}}
                known.whole = {name: note for name, note in known.whole.items() if name not in again}
                return self._read(some, mixers)
            self._last = some, cutting, logits
        return self._last[1:]

    def _sizes(self, some: list[_Place]) -> list[dict[str, Any]]:
        """What the whole run shows of the mixers of some pieces at one cut."""
        cutting, logits = self._read(some, [])
        check_head(self.model, logits, self.pieces[some[0][0]][1])
        if not cutting.mixers[0]:
            causes = (f"{names}: {why.removesuffix('.')}." for names, why in by_reason(self.known.whole).items())
            raise ModelError(f"No mixer of {type(self.model).__name__} can be cut. {' '.join(causes)}")
        whole = {name: note.to_json() for name, note in self.known.whole.items()}
        unmoved = [name for (name, _), rotation in self.known.rotations.items() if rotation is None]
        return [{"mixers": mixers, "whole": whole, "unmoved": unmoved} for mixers in cutting.mixers]

    def _measured(self, some: list[_Place], sizes: dict[_Place, dict[str, Mixer]]) -> list[CutDocument]:
        """All runs of some pieces at one cut, given what the whole runs of all pieces showed."""
        cutting, logits = self._read(some, [sizes[place] for place in some])
        scores = [Scores(whole, self.pieces[at][1][cut + 1 :]) for whole, (at, cut) in zip(logits, some, strict=True)]
        wanted, runs = list[list[PlannedRun]](), [list[CutRun]() for _ in some]
        for at, cut in some:
            others = [sizes[other, cut] for other, (text, _) in enumerate(self.pieces) if text != self.pieces[at][0]]
            wanted.append(planned_runs(sizes[at, cut], others))
        for text, run, cut_logits in cutting.logits(wanted):
            runs[text].append(CutRun(run.rule.name, run.scale, run.kept, *scores[text].of(cut_logits)))
        documents = list[CutDocument]()
        for (at, cut), score, own in zip(some, scores, runs, strict=True):
            entropy, most, inputs, stored = mean_sizes(sizes[at, cut])
            kept = entropy, most, inputs, math.nan if self.known.shared else stored
            text, ids = self.pieces[at]
            documents.append(CutDocument(at, len(ids), cut, score.loss, *kept, tuple(own), text))
        return documents

    def result(self, name: str, documents: Sequence[CutDocument], at: float = NEGLIGIBLE) -> TruncationResult:
        """What these documents show."""
        whole, unmoved = self.in_part | lost_mixers(self.known.whole, self.mixers), tuple(sorted(self.unmoved))
        return TruncationResult(name, tuple(documents), whole, len(self.mixers), at, unmoved, self.known.shared)
