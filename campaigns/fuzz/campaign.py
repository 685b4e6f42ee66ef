"""Many random calls, one after another, and what was wrong with them."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import statesize as ss
from campaigns.fuzz import construction, measuring, models, numbers, reducing, settings, texts, training
from campaigns.fuzz.call import Call
from campaigns.fuzz.guard import HangError, watched
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import KINDS

SECONDS = 30.0
"""Processor time from which on a call counts as hung."""

FUNCTIONS: dict[str, tuple[float, Callable[[Source], Call]]] = {
    **{kind: (1.0, construction.operator_call(kind)) for kind in KINDS},
    "Shared": (0.5, construction.shared_call),
    "measure": (7.0, measuring.measure_call),
    "hankel_singular_values": (1.0, measuring.values_call),
    "differentiable_entropy": (1.0, measuring.entropy_gradient_call),
    "reduce": (1.5, reducing.reduce_call),
    "tolerance_ess": (1.0, numbers.numbers_call("tolerance_ess")),
    "entropy_ess": (1.0, numbers.numbers_call("entropy_ess")),
    "energy_ess": (1.0, numbers.numbers_call("energy_ess")),
    "not an operator": (0.4, construction.not_an_operator_call),
    "profile": (0.5, models.profile_call),
    "capture": (0.5, models.capture_call),
    "compare": (0.5, models.reading_call),
    "forward": (0.5, models.forward_call),
    "network_ess": (0.2, models.network_call),
    "truncate": (0.3, models.truncate_call),
    "settings": (0.8, settings.settings_call),
    "tasks": (0.6, settings.task_call),
    "texts": (0.8, texts.text_call),
    "paths": (1.0, texts.path_call),
    "distances of tensors": (0.8, training.distance_call),
    "distances of operators": (0.8, training.operator_distance_call),
    "training": (1.2, training.loop_call),
    "cache": (0.3, models.cache_call),
}
"""Generators of calls by what they call, each with its weight."""


@dataclass(frozen=True)
class Finding:
    """A call with which something was wrong.

    Attributes:
        number: Of the call; with the campaign's seed it makes the call again.
        function: What was called.
        about: With what.
        problem: What was wrong.
    """

    number: int
    function: str
    about: str
    problem: str


@dataclass
class Campaign:
    """Random calls of one seed.

    Attributes:
        seed: Of all calls.
        answered: Right answers by function.
        refused: Refusals that name an argument, by function.
        findings: All others.
    """

    seed: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def run(self, numbers: Iterable[int], begun: Callable[[int], object] = lambda _: None) -> None:
        """Make some calls; `begun` is told each before it is made."""
        # What is imported on first use, such as xarray, adds filters of warnings of its own.
        models.whole_profile()
        for number in numbers:
            begun(number)
            self._run(number)

    def _run(self, number: int) -> None:
        source = Source.of(self.seed, number)
        weights = [weight for weight, _ in FUNCTIONS.values()]
        function = source.chance.choices(list(FUNCTIONS), weights)[0]
        call = FUNCTIONS[function][1](source)
        try:
            answer, problems = watched(source.tensors, call.run, SECONDS)
        except HangError as error:
            answer, problems = None, [f"hung: {error}"]
        else:
            problems += _judged(call, answer)
        if problems:
            self.findings.append(Finding(number, function, call.about, "; ".join(problems)))
        else:
            (self.refused if isinstance(answer, Exception) else self.answered)[function] += 1


def _judged(call: Call, answer: object) -> list[str]:
    if isinstance(answer, ss.StatesizeError):
        message = str(answer)
        if call.refusal == "never":
            return [f"refused, though nothing is wrong: {message}"]
        if any(re.match(rf"{re.escape(name)} (is|are|has|have)\b", message) for name in call.names):
            return [f"a refusal that does not read NAME must be X, got Y: {message}"]
        named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in call.names)
        return [] if named else [f"an error that names none of {', '.join(call.names)}: {message}"]
    if isinstance(answer, Exception):
        frame = traceback.extract_tb(answer.__traceback__)[-1]
        return [f"{type(answer).__name__}: {answer} ({frame.filename}:{frame.lineno})"]
    if call.refusal == "always":
        return [f"not refused: {answer!r:.200}"]
    return call.check(answer)
