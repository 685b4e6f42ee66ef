"""`statesize demo`: the bundled models over the bundled documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.cli.shared.options import Output
from statesize.cli.shared.printing import REPORTING, Reporting
from statesize.io.progress import Bar, say
from statesize.io.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.profiling import Profile
    from statesize.results.summary import SummaryRow

_PAGE = Path("statesize-demo.html")
_TITLE = "How much of their memory do four small language models use?"
_CUT = "gla"


def demo(*, output: Output = Path("statesize-demo"), printing: Reporting = REPORTING) -> None:
    """Profile four bundled models over bundled documents, and cut one: say what was found, and write a page of charts.

    Args:
        output: Folder for the profiles; a second run takes them up.
        printing: What is printed.
    """
    path = printing.html or _PAGE
    printing = replace(printing, html=path).named(path.stem)

    from statesize.cli.shared.printing import print_json, print_notes, print_table
    from statesize.lab import zoo
    from statesize.measurement.settings import Settings
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.report.model_rows import model_row
    from statesize.report.page import page as report_page
    from statesize.report.result_page import RESULT
    from statesize.report.table import field_table
    from statesize.results.fields import MODELS
    from statesize.texts.inputs import bundled_sequences

    inputs = bundled_sequences(zoo.tokenizer(), 4, 256)
    folder = output or Path()
    folder.mkdir(exist_ok=True)
    profiles: dict[str, Profile] = {}
    losses: dict[str, float] = {}
    for name in zoo.names():
        model, tokenizer = zoo.load(name)
        losses[name] = _loss(model, inputs)
        command = f"statesize profile {name} --sequences {len(inputs)} --max-tokens {len(inputs[0])}"
        with Bar(f"profiling {name}") as bar:
            profiles[name] = run_profile(
                model,
                inputs,
                Settings(),
                tokenizer=tokenizer,
                output=folder / name,
                name=name,
                source={"kind": "bundled", "command": command, "loss": losses[name]},
                on_progress=profile_bar(bar, len(inputs)),
            )
    cut = _truncation(profiles, folder)
    every = [*profiles.values()]
    models = list(map(model_row, every))
    table, found = field_table(MODELS, models, "Halfway", first=True), _found(models, every)
    means = _means(every, losses)
    with Bar("drawing the report"):
        drawn = report_page(every)
        notes = {**drawn.notes, RESULT: means}
        tables = [table, *drawn.tables[1:]]
        replace(drawn, title=_TITLE, finding="\n".join(found), tables=tables, notes=notes).write(path)
    if printing.json:
        documents = [profile.to_dict() | {"result": str(folder / name)} for name, profile in profiles.items()]
        print_json({"models": documents, "truncation": cut, "report": str(path)})
    else:
        print_notes([*found, ""])
        print_table(table)
        print_notes(["", *means])
    say(f"Profiles: {folder}; `statesize profile {folder}` shows them again.")
    printing.tell_report()
    say("Next: statesize profile MODEL.gguf")


def _loss(model: Any, inputs: Sequence[Tensor]) -> float:
    """Mean cross-entropy of a language model, nats per token."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        logits = torch.cat([model(ids[None])[0, :-1].float() for ids in inputs])
    return float(functional.cross_entropy(logits, torch.cat([ids[1:] for ids in inputs])))


def _found(models: Sequence[SummaryRow], profiles: Sequence[Profile]) -> list[str]:
    """Shares of their state that the models use, and their meaning."""
    shares, texts = [row["share_of_state"] for row in models], profiles[0].tokens.sizes
    used = [share for share in shares if not math.isnan(share)]
    return [
        f"Halfway through a text, models with a state of fixed size use {min(used):.0%} to {max(used):.0%} of it.",
        f"{len(profiles)} small language models, trained alike, read {counted(texts['sequence'], 'text')} of "
        f"{texts['token']} tokens. ESS is about how many numbers per channel matter to later tokens.",
    ]


def _means(profiles: Sequence[Profile], losses: dict[str, float]) -> list[str]:
    """Tells whether as many numbers as ESS are enough, and what must not be concluded."""
    from statesize.report.words import model_title

    tested = next(profile for profile in profiles if profile.model == _CUT)
    best = min(profiles, key=lambda profile: losses[profile.model])
    return [
        f"Would a memory of only as many numbers as ESS be enough? Tested in {model_title(tested)}, 6 × 128 tokens: "
        f"{tested.attributes['truncation']} (100%: nothing is kept.) With hindsight, the numbers are chosen for the "
        "tokens that follow, which a real memory cannot know.",
        f"More ESS is not better: {model_title(best)} predicts these texts best. Whether a model needs more memory, "
        "only a task can tell.",
    ]


def _truncation(profiles: dict[str, Profile], folder: Path) -> dict[str, Any]:
    """Cuts one of the models and writes the headline into its profile."""
    from statesize.lab import zoo
    from statesize.profiling import Profile
    from statesize.truncation.truncate import truncate

    model, tokenizer = zoo.load(_CUT)
    with Bar(f"cutting {_CUT}") as bar:
        result = truncate(model, documents=6, tokens=128, tokenizer=tokenizer, name=_CUT, on_progress=bar.update)
    tree = profiles[_CUT].to_xarray()
    tree.attrs["truncation"] = result.headline
    profiles[_CUT] = Profile(tree)
    profiles[_CUT].save(folder / _CUT)
    return result.to_dict()
