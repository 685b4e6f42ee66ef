"""From a name to a model: folders, refusals, and what is never run."""

import json
from logging import WARNING
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from oracles.pretrained import save_tiny, tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file

import statesize as ss
from statesize.errors import FileError, InputError, ModelError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.models.from_transformers import hushed
from statesize.models.load import load_model, load_model_facts, load_tokenizer
from statesize.profiling import profile

TEXT = "the cat sat on the mat"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_bundled():
    loaded = load_model("gla")
    assert (loaded.name, loaded.source) == ("gla", {"kind": "bundled"})
    assert not loaded.model.training


def test_a_named_model_reads_a_text_wherever_a_model_is_taken():
    model, tokenizer = ss.load("gla")
    ids = ss.capture("gla", TEXT).length
    assert ids == len(ss.profile(model, TEXT, tokenizer=tokenizer, layers=0).ess(0).columns)
    (captured,) = ss.capture("gla", TEXT, 0)
    assert (captured.name, captured.kind) == ("layers.0.mixer", "gla")
    assert ss.network_ess("gla", TEXT, positions=[2], method="dense").positions.tolist() == [2]


@pytest.mark.parametrize("name", ["profile", "capture", "network_ess", "cache", "truncate"])
@pytest.mark.parametrize("model", [3, Path("gla")])
def test_what_is_neither_a_module_nor_a_name_is_refused(name, model):
    with pytest.raises(InputError, match=f"model must be a torch module, got {type(model).__name__}"):
        getattr(ss, name)(model, [TEXT])


def test_a_checkpoint_of_statesize_and_its_tokenizer(tmp_path):
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=4)
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), tmp_path / "small")
    assert ss.load(str(tmp_path / "small")).tokenizer is None
    with pytest.raises(FileError, match="--text FILE"):
        load_model_facts(str(tmp_path / "small"))
    zoo.tokenizer().save(str(tmp_path / "small" / "tokenizer.json"))
    assert ss.load(str(tmp_path / "small")).tokenizer.to_str() == zoo.tokenizer().to_str()
    loaded = load_model(str(tmp_path / "small"), dtype="float64")
    assert (loaded.name, loaded.source) == ("small", {"kind": "folder"})
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float64}
    assert load_model_facts(str(tmp_path / "small")).vocabulary == 4096
    (tmp_path / "small" / "tokenizer.json").write_text("{")
    with pytest.raises(FileError, match=r"tokenizer\.json of .*small is missing or damaged"):
        ss.load(str(tmp_path / "small"))


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


def test_pickled_weights_on_request(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), folder / "pytorch_model.bin")
    loaded = load_model(str(folder), allow_pickle=True)
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().state_dict(), rtol=0, atol=0)


def test_models_that_are_not_causal(tmp_path):
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    shape = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(num_hidden_layers=1, num_attention_heads=2, **shape)).save_pretrained(tmp_path / "bert")
    T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    with pytest.raises(FileError, match="T5"):
        load_model(str(tmp_path / "t5"), needs_tokenizer=False)
    model = load_model(str(tmp_path / "bert"), needs_tokenizer=False).model
    with pytest.raises(ModelError, match="later positions"):
        profile(model, [[5, 6, 7, 8, 9, 10]])


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


@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_float8_are_read_whole_on_request(tmp_path, whole):
    """Without it a model rounds what its layers are given, where the hardware can."""
    folder = save_tiny(tmp_path / "small", dtype=torch.bfloat16)
    tensors, expected = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rounded = (weight := tensors[name].float() * 2).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = rounded, torch.full((1, 1), 0.5)
        assert not torch.equal(weight, expected.setdefault(name, rounded.float() / 2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stated = {"quant_method": "fp8", "weight_block_size": [32, 32], "dequantize": whole}
    set_config(folder, quantization_config=stated)
    if not whole:
        with pytest.raises(ModelError, match='"dequantize": true'):
            load_model(str(folder))
        return
    loaded = load_model(str(folder))
    assert loaded.source["weights"] == "fp8, dequantised; bfloat16, run in float32"
    for name, weight in expected.items():
        assert torch.equal(loaded.model.get_parameter(name), weight), name


def test_folders_and_files_that_hold_no_model(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "text.txt").write_text("{}")
    for path in ("text", "text/text.txt"):
        for read in (load_model, load_tokenizer, ss.load):
            with pytest.raises(FileError, match="no config"):
                read(str(tmp_path / path))


def test_a_tokenizer_is_readable_where_it_is_there(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    assert load_tokenizer(str(folder)).encode("a state") == tiny_tokenizer().encode("a state")
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(FileError, match="The tokenizer of "):
        load_tokenizer(str(folder))
    with pytest.warns(UserWarning, match="The tokenizer of "):
        assert ss.load(str(folder)).tokenizer is None
    (folder / "tokenizer.json").unlink()
    assert ss.load(str(folder)).tokenizer is None
    with pytest.raises(FileError, match=r"its vocabulary is empty|The tokenizer of "):
        load_model(str(folder))


def test_warnings_are_kept_back_for_a_while():
    loggers = [
        hub_logging.get_logger("huggingface_hub.utils._http"),
        transformers.logging.get_logger("transformers.cache"),
    ]
    levels = [logger.getEffectiveLevel() for logger in loggers]
    with hushed():
        assert not any(logger.isEnabledFor(WARNING) for logger in loggers)
    assert [logger.getEffectiveLevel() for logger in loggers] == levels
    assert transformers.logging.is_progress_bar_enabled()


def test_a_name_that_is_nowhere():
    with pytest.raises(FileError, match=r"gated-deltanet.* got 'no-one/no-such-model'.* connect"):
        load_model("no-one/no-such-model")


def test_wrong_options():
    for options in ({"device": "nowhere"}, {"dtype": "int8"}, {"revision": "main"}):
        with pytest.raises(InputError, match=next(iter(options))):
            load_model("gla", **options)


def test_a_kind_that_transformers_does_not_know(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "of_tomorrow"}', "utf-8")
    with pytest.raises(FileError, match="of_tomorrow"):
        load_model(str(tmp_path), needs_tokenizer=False)
