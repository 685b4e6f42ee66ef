"""The laboratory's commands, as `statesize` lists them without importing what they do."""

from statesize.cli.plugins import MODELS, Command

_TITLE = "Laboratory: train small models, and see what ESS shows"
_TRAIN = """Train a small language model of about one million parameters.

It learns a file of your own, or the bundled documents, with a tokenizer made from it. OUTPUT receives log.jsonl,
state.safetensors (for --resume), best/ (the weights of the lowest held-out loss) and tokenizer.json. The held-out
report is printed at the end.
"""
_SERIES = """Measure how the ESS of each layer develops through the checkpoints of a training.

All checkpoints read the same texts and are measured at the same positions and heads. With --output, a profile of each
checkpoint is kept, and the same command continues after a crash or an interrupt.
"""
_LENGTH = """Measure how the ESS of each layer grows with the length of the context.

Every length ends at the same cut of the same pieces of text, with the same --future tokens after it. With --output, a
profile of each length is kept, and the same command continues.
"""

COMMANDS = (
    Command(
        "demo",
        MODELS,
        "Profile four bundled models over bundled documents, and cut one: print what that shows, and write a page of "
        "charts (statesize-demo.html).",
        "statesize.lab.cli.demo:demo",
        ("", "--html demo.html --json"),
    ),
    Command(
        "lab study",
        _TITLE,
        "Train or measure many models, and see what ESS shows. The folder of a study is shown again.",
        "statesize.lab.cli.study:study",
        ("regimes --preset smoke", "statesize-study-regimes-smoke"),
    ),
    Command(
        "lab train",
        _TITLE,
        _TRAIN,
        "statesize.lab.cli.train:train",
        ("text --mixer gla --output run", "text --mixer gla --output run --resume"),
    ),
    Command(
        "lab series",
        _TITLE,
        _SERIES,
        "statesize.lab.cli.trends:series",
        ("run --html series.html", "EleutherAI/pythia-14m --revisions step0,step1000"),
    ),
    Command(
        "lab length",
        _TITLE,
        _LENGTH,
        "statesize.lab.cli.trends:length",
        ("gla --lengths 64,128,256,512 --html length.html",),
    ),
)
"""The entry point `lab` of the group `statesize.commands`."""
