"""`statesize demo`: the bundled models on bundled text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from statesize.cli.output.printing import TEXT, Printing

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.profiling import Profile

SEQUENCES = 4
LENGTH = 256


def demo(
    *,
    output: Path = Path("statesize-demo.html"),
    printing: Printing = TEXT,
) -> None:
    """Profile the bundled models over bundled documents, print a table and write an HTML report.

    Args:
        output: The report.
        printing: What is printed.
    """
    from statesize import zoo
    from statesize.cli.output.document import SCHEMA, print_json, profile_document
    from statesize.cli.output.progress import profile_bar
    from statesize.cli.output.summary import print_summary
    from statesize.profiling import TOLERANCE_LADDER, profile
    from statesize.report import check_report_path, write_report

    check_report_path(output)
    inputs = demo_sequences()
    profiles: list[Profile] = []
    with printing.bars() as bars:
        for name in zoo.names():
            model, tokenizer = zoo.load(name)
            on_progress = profile_bar(bars, name, len(inputs))
            profiles.append(
                profile(
                    model,
                    inputs,
                    tokenizer=tokenizer,
                    name=name,
                    relative_tolerances=TOLERANCE_LADDER,
                    on_progress=on_progress,
                )
            )
    with printing.step("drawing the report"):
        write_report(profiles, output)
    if printing.json:
        print_json(
            {"schema": SCHEMA, "models": [profile_document(item, None) for item in profiles], "report": str(output)}
        )
    else:
        print_summary(profiles)
    printing.say(f"Report: {output}")


def demo_sequences() -> Tensor:
    """Bundled documents, each followed by `<eos>`, cut into sequences (SEQUENCES, LENGTH) of at least two each."""
    import torch

    from statesize import zoo
    from statesize.tasks.text import encode

    tokenizer = zoo.tokenizer()
    tokens = [encode([document], tokenizer) for document in zoo.documents()]
    short = [ids for ids in tokens if len(ids) <= LENGTH // 2]
    step = len(short) // SEQUENCES
    return torch.stack([torch.cat(short[row * step : (row + 1) * step])[:LENGTH] for row in range(SEQUENCES)])
