"""From a name to a model: what each kind of name gives, what is refused, and what is never run."""

import json
from logging import WARNING
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from oracles.pretrained import save_tiny, tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file

import statesize as ss
from statesize.errors import FileError, InputError, ModelError, StatesizeWarning
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.models.from_transformers import hushed
from statesize.models.load import load_model, load_tokenizer
from statesize.profiling import profile
from statesize.texts.documents import vocabulary_size

TEXT = "the cat sat on the mat"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def set_config(folder, **values):
    folder.mkdir(exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))
    return str(folder)


def test_a_named_model_reads_a_text_wherever_a_model_is_taken():
    loaded = load_model("gla")
    assert (loaded.name, loaded.source) == ("gla", {"kind": "bundled"})
    assert not loaded.model.training
    length = ss.capture("gla", TEXT).length
    assert length == len(ss.profile(loaded.model, TEXT, tokenizer=loaded.tokenizer, layers=0).ess(0).columns)
    (captured,) = ss.capture("gla", TEXT, 0)
    assert (captured.name, captured.kind) == ("layers.0.mixer", "gla")
    assert ss.network_ess("gla", TEXT, positions=[2], method="dense").positions.tolist() == [2]


@pytest.mark.parametrize("name", ["profile", "capture", "network_ess", "cache", "truncate"])
@pytest.mark.parametrize("model", [3, Path("gla")])
def test_what_is_neither_a_module_nor_a_name_is_refused(name, model):
    with pytest.raises(InputError, match="model must be"):
        getattr(ss, name)(model, [TEXT])


def test_a_checkpoint_of_statesize_and_its_tokenizer(tmp_path):
    folder = tmp_path / "small"
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=4)
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), folder)
    assert ss.load(str(folder)).tokenizer is None
    with pytest.raises(FileError):
        load_tokenizer(str(folder))
    zoo.tokenizer().save(str(folder / "tokenizer.json"))
    loaded = load_model(str(folder), dtype="float64")
    assert (loaded.name, loaded.source) == ("small", {"kind": "folder"})
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float64}
    tokenizer, found = load_tokenizer(str(folder))
    assert tokenizer.to_str() == loaded.tokenizer.to_str() == zoo.tokenizer().to_str()
    assert vocabulary_size(found) == vocabulary_size(loaded.model) == 4096
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(FileError):
        ss.load(str(folder))


@pytest.mark.parametrize(
    ("stored", "asked", "held"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.float32),
        (torch.bfloat16, "bfloat16", torch.bfloat16),
        (torch.float32, "float64", torch.float64),
    ],
)
def test_a_folder_of_transformers(tmp_path, stored, asked, held):
    loaded = load_model(str(save_tiny(tmp_path / "llama", dtype=stored)), dtype=asked)
    weights = {"weights": "bfloat16, run in float32"} if (stored, asked) == (torch.bfloat16, None) else {}
    assert (loaded.name, loaded.source) == ("llama", {"kind": "folder"} | weights)
    expected = tiny_llama().to(stored).to(held).state_dict()
    torch.testing.assert_close(loaded.model.state_dict(), expected, rtol=0, atol=0)
    result = profile(loaded.model, "a state of its past", tokenizer=loaded.tokenizer)
    first, _ = result.summary_rows()
    assert 0 <= first["faithfulness"] < (1e-2 if held == torch.bfloat16 else 1e-5)
    # Keys and values of two heads of eight numbers, for each token, as the cache of the weights' dtype holds them.
    tokens = int(result.tokens["length"].values[0])
    assert first["state_bytes"] == 2 * 2 * 8 * tokens * (stored if asked is None else held).itemsize


def test_half_precision_that_does_not_fit_in_float32_runs_as_it_is_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("statesize.models.load.free_bytes", lambda device: 1000)
    loaded = load_model(str(save_tiny(tmp_path / "llama", dtype=torch.bfloat16)))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert "as float32 does not fit" in loaded.source["weights"]


@pytest.mark.parametrize(
    ("quantised", "error", "named"),
    [
        # What reads them is named where it is not there.
        ({"quant_method": "gptq", "bits": 4}, FileError, "optimum|gptqmodel"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, FileError, "modelopt"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, ModelError, "fp8"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "int-quantized",
                "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": {"num_bits": 8}}},
            },
            ModelError,
            "compressed-tensors",
        ),
    ],
)
def test_quantised_weights_that_cannot_be_measured(tmp_path, quantised, error, named):
    folder = set_config(save_tiny(tmp_path / "small"), quantization_config=quantised)
    with pytest.raises(error, match=named):
        load_model(folder)


def test_weights_of_float8_are_read_whole_on_request(tmp_path):
    """Without it a model rounds what its layers are given, where the hardware can."""
    folder = save_tiny(tmp_path / "small", dtype=torch.bfloat16)
    tensors, expected = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rounded = (weight := tensors[name].float() * 2).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = rounded, torch.full((1, 1), 0.5)
        assert not torch.equal(weight, expected.setdefault(name, rounded.float() / 2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stated = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    loaded = load_model(set_config(folder, quantization_config=stated | {"dequantize": True}))
    assert loaded.source["weights"] == "fp8, dequantised; bfloat16, run in float32"
    for name, weight in expected.items():
        assert torch.equal(loaded.model.get_parameter(name), weight), name


def test_a_tokenizer_is_readable_where_it_is_there(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    tokenizer, config = load_tokenizer(str(folder))
    assert tokenizer.encode("a state") == tiny_tokenizer().encode("a state")
    assert vocabulary_size(config) == vocabulary_size(tiny_llama()) == 300
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(FileError):
        load_tokenizer(str(folder))
    with pytest.warns(StatesizeWarning):
        assert ss.load(str(folder)).tokenizer is None
    (folder / "tokenizer.json").unlink()
    assert ss.load(str(folder)).tokenizer is None
    with pytest.raises(FileError):
        load_model(str(folder))


def test_bars_and_warnings_are_kept_back_for_a_while():
    loggers = [transformers.logging.get_logger(f"{package}.cache") for package in ("huggingface_hub", "transformers")]
    levels = [logger.getEffectiveLevel() for logger in loggers]
    with hushed():
        assert not any(logger.isEnabledFor(WARNING) for logger in loggers)
        assert not transformers.logging.is_progress_bar_enabled()
    assert [logger.getEffectiveLevel() for logger in loggers] == levels
    assert transformers.logging.is_progress_bar_enabled()


def test_a_name_that_is_nowhere(offline):
    with pytest.raises(FileError, match=r"gated-deltanet.* got 'no-one/no-such-model'.* connect"):
        load_model("no-one/no-such-model")


def test_wrong_options():
    for options in ({"device": "nowhere"}, {"dtype": "int8"}, {"revision": "main"}):
        with pytest.raises(InputError):
            load_model("gla", **options)


@pytest.mark.parametrize("name", ["empty", "text.txt"])
def test_folders_and_files_that_hold_no_model(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("{}")
    for read in (load_model, load_tokenizer, ss.load):
        with pytest.raises(FileError, match="no config"):
            read(str(tmp_path / name))


GPT = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({}, "llama"),
        ({"num_hidden_layers": 2}, "llama"),
        ({"model_type": "of_tomorrow"}, "of_tomorrow"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "T5"),
        # A kernel of the hub is code, which transformers would fetch and run where the package kernels is there.
        (GPT | {"attn_implementation": "some/kernel"}, "'some/kernel'"),
        (GPT | {"text_config": {"_attn_implementation": "some/kernel"}}, "'some/kernel'"),
        (GPT | {"_experts_implementation_internal": "some/kernel"}, "'some/kernel'"),
    ],
)
def test_a_configuration_of_no_model_that_can_be_read(tmp_path, stated, named):
    with pytest.raises(FileError, match=named):
        load_model(set_config(tmp_path / "llama", **stated), needs_tokenizer=False)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_configuration_that_is_damaged(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(FileError):
        load_model(str(tmp_path))


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_weights_are_not_unpickled(tmp_path):
    torch.save({"weight": Bomb(tmp_path / "executed")}, Path(set_config(tmp_path, **GPT)) / "pytorch_model.bin")
    with pytest.raises(FileError, match="--allow-pickle"):
        load_model(str(tmp_path))
    with pytest.raises(FileError) as error:
        load_model(str(tmp_path), allow_pickle=True)
    # torch proposes to run what the file holds.
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_pickled_tensors_are_read_on_request(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), folder / "pytorch_model.bin")
    loaded = load_model(str(folder), allow_pickle=True)
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().state_dict(), rtol=0, atol=0)


def test_code_of_a_model_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    stated = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    with pytest.raises(FileError, match="--trust-remote-code"):
        load_model(set_config(tmp_path, **stated))
    assert not (tmp_path / "executed").exists()
