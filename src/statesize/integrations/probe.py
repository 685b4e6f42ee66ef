"""Measurements of a model in training: which are due, how many heads they can afford, and where they are logged."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters import Checks
from statesize.adapters.models.quantised import measurable
from statesize.check import refuse, require_count, require_kind, require_real
from statesize.codes import Code, Note
from statesize.errors import StatesizeError
from statesize.integrations.ranks import on_first_rank, said_by_first
from statesize.io.devices import on_cpu_by_default
from statesize.io.files import os_errors
from statesize.io.text import counted
from statesize.measurement.settings import Settings
from statesize.parallel.threads import one_by_one
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import ProfileRun
from statesize.profiling.sequences import Provenance, SequenceWork
from statesize.report.model_rows import model_row
from statesize.report.words import by_reason
from statesize.results.profiled import model_mean
from statesize.results.summary import largest_known
from statesize.texts.inputs import Inputs, sequences

FEWEST_HEADS = 2
"""Fewest heads or channels of a layer in a measurement; a single one would have no standard error."""
MARGIN = 1.25
"""Factor on the predicted time of a measurement."""
SHARE, BEGINNING = 0.02, 20.0
"""Share of the processor time for measurements by default, and seconds after the first that they may take anyway."""
RECORD = "statesize.jsonl"
"""Name of the log file in the folder of a training."""
PREFIX = "ess/"
_LIMITS = (Code.NOT_CAUSAL, Code.UNCHECKED, Code.PART, Code.UNKNOWN_SIZE)
_CHEAPER = "Fewer or shorter sequences make readings cheaper, and so does a method operator(hidden) of your own layers."
_LOGGER = logging.getLogger("statesize")


@dataclass(frozen=True)
class Cost:
    """The cost of the last measurement.

    Attributes:
        fixed: Seconds of a processor besides measuring, most of them forward passes.
        head: Seconds for each head or channel.
        units: Heads or channels of each layer.
    """

    fixed: float
    head: float
    units: tuple[int, ...]

    def seconds(self, heads: int) -> float:
        """Predicted seconds of a measurement of at most `heads` heads or channels of each layer."""
        return self.fixed + self.head * sum(min(heads, units) for units in self.units)


def affordable_heads(cost: Cost, seconds: float) -> int:
    """The most heads or channels of each layer that can be measured in some time; 0 if FEWEST_HEADS take longer."""
    most = max(cost.units)
    heads = bisect_right(range(1, most + 1), seconds, key=lambda heads: MARGIN * cost.seconds(heads))
    return heads if heads >= min(FEWEST_HEADS, most) else 0


def probe_of(inputs: Inputs | Probe, every: int) -> Probe:
    """The probe that a callback is given, or one of its inputs."""
    if not isinstance(inputs, Probe):
        return Probe(inputs, every)
    if every not in (Probe.every, inputs.every):
        refuse("every", "left out beside a Probe, which has its own", every, "Give Probe(token_ids, every=…).")
    return inputs


@dataclass(frozen=True, eq=False)
class Probe:
    """The measurements of a model in training.

    A measurement is due every `every` steps. The first one takes two heads or channels of each layer and shows the cost
    of the model. Each later one takes as many as its predicted time allows, so that all measurements together stay
    within `share` of the processor time since the training began. If two do not fit, it waits for a step at which they
    do; but by default measurements of two may take 20 seconds more, so that a short training shows several.

    Attributes:
        inputs: The probe batch: token ids (L,) or (S, L), or lists of ids; see `statesize.profile`. If T of a layer is
            read from its runs, the size of a state of n numbers shows in texts of more than about 4 n tokens.
        every: Steps from one measurement to the next.
        share: Share of the processor time for measurements, 0.05 for 5 %; `math.inf` measures all heads each time. None
            takes 2 %, and the 20 seconds.
        settings: The measurement of each layer; how many heads or channels, `share` decides.
        sequences: The probe batch, one tensor of token ids per sequence.

    Example:
        >>> Probe([[1, 2, 3, 4]], every=10, share=0.05).share
        0.05
    """

    inputs: Inputs
    every: int = 100
    share: float | None = None
    settings: Settings = field(default_factory=lambda: Settings(positions=32))
    sequences: tuple[Tensor, ...] = field(init=False, repr=False)

    @on_cpu_by_default
    def __post_init__(self) -> None:
        require_count("every", self.every)
        if self.share not in (None, math.inf):
            advice = "math.inf measures all heads each time, however long that takes."
            require_real("share", self.share, above=0, most=1, advice=advice)
        require_kind("settings", self.settings, Settings, "a Settings", "Give statesize.Settings(positions=32).")
        # Read once: the inputs may be an iterator, and several trainings may use the probe.
        object.__setattr__(self, "sequences", tuple(sequences(self.inputs)))
        self.settings.without("a Probe", "channels").check_reach(max(map(len, self.sequences)))

    @property
    def limit(self) -> float:
        """The share, or its default."""
        return SHARE if self.share is None else self.share

    def __repr__(self) -> str:
        count, longest = len(self.sequences), max(map(len, self.sequences))
        limit = f"at most {100 * self.limit:g} % of the processor time" + ", or 20 s of it" * (self.share is None)
        heads = "all heads" if math.isinf(self.limit) else limit
        return f"Probe of {counted(count, 'sequence')} of up to {longest} tokens: every {self.every} steps, {heads}"

    @on_cpu_by_default
    def measure(self, model: nn.Module) -> Profile:
        """Measure all heads or channels of a model now, whatever `every` and `share` say.

        Args:
            model: The model in training; its mode, weights and random states stay as they are.

        Returns:
            Its profile at the probe's positions.

        Raises:
            InputError: The probe does not fit the model.
            ModelError: The model cannot be measured; see `statesize.profile`.
        """
        return _measured(model, self, sys.maxsize, ("all", "all"), time.process_time())[0]


class Probing:
    """The measurements of one training, for a loop that logs them itself.

    Args:
        probe: The measurements.
        steps: The steps of the training where they are known: a costly reading then says which `every` is cheap.

    Attributes:
        probe: The measurements.
        steps: The steps of the training; None where they are not known.
        run: The time at which the training began, which tells it from others in a log file.

    Example:
        >>> probing = Probing(Probe([[1, 2, 3, 4]], every=100))
        >>> wandb.log({"loss": loss} | (probing.step(model, step) or {}))  # doctest: +SKIP
    """

    def __init__(self, probe: Probe, steps: int | None = None) -> None:
        require_kind("probe", probe, Probe, "a Probe", "Give Probing(Probe(token_ids)).")
        self.probe, self.steps, self.run = probe, steps, datetime.now(UTC).isoformat()
        # Seconds of a processor: those of all readings, and of the first.
        self._began, self._spent, self._trial = time.process_time(), 0.0, 0.0
        self._due, self._cost = False, cast("Cost | None", None)
        self._checks: Checks = "all"
        self._readings, self._last, self._summary = 0, (0, 0.0), ""
        self._failing: dict[str, str] = {}
        self._reported: set[object] = set()
        self._layers: set[str] = set()
        self._unmeasured: set[str] = set()
        self._sizes: dict[str, float] = {}

    def __repr__(self) -> str:
        last = f"the last, at step {self._last[0]}: {self._summary}" if self._readings else "none yet"
        readings = f"{counted(self._readings, 'reading')}, {self._spent:.1f} s of a processor; {last}"
        return "\n".join([f"{self.probe!r}", readings, *(f"{what}: {cause}" for what, cause in self._failing.items())])

    def step(self, model: nn.Module, step: int) -> dict[str, float] | None:
        """Measure after a step of the training, if a measurement is due and there is time for it.

        Where several ranks of torch.distributed train the model, all of them call this: the first one measures, and
        the others wait as for `on_first_rank`.

        Args:
            model: The model in training; its mode, weights and random states stay as they are.
            step: Number of the step.

        Returns:
            Numbers by their names in logs; None on other ranks than the first, and where nothing was measured. Failures
            are logged as warnings, and so is the first reading that waits until `share` leaves time for it.

        Raises:
            InputError: The model is no module, or the step no whole number.
        """
        require_kind("model", model, nn.Module, "a torch module", "Give .step(model, step).")
        require_count("step", step, 0)
        if not (self._due or step % self.probe.every == 0):
            return None
        self._due = False
        with self.surviving(step, "the probe was not measured"):
            start = time.process_time()
            # Clocks of processes differ, and all of them have to do the same.
            heads = int(said_by_first(lambda: str(self._heads(start - self._began))))
            if heads:
                return on_first_rank(model, lambda whole: self._reading(whole, step, heads, start))
            self._due = True
            self._report_wait(step, start - self._began)
        return None

    def keep(self, folder: Path, step: int, values: Mapping[str, float]) -> None:
        """Append a reading to `statesize.jsonl` in a folder, and log once where that is.

        Args:
            folder: Made if it is not there; failures are logged as warnings.
            step: Number of the step.
            values: The reading that `step` returned.
        """
        with self.surviving(step, "the reading was not written"):
            path = folder / RECORD
            with os_errors(f"{path} cannot be written", "Give a folder that can."):
                folder.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": self.run, "step": step} | dict(values)) + "\n")
            self._report(step, f"readings are in {path}", "kept")

    @contextmanager
    def surviving(self, step: int, what: str) -> Generator[None]:
        """Log what fails, with its cause, once until it succeeds again: no reading is worth the end of a training."""
        try:
            yield
        except Exception as error:  # the model's own code may raise anything
            cause = str(error) if isinstance(error, StatesizeError) else f"{type(error).__name__}: {error}"
            if what not in self._failing:
                _LOGGER.warning("Step %d: %s: %s", step, what, cause)
            self._failing[what] = cause
        else:
            # A reading that waits shows no success.
            if not self._due:
                self._failing.pop(what, None)

    def _heads(self, elapsed: float) -> int:
        if math.isinf(self.probe.limit):
            return sys.maxsize
        if self._cost is None:
            # A model that could not be measured is tried again, but not all the time.
            return FEWEST_HEADS if self._spent <= self.probe.limit * elapsed else 0
        heads = affordable_heads(self._cost, self.probe.limit * elapsed - self._spent)
        predicted = self._spent - self._trial + MARGIN * self._cost.seconds(FEWEST_HEADS)
        return heads or (FEWEST_HEADS if self.probe.share is None and predicted <= BEGINNING else 0)

    def _reading(self, model: nn.Module, step: int, heads: int, start: float) -> dict[str, float]:
        try:
            profile, self._cost, passed = _measured(model, self.probe, heads, (self._checks, "none"), start)
        finally:
            self._spent += time.process_time() - start
            self._trial = self._trial or self._spent
        self._checks = "again" if passed else "all"
        self._report_layers(step, profile)
        profile = self._of_known_sizes(profile)
        now, most = time.process_time(), max(self._cost.units)
        share = self._spent / (now - self._began)
        self._report_cost(step, now - start, start - self._last[1])
        values = _logged_values(
            profile, {"heads": min(heads, most), "layers": len(profile.mixers), "share_of_time": share}
        )
        self._summary = f"ESS {values.get(f'{PREFIX}middle', math.nan):.2f}" + ("" if heads >= most else ", some heads")
        self._readings, self._last = self._readings + 1, (step, time.process_time())
        return values

    def _report(self, step: int, message: str, news: object = None) -> None:
        """Log some news, once."""
        if (news or message) not in self._reported:
            self._reported.add(news or message)
            _LOGGER.warning("Step %d: %s", step, message)

    def _report_wait(self, step: int, elapsed: float) -> None:
        """Say once at about which step there is time for the next reading."""
        if self._cost is None:
            return
        needed = (self._spent + MARGIN * self._cost.seconds(FEWEST_HEADS)) / self.probe.limit
        begin = step + math.ceil((needed - elapsed) / max(elapsed / max(step, 1), 1e-9))
        ends = self.steps is not None and begin > self.steps
        begins = "after the end of this training" if ends else f"at about step {float(f'{begin:.2g}'):,.0f}"
        limit = f"readings take at most {100 * self.probe.limit:g} % of the processor time"
        advice = f"For all readings, give Probe(share=math.inf). {_CHEAPER}"
        self._report(step, f"the next reading is {begins}: {limit}. {advice}", "waits")

    def _report_cost(self, step: int, took: float, trained: float) -> None:
        """Say once that a reading is costly beside the steps of the training since the last one."""
        if self._readings and step > self._last[0] and took > 0.1 * (took + trained):
            steps = took * (step - self._last[0]) / max(trained, 1e-9)
            every = int(float(f"{steps * (1 / SHARE - 1):.1g}"))
            rarer = f" Probe(every={every}) makes it {100 * SHARE:g} %." if every <= (self.steps or 0) else ""
            costs = f"a reading takes {took:.2g} s of a processor, as long as {counted(math.ceil(steps), 'step')}"
            self._report(step, f"{costs}. {_CHEAPER}{rarer}", "costs")

    def _report_layers(self, step: int, profile: Profile) -> None:
        """Name the layers that were not measured, once until they are others, and those whose numbers need a word."""
        none = Note(Code.NO_MIXING, "It was seen to mix no positions.")
        unmeasured = dict.fromkeys(self._layers.difference(profile.mixers), none) | profile.not_measured
        self._layers.update(profile.mixers, unmeasured)
        if unmeasured.keys() != self._unmeasured:
            self._unmeasured = set(unmeasured)
            causes = [f"{names} was not measured: {cause}" for names, cause in by_reason(unmeasured).items()]
            layers = len(self._layers - {profile.model})  # the model as a whole is none
            count = f"From here on, averages are over {len(profile.mixers)} of {counted(layers, 'layer')}."
            _LOGGER.warning("Step %d: %s", step, " ".join([*causes, count]))
        limited = (dict.fromkeys(note["layers"], note["sentence"]) for note in profile.codes if note["code"] in _LIMITS)
        for notes in (profile.incomplete, *limited):
            for names, cause in by_reason(notes).items():
                self._report(step, f"{names}: {cause}")

    def _of_known_sizes(self, profile: Profile) -> Profile:
        """The profile with each state as large as a reading found it: of a state that forgets more, less is found."""
        tree, lengths, larger = profile.tree.copy(), profile.tokens["length"].values[:, None], False
        for name in profile.mixers:
            node = profile.mixer(name)
            size = np.nan_to_num(largest_known(node, "tss")).item()
            known = self._sizes[name] = max(size, self._sizes.get(name, size))
            if known > size:
                passing = np.minimum(node["position"].values, lengths - node["position"].values)
                binds = node["binds"].copy(data=(passing >= known).astype(node["binds"].dtype))
                ceiling, larger = node["ceiling"].copy(data=np.minimum(passing, known)), True
                tree.children[name].dataset = node.assign(binds=binds, ceiling=ceiling)
        return Profile(tree) if larger else profile


def _logged_values(profile: Profile, further: Mapping[str, float]) -> dict[str, float]:
    """Finite numbers of a profile, and further ones, by their names in logs: those of layers come last."""
    precisions = [str(profile.mixer(name).attrs["precision"]) for name in profile.mixers]
    rows, model = profile.summary_rows(), model_row(profile)
    sink_share = model_mean(profile, [row["sink_share"] for row in rows])
    attention = {"sinkless": model["without_sink"], "sink_share": sink_share}
    values = {
        "middle": model["ess"],
        "average": model["average_entropy"],
        "total": model["total_entropy"],
        "state_utilisation": model["state_utilisation"],
        "ceiling_utilisation": model["ceiling_utilisation"],
        **(attention if math.isfinite(sink_share) else {}),
        "bits": min(torch.finfo(getattr(torch, name.partition(",")[0])).bits for name in precisions),
        **further,
    }
    for row in rows:
        # MLflow takes a name as a path: it must not contain @ or be the folder of another name.
        for share in ("state_utilisation", "ceiling_utilisation", "sink_share"):
            values[f"layer_{share}/{row['layer'].replace('@', '-')}"] = row[share]
    return {f"{PREFIX}{name}": float(value) for name, value in values.items() if math.isfinite(value)}


def _measured(
    model: nn.Module, probe: Probe, heads: int, checks: tuple[Checks, Checks], start: float
) -> tuple[Profile, Cost, bool]:
    """A profile of some heads of each layer, without a digest of weights; its cost; whether all passed the checks."""
    model, (first, after) = measurable(model), checks
    settings, ids = replace(probe.settings, channels=heads), probe.sequences
    run = ProfileRun(settings, "", ids)
    work, began, spent = SequenceWork(model, settings, first, after), time.perf_counter(), time.process_time()
    run.measure(partial(one_by_one, work))
    # The share of the time that measuring took is known on the clock of the wall.
    measuring = min(1.0, run.seconds / max(time.perf_counter() - began, 1e-9)) * (time.process_time() - spent)
    fixed = time.process_time() - start - measuring
    profile = run.profile(None, Provenance.of(model), None)
    rows = profile.summary_rows()
    cost = Cost(fixed, measuring / sum(row["measured"] for row in rows), tuple(row["units"] for row in rows))
    return profile, cost, work.checks == after
