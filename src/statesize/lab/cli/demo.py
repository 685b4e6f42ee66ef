"""`statesize demo`: the bundled models over the bundled documents."""

from __future__ import annotations

import math
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
    from statesize.report.compared import ComparedModel
    from statesize.report.result_page import PageTable

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
    from statesize.cli.shared.table import print_notes, print_table
    from statesize.lab import zoo
    from statesize.measurement.settings import Settings
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.report.compared import compared_models
    from statesize.report.on_record import standing
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
    models = compared_models(every, {}, ())
    table, found = _table(models, every, losses), _found(models, every)
    means = _means(every, losses, cut["result"])
    with printing.step("drawing the report"):
        drawn = report_page(every)
        said = [*standing(every), f"Next, your model: statesize {' '.join(_YOURS)}"]
        notes, finding = {**drawn.notes, MEANING: said}, "\n".join([*found, *means])
        replace(drawn, finding=finding, tables=[table, *drawn.tables], notes=notes).write(path)
    if printing.json:
        documents = [profile_document(one, folder / name) for name, one in profiles.items()]
        print_json({"schema": SCHEMA, "models": documents, "truncation": cut["result"], "report": str(path)})
    else:
        print_notes([*found, ""])
        print_table(table)
        print_notes(["", *means])
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


def _found(models: Sequence[ComparedModel], profiles: Sequence[Profile]) -> list[str]:
    """How much the models carry, and what that is."""
    carried, texts = [model.middle_entropy for model in models], profiles[0].tokens.sizes
    return [
        f"Past token {texts['token'] // 2} of {texts['token']}, {len(models)} small language models carry "
        f"{min(carried):.1f} to {max(carried):.1f} numbers per channel: their effective state-size (ESS).",
        f"They were trained alike, and read {counted(texts['sequence'], 'text')} of {texts['token']} tokens. Softmax "
        "attention holds a key and a value of every token, the others a state of fixed size. ESS says about how "
        "many independent numbers of what a channel holds matter to later tokens.",
    ]


def _table(models: Sequence[ComparedModel], profiles: Sequence[Profile], losses: dict[str, float]) -> PageTable:
    """A row per model: what it holds, carries and uses, on average over its layers, and how well it predicts."""
    from statesize.report.document import Shown
    from statesize.report.names import model_title
    from statesize.report.result_page import PageTable

    headings = ["model", "loss (nats\nper token)", "numbers held\nper channel", "ESS", "used of\nstate"]
    rows: list[Sequence[object]] = []
    for model, profile in zip(models, profiles, strict=True):
        # A cache grows with the text, so its share tells of the text.
        share = model.middle_state_utilisation
        used = Shown(share, "" if math.isnan(share) else f"{share:.0%}")
        loss, held, ess = losses[model.model], model.middle_ceiling, model.middle_entropy
        rows.append([model_title(profile), Shown(loss, f"{loss:.2f}"), held, Shown(ess, f"{ess:.1f}"), used])
    note = (
        "Loss: cross-entropy with natural logarithms. Softmax attention has no share, as its cache grows with the text."
    )
    return PageTable("Four models", headings, rows, note)


def _means(profiles: Sequence[Profile], losses: dict[str, float], cut: dict[str, Any]) -> list[str]:
    """Whether as many numbers as ESS are enough, and what must not be concluded."""
    from statesize.measurement.statistics import Interval
    from statesize.report.names import model_title
    from statesize.truncation.result import NEGLIGIBLE

    rows = cast("list[dict[str, Any]]", cut["rows"])
    once = {row["rule"]: row["divergence_share"] for row in rows if row["scale"] == 1}
    said: list[str] = []
    for choice, rule in (("as if later tokens were known (with hindsight)", "ess"), ("from the past", "past rows")):
        lost = Interval.of(once[rule])
        sure = bool(lost.ends) and not lost.low <= NEGLIGIBLE < lost.high
        word = "Perhaps" if not sure else "Yes" if lost.high <= NEGLIGIBLE else "No"
        said.append(f"{word}, if they are chosen {choice}: predictions change by {lost:.1%}.")
    multiple: dict[str, Any] = cut["without_hindsight"]["multiple"] or {}
    if multiple.get("mean"):
        said.append(f"For {NEGLIGIBLE:.0%} it takes {Interval.of(multiple):.1f} times ESS.")
    title = model_title(next(one for one in profiles if one.model == _CUT))
    best = min(profiles, key=lambda one: losses[one.model])
    return [
        f"Would a memory of so many numbers be enough? This was tested in {title}, at the middle of "
        f"{counted(cut['texts'], 'text')} of {cut['measured'][0]['tokens']} tokens, where the past is worth "
        f"{Interval.of(cut['worth'])} nats per token. Enough means: predictions change by at most {NEGLIGIBLE:.0%} of "
        "the change if the whole past is lost.",
        " ".join(said),
        f"A larger ESS does not make a better model (here {model_title(best)} predicts best), and a state that is not "
        "filled is no fault: only a task can tell.",
    ]


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
