"""What a profile decides and builds is decided and built once, by few functions of few files."""

import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import statesize as ss
from statesize.adapters import forward
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.plain_attention import PlainAttention
from statesize.measurement.settings import Settings
from statesize.models import load
from statesize.profiling import work
from statesize.spectra.exact.dense import DenseEngine

LAYERS, HEADS = 2, 2
MOST_FILES, MOST_FUNCTIONS = 44, 256


@pytest.fixture
def counts(monkeypatch):
    counted = Counter()

    def count(owner, name):
        function = getattr(owner, name)

        def counting(*arguments, **options):
            counted[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count(Forward, "hidden")
    count(forward, "sources_of")
    count(PlainAttention, "explained")
    count(ss.SoftmaxAttention, "__init__")
    count(ss.SoftmaxAttention, "dense")
    count(work, "choose_engine")
    # Every other choice would look here for the engine's name.
    monkeypatch.setattr("statesize.measurement.measurement.choose_engine", pytest.fail)
    count(Settings, "cut")
    count(load, "tensors_sha256")
    return counted


def small_model():
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "n_positions": 48, "n_embd": 16, "n_layer": LAYERS, "n_head": HEADS}
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()


def profiled(model=None, **options):
    return ss.profile(model or small_model(), torch.arange(40), on_progress=lambda _: None, **options)


def test_operators_are_built_and_engines_and_cuts_chosen_once(counts):
    assert len(profiled().mixers) == LAYERS
    # In the model's precision, and in float64 for the check.
    assert counts["__init__"] == 2 * LAYERS
    assert (counts["choose_engine"], counts["cut"]) == (LAYERS, LAYERS)
    # All heads at once, in float64, for their spectra and their sinks.
    assert counts["dense"] == LAYERS
    assert counts["tensors_sha256"] == 0


def test_few_frames_lie_between_a_profile_and_the_engine(monkeypatch):
    between, blocks, root = [], DenseEngine.blocks, str(Path(ss.__file__).parent)

    def counting(*arguments):
        files = [(frame.f_code.co_filename, frame.f_code.co_name) for frame, _ in traceback.walk_stack(None)]
        own = [name for file, name in files if file.startswith(root) and not name.startswith("<")]
        between.append(own.index("profile"))
        return blocks(*arguments)

    monkeypatch.setattr(DenseEngine, "blocks", counting)
    profiled()
    assert len(between) == LAYERS
    assert max(between) <= 9


def print_entered():
    """Print how many files and functions of the package a warm profile enters."""
    profiled()
    root, entered = str(Path(ss.__file__).parent), set()

    def enter(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            entered.add((frame.f_code.co_filename, frame.f_code.co_firstlineno, frame.f_code.co_name))

    sys.setprofile(enter)
    profiled()
    sys.setprofile(None)
    print(len({file for file, _, _ in entered}), len([name for _, _, name in entered if not name.startswith("<")]))


def test_few_files_and_functions_take_part_in_a_warm_profile():
    # In a process that has imported nothing else: layers of other libraries are looked for too.
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {__name__.rpartition('.')[2]} as own"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; own.print_entered()"], capture_output=True, text=True, check=True
    )
    files, functions = map(int, done.stdout.split())
    # More of them would be a second way to something, or something that is done twice.
    assert files <= MOST_FILES
    assert functions <= MOST_FUNCTIONS


def test_a_model_is_watched_once_and_each_layer_once_more(counts):
    profiled()
    # The model runs observed, read and bare.
    assert counts["hidden"] == 3
    # The model's files tell which sources its observed run opens, and those of each layer alone.
    assert counts["sources_of"] == 1
    # T is compared in float64 alone, as its check.
    assert counts["explained"] == LAYERS


def test_weights_are_hashed_once_where_something_is_stored(counts, tmp_path):
    assert profiled(output=tmp_path / "profile").attributes["weights_sha256"]
    assert counts["tensors_sha256"] == 1
