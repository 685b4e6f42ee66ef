"""`statesize engines` and `statesize models`: what measures, which engine is chosen, and what can be measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from statesize.cli.shared.options import Count, Flag

if TYPE_CHECKING:
    from statesize.adapters.sources import Family
    from statesize.operators import Operator


def engines(
    *,
    explain: Flag = False,
    operator: Literal["attention", "recurrence", "delta", "convolution"] = "attention",
    transition: Literal["scalar", "diagonal", "full"] = "diagonal",
    length: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 2048,
    states: Count = 64,
    units: Count = 1,
    outputs: Annotated[tuple[Literal["counts", "entropy", "values"], ...], Parameter(negative="")] = (
        "counts",
        "entropy",
    ),
    relative: bool = True,
    past: int | None = None,
    future: int | None = None,
    json: Flag = False,
) -> None:
    """List the engines: what each works on, what it computes and what it costs.

    With --explain, say which engine "auto" chooses for an operator with random entries, and why not each of the others.

    Args:
        explain: Say which engine is chosen for the operator that the other options describe.
        operator: The kind of operator; delta is a recurrence with the delta rule.
        transition: Transition of a recurrence.
        length: Sequence length.
        states: States of a recurrence, width of queries and keys, or taps of a convolution.
        units: Heads or channels.
        outputs: The requested outputs.
        relative: Whether counts at relative tolerances are among these, as they are of `measure` by default.
        past: Columns of each block; all by default.
        future: Rows of each block; all by default.
        json: Print one JSON document instead of a table.
    """
    if not explain:
        _list(json)
        return
    from statesize.spectra.choice import explain_choice
    from statesize.spectra.cut import make_cut

    cut = make_cut(length, past=past, future=future)
    requested = (*outputs, "relative") if relative and "counts" in outputs else outputs
    reasons = explain_choice(_random(operator, transition, length, states, units), cut, requested)
    case = {"operator": operator, "length": length, "states": states, "units": units, "past": past, "future": future}
    if operator == "recurrence":
        case["transition"] = transition
    _print_choice(case | {"outputs": list(requested)}, reasons, json)


def _list(json: bool) -> None:
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_table
    from statesize.spectra.choice import ORDER
    from statesize.spectra.engine import OUTPUTS

    rows: list[dict[str, Any]] = [
        {
            "name": engine.name,
            "operators": engine.operators,
            "outputs": [output for output in OUTPUTS if output in engine.outputs],
            "windows": engine.windows,
            "cost": engine.cost,
        }
        for engine in ORDER
    ]
    if json:
        print_json({"schema": SCHEMA, "engines": rows})
        return
    cells = [
        (row["name"], row["operators"], ", ".join(row["outputs"]), "yes" if row["windows"] else "-", row["cost"])
        for row in rows
    ]
    note = "cost: of one head at all L positions; n states. Which one is chosen: statesize engines --explain"
    print_table(("engine", "works on", "outputs", "windows", "cost"), cells, left=5, notes=(note,))


def _print_choice(case: dict[str, Any], reasons: list[tuple[str, str]], json: bool) -> None:
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_table

    if json:
        others = [{"engine": engine, "reason": reason} for engine, reason in reasons[1:]]
        taken = {"taken": reasons[0][0], "reason": reasons[0][1], "others": others}
        print_json({"schema": SCHEMA, "asked": case, **taken})
        return
    requested = ", ".join(f"{name} {value}" for name, value in case.items() if value is not None and name != "outputs")
    cells = [(engine, "no" if index else "yes", reason) for index, (engine, reason) in enumerate(reasons)]
    notes = (
        f"For {requested}; {', '.join(case['outputs'])}; random entries.",
        "What a measurement used is its `.engine`; two names where a safer engine had to help.",
    )
    print_table(("engine", "taken", "why"), cells, left=3, notes=notes)


def _random(kind: str, transition: str, length: int, states: int, units: int) -> Operator:
    """An operator of a kind with random entries, the same for all units."""
    import torch

    from statesize.operators import Convolution, Recurrence, SoftmaxAttention

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).expand(units, *shape)

    if kind == "convolution":
        return Convolution(normal(states), length)
    query, key = normal(length, states), normal(length, states)
    if kind == "attention":
        return SoftmaxAttention(query, key, states**-0.5)
    if kind == "delta":
        unit = torch.nn.functional.normalize(key, dim=-1)
        return Recurrence.delta_rule(unit, normal(length).sigmoid(), query, normal(length).sigmoid())
    if transition == "full":
        return Recurrence(normal(length, states, states) / (2 * states**0.5), key, query)
    return Recurrence(normal(length, 1 if transition == "scalar" else states).sigmoid(), key, query)


NOTES = (
    "Each row is a tiny model of the family whose operators equal the model's own attention maps, or what its own code "
    "makes of impulses. Other models are checked while they are measured, and layers that fail are named. A short "
    "convolution inside another mixer is measured on request. For any other mixer, give its class a method "
    "`operator(hidden)` that returns a statesize Operator."
)


def models(*, json: Flag = False) -> None:
    """List what can be measured, by library: families of transformers, kernels of flash-linear-attention, and others.

    Args:
        json: Print one JSON document instead of a table.
    """
    from importlib.metadata import version

    from statesize.adapters.fla.source import SUPPORTED, kinds
    from statesize.adapters.sources import OTHER_LIBRARIES, STATE_SIZES, swept
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_table

    sweep, installed = swept(), version("transformers")
    measured, others = sweep.of("measured"), [family for family in sweep.families if family.status != "measured"]
    if json:
        reasons = [{"family": one.name, "status": one.status, "reason": one.reason} for one in others]
        families = [_row(family, STATE_SIZES) for family in measured]
        listing = {"transformers": installed, "checked": sweep.transformers, "families": families, "others": reasons}
        listing |= {"flash-linear-attention": {"version": SUPPORTED, "mixers": _sizes(kinds(), STATE_SIZES)}}
        listing |= {library: {"mixers": _sizes(mixers, STATE_SIZES)} for library, mixers in OTHER_LIBRARIES.items()}
        print_json({"schema": SCHEMA, **listing})
        return
    rows = [
        (
            family.name,
            ", ".join(family.mixers),
            ", ".join(STATE_SIZES[kind] for kind in family.mixers),
            sweep.measured_with(family),
        )
        for family in measured
    ]
    notes = [f"not measured: {family.name}: {family.reason}" for family in others]
    checked = f"Checked with transformers {', '.join(sweep.versions)}; {installed} is installed."
    print_table(
        ("family", "mixers", "TSS per channel at position i", "transformers"), rows, 4, [*notes, "", checked, ""]
    )
    headings = (f"layers of flash-linear-attention {SUPPORTED}", "TSS per channel at position i")
    print_table(headings, [(kind, STATE_SIZES[kind]) for kind in kinds()], 2)
    print()
    rows = [
        (library, ", ".join(mixers), ", ".join(STATE_SIZES[kind] for kind in mixers))
        for library, mixers in OTHER_LIBRARIES.items()
    ]
    print_table(("other library", "mixers", "TSS per channel at position i"), rows, 3, [NOTES])


def _sizes(kinds: Iterable[str], sizes: dict[str, str]) -> list[dict[str, str]]:
    return [{"kind": kind, "state_size": sizes[kind]} for kind in kinds]


def _row(family: Family, sizes: dict[str, str]) -> dict[str, object]:
    return {
        "family": family.name,
        "model": family.model,
        "mixers": _sizes(family.mixers, sizes),
        "maps": family.maps,
        "impulses": family.impulses,
        "skipped": family.reason,
        "versions": family.versions,
    }
