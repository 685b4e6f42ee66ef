"""Random calls of the constructors of operators, and of their methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.call import Call, expected_refusal, moderate
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import Case, random_case


def operator_call(kind: str) -> Callable[[Source], Call]:
    """Constructors: T, its columns, stepping, indexing, another dtype."""

    def make(source: Source) -> Call:
        case = random_case(source, kind)
        what = source.chance.choice(("dense", "columns", "apply", "to", "index", "state_size"))
        first = source.whole(0, max(0, case.length - 1))
        last = source.whole(first, case.length)

        def run() -> tuple[ss.Operator, Any]:
            operator = case.make()
            if what == "columns":
                return operator, operator.columns(first, last)
            if what == "apply":
                eye = torch.eye(operator.length, dtype=operator.dtype, device=operator.device)
                return operator, operator.apply(eye.expand(*operator.batch_shape, -1, -1))
            if what == "to":
                return operator, operator.to(torch.float64).dense()
            if what == "index":
                some = operator.batch_shape.numel() and operator.batch_shape
                return operator, operator[..., 0].dense() if some else 0
            return operator, operator.state_size() if what == "state_size" else operator.dense()

        def check(found: tuple[ss.Operator, Any]) -> list[str]:
            return _wrong_operator(case, found[0], found[1], what, slice(first, last), source.extreme)

        refusal = expected_refusal(source, case)
        return Call(run, check, refusal, case.names, f"{kind}.{what} L={case.length}")

    return make


def _wrong_operator(
    case: Case, operator: ss.Operator, found: Any, what: str, columns: slice, extreme: bool
) -> list[str]:
    truth = case.T
    if (operator.length, tuple(operator.batch_shape)) != (truth.shape[-1], truth.shape[:-2]):
        return [f"length {operator.length} and batch shape {tuple(operator.batch_shape)} for T {truth.shape}"]
    if what == "state_size":
        sizes = cast("torch.Tensor", found)
        return [] if sizes.dtype == torch.int64 and sizes.shape == (operator.length,) else [f"state_size is {sizes}"]
    if isinstance(found, int) or not moderate(case):
        return []
    if extreme and not answers.finite(found):
        return []  # what T is made of overflowed, which measuring refuses
    if what == "columns":
        truth = truth[..., columns.start :, columns]
    if what == "index":
        truth = truth[..., 0, :, :]
    eps = torch.finfo(operator.dtype if what != "to" else torch.float64).eps
    smallest = torch.finfo(operator.dtype).tiny if what != "to" else 0
    # Rounding grows with the length and with what cancels; cases with large factors are told by `measure`'s bounds.
    if np.abs(truth).max(initial=0) < 1e3 * smallest or operator.dtype in {torch.float16, torch.bfloat16}:
        return [] if what != "to" else answers.wrong_matrix(found, truth, 1e-6)
    return answers.wrong_matrix(found, truth, 1e5 * eps + case.rounding())


def shared_call(source: Source) -> Call:
    """`Shared` of any operator, measured: its T, and its ESS between the largest of its readouts and their sum."""
    case = random_case(source)
    refusal = expected_refusal(source, case)
    if refusal == "never":
        batch = case.T.shape[:-2]
        refusal = "always" if not batch or not batch[-1] else "maybe" if case.length < 2 else refusal

    def run() -> tuple[ss.Shared, ss.Measurement, ss.Measurement]:
        shared = ss.Shared(case.make())
        return shared, ss.measure(shared, (), (), ("values",)), ss.measure(shared.operator, (), (), ("values",))

    def check(found: tuple[ss.Shared, ss.Measurement, ss.Measurement]) -> list[str]:
        shared, joint, alone = found
        if not moderate(case) or not shared.batch_shape.numel():
            return []
        # σ_1 of a stack of r is at least that of each part, and at most √r times the largest of them.
        each = cast("torch.Tensor", alone.values)[..., 0].movedim(-2, 0) if joint.positions.numel() else torch.zeros(0)
        if not each.numel():
            return []
        largest, off = cast("torch.Tensor", joint.values)[..., 0], joint.error_bound + alone.error_bound.amax(-2)
        wrong = (largest < each.amax(0) - 2 * off) | (largest > (1 + 1e-12) * len(each) ** 0.5 * each.amax(0) + 2 * off)
        return [f"the largest σ of a group is {largest[wrong][0]}"] if bool(wrong.any()) else []

    return Call(run, check, refusal, (*case.names, "operator", "T"), f"Shared L={case.length}")


def not_an_operator_call(source: Source) -> Call:
    """Each function that takes an operator, with something else."""
    functions = (
        ss.measure,
        ss.metrics.hankel_singular_values,
        ss.metrics.differentiable_entropy,
        ss.reduce,
    )
    function = source.chance.choice(functions)
    value = source.no_number()
    return Call(
        lambda: function(value), lambda _: [], "always", ("operator", "matrix"), f"{function.__name__}({value!r})"
    )
