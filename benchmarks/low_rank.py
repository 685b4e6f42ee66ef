"""Values of low rank beside numbers per channel. `python -m benchmarks.low_rank FILE MODEL [DOCUMENTS]`.

MODEL is a Llama of transformers. Eigen Attention (arXiv 2408.05646) and Palu (arXiv 2407.21118) store r numbers of the
d of each value, for every token: what a fixed basis of d-dimensional values takes of them. Eigen Attention takes that
basis from values of calibration texts, Palu from the weights that make them; each stands here for each cache, and with
one basis for all caches of a layer. They store i r numbers of i tokens, as many as k numbers of each of d channels
where r = k d / i. Only values that rows behind the cut read are projected, and keys stay, as in `truncate`; both papers
also make keys smaller. Bundled documents are read, bases come from others of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.bounds import fresh_pieces
from benchmarks.cases import document
from benchmarks.recorded import Row, weights_of
from statesize.adapters.forward import Forward
from statesize.adapters.observation import Observation
from statesize.io.files import replace_file
from statesize.io.json_values import json_values
from statesize.models.load import load_model
from statesize.texts.inputs import inputs_of, tokens_sha256
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.cutting import Cutting
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.runs import PlannedRun, mean_numbers, runs
from statesize.truncation.truncate import CutTest, scored

DOCUMENTS, CALIBRATION, TOKENS = 6, 10, 512
SHARES = (0.5, 0.75, 0.9)
"""Shares of each value, the same in all layers, beside as many numbers as joint ESS."""
RULES = ("calibration", "weights", "calibration, by layer", "weights, by layer")


@dataclass(eq=False)
class LowRank(Cutting):
    """A run in which rows behind the cut read values of low rank.

    Attributes:
        bases: For each mixer an orthonormal basis (caches, d, d) of its values, or (1, caches · d, caches · d).
    """

    bases: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def dropped(self, name: str, seen: Observation) -> Tensor | None:
        """What the run drops of the inputs before the cut."""
        if not self.bases or self.run is None:
            return super().dropped(name, seen)
        basis, ranks = self.bases[name], self.run.ranks[name]
        inputs = self.inputs(seen)[0].double()
        stored = inputs[:: len(inputs) // seen.groups].transpose(0, 1).reshape(len(inputs[0]), len(basis), -1)
        numbers = torch.einsum("icd,cdn->icn", stored, basis)
        numbers *= torch.arange(basis.shape[-1]) < ranks[:, None]
        rest = (stored - torch.einsum("icn,cdn->icd", numbers, basis)).reshape(len(stored), seen.groups, -1)
        return rest.transpose(0, 1).repeat_interleave(len(inputs) // seen.groups, 0)[None]


def moments(model: nn.Module, texts: Sequence[Tensor], caches: int) -> dict[str, dict[str, Tensor]]:
    """For each rule and mixer the moments of values, Σ v vᵀ of texts or W Wᵀ of weights, of each cache or all."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)

    def note(name: str, source: str, rows: Tensor) -> None:
        for rule, count in ((source, caches), (f"{source}, by layer", 1)):
            parts = rows.double().reshape(len(rows), count, -1).transpose(0, 1)
            found[rule][name] = found[rule].get(name, torch.zeros(())) + parts.mT @ parts

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(".v_proj"):
                mixer, projection = name.removesuffix(".v_proj"), cast("nn.Linear", module)
                note(mixer, "weights", projection.weight.T)
                hook = lambda _module, _inputs, output, mixer=mixer: note(mixer, "calibration", output[0])  # noqa: E731
                stack.callback(projection.register_forward_hook(hook).remove)
        for ids in texts:
            model(ids[None], use_cache=False)
    return found


def measured(test: CutTest, bases: dict[str, dict[str, Tensor]], index: int) -> CutDocument:
    """All runs of one document: with nothing, with numbers of groups by past rows, and with values of low rank."""
    (_, ids), cut = test.pieces[index], test.cuts[0]
    forward, answers = Forward.of(test.model, *inputs_of(ids)), cast("Tensor", ids)[cut + 1 :]
    cutting = LowRank(forward, cut, test.own, test.whole)
    whole, spectra = cutting.logits(), cutting.spectra
    expected = functional.log_softmax(whole, -1)
    planned = [(run, {}) for run in runs(spectra, None) if run.rule in {"nothing", "joint past rows"}]
    for rule in RULES:
        own = bases[rule]
        width = {name: basis.shape[-1] for name, basis in own.items()}
        for run in (run for run, _ in planned if run.rule == "joint past rows"):
            numbers = {
                name: run.ranks[name].double().reshape(len(basis), -1).mean(-1) * width[name] / spectra[name].inputs
                for name, basis in own.items()
            }
            planned.append((_run(spectra, f"values by {rule}", run.scale, numbers, width), own))
        for share in SHARES if rule.endswith("layer") else ():
            numbers = {name: torch.full((len(basis),), share * width[name]) for name, basis in own.items()}
            planned.append((_run(spectra, f"values by {rule}", share, numbers, width), own))
    cutting.causal = [run for run, _ in planned if run.causal]
    made = list[CutRun]()
    for run, own in planned:
        cutting.bases = own
        made.append(
            CutRun(run.rule, run.scale, run.kept, *scored(cutting.logits(run), expected, expected.exp(), answers))
        )
    stored = mean_numbers(spectra, {name: one.inputs + torch.zeros(one.stored) for name, one in spectra.items()})
    entropy = mean_numbers(spectra, {name: one.entropy for name, one in spectra.items()})
    loss = scored(whole, expected, expected.exp(), answers)[0]
    return CutDocument(index, len(ids), cut, loss, entropy, stored, stored, stored, tuple(made))


def _run(
    spectra: dict[str, Any], rule: str, scale: float, numbers: dict[str, Tensor], width: dict[str, int]
) -> PlannedRun:
    """A run with ⌈numbers⌉ of each value, and what they are per channel."""
    ranks = {name: torch.ceil(one - 1e-9).clamp(max=width[name]).long() for name, one in numbers.items()}
    kept = {name: ranks[name] * spectra[name].inputs / width[name] for name in ranks}
    return PlannedRun(
        rule, scale, ranks, grouped=True, kept=sum(float(one.mean()) for one in kept.values()) / len(kept)
    )


def main(path: Path, name: str, documents: int, tokens: int = TOKENS) -> None:
    """Read documents, and write the record."""
    torch.set_num_threads(1)
    loaded = load_model(name)
    pieces = fresh_pieces(None, cast("AnyTokenizer", loaded.tokenizer), tokens)
    calibration, pieces = pieces[:CALIBRATION], pieces[CALIBRATION:][:documents]
    test = CutTest(loaded.model, pieces, documents=documents, tokens=tokens, name=loaded.name)
    found = moments(loaded.model, calibration, loaded.model.config.num_key_value_heads)
    bases = {
        rule: {mixer: torch.linalg.eigh(one)[1].flip(-1) for mixer, one in own.items()} for rule, own in found.items()
    }
    rows: list[Row] = []
    for number, piece in enumerate(pieces):
        start = time.process_time()
        one = measured(test, bases, number)
        row: Row = {"file": Path(name).stem, "model": test.name, "tokens": tokens, "document": number}
        row |= {
            "texts": tokens_sha256([piece]),
            "calibration": tokens_sha256(calibration),
            "mixers": len(found["weights"]),
        }
        row |= {"run_difference": test.run_difference, "seconds": time.process_time() - start}
        rows.append(row | weights_of(loaded) | {"measured": json_values(one)})
        print(
            number,
            f"{row['seconds']:.0f} s",
            {f"{run.rule} {run.scale}": round(run.divergence, 4) for run in one.runs},
            flush=True,
        )
        replace_file(path, (json.dumps(document(rows, "transformers")) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else DOCUMENTS)
