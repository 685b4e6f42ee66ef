"""The report that the tutorial reads: two bundled models on the beginning of a bundled document."""

from pathlib import Path

from statesize import Settings, compare
from statesize.lab import zoo
from statesize.lab.tasks.text import encode
from statesize.profiling.run import run_profile

LENGTH = 160


def write_example_report(path: Path) -> None:
    """Write it to a file."""
    profiles = []
    for name in ("sa", "gla"):
        model, tokenizer = zoo.load(name)
        ids = encode(zoo.documents()[:1], tokenizer)[:LENGTH]
        run = {"tokenizer": tokenizer, "name": name, "source": {"kind": "bundled"}}
        profiles.append(run_profile(model, ids, Settings(positions=80), **run))
    compare(profiles).to_html(path)
