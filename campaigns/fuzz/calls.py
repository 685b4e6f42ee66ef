"""Random calls on operators; each asserts that its answer is the definition's, or that its refusal names the cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from oracles import exact
from torch import Tensor

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.operators import Case, cases
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import OUTPUTS

THRESHOLDS = st.lists(st.floats(-14, 1).map(lambda power: 10.0**power), max_size=3).map(tuple)
SPOILED: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda tensor: torch.full_like(tensor, torch.nan),
    "infinite": lambda tensor: torch.full_like(tensor, torch.inf),
    "whole": lambda tensor: tensor.real.clamp(-5, 5).to(torch.int64),
    "sparse": lambda tensor: tensor.detach().to_sparse(),
    "meta": lambda tensor: tensor.detach().to("meta"),
    "empty": lambda tensor: tensor[..., :0],
    "longer": lambda tensor: torch.cat([tensor, tensor, tensor], -1)[None].expand(7, 5, *tensor.shape[:-1], -1),
}
"""Tensors that no operator may be made of; the last one nearly never fits."""


def call_operator(case: Case, what: str, columns: slice) -> None:
    """A constructor, and one of the methods of what it makes."""
    operator, T = case.make(), case.T
    assert (operator.length, tuple(operator.batch_shape)) == (T.shape[-1], T.shape[:-2])
    if what == "state_size":
        sizes = operator.state_size()
        assert (sizes.dtype, sizes.shape) == (torch.int64, (operator.length,))
        return
    eye = torch.eye(operator.length, dtype=operator.dtype).expand(*operator.batch_shape, -1, -1)
    made: dict[str, Callable[[], Tensor]] = {
        "dense": operator.dense,
        "columns": lambda: operator.columns(columns.start, columns.stop),
        "apply": lambda: operator.apply(eye),
        "to": lambda: operator.to(torch.float64).dense(),
        "index": lambda: operator[..., 0].dense() if T.ndim > 2 and T.shape[-3] else operator.dense(),
    }
    given = made[what]()
    if what == "columns":
        T = T[..., columns.start :, columns]
    if what == "index" and T.ndim > 2 and T.shape[-3]:
        T = T[..., 0, :, :]
    dtype = torch.float64 if what == "to" else operator.dtype
    # Rounding grows with the length and with what cancels; below the smallest numbers of a dtype nothing is known.
    known = np.abs(T).max(initial=0) > 1e3 * torch.finfo(dtype).tiny and torch.finfo(dtype).bits > 16
    scale = np.abs(T).max(initial=0)
    allowed = 1e5 * torch.finfo(dtype).eps * (1 + case.terms / max(scale, 1e-300)) + case.rounding
    assert not known or answers.wrong_matrix(given, T, allowed) == []


def call_measure(case: Case, data: Any) -> None:
    """`measure` with random options."""
    length, options = case.length, dict[str, Any]()
    some = {
        "tolerances": THRESHOLDS,
        "relative_tolerances": THRESHOLDS,
        "past": st.integers(1, length - 1),
        "future": st.integers(1, length - 1),
        "outputs": st.sampled_from([*((one,) for one in OUTPUTS), OUTPUTS]),
    }
    for name in data.draw(st.sets(st.sampled_from([*some]))):
        options[name] = data.draw(some[name])
    first, last = options.get("past", 1), length - options.get("future", 1)
    if first > last:
        with pytest.raises(ss.StatesizeError):
            ss.measure(case.make(), **options)
        return
    if data.draw(st.booleans()):
        options["positions"] = data.draw(st.lists(st.integers(first, last), min_size=1, max_size=5))
    options["engine"] = data.draw(st.sampled_from(["auto", "auto", *ENGINES]))
    try:
        found = ss.measure(case.make(), **options)
    except ss.StatesizeError:
        # Not every engine gives everything.
        assert options["engine"] != "auto"
        return
    positions = found.positions.tolist()
    assert positions == options.get("positions", list(range(first, last + 1)))
    truth = case.spectra(positions, options.get("past"), options.get("future"), found.engine)
    assert answers.wrong_measurement(found, truth) == []


def call_shared(case: Case) -> None:
    """`Shared`: σ_1 of a stack of r is at least that of each part, and at most √r times the largest of them."""
    if case.T.ndim < 3 or not case.T.shape[-3]:
        return
    shared = ss.Shared(case.make())
    joint, alone = (ss.measure(one, (), (), ("values",)) for one in (shared, shared.operator))
    assert joint.values is not None
    assert alone.values is not None
    each, largest = alone.values[..., 0].movedim(-2, 0), joint.values[..., 0]
    off, most = joint.error_bound + alone.error_bound.amax(-2), each.amax(0)
    assert bool((largest >= most - 2 * off).all())
    assert bool((largest <= (1 + 1e-12) * len(each) ** 0.5 * most + 2 * off).all())


def call_differentiable(case: Case) -> None:
    """`differentiable_entropy`, and that its gradients are numbers."""
    found = ss.metrics.differentiable_entropy(case.make(), None)
    leaves = [tensor for tensor in case.parts.values() if tensor.requires_grad]
    if leaves and found.requires_grad and found.numel():
        gradients = torch.autograd.grad(found.sum(), leaves, allow_unused=True)
        assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)
    truth = case.spectra([*range(1, case.length)])
    top = truth.values.max(-1, initial=0, keepdims=True)
    kept = np.where(truth.values > 1e-10 * top, truth.values, 0)
    right = exact.effective_rank(kept)
    # Below the round-off of the operator's largest numbers, singular values count as 0.
    lost = 64 * exact.EPS * case.length**2 * max(case.terms, float(np.abs(case.T).max(initial=0)))
    slack = exact.effective_rank_slack(kept, 1e-9 * top[..., 0] + lost, right)
    assert bool((np.abs(answers.numbers(found) - right) <= slack).all())


def call_reduce(case: Case, state_size: int | None) -> None:
    """`reduce`: as near as its bound says, and of no more states than asked."""
    if not case.T.size:
        return
    found = ss.reduce(case.make(), **({} if state_size is None else {"state_size": state_size}))  # pyright: ignore
    difference = (exact.wide(found.recurrence.dense()) - case.T).astype(float)
    off, size = (np.linalg.norm(T, 2, (-2, -1)) for T in (difference, case.T.astype(float)))
    bound = answers.numbers(found.bound)
    assert bool((off <= bound * (1 + 1e-6) + 1e-8 * size + 1e-300).all())
    assert state_size is None or int(found.state_size.max()) <= state_size
    assert state_size is not None or bool((bound <= 1e-6 * size + 1e-12 * size.max(initial=0) + 1e-300).all())


def call_spoiled(case: Case, name: str, spoil: str) -> None:
    """A constructor with a tensor that it must refuse by its name."""
    parts = case.parts | {name: SPOILED[spoil](case.parts[name])}
    # A kernel may be longer than the sequence.
    if not case.parts[name].numel() or (name, spoil) == ("kernel", "longer"):
        return
    with pytest.raises(ss.StatesizeError) as error:
        case.kind.make(parts, case.length)
    assert any(re.search(rf"(?<!\w){one}(?!\w)", str(error.value)) for one in (*parts, "length"))


REDUCED = ("recurrence", "scalar recurrence", "full recurrence", "delta rule", "convolution")
METHODS = ("dense", "columns", "apply", "to", "index", "state_size")


def call(data: Any) -> None:
    """One random call, drawn by hypothesis; what it was given is as it was afterwards."""
    kind = data.draw(
        st.sampled_from(["operator", "measure", "measure", "shared", "differentiable", "reduce", "spoiled"])
    )
    case = data.draw(cases(REDUCED) if kind == "reduce" else cases())
    before = {name: exact.wide(tensor) for name, tensor in case.parts.items()}
    if kind == "operator":
        first = data.draw(st.integers(0, case.length - 1))
        call_operator(
            case, data.draw(st.sampled_from(METHODS)), slice(first, data.draw(st.integers(first, case.length)))
        )
    elif kind == "measure":
        call_measure(case, data)
    elif kind == "shared":
        call_shared(case)
    elif kind == "differentiable":
        call_differentiable(case)
    elif kind == "reduce":
        call_reduce(case, data.draw(st.none() | st.integers(1, 9)))
    else:
        call_spoiled(case, data.draw(st.sampled_from([*case.parts])), data.draw(st.sampled_from([*SPOILED])))
    assert all(np.array_equal(before[name], exact.wide(tensor)) for name, tensor in case.parts.items())
