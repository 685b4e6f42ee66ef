"""Every command: examples that parse, and what its help names."""

import json
import shlex
import subprocess
import sys

import pytest
import torch

from statesize.cli import main
from statesize.cli.commands import app

HEAVY = {"torch", "numpy", "transformers", "pandas", "xarray", "altair", "numba", "scipy", "ray"}


def commands(group=app, above=()):
    """Names and App of each command that does something."""
    for name in group:
        if name in {"--help", "-h", "--version", "--install-completion"}:
            continue
        below = group[name]
        if below.default_command is not None:
            yield (*above, name), below
        yield from commands(below, (*above, name))


COMMANDS = dict(commands())


def test_all_commands_are_known():
    core = {"profile", "compare", "truncate", "cache"}
    lab = {"demo", "lab"}
    assert {names[0] for names in COMMANDS} == core | lab


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_its_help_shows_examples_that_parse_and_names_json_and_quiet(names, capsys, tmp_path, monkeypatch):
    # A model's file that is not there, or is none of GGUF, is refused as soon as its name is read.
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert main([*names, "--help"]) == 0
    text = capsys.readouterr().out
    _, title, shown = text.partition("\nExample")
    assert title, text
    examples = [line.strip() for line in shown.splitlines()[1:] if line.strip()]
    assert examples
    for example in examples:
        assert example.startswith(" ".join(["statesize", *names]))
        # What a shell would take for itself.
        words = shlex.split(example.partition(" > ")[0].partition(" < ")[0])
        command, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
        assert command is COMMANDS[names].default_command
        assert bound is not None
    assert "--json" in text
    assert "--no-" not in text


def test_the_shell_learns_commands_and_options(tmp_path):
    script = tmp_path / "statesize.bash"
    assert main(["--install-completion", "--shell", "bash", "--output", str(script)]) == 0
    assert {"profile", "--max-tokens"} <= set(script.read_text().replace("'", " ").replace('"', " ").split())


# It asks a torch that knows more than the CPU for its devices.
CPU_ALONE = pytest.mark.skipif("+cpu" not in torch.__version__, reason="torch is asked")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["profile", "--help"], pytest.param(["--version"], marks=CPU_ALONE), ["profile"]]
)
def test_what_does_nothing_imports_nothing_heavy(arguments):
    code = "import json, sys; from statesize.cli import main; main(sys.argv[1:]); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(json.loads(done.stdout.splitlines()[-1]))
