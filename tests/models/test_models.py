"""From a name to a model: folders, refusals, and what is never run."""

import contextlib
import errno
import importlib.util
import json
import pickle
import socket
import threading
import warnings

import pytest
import torch
import transformers
from oracles.pretrained import save_tiny, tiny_llama, tiny_tokenizer
from oracles.tiny_families import tiny, token_ids
from safetensors.torch import load_file, save_file

import statesize as ss
from statesize.errors import FileError, InputError, ModelError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.measurement.settings import Settings
from statesize.models.load import load_model, load_model_facts, load_tokenizer
from statesize.profiling import profile
from statesize.profiling.run import run_profile


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def one_line(error):
    return "\n" not in str(error.value)


def test_bundled():
    loaded = load_model("gla")
    assert (loaded.name, loaded.source) == ("gla", {"kind": "bundled"})
    assert not loaded.model.training


def test_a_checkpoint_of_statesize(tmp_path):
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=4)
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), tmp_path / "small")
    (tmp_path / "small" / "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    loaded = load_model(str(tmp_path / "small"), dtype="float64")
    assert (loaded.name, loaded.source) == ("small", {"kind": "folder"})
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("stored", "asked", "held"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.float32),
        (torch.bfloat16, "bfloat16", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "float64", torch.float64),
    ],
)
def test_a_folder_of_transformers(tmp_path, stored, asked, held):
    loaded = load_model(str(save_tiny(tmp_path / "llama", dtype=stored)), dtype=asked)
    weights = {"weights": "bfloat16, run in float32"} if (stored, asked) == (torch.bfloat16, None) else {}
    assert (loaded.name, loaded.source) == ("llama", {"kind": "folder"} | weights)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {held}
    expected = tiny_llama().to(stored).to(held).state_dict()
    torch.testing.assert_close(loaded.model.state_dict(), expected, rtol=0, atol=0)
    source = {"source": loaded.source, "tokenizer": loaded.tokenizer}
    result = run_profile(loaded.model, ["a state of its past"], Settings(), **source)
    assert result.attributes["source"] == {"kind": "folder"} | weights
    first, second = result.summary_rows()
    assert (first["kind"], first["units"], second["layer"]) == ("attention", 4, "model.layers.1.self_attn")
    assert 0 <= first["faithfulness"] < (1e-2 if held == torch.bfloat16 else 1e-5)
    assert first["run_difference"] == 0
    # Keys and values of two heads of eight numbers, for each token, as the cache of the weights' dtype holds them.
    tokens = int(result.tokens["length"].values[0])
    assert first["state_bytes"] == 2 * 2 * 8 * tokens * (stored if asked is None else held).itemsize


@pytest.mark.parametrize(("family", "implementation"), [("llama", "eager"), ("llama", "sdpa"), ("mamba", "eager")])
def test_the_attention_that_a_model_runs_with(family, implementation):
    model = tiny(family)
    model.set_attn_implementation(implementation)
    attributes = profile(model, token_ids(1)).attributes
    assert attributes["kernels"] == ({"attention": implementation} if family == "llama" else {})
    assert attributes["versions"]["transformers"] == transformers.__version__


def test_half_precision_that_does_not_fit_in_float32_runs_as_it_is_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("statesize.models.load.free_bytes", lambda device: 1000)
    loaded = load_model(str(save_tiny(tmp_path / "llama", dtype=torch.bfloat16)))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert "as float32 does not fit" in loaded.source["weights"]


def pickled(folder, content):
    save_tiny(folder)
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as stream:
        content(stream)
    return str(folder)


def test_pickled_weights_only_on_request(tmp_path):
    folder = pickled(tmp_path / "llama", lambda stream: torch.save(tiny_llama().state_dict(), stream))
    with pytest.raises(FileError, match=r"no weights in safetensors.*--allow-pickle") as error:
        load_model(folder)
    assert one_line(error)
    loaded = load_model(folder, allow_pickle=True)
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().state_dict(), rtol=0, atol=0)


class Harmful:
    def __reduce__(self):
        return warnings.warn, ("code out of a pickle was run",)


def test_code_in_pickled_weights_is_never_run(tmp_path):
    folder = pickled(tmp_path / "llama", lambda stream: torch.save({"weight": Harmful()}, stream))
    with pytest.raises(FileError, match="cannot be loaded") as error:
        load_model(folder, allow_pickle=True)
    assert one_line(error)
    assert pickle.dumps(Harmful())


def test_code_of_a_model_is_run_only_on_request(tmp_path):
    folder = save_tiny(tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise RuntimeError('run')")
    with pytest.raises(FileError, match="--trust-remote-code") as error:
        load_model(str(folder))
    assert one_line(error)


def test_models_that_are_not_causal(tmp_path):
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    shape = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(num_hidden_layers=1, num_attention_heads=2, **shape)).save_pretrained(tmp_path / "bert")
    T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    for name, message in (("bert", "no causal language model"), ("t5", "encoder-decoder")):
        with pytest.raises(ModelError, match=message) as error:
            load_model(str(tmp_path / name))
        assert one_line(error)


@pytest.mark.parametrize(
    ("quantised", "error", "message"),
    [
        # What reads them is named where it is not there.
        ({"quant_method": "gptq", "bits": 4}, FileError, "cannot be loaded: .*(optimum|gptqmodel)"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, FileError, r"does not know \(modelopt\)"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, ModelError, r"rounds what its layers .* \(fp8\)"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "int-quantized",
                "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": {"num_bits": 8}}},
            },
            ModelError,
            r"rounds what its layers pass on, not its weights alone \(compressed-tensors\)",
        ),
    ],
)
def test_quantised_weights_that_cannot_be_measured(tmp_path, quantised, error, message):
    folder = save_tiny(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantised}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=message) as caught:
        load_model(str(folder))
    assert one_line(caught)


def test_a_method_that_transformers_skips_is_refused_in_memory_too(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = save_tiny(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "modelopt"}}
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ModelError, match=r"does not know \(modelopt\)"):
        ss.profile(model, torch.arange(9))
    del model.config.quantization_config
    assert ss.profile(model, torch.arange(9)).mixers


def test_a_map_of_classes_that_is_null(tmp_path):
    folder = save_tiny(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"auto_map of .*small must name classes, got null\. Take it out") as error:
        load_model(str(folder))
    assert one_line(error)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn, torch.int64])
@pytest.mark.parametrize("sharded", [False, True])
def test_quantised_weights_without_their_scales(tmp_path, kind, sharded):
    folder, name = save_tiny(tmp_path / "m"), "model.layers.0.self_attn.q_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors |= {name: (tensors[name] * 500).to(kind), "mask": torch.ones(4, 4, dtype=torch.uint8)}
    file = "model-00001-of-00001.safetensors" if sharded else "model.safetensors"
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / file, {"format": "pt"})
    if sharded:
        weights = {"metadata": {}, "weight_map": dict.fromkeys(tensors, file)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    with (
        pytest.warns(UserWarning, match="of the checkpoint: mask"),
        pytest.raises(FileError, match=rf"of 16 bits or more, got {name} as [IF]\d") as error,
    ):
        ss.load(folder)
    assert one_line(error)


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
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": stated}
    (folder / "config.json").write_text(json.dumps(config))
    if not whole:
        with pytest.raises(ModelError, match=r'rounds what its layers .* \(fp8\).* with "dequantize": true'):
            load_model(str(folder))
        return
    loaded = load_model(str(folder))
    assert loaded.source["weights"] == "fp8, dequantised; bfloat16, run in float32"
    for name, weight in expected.items():
        assert torch.equal(loaded.model.get_parameter(name), weight), name


def test_an_adapter_alone(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for read in (load_model, load_tokenizer, ss.load):
        with pytest.raises(FileError, match="holds an adapter of peft and not the model that it was made for") as error:
            read(str(tmp_path / "adapter"))
        assert one_line(error)


def test_a_name_that_is_nowhere():
    with pytest.raises(
        FileError, match=r"gated-deltanet.* which is no folder, and lies not in the cache of the hub"
    ) as error:
        load_model("no-one/no-such-model")
    assert one_line(error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"])
def test_a_hub_that_does_not_have_a_model_or_does_not_answer_is_asked_once(answer, monkeypatch):
    import huggingface_hub.constants

    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(4096))
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        for read in (load_model, load_tokenizer):
            asked.clear()
            with pytest.raises(
                FileError, match="got 'no-one/no-such-model', which is no folder, and the hub gives none"
            ):
                read("no-one/no-such-model")
            # The hub's library may ask it for other things.
            assert sum(b"no-such-model" in one for one in asked) == 1
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_hub_that_cannot_be_reached_is_said_in_words(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(FileError, match=r"gives none: it cannot be reached\. Check the spelling, the network") as error:
        load_model("no-one/no-such-model")
    assert "Errno" not in str(error.value)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # Other errors of the system say what they are.
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", full)
    with pytest.raises(FileError, match=r"gives none: \[Errno 28\] No space left on device"):
        load_model("no-one/no-such-model")


def test_damaged_weights_and_a_missing_tokenizer(tmp_path):
    folder = save_tiny(tmp_path / "small")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileError, match="cannot be loaded") as error:
        load_model(str(folder))
    assert one_line(error)
    tiny_llama().save_pretrained(tmp_path / "bare")
    with pytest.raises(FileError, match="cannot be loaded") as error:
        load_model(str(tmp_path / "bare"))
    assert one_line(error)


def test_wrong_options(tmp_path):
    (tmp_path / "file").write_text("")
    tiny_tokenizer()
    for name, options, message in (
        ("gla", {"device": "nowhere"}, "device must be one that can be used here, got 'nowhere'"),
        ("gla", {"dtype": "int8"}, "dtype must be one of .*, got 'int8'"),
        ("gla", {"revision": "main"}, "revision must be left out"),
    ):
        with pytest.raises(InputError, match=message):
            load_model(name, **options)
    with pytest.raises(FileError, match=r"a folder with its config\.json, or a GGUF file, got the file"):
        load_model(str(tmp_path / "file"))


def test_a_model_is_no_longer_its_file(tmp_path):
    """Weights that are pages of their file would change with it, or end the process where it is cut off."""
    folder = save_tiny(tmp_path / "llama")
    loaded = load_model(str(folder)).model
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as stream:
        size = stream.seek(0, 2)
        stream.seek(size // 2)
        stream.write(bytes(size // 2))
        stream.truncate(size // 4)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_tokenizer_alone_is_refused_as_with_its_model(tmp_path):
    from transformers import BertConfig

    folder = save_tiny(tmp_path / "llama")
    assert load_tokenizer(str(folder)).encode("a state") == tiny_tokenizer().encode("a state")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(FileError, match="llama cannot be loaded") as error:
        load_tokenizer(str(folder))
    assert one_line(error)
    BertConfig(num_hidden_layers=1, architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="no causal language model"):
        load_tokenizer(str(tmp_path / "bert"))


def mamba_ssm_folder(folder, model, layer, **settings):
    """A model of transformers as mamba_ssm writes it: another name of the embedding, and its own config.json."""
    from safetensors.torch import save_file

    renamed = {name.replace(".embeddings.", ".embedding."): weight.clone() for name, weight in model.named_parameters()}
    config = {"d_model": 32, "n_layer": 2, "vocab_size": 50, "ssm_cfg": layer, "rms_norm": True, "fused_add_norm": True}
    folder.mkdir()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "pad_vocab_size_multiple": 8, **settings}), "utf-8")
    return str(folder)


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 56, "state_size": 8, "residual_in_fp32": True}
MAMBA_SSM = {
    "Mamba": (SHAPE, {"d_state": 8, "dt_min": 0.01}),
    "Mamba2": (
        {**SHAPE, "head_dim": 16, "num_heads": 4, "n_groups": 2, "chunk_size": 16, "tie_word_embeddings": True},
        {"layer": "Mamba2", "d_state": 8, "headdim": 16, "ngroups": 2, "chunk_size": 16},
    ),
}


@pytest.mark.parametrize("kind", MAMBA_SSM)
def test_a_checkpoint_of_mamba_ssm(tmp_path, kind):
    import transformers

    shape, layer = MAMBA_SSM[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**shape)).eval()
    folder = mamba_ssm_folder(tmp_path / "native", model, layer)
    loaded = load_model(folder, needs_tokenizer=False)
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(loaded.model(tokens).logits, model(tokens).logits, rtol=0, atol=0)
    assert load_model_facts(folder, needs_tokenizer=False)[:2] == (None, 56)
    kinds = {"Mamba": "mamba", "Mamba2": "mamba2"}
    assert [captured.kind for captured in ss.capture(loaded.model, tokens)] == [kinds[kind]] * 2


@pytest.mark.parametrize(
    ("layer", "settings", "message"),
    [
        ({"layer": "Mamba3"}, {}, "must have layers Mamba1 or Mamba2"),
        ({"gates": 2}, {}, "as Mamba1 is known here, got settings gates"),
        ({"layer": "Mamba2", "D_has_hdim": True}, {}, "must have D_has_hdim False"),
        ({}, {"attn_layer_idx": [1]}, r"must have attn_layer_idx \[\].*got \[1\]"),
        ({}, {"rms_norm": False}, "must have rms_norm True"),
    ],
)
def test_checkpoints_of_mamba_ssm_that_transformers_cannot_hold(tmp_path, layer, settings, message):
    folder = mamba_ssm_folder(tmp_path / "native", torch.nn.Linear(1, 1), layer, **settings)
    with pytest.raises(ModelError, match=message):
        load_model(folder, needs_tokenizer=False)


def test_a_kind_that_transformers_does_not_know(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gated_deltanet"}', "utf-8")
    if importlib.util.find_spec("fla") is None:
        with pytest.raises(FileError, match=r"of the kind 'gated_deltanet'.*pip install 'statesize\[fla\]'"):
            load_model(str(tmp_path), needs_tokenizer=False)
