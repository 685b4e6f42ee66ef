"""What an engine says against what the definition says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.benchmarks.cases import Case, ask
from statesize.operators import Operator
from statesize.spectra.effective_rank import effective_rank
from statesize.spectra.engine import Output
from statesize.spectra.factorisation import singular_values

# Of the definition itself, in units of σ_1; for entropies relative.
_EXACT = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """Answers of an engine against the definition."""

    error: float  # the largest: of entropies relative, of values in units of σ_1, of counts the difference
    miscounts: int  # counts that differ; entropies and values that are farther off than the engine's own bound
    checked: int  # answers that were compared


def definition(operator: Operator, positions: list[int]) -> Tensor:
    """Singular values of H_i at P positions, decomposed one by one, (P, r), descending, zero-padded."""
    columns = operator.columns(0, max(positions))
    spectra = [singular_values(columns[i:, :i]) for i in positions]
    r = max(sigma.shape[-1] for sigma in spectra)
    return torch.stack([torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])) for sigma in spectra])


def accuracy(case: Case, operator: Operator, output: Output, positions: list[int], exact: Tensor) -> Accuracy:
    """How right one output of a case's engine is."""
    top = exact[:, 0]
    tau = [ratio * float(top.max()) for ratio in case.ratios]
    found = ask(operator, case, output, tau)
    at = [i - 1 for i in positions]
    if found.count is not None and output == "counts":
        expected = (exact[:, None, :] > exact.new_tensor(tau)[:, None]).sum(-1)
        off = (found.count[at] - expected).abs()
        return Accuracy(float(off.max()), int((off > 0).sum()), off.numel())
    if found.entropy is not None and found.entropy_bound is not None:
        ess = effective_rank(exact)
        off = (found.entropy[at] - ess).abs()
        return Accuracy(
            float((off / ess).max()), int((off > found.entropy_bound[at] + _EXACT * ess).sum()), off.numel()
        )
    values = cast("Tensor", found.values)[at]
    r = max(values.shape[-1], exact.shape[-1])
    sigma, reference = (torch.nn.functional.pad(part, (0, r - part.shape[-1])) for part in (values, exact))
    off = (sigma - reference).abs().amax(-1)
    return Accuracy(float((off / top).max()), int((off > found.error_bound[at] + _EXACT * top).sum()), off.numel())
