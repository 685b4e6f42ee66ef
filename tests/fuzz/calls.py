"""One random call of each public function that works on operators and numbers, with what may come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from fuzz import answers, exact
from fuzz.hostile import Source
from fuzz.operators import KINDS, Case, random_case

import statesize as ss
from statesize.reduction.recommendation import GLA_STUDENTS, calibrate, least_error, predicted_error
from statesize.spectra.engine import ENGINES, OUTPUTS

Refusal = Literal["always", "never", "maybe"]


@dataclass
class Call:
    """A call that is not made yet.

    Attributes:
        run: Makes it.
        check: What is wrong with its answer.
        refusal: Whether it must, must not or may be refused by a StatesizeError.
        names: One of which such an error must name.
        about: The call in words, for reports.
    """

    run: Callable[[], Any]
    check: Callable[[Any], list[str]]
    refusal: Refusal
    names: tuple[str, ...]
    about: str


def _refusal(source: Source, case: Case | None = None, wrong: bool = False) -> Refusal:
    if wrong or source.poisoned or (case is not None and case.wrong):
        return "always"
    return "maybe" if source.extreme or (case is not None and not _moderate(case)) else "never"


def _moderate(case: Case) -> bool:
    """Whether T is far from all limits of float64."""
    size = np.abs(case.T)
    return bool(np.isfinite(size).all() and (size < 1e100).all())


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
            return _wrong_operator(case, found[0], found[1], what, slice(first, last))

        refusal = _refusal(source, case)
        return Call(run, check, refusal, case.names, f"{kind}.{what} L={case.length}")

    return make


def _wrong_operator(case: Case, operator: ss.Operator, found: Any, what: str, columns: slice) -> list[str]:
    truth = case.T
    if (operator.length, tuple(operator.batch_shape)) != (truth.shape[-1], truth.shape[:-2]):
        return [f"length {operator.length} and batch shape {tuple(operator.batch_shape)} for T {truth.shape}"]
    if what == "state_size":
        sizes = cast("torch.Tensor", found)
        return [] if sizes.dtype == torch.int64 and sizes.shape == (operator.length,) else [f"state_size is {sizes}"]
    if isinstance(found, int) or not _moderate(case):
        return []
    if what == "columns":
        truth = truth[..., columns.start :, columns]
    if what == "index":
        truth = truth[..., 0, :, :]
    eps = torch.finfo(operator.dtype if what != "to" else torch.float64).eps
    smallest = torch.finfo(operator.dtype).tiny if what != "to" else 0
    # Rounding grows with the length and with what cancels; cases with large factors are told by `measure`'s bounds.
    if np.abs(truth).max(initial=0) < 1e3 * smallest or operator.dtype in {torch.float16, torch.bfloat16}:
        return [] if what != "to" else answers.wrong_matrix(found, truth, 1e-6)
    return answers.wrong_matrix(found, truth, 1e5 * eps)


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

    option("tolerances", 0.5, lambda: _thresholds(source), _good_thresholds)
    option("relative_tolerances", 0.5, lambda: _thresholds(source), _good_thresholds)
    option("past", 0.2, lambda: source.whole(1, length - 1), lambda v: v is None or _whole(v, 1, length - 1))
    option("future", 0.2, lambda: source.whole(1, length - 1), lambda v: v is None or _whole(v, 1, length - 1))
    first, last = _reach(options, length)
    wrong |= not wrong and first > last
    option("positions", 0.4, lambda: _positions(source, first, last), lambda v: _good_positions(v, first, last))
    option("outputs", 0.5, lambda: _outputs(source), _good_outputs)
    option("entropy_accuracy", 0.1, lambda: source.chance.choice((1e-6, 1e-2)), lambda v: _real(v) and v > 0)
    option("count_accuracy", 0.1, lambda: 0.05, lambda v: _real(v) and 0 <= v < 1)
    option("engine", 0.4, lambda: source.chance.choice((*ENGINES, "auto")), lambda v: v == "auto")
    refusal = _refusal(source, case, wrong)
    if refusal == "never" and options.get("engine", "auto") != "auto":
        refusal = "maybe"  # not every engine gives everything

    def check(found: ss.Measurement) -> list[str]:
        asked = options.get("positions")
        positions = found.positions.tolist()
        if isinstance(asked, list) and positions != asked:
            return [f"positions are {positions} for {asked}"]
        if asked is None and positions != list(range(first, last + 1)):
            return [f"positions are {positions} for {first} … {last}"]
        if not np.isfinite(case.T).all() or np.abs(case.T).max(initial=0) > exact.LARGEST / length:
            return []
        truth = exact.spectra(case.T, positions, options.get("past"), options.get("future"))
        return answers.wrong_measurement(found, truth)

    names = (*case.names, *options, "operator", "T", "engine")
    return Call(lambda: ss.measure(case.make(), **options), check, refusal, names, f"L={length} {options!r:.200}")


def _reach(options: dict[str, Any], length: int) -> tuple[int, int]:
    past, future = options.get("past"), options.get("future")
    first = int(past) if _whole(past, 1, length) else 1
    return first, length - (int(future) if _whole(future, 1, length) else 1)


def _whole(value: Any, low: int, high: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        tensor = isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.numel() == 1
        return tensor and low <= int(value) <= high
    return low <= value <= high


def _real(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.ndim == 0 and not value.is_complex() and math.isfinite(value)
    number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    return number and (isinstance(value, int) or math.isfinite(value))


def _thresholds(source: Source) -> tuple[float, ...]:
    return tuple(10 ** source.chance.uniform(-14, 1) for _ in range(source.whole(0, 3)))


def _good_thresholds(value: Any) -> bool:
    try:
        found = [float(item) for item in value]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False
    return all(math.isfinite(item) and item >= 0 for item in found)


def _positions(source: Source, first: int, last: int) -> Any:
    if source.maybe(0.4):
        return source.whole(1, 30)
    return [source.chance.randint(first, last) for _ in range(source.whole(0, 5))] if first <= last else []


def _good_positions(value: Any, first: int, last: int) -> bool:
    if isinstance(value, Iterable) and not isinstance(value, torch.Tensor):
        return all(_whole(item, first, last) for item in cast("Iterable[Any]", value))
    if isinstance(value, torch.Tensor) and value.ndim:
        return not value.numel()
    return value is None or _whole(value, 1, 10**40)


def _outputs(source: Source) -> Any:
    return source.chance.choice((*((name,) for name in OUTPUTS), OUTPUTS, "entropy", ("counts", "entropy", "values")))


def _good_outputs(value: Any) -> bool:
    return isinstance(value, str | tuple | list) and bool(value) and set(value) <= set(OUTPUTS)


def values_call(source: Source) -> Call:
    """`hankel_singular_values`."""
    case = random_case(source)
    engine = source.chance.choice(("auto", "auto", *ENGINES))
    positions = source.chance.choice((None, None, 3, [1]))

    def check(found: torch.Tensor) -> list[str]:
        if not np.isfinite(case.T).all() or np.abs(case.T).max(initial=0) > exact.LARGEST / case.length:
            return []
        at = list(range(1, case.length)) if positions is None else [1] if positions == [1] else None
        if at is None:
            at = ss.measure(case.make(), positions=3, outputs=("entropy",)).positions.tolist()
        truth = exact.spectra(case.T, at, None, None)
        bound = ss.measure(case.make(), positions=positions, outputs=("values",), engine=engine).error_bound
        return answers._wrong_values(answers.numbers(found), answers.numbers(bound), truth)

    refusal = _refusal(source, case)
    if refusal == "never" and engine != "auto":
        refusal = "maybe"
    about = f"L={case.length} {engine} {positions}"
    names = (*case.names, "operator", "engine", "T")
    return Call(lambda: ss.hankel_singular_values(case.make(), positions, engine), check, refusal, names, about)


def bands_call(source: Source) -> Call:
    """`count_bands`: the bands hold the counts of the definition at all positions."""
    case = random_case(source)
    shared = source.maybe(0.5)
    tau = 10 ** source.chance.uniform(-6, 0)
    past = source.chance.choice((None, None, 1, case.length // 2))

    def run() -> ss.CountBands:
        operator = case.make()
        some = ss.measure(operator, (tau,), (), ("counts",), positions=source.whole(1, 5), past=past or None)
        return ss.count_bands(operator, some, shared)

    def check(found: ss.CountBands) -> list[str]:
        if not np.isfinite(case.T).all() or np.abs(case.T).max(initial=0) > exact.LARGEST / case.length:
            return []
        truth = exact.spectra(case.T, found.positions.tolist(), past or None, None)
        least = (truth.values > (tau + truth.slack)[..., None]).sum(-1)
        most = (truth.values > (tau - truth.slack)[..., None]).sum(-1)
        lower, upper = (answers.numbers(part)[..., 0] for part in (found.lower, found.upper))
        off = (lower > most) | (upper < least) | (lower > upper)
        return [f"bands {lower[off][0]} … {upper[off][0]} for {least[off][0]} … {most[off][0]}"] if off.any() else []

    names = (*case.names, "operator", "past", "T")
    about = f"L={case.length} past={past} shared={shared} τ={tau:g}"
    return Call(run, check, _refusal(source, case), names, about)


def entropy_gradient_call(source: Source) -> Call:
    """`differentiable_entropy`, and that its gradients are numbers."""
    case = random_case(source)
    positions = source.chance.choice((None, 3, [1], [1, 1]))

    def run() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        found = ss.differentiable_entropy(case.make(), positions)
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
        if not _moderate(case) or source.extreme or positions == 3:
            return []
        at = list(range(1, case.length)) if positions is None else cast("list[int]", positions)
        truth = exact.spectra(case.T, at, None, None)
        kept = np.where(truth.values > 1e-10 * truth.values.max(-1, initial=0, keepdims=True), truth.values, 0)
        right = exact.effective_rank(kept)
        slack = exact.effective_rank_slack(kept, 1e-9 * kept.max(-1, initial=0), right)
        off = ~(np.abs(answers.numbers(found) - right) <= slack)
        return [f"entropy is {answers.numbers(found)[off][0]} for {right[off][0]}"] if off.any() else []

    names = (*case.names, "operator", "positions", "T")
    return Call(run, check, _refusal(source, case), names, f"L={case.length} {positions}")


def reduce_call(source: Source) -> Call:
    """`reduce`: as near as its bound says, and of no more states than asked."""
    kind = source.chance.choice(("Convolution", "Recurrence", "delta_rule", *KINDS))
    case = random_case(source, kind)
    options: dict[str, Any] = {}
    if source.maybe(0.4):
        options["state_size"] = source.no_number() if source.maybe(0.1) else source.whole(1, 9)
    if source.maybe(0.4):
        options["tolerance"] = source.no_number() if source.maybe(0.1) else 10 ** source.chance.uniform(-6, 1)
    refusal = _refusal(source, case)
    wrong = kind not in {"Convolution", "Recurrence", "delta_rule", "misshapen"} or len(options) == 2
    state_size, tolerance = options.get("state_size"), options.get("tolerance")
    wrong &= not (len(options) == 2 and (state_size is None or tolerance is None))
    wrong |= state_size is not None and not _whole(state_size, 1, 10**40)
    wrong |= tolerance is not None and not (_real(tolerance) and 0 < tolerance < math.inf)
    if refusal == "never" and (wrong or tolerance is not None or not case.T.size):
        refusal = "always" if wrong or not case.T.size else "maybe"

    def check(found: ss.Reduction | ss.VaryingReduction) -> list[str]:
        if not _moderate(case) or source.extreme:
            return []
        given = exact.wide(found.recurrence.dense())
        difference = (given - case.T).astype(float)
        off = np.linalg.norm(difference, 2, (-2, -1))
        size = np.linalg.norm(case.T.astype(float), 2, (-2, -1))
        bound = answers.numbers(found.bound)
        if not (off <= bound * (1 + 1e-6) + 1e-8 * size + 1e-300).all():
            return [f"off by {off.max():g}, bound {bound.max():g}"]
        states = found.state_size if isinstance(found.state_size, int) else int(found.state_size.max())
        if _whole(state_size, 1, 10**40) and states > int(cast("Any", state_size)):
            return [f"{states} states for at most {state_size}"]
        exactly = not options and not (bound <= 1e-6 * size + 1e-300).all()
        return [f"the exact one is off by {bound.max():g} of {size.max():g}"] if exactly else []

    names = (*case.names, "operator", "state_size", "tolerance")
    about = f"{kind} L={case.length} {options}"
    return Call(lambda: ss.reduce(cast("Any", case.make()), **options), check, refusal, names, about)


def numbers_call(name: str) -> Callable[[Source], Call]:
    """`tolerance_ess`, `entropy_ess`, `energy_ess` on any numbers."""

    def make(source: Source) -> Call:
        values = source.tensor(*source.batch(), source.whole(0, 9))
        if values.dtype.is_floating_point and values.layout == torch.strided and not values.is_meta:
            if source.maybe(0.9) and not source.poisoned:
                values = source.tensors[-1] = values.detach().abs().sort(-1, descending=True).values
        else:
            source.poisoned = True
        negative = not source.poisoned and bool((values < 0).any())
        threshold: Any = source.no_number() if source.maybe(0.1) else source.chance.choice((0.0, 1e-3, 0.5, 0.999))
        relative = source.maybe(0.3)
        wrong = negative or source.poisoned
        extra: tuple[Any, ...] = ()
        if name == "tolerance_ess":
            extra = (threshold, relative)
            listed = isinstance(threshold, torch.Tensor) or not isinstance(threshold, Iterable)
            wrong |= not _good_thresholds([threshold] if listed and not _several(threshold) else threshold)
        elif name == "energy_ess":
            extra = (threshold,)
            wrong |= not _real(threshold) or _several(threshold) or not 0 <= threshold < 1
        doubtful = isinstance(threshold, torch.Tensor | np.ndarray | bool | str | list | range | tuple | dict | bytes)
        doubtful |= threshold is None or isinstance(threshold, np.generic)

        def check(found: torch.Tensor) -> list[str]:
            if not answers.finite(found.double()):
                return [f"answer is {found}"]
            if doubtful and extra:
                return []
            return _wrong_number(name, values, threshold, relative, found)

        refusal: Refusal = "always" if wrong else "never"
        if doubtful and extra and not source.poisoned:
            refusal = "maybe"
        if source.extreme and refusal == "never":
            refusal = "maybe"
        names = ("values", "tolerance", "epsilon")
        function = getattr(ss, name)
        return Call(lambda: function(values, *extra), check, refusal, names, f"{values.shape} {values.dtype} {extra}")

    return make


def _several(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray) and value.size != () and np.ndim(value) > 0


def _wrong_number(name: str, values: torch.Tensor, threshold: float, relative: bool, found: torch.Tensor) -> list[str]:
    sigma = exact.wide(values)
    top = sigma.max(-1, initial=0)
    if name == "entropy_ess":
        right = exact.effective_rank(sigma)
        eps = torch.finfo(values.dtype).eps
        off = np.abs(found.detach().double().numpy() - right) > 20 * eps * (1 + right * sigma.shape[-1])
        return [f"{found} for {right}"] if off.any() else []
    if name == "tolerance_ess":
        near = torch.finfo(values.dtype).eps * 4 + 1
        level = np.longdouble(threshold) * (top if relative else 1)
        least, most = ((sigma > np.expand_dims(level * f, -1)).sum(-1) for f in (near, 1 / near))
    else:
        scaled = sigma / np.where(top > 0, top, 1)[..., None]
        energy = (scaled**2)[..., ::-1].cumsum(-1)[..., ::-1]
        near = torch.finfo(values.dtype).eps * 8 * (1 + sigma.shape[-1])
        total = energy[..., :1]
        least = (energy > (threshold + near) * total).sum(-1)
        most = (energy > max(0.0, threshold - near) * total).sum(-1)
        most = np.where(top > 0, most, 0)
    count = found.detach().numpy()
    return [] if ((least <= count) & (count <= most)).all() else [f"{count} for {least} … {most}"]


def recommend_call(source: Source) -> Call:
    """`recommend_state_size` and what belongs to it."""
    case = random_case(source)
    loss: Any = source.no_number() if source.maybe(0.2) else source.chance.uniform(0.01, 0.99)
    kind = source.chance.choice(("recommend", "predicted", "least", "calibrate"))
    refusal = _refusal(source, case)
    good = _real(loss) and not _several(loss)
    size: Any = source.no_number() if source.maybe(0.2) else source.whole(1, 9)
    students = [[source.chance.uniform(0.1, 9) for _ in range(source.whole(0, 30))] for _ in range(3)]
    if source.maybe(0.8):
        students = [part[: min(map(len, students))] for part in students]

    def run() -> Any:
        if kind == "calibrate":
            return calibrate(students[0], cast("Any", students[1]), students[2], loss)
        if kind == "least":
            return least_error(case.make(), size)
        found = ss.measure(case.make())
        return (found, ss.recommend_state_size(found, loss)) if kind == "recommend" else predicted_error(found, size)

    def check(answer: Any) -> list[str]:
        if kind == "recommend":
            found, given = cast("tuple[ss.Measurement, ss.Recommendation]", answer)
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


def not_an_operator_call(source: Source) -> Call:
    """Each function that takes an operator, with something else."""
    functions = (ss.measure, ss.hankel_singular_values, ss.differentiable_entropy, ss.reduce, least_error_of)
    function = source.chance.choice(functions)
    value = source.no_number()
    return Call(lambda: function(value), lambda _: [], "always", ("operator",), f"{function.__name__}({value!r})")


def least_error_of(operator: Any) -> torch.Tensor:
    """`least_error` for one state."""
    return least_error(operator, 1)
