"""The report that the tutorial reads: two bundled models on the same bundled text."""

from pathlib import Path

from statesize import profile
from statesize.lab import zoo
from statesize.lab.tasks.language.text import encode
from statesize.report import write_report

LENGTH = 160


def write_example_report(path: Path) -> None:
    """Write it to a file."""
    profiles = []
    for name in ("sa", "gla"):
        model, tokenizer = zoo.load(name)
        short = [document for document in zoo.documents() if len(encode([document], tokenizer)) < LENGTH // 2]
        ids = encode(short[:6], tokenizer)[:LENGTH]
        settings = {"stride": 2, "source": {"kind": "bundled"}}
        profiles.append(profile(model, ids, tokenizer=tokenizer, name=name, **settings))
    write_report(profiles, path)
