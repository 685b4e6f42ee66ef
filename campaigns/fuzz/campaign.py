"""Random calls on operators, each made again by its number."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

import statesize as ss
from campaigns.fuzz import construction, measuring, numbers, reducing
from campaigns.fuzz.call import Call
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import KINDS

FUNCTIONS: dict[str, tuple[float, Callable[[Source], Call]]] = {
    **{kind: (1.0, construction.operator_call(kind)) for kind in KINDS},
    "Shared": (0.5, construction.shared_call),
    "measure": (7.0, measuring.measure_call),
    "hankel_singular_values": (1.0, measuring.values_call),
    "differentiable_entropy": (1.0, measuring.entropy_gradient_call),
    "reduce": (1.5, reducing.reduce_call),
    **{name: (1.0, numbers.numbers_call(name)) for name in ("tolerance_ess", "entropy_ess", "energy_ess")},
    "not an operator": (0.4, construction.not_an_operator_call),
}
"""Generators of calls by what they call, each with its weight."""


def problems(number: int) -> list[str]:
    """What is wrong with the answer or the refusal of a call, with the call first; empty where nothing is."""
    source = Source.of(number)
    function = source.chance.choices(list(FUNCTIONS), [weight for weight, _ in FUNCTIONS.values()])[0]
    call = FUNCTIONS[function][1](source)
    versions = [tensor._version for tensor in source.tensors if not tensor.is_inference()]
    try:
        answer = call.run()
    except Exception as error:
        answer = error
    found = _judged(call, answer)
    if versions != [tensor._version for tensor in source.tensors if not tensor.is_inference()]:
        found.append("an input tensor was written to")
    return [f"{number} {function}: {call.about}", *found] if found else []


def _judged(call: Call, answer: object) -> list[str]:
    if isinstance(answer, ss.StatesizeError):
        message = str(answer)
        if call.refusal == "never":
            return [f"refused, though nothing is wrong: {message}"]
        named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in call.names)
        return [] if named else [f"an error that names none of {', '.join(call.names)}: {message}"]
    if isinstance(answer, Exception):
        frame = traceback.extract_tb(answer.__traceback__)[-1]
        return [f"{type(answer).__name__}: {answer} ({frame.filename}:{frame.lineno})"]
    if call.refusal == "always":
        return [f"not refused: {answer!r:.200}"]
    return call.check(answer)
