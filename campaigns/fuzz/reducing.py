"""Random calls of the functions that make an operator smaller, or say how small it may be."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.arguments import real, several, whole
from campaigns.fuzz.call import Call, expected_refusal, moderate
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import KINDS, random_case
from statesize.reduction.recommendation import GLA_STUDENTS, calibrate, least_error, predicted_error


def reduce_call(source: Source) -> Call:
    """`reduce`: as near as its bound says, and of no more states than asked."""
    kind = source.chance.choice(("Convolution", "Recurrence", "delta_rule", *KINDS))
    case = random_case(source, kind)
    options: dict[str, Any] = {}
    if source.maybe(0.4):
        options["state_size"] = source.no_number() if source.maybe(0.1) else source.whole(1, 9)
    if source.maybe(0.4):
        options["tolerance"] = source.no_number() if source.maybe(0.1) else 10 ** source.chance.uniform(-6, 1)
    refusal = expected_refusal(source, case)
    wrong = kind not in {"Convolution", "Recurrence", "delta_rule", "misshapen"} or len(options) == 2
    state_size, tolerance = options.get("state_size"), options.get("tolerance")
    wrong &= not (len(options) == 2 and (state_size is None or tolerance is None))
    wrong |= state_size is not None and not whole(state_size, 1, 2**63 - 1)
    wrong |= tolerance is not None and not (real(tolerance) and 0 < tolerance < math.inf)
    if refusal == "never" and (wrong or tolerance is not None or not case.T.size):
        refusal = "always" if wrong or not case.T.size else "maybe"

    def check(found: ss.reduction.Reduction | ss.reduction.VaryingReduction) -> list[str]:
        if not moderate(case) or source.extreme:
            return []
        given = exact.wide(found.recurrence.dense())
        difference = (given - case.T).astype(float)
        off = np.linalg.norm(difference, 2, (-2, -1))
        size = np.linalg.norm(case.T.astype(float), 2, (-2, -1))
        bound = answers.numbers(found.bound)
        if not (off <= bound * (1 + 1e-6) + 1e-8 * size + 1e-300).all():
            return [f"off by {off.max():g}, bound {bound.max():g}"]
        states = found.state_size if isinstance(found.state_size, int) else int(found.state_size.max())
        if whole(state_size, 1, 2**63 - 1) and states > int(cast("Any", state_size)):
            return [f"{states} states for at most {state_size}"]
        exactly = not options and not (bound <= 1e-6 * size + 1e-12 * size.max(initial=0) + 1e-300).all()
        return [f"the exact one is off by {bound.max():g} of {size.max():g}"] if exactly else []

    names = (*case.names, "operator", "state_size", "tolerance")
    about = f"{kind} L={case.length} {options}"
    return Call(lambda: ss.reduce(cast("Any", case.make()), **options), check, refusal, names, about)


def recommend_call(source: Source) -> Call:
    """`recommend_state_size` and what belongs to it."""
    case = random_case(source)
    loss: Any = source.no_number() if source.maybe(0.2) else source.chance.uniform(0.01, 0.99)
    kind = source.chance.choice(("recommend", "predicted", "least", "calibrate"))
    refusal = expected_refusal(source, case)
    good = real(loss) and not several(loss)
    size: Any = source.no_number() if source.maybe(0.2) else source.whole(1, 9)
    students = [[source.chance.uniform(0.1, 9) for _ in range(source.chance.randint(8, 30))] for _ in range(3)]
    if source.maybe(0.8):
        students = [part[: min(map(len, students))] for part in students]

    def run() -> Any:
        if kind == "calibrate":
            return calibrate(students[0], cast("Any", students[1]), students[2], loss)
        if kind == "least":
            return least_error(case.make(), size)
        found = ss.measure(case.make())
        return (
            (found, ss.reduction.recommend_state_size(found, loss))
            if kind == "recommend"
            else predicted_error(found, size)
        )

    def check(answer: Any) -> list[str]:
        if kind == "recommend":
            found, given = cast("tuple[ss.Measurement, ss.reduction.Recommendation]", answer)
            ess = float(cast("torch.Tensor", found.entropy).detach().mean())
            sizes = range(1, max(1, int(found.state_size.max())) + 1)
            right = next((n for n in sizes if GLA_STUDENTS.error(ess, n) <= loss), sizes[-1])
            return [] if right == given.state_size and math.isfinite(given.loss) else [f"{given} for {right}, {ess}"]
        if kind == "predicted":
            return [] if 0 <= answer <= 1 else [f"predicted error {answer}"]
        if kind == "least":
            low, high = (float(part) for part in (answer.min(), answer.max())) if answer.numel() else (0.0, 0.0)
            return [] if 0 <= low <= high <= 1 + 1e-9 else [f"least error {low} … {high}"]
        return [] if math.isfinite(answer.factor) else [f"{answer}"]

    if kind == "calibrate":
        refusal = "maybe"
    elif kind == "recommend" and not (good and 0 < loss < 1):
        refusal = "always"
    elif kind != "recommend" and refusal == "never" and not (type(size) is int and size < 10**4 and size > 0):
        refusal = "maybe"
    empty = kind in {"recommend", "predicted"} and not case.wrong and not source.poisoned
    if empty and refusal == "never" and not case.T.size:
        refusal = "always"
    others = ("students", "coverage", "sizes", "errors", "measured", "measurement", "T")
    names = (*case.names, "loss", "state_size", "operator", *others)
    about = f"{kind} L={case.length} loss={loss!r} size={size!r}"
    return Call(run, check, refusal, names, about)
