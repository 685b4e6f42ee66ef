"""Random calls of the function that makes an operator smaller."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.arguments import real, whole
from campaigns.fuzz.call import Call, expected_refusal, moderate
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import KINDS, random_case


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

    def check(found: ss.reduction.Reduction) -> list[str]:
        if not moderate(case) or source.extreme:
            return []
        given = exact.wide(found.recurrence.dense())
        difference = (given - case.T).astype(float)
        off = np.linalg.norm(difference, 2, (-2, -1))
        size = np.linalg.norm(case.T.astype(float), 2, (-2, -1))
        bound = answers.numbers(found.bound)
        if not (off <= bound * (1 + 1e-6) + 1e-8 * size + 1e-300).all():
            return [f"off by {off.max():g}, bound {bound.max():g}"]
        states = int(found.state_size.max())
        if whole(state_size, 1, 2**63 - 1) and states > int(cast("Any", state_size)):
            return [f"{states} states for at most {state_size}"]
        exactly = not options and not (bound <= 1e-6 * size + 1e-12 * size.max(initial=0) + 1e-300).all()
        return [f"the exact one is off by {bound.max():g} of {size.max():g}"] if exactly else []

    names = (*case.names, "operator", "state_size", "tolerance")
    about = f"{kind} L={case.length} {options}"
    return Call(lambda: ss.reduce(cast("Any", case.make()), **options), check, refusal, names, about)
