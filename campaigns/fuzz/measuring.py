"""Random calls of the functions that measure operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.arguments import good_thresholds, whole
from campaigns.fuzz.call import Call, expected_refusal, moderate
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import random_case
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import OUTPUTS


def measure_call(source: Source) -> Call:
    """`measure` with random options, against the definition."""
    case = random_case(source)
    length = case.length
    options: dict[str, Any] = {}
    wrong = False

    def option(name: str, share: float, good: Callable[[], Any], is_good: Callable[[Any], bool]) -> None:
        nonlocal wrong
        if source.maybe(0.02):
            options[name] = source.no_number()
            wrong |= not is_good(options[name])
        elif source.maybe(share):
            options[name] = good()

    option("tolerances", 0.5, lambda: _thresholds(source), good_thresholds)
    option("relative_tolerances", 0.5, lambda: _thresholds(source), good_thresholds)
    option("past", 0.2, lambda: source.whole(1, length - 1), lambda v: v is None or whole(v, 1, length - 1))
    option("future", 0.2, lambda: source.whole(1, length - 1), lambda v: v is None or whole(v, 1, length - 1))
    first, last = _reach(options, length)
    wrong |= not wrong and first > last
    option("positions", 0.4, lambda: _positions(source, first, last), lambda v: _good_positions(v, first, last))
    option("outputs", 0.5, lambda: _outputs(source), _good_outputs)
    engines = (*ENGINES, "auto")
    option("engine", 0.4, lambda: source.chance.choice(engines), lambda v: isinstance(v, str) and v == "auto")
    refusal = expected_refusal(source, case, wrong)
    if refusal == "never" and options.get("engine", "auto") != "auto":
        refusal = "maybe"  # not every engine gives everything

    def check(found: ss.Measurement) -> list[str]:
        if case.T.shape[-1] != length:
            return []  # of another length by luck
        asked, positions = options.get("positions"), found.positions.tolist()
        if isinstance(asked, list) and positions != asked:
            return [f"positions are {positions} for {asked}"]
        if asked is None and positions != list(range(first, last + 1)):
            return [f"positions are {positions} for {first} … {last}"]
        truth = case.spectra(positions, options.get("past"), options.get("future"), found.engine)
        return answers.wrong_measurement(found, truth) if truth else []

    names = (*case.names, *options, "operator", "T", "engine")
    return Call(lambda: ss.measure(case.make(), **options), check, refusal, names, f"L={length} {options!r:.200}")


def _reach(options: dict[str, Any], length: int) -> tuple[int, int]:
    past, future = options.get("past"), options.get("future")
    first = int(past) if whole(past, 1, length) else 1
    return first, length - (int(future) if whole(future, 1, length) else 1)


def _thresholds(source: Source) -> tuple[float, ...]:
    return tuple(10 ** source.chance.uniform(-14, 1) for _ in range(source.whole(0, 3)))


def _positions(source: Source, first: int, last: int) -> Any:
    if source.maybe(0.4):
        return source.whole(1, 30)
    return [source.chance.randint(first, last) for _ in range(source.whole(0, 5))] if first <= last else []


def _good_positions(value: Any, first: int, last: int) -> bool:
    if isinstance(value, Iterable) and not isinstance(value, torch.Tensor) and getattr(value, "ndim", 1):
        return all(whole(item, first, last) for item in cast("Iterable[Any]", value))
    if isinstance(value, torch.Tensor) and value.ndim:
        return not value.numel()
    return value is None or whole(value, 1, 10**500)


def _outputs(source: Source) -> Any:
    return source.chance.choice((*((name,) for name in OUTPUTS), OUTPUTS, "entropy", ("counts", "entropy", "values")))


def _good_outputs(value: Any) -> bool:
    given = [value] if isinstance(value, str) else value
    return isinstance(given, tuple | list) and bool(given) and all(output in OUTPUTS for output in given)


def values_call(source: Source) -> Call:
    """`hankel_singular_values`."""
    case = random_case(source)
    engine = source.chance.choice(("auto", "auto", *ENGINES))
    positions = source.chance.choice((None, None, 3, [1]))

    def check(found: torch.Tensor) -> list[str]:
        at = list(range(1, case.length)) if positions is None else [1] if positions == [1] else None
        if at is None:
            at = ss.measure(case.make(), positions=3, outputs=("entropy",)).positions.tolist()
        truth = case.spectra(at, engine="dense" if engine == "auto" else engine)
        if truth is None:
            return []
        bound = ss.measure(case.make(), positions=positions, outputs=("values",), engine=engine).error_bound
        return answers._wrong_values(answers.numbers(found), answers.numbers(bound), truth)

    refusal = expected_refusal(source, case)
    if refusal == "never" and engine != "auto":
        refusal = "maybe"
    about = f"L={case.length} {engine} {positions}"
    names = (*case.names, "operator", "engine", "T")
    return Call(lambda: ss.metrics.hankel_singular_values(case.make(), positions, engine), check, refusal, names, about)


def entropy_gradient_call(source: Source) -> Call:
    """`differentiable_entropy`, and that its gradients are numbers."""
    case = random_case(source)
    positions = source.chance.choice((None, 3, [1], [1, 1]))

    def run() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        found = ss.metrics.differentiable_entropy(case.make(), positions)
        leaves = [tensor for tensor in source.tensors if tensor.requires_grad and tensor.is_leaf]
        if found.requires_grad and leaves and found.numel():
            return found, list(torch.autograd.grad(found.sum(), leaves, allow_unused=True))
        return found, []

    def check(answer: tuple[torch.Tensor, list[torch.Tensor | None]]) -> list[str]:
        found, gradients = answer
        if not answers.finite(found):
            return [f"entropy is {found}"]
        if not all(gradient is None or answers.finite(gradient) for gradient in gradients) and not source.extreme:
            return ["a gradient is not finite"]
        if not moderate(case) or source.extreme or positions == 3:
            return []
        at = list(range(1, case.length)) if positions is None else cast("list[int]", positions)
        truth = case.spectra(at)
        if truth is None:
            return []
        kept = np.where(truth.values > 1e-10 * truth.values.max(-1, initial=0, keepdims=True), truth.values, 0)
        right = exact.effective_rank(kept)
        # Below the round-off of the operator's largest numbers, singular values count as 0.
        lost = 64 * exact.EPS * case.length**2 * max(case.terms(), float(np.abs(case.T).max(initial=0)))
        slack = exact.effective_rank_slack(kept, 1e-9 * kept.max(-1, initial=0) + lost, right)
        off = ~(np.abs(answers.numbers(found) - right) <= slack)
        return [f"entropy is {answers.numbers(found)[off][0]} for {right[off][0]}"] if off.any() else []

    names = (*case.names, "operator", "positions", "T")
    return Call(run, check, expected_refusal(source, case), names, f"L={case.length} {positions}")
