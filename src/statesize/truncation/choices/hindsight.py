"""The best approximation of H_i at a rank: Eckart and Young 1936, "The approximation of one matrix by another"."""

from __future__ import annotations

from torch import Tensor

from statesize.truncation.blocks import Past
from statesize.truncation.choices.choice import Basis, Rule


class Hindsight(Basis):
    """The right singular vectors of H_i, which knows the queries of the future: hardly a memory does with less."""

    hindsight = True

    def vectors(self, past: Past, ranks: Tensor) -> Tensor:
        """See `Basis`."""
        return past.block(past.readers(ranks)).basis(ranks)


RULES = (
    Rule("ess", "with hindsight", Hindsight(), (0.5, 1.0, 2.0)),
    Rule("joint ess", "with hindsight, once per cache", Hindsight(), (1.0,), "cache"),
)
