"""`statesize demo`: the bundled models over the bundled documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from statesize.cli.shared.options import OpenPage, Page, page_path
from statesize.cli.shared.printing import TEXT, Printing
from statesize.io.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.profiling import Profile

_PAGE = Path("statesize-demo.html")
_CUT = "gla"
_YOURS = ("profile", "MODEL", "--text", "FILE")


def demo(
    *,
    html: Page = _PAGE,
    output: Page = Path("statesize-demo"),
    open_page: OpenPage = False,
    printing: Printing = TEXT,
) -> None:
    """Profile four bundled models over bundled documents, and cut one: say what was found, and write a page of charts.

    Args:
        html: HTML file for the page.
        output: Folder for the profiles, which are kept as they are found: a second run takes them up.
        open_page: Show the page in the browser.
        printing: What is printed.
    """
    from statesize.io.files import check_writable

    path = page_path(html, open_page=open_page, name=_PAGE.stem) or _PAGE
    check_writable(output or Path())

    from statesize.cli.shared.printing import SCHEMA, print_json, profile_document, tell_page
    from statesize.cli.shared.table import print_notes
    from statesize.lab import zoo
    from statesize.measurement.settings import Settings
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.report.on_record import what_suffices
    from statesize.report.page import MEANING
    from statesize.report.page import page as report_page
    from statesize.results.place import KEPT, written_at
    from statesize.texts.inputs import bundled_sequences

    inputs = bundled_sequences(zoo.tokenizer(), 4, 256)
    folder = output or Path()
    folder.mkdir(exist_ok=True)
    profiles: dict[str, Profile] = {}
    losses: dict[str, float] = {}
    written = {name: written_at(folder / name) for name in zoo.names()}
    with printing.bars() as bars:
        for name in zoo.names():
            model, tokenizer = zoo.load(name)
            losses[name] = _loss(model, inputs)
            profiles[name] = run_profile(
                model,
                inputs,
                Settings(),
                tokenizer=tokenizer,
                output=folder / name,
                name=name,
                source={"kind": "bundled", "loss": _in_nats(losses[name])},
                on_progress=profile_bar(bars, name, len(inputs)),
            )
    kept = sum(time is not None and time == written_at(folder / name) for name, time in written.items())
    cut = _truncation(profiles, folder, printing)
    every = [*profiles.values()]
    told = _told(every, losses, cut["result"])
    with printing.step("drawing the report"):
        drawn = report_page(every)
        said = [*told, *what_suffices(every), f"Next, your model: statesize {' '.join(_YOURS)}"]
        replace(drawn, notes={**drawn.notes, MEANING: said}).write(path)
    if printing.json:
        models = [profile_document(one, folder / name) for name, one in profiles.items()]
        print_json({"schema": SCHEMA, "models": models, "truncation": cut["result"], "report": str(path)})
    else:
        print_notes(told)
    printing.say(f"Profiles: {folder}" + (f", {kept} of {len(profiles)} {KEPT}" if kept else ""))
    tell_page(path, printing, open_page=open_page)
    printing.next("profile", folder / zoo.names()[-1], "--open", why="each layer and head of one of them")
    printing.next(*_YOURS, why="now your model")


def _loss(model: Any, inputs: Sequence[Tensor]) -> float:
    """Mean cross-entropy of a language model, nats per token."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        logits = torch.cat([model(ids[None])[0, :-1].float() for ids in inputs])
    return float(functional.cross_entropy(logits, torch.cat([ids[1:] for ids in inputs])))


def _in_nats(loss: float) -> str:
    return f"{loss:.2f} nats per token"


def _told(profiles: Sequence[Profile], losses: dict[str, float], cut: dict[str, Any]) -> list[str]:
    """What was found, what the models are and carry, what is normal, and whether that is enough, a line each."""
    from statesize.measurement.statistics import Interval
    from statesize.report.names import model_title
    from statesize.report.on_record import standing
    from statesize.report.words import capacity_use, headline, model_line

    texts = profiles[0].tokens.sizes
    title = model_title(next(one for one in profiles if one.model == _CUT))
    worth = Interval.of(cut["worth"])
    best = min(profiles, key=lambda one: losses[one.model])
    return [
        *filter(None, [capacity_use(profiles)]),
        f"{len(profiles)} small language models, trained alike, read {counted(texts['sequence'], 'text')} of "
        f"{texts['token']} tokens. They differ in their memory: attention keeps keys and values of every token, the "
        "others a state of fixed size. The effective state-size (ESS) is how many numbers of it, per channel, can "
        "still affect later tokens:",
        *(f"- {model_line(one)} Loss: {_in_nats(losses[one.model])}." for one in profiles),
        headline(profiles).sentence,
        *standing(profiles),
        f"Would as many numbers as its ESS suffice? {_answer(cut)} Losing the whole past is 100%. This is of {title} "
        f"alone, on {counted(cut['texts'], 'text')} of {cut['measured'][0]['tokens']} tokens, in which the past is "
        f"worth {worth} nats per token.",
        f"A larger ESS does not make a better model (here {model_title(best)} predicts best), and a state that is not "
        "filled is no fault: only a task can tell.",
    ]


def _answer(cut: dict[str, Any]) -> str:
    """Yes, no or perhaps, for numbers that are chosen with hindsight, and without it."""
    from statesize.measurement.statistics import Interval
    from statesize.truncation.result import NEGLIGIBLE

    rows = cast("list[dict[str, Any]]", cut["rows"])
    once = {row["rule"]: row["divergence_share"] for row in rows if row["scale"] == 1}
    said: list[str] = []
    for choice, rule in (("with hindsight", "ess"), ("without it", "past rows")):
        lost = Interval.of(once[rule])
        sure = bool(lost.ends) and not lost.low <= NEGLIGIBLE < lost.high
        word = "perhaps" if not sure else "yes" if lost.high <= NEGLIGIBLE else "no"
        said.append(f"Chosen {choice}, {word}: the predictions change by {lost:.1%}")
    multiple: dict[str, Any] = cut["without_hindsight"]["multiple"] or {}
    if multiple.get("mean"):
        said[-1] += f"; {NEGLIGIBLE:.0%} takes {Interval.of(multiple):.1f} times as many"
    return f"{'. '.join(said)}."


def _truncation(profiles: dict[str, Profile], folder: Path, printing: Printing) -> dict[str, Any]:
    """What cutting one of the models shows, which its profile then says too; of an earlier run where that is there."""
    import json

    from statesize.io.files import replace_file
    from statesize.lab import zoo
    from statesize.truncation.page import with_truncation
    from statesize.truncation.truncate import truncate

    path, profile = folder / "truncation.json", profiles[_CUT]
    run = profile.attributes["run_sha256"]
    if profile.attributes.get("truncation") and path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["run"] == run:
            return kept
    model, tokenizer = zoo.load(_CUT)
    with printing.bars() as bars:
        update = bars.begin(f"cutting {_CUT}").update
        result = truncate(model, documents=6, tokens=128, tokenizer=tokenizer, name=_CUT, on_progress=update)
    found = {"run": run, "finding": result.finding, "result": result.to_dict()}
    replace_file(path, (json.dumps(found) + "\n").encode())
    profiles[_CUT] = with_truncation(profile, result)
    profiles[_CUT].save(folder / _CUT)
    return found
