"""Recall in documents that bind the same keys anew: what was bound in an earlier document must be forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import refuse
from statesize.lab.tasks.base import IGNORED, SyntheticTask, count, distinct, task


@task("rebinding")
@dataclass(frozen=True)
class Rebinding(SyntheticTask):
    """Re-binding recall: documents of key-value pairs and queries; a key that is not bound here has no value.

    Token ids 0 … K − 1 are keys, K … 2K − 1 values, 2K is `none` and 2K + 1 `<eos>`. A document is

        k₁ v₁ k₂ v₂ … k_P v_P   then P + U queries, each a key and its answer   then <eos>

    with keys that are all different and values that are all different. The queries repeat each of the P pairs once, and
    U other keys, whose answer is `none`, in random order. A sequence is D documents that are drawn independently of
    each other, so that most keys without a value here had one before: `none` requires to forget what came before
    `<eos>`. The target at the key of a query is its answer, which is also the next token; nothing else has a target.

    Attributes:
        documents: documents of a sequence, D.
        pairs: key-value pairs of a document, P, at least 2.
        unbound: queries of a document whose key has no value in it, U, at least 1.
        keys: keys, and as many values, K, at least P + U.

    Examples:
        >>> task = Rebinding(documents=2, pairs=2, unbound=1, keys=4)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs.shape, inputs[0, 10].item() == task.none + 1, (targets != IGNORED).sum().item()
        (torch.Size([1, 22]), True, 6)
    """

    documents: int = count(4, least=1)
    pairs: int = count(5, least=2)
    unbound: int = count(4, least=1)
    keys: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys < self.queries:
            refuse("keys", f"at least {self.queries}, for {self.pairs} pairs and {self.unbound} unbound", self.keys)

    @property
    def items(self) -> int:
        """The number of pairs."""
        return self.pairs

    @property
    def queries(self) -> int:
        """Number of queries of a document."""
        return self.pairs + self.unbound

    @property
    def document_length(self) -> int:
        """Tokens of a document, its `<eos>` included."""
        return 2 * (self.pairs + self.queries) + 1

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.documents * self.document_length

    @property
    def none(self) -> int:
        """Id of the answer to a key without a value."""
        return 2 * self.keys

    @property
    def vocabulary_size(self) -> int:
        """Keys, values, `none` and `<eos>`."""
        return 2 * self.keys + 2

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens as words, k0, k1, … for keys, v0, v1, … for values, none, and `<eos>`."""
        return (*(f"{kind}{number}" for kind in "kv" for number in range(self.keys)), "none", "<eos>")

    @property
    def chance(self) -> float:
        """U / (P + U), as no value answers more than one query of a document."""
        return self.unbound / self.queries

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        rows, start = batch_size * self.documents, 2 * self.pairs
        keys = distinct(self.keys, self.queries, rows, generator)
        values = self.keys + distinct(self.keys, self.pairs, rows, generator)
        answers = torch.cat([values, torch.full((rows, self.unbound), self.none)], 1)
        order = distinct(self.queries, self.queries, rows, generator)
        inputs = torch.full((rows, self.document_length), self.none + 1)
        targets = torch.full_like(inputs, IGNORED)
        inputs[:, 0:start:2], inputs[:, 1:start:2] = keys[:, : self.pairs], values
        inputs[:, start:-1:2], inputs[:, start + 1 : -1 : 2] = keys.gather(1, order), answers.gather(1, order)
        targets[:, start:-1:2] = answers.gather(1, order)
        return inputs.view(batch_size, self.length), targets.view(batch_size, self.length)
