"""Compiled models and models that other libraries hold: what is measured is what the model itself runs."""

import copy
import types
import warnings

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.recurrent_models import tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast

import statesize as ss
from statesize.adapters.models.model_state import named_parts, unwrapped
from statesize.errors import InputError, ModelError
from statesize.models.load import model_facts


def same_as(model, plain, ids):
    capture = ss.capture(model, ids)
    assert not capture.skipped
    for item, expected in zip(capture, ss.capture(plain, ids), strict=True):
        assert item.name == expected.name
        torch.testing.assert_close(item.operator.dense(), expected.operator.dense(), rtol=0, atol=0)


def compiled(model, how, backend):
    if how == "model":
        return torch.compile(model, backend=backend)
    if how == "in place":
        model.compile(backend=backend)
    elif how == "forward":
        model.forward = torch.compile(model.forward, backend=backend)
    elif how == "stack":
        model.model = torch.compile(model.model, backend=backend)
    else:
        model.model.layers[0] = torch.compile(model.model.layers[0], backend=backend)
    return model


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    yield
    torch.compiler.reset()


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        *((how, torch.float32) for how in ("model", "in place", "layer")),
        *(pytest.param(how, torch.float32, marks=pytest.mark.slow) for how in ("forward", "stack")),
        ("model", torch.bfloat16),
    ],
)
def test_a_compiled_model_is_measured_and_stays_compiled(how, dtype):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    ids, plain = token_ids(), attention_model("llama", num_hidden_layers=1).to(dtype)
    model = compiled(copy.deepcopy(plain), how, backend)
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        made = len(graphs)
        assert made
        same_as(model, plain, ids)
        assert ss.capture(model, ids).run_difference == 0
        assert len(graphs) == made
        assert torch.equal(model(ids, use_cache=False).logits, before)
    assert len(graphs) == made


def test_a_model_whose_compilation_fails_is_measured_all_the_same():
    def backend(graph, _):
        raise AssertionError("compiled")

    plain = tiny_model("mamba2")
    model = copy.deepcopy(plain)
    model.backbone.layers[1] = torch.compile(model.backbone.layers[1], backend=backend)
    same_as(model, plain, token_ids())


def test_a_mixer_of_ones_own_may_use_what_is_compiled():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.decay = nn.Linear(4, 2)

        def operator(self, hidden):
            decay = self.decay(hidden).sigmoid().transpose(1, 2)[..., None]
            return ss.Recurrence(A=decay, B=torch.ones_like(decay), C=torch.ones_like(decay))

        def forward(self, hidden):
            return hidden

    def backend(graph, _):
        raise AssertionError("compiled")

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Embedding(64, 4), Mixer())
    model = copy.deepcopy(plain)
    model[1].decay = torch.compile(model[1].decay, backend=backend)
    model[1] = torch.compile(model[1], backend=backend)
    same_as(model, plain, token_ids())


def test_layers_in_a_compiled_stack_are_told_of_when_nothing_mixes_in_them():
    class Still(nn.Module):
        def forward(self, hidden_states, **_):
            return hidden_states, None

    model = attention_model("llama")
    model.model.layers[1].self_attn = Still()
    expected = ss.capture(model, token_ids()).skipped
    assert list(expected) == ["model.layers.1"]
    assert ss.capture(compiled(model, "stack", "eager"), token_ids()).skipped == expected


def test_a_profile_of_a_compiled_model_is_that_of_the_model():
    plain = attention_model("llama")
    model = torch.compile(copy.deepcopy(plain), backend="eager")
    first, second = (
        ss.profile(each, token_ids(length=9), layers="model.layers.1.self_attn") for each in (plain, model)
    )
    assert second.summary().equals(first.summary())
    assert list(second.summary()["model"]) == ["LlamaForCausalLM"]


def test_names_lose_only_what_holders_add():
    model = nn.Identity()
    for name in ("orig_mod", "_original_component", "0", "layers", "_orig_mod", "model", "_orig_mod"):
        model = nn.ModuleDict({name: model})
    assert named_parts(model)[-1][0] == "model.layers.0.orig_mod"


def test_a_model_in_data_parallel_is_measured():
    plain = attention_model("llama")
    same_as(nn.DataParallel(plain), plain, token_ids())


def class_of(package, name, *bases, **members):
    """A class with the name, the package and the attributes of one that need not be installed."""
    return types.new_class(name, bases, exec_body=lambda body: body.update(members, __module__=f"{package}.inner"))


def test_models_inside_of_other_libraries_are_found():
    plain = attention_model("llama")
    envoy = class_of("nnsight", "LanguageModel", class_of("nnsight", "Envoy"))()
    envoy._module = plain
    bridge = class_of("transformer_lens", "TransformerBridge", nn.Module)()
    bridge.__dict__["original_model"] = plain
    for held in (envoy, bridge):
        assert unwrapped(held) is plain
        same_as(held, plain, token_ids())
        assert ss.profile(held, token_ids(length=5)).summary()["model"][0] == "LlamaForCausalLM"


class Hooked(nn.Module):
    """A layer as TransformerLens writes it: each step goes through a module of its own, to which hooks are given."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(3, 2, 8, 4, generator=torch.Generator().manual_seed(0)))
        self.hook_attn_scores, self.hook_pattern, self.hook_z = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, hidden):
        query, key, value = (torch.einsum("bpd,hde->bphe", hidden, weights) for weights in self.W)
        scores = torch.einsum("bqhe,bkhe->bhqk", query, key) / 2
        future = torch.ones(scores.shape[-2:]).triu(1).bool()
        scores = self.hook_attn_scores(scores.masked_fill(future, -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))
        return self.hook_z((pattern @ value.transpose(1, 2)).transpose(1, 2)).flatten(2)


class HookedModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(64, 8), nn.ModuleList([Hooked(), Hooked()])

    def forward(self, ids):
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden


def test_layers_with_hooks_are_measured_as_hooks_leave_them():
    model = HookedModel()
    assert ss.profile(model, token_ids()).not_measured == {}
    first, second = ss.capture(model, token_ids())
    assert max(first.faithfulness, second.faithfulness, first.run_difference) < 1e-6
    model.blocks[0].hook_z.register_forward_hook(lambda _, args, output: output / 2)
    eye = torch.eye(token_ids().shape[1])
    model.blocks[1].hook_pattern.register_forward_hook(lambda _, args, output: eye.expand_as(output))
    capturing = ss.capture(model, token_ids())
    assert [mixer.name for mixer in capturing.mixers] == ["blocks.0"]
    assert "no mixing of positions that statesize knows was seen in it" in str(capturing.skipped["blocks.1"])


def test_models_of_nnsight_itself_are_measured():
    plain = attention_model("llama")
    same_as(pytest.importorskip("nnsight").NNsight(plain), plain, token_ids())


def test_models_of_transformer_lens_itself_are_measured(tmp_path):
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    plain = attention_model("gpt2")
    plain.save_pretrained(tmp_path / "gpt2")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "b": 1}, "a")))
    tokenizer.add_special_tokens({"bos_token": "b"})
    tokenizer.save_pretrained(tmp_path / "gpt2")
    held = bridges.TransformerBridge.boot_transformers(str(tmp_path / "gpt2"), hf_model=copy.deepcopy(plain))
    names = [[item.name for item in ss.capture(model, token_ids())] for model in (held, plain)]
    assert names[0] == names[1]


def test_a_module_of_fabric_is_measured_in_its_precision():
    lightning = pytest.importorskip("lightning")
    plain = attention_model("llama")
    for precision, ran in (("32-true", "float32"), ("bf16-mixed", "bfloat16, weights float32")):
        held = lightning.Fabric(accelerator="cpu", devices=1, precision=precision).setup(copy.deepcopy(plain))
        found, expected = ss.profile(held, token_ids()), ss.profile(plain, token_ids())
        assert found.mixers == expected.mixers
        assert {mixer["precision"] for mixer in found.attributes["mixers"].values()} == {ran}
        last = expected.mixers[-1]
        assert found.ess(last).equals(expected.ess(last)) == (precision == "32-true")


def test_an_object_that_holds_a_model_by_an_unknown_name_is_told_of_it():
    class Pipeline:
        def __init__(self):
            self.name, self.network = "p", attention_model("llama")

    for call in (ss.capture, ss.profile):
        with pytest.raises(
            InputError, match=r"model must be a torch module, got Pipeline\. Give its attribute network"
        ):
            call(Pipeline(), token_ids())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused_by_name():
    model = nn.Sequential(nn.Embedding(64, 4), torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(ModelError, match=r"Module 1 must run as Python, got .*ScriptModule, .* Give the module"):
        ss.capture(model, token_ids())


def peft_model(forward_name, **config):
    """What is looked at of a model of peft: PeftModel, its tuner in `base_model`, the model in that one's `model`."""

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    forward.__qualname__ = forward_name
    tuner = class_of("peft", "Tuner", nn.Module, forward=forward)()
    tuner.model = attention_model("llama")
    model = class_of("peft", "PeftModelForCausalLM", class_of("peft", "PeftModel", nn.Module))()
    model.base_model, model.active_adapter = tuner, "default"
    model.peft_config = {"default": types.SimpleNamespace(peft_type="KIND", **config)}
    return model


def test_a_model_with_adapters_in_its_layers_is_found_and_others_are_refused():
    model = peft_model("BaseTuner.forward")
    assert unwrapped(torch.compile(model, backend="eager")) is model.base_model.model
    others = {
        "may do more than run the model inside": peft_model("Other.forward"),
        "adapts only what follows its invocation": peft_model("BaseTuner.forward", alora_invocation_tokens=[1]),
        "puts positions of its own before": peft_model("BaseTuner.forward", is_prompt_learning=True),
    }
    for does, other in others.items():
        with pytest.raises(ModelError, match=rf"with KIND, which {does}.* Give the model that it was made for, loaded"):
            ss.capture(other, token_ids())


def test_what_is_in_use_of_adapters_tells_runs_apart():
    layer = class_of("peft", "Linear", class_of("peft", "BaseTunerLayer"), nn.Linear)(4, 4)
    layer.active_adapters, layer.merged_adapters, layer.disable_adapters = ["a"], [], False
    model = nn.Sequential(layer)
    facts = model_facts(model, "no source")
    assert model_facts(model, "no source") == facts
    layer.disable_adapters = True
    assert model_facts(model, "no source") != facts
    assert "adapters" not in model_facts(nn.Linear(4, 4))


class TestPeft:
    """The library itself, where it is installed."""

    @pytest.fixture
    def peft(self):
        return pytest.importorskip("peft")

    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
    def test_unmerged_lora_is_part_of_what_is_measured(self, peft):
        ids, plain = token_ids(), attention_model("llama")
        config = peft.LoraConfig(target_modules=["q_proj"], r=4, init_lora_weights=False, task_type="CAUSAL_LM")
        model = peft.get_peft_model(copy.deepcopy(plain), config)
        captured = list(ss.capture(model, ids))
        assert [item.name for item in captured] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
        merged = list(ss.capture(copy.deepcopy(model).merge_and_unload(), ids))
        for item, other, base in zip(captured, merged, ss.capture(plain, ids), strict=True):
            torch.testing.assert_close(item.operator.dense(), other.operator.dense(), rtol=1e-4, atol=1e-5)
            assert not torch.allclose(item.operator.dense(), base.operator.dense(), atol=1e-2)
        facts = model_facts(unwrapped(model))
        with model.disable_adapter():
            same_as(model, plain, ids)
            assert model_facts(unwrapped(model)) != facts
        assert model_facts(unwrapped(model)) == facts

    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
    def test_prompts_that_act_in_layers_alone_are_part_of_what_is_measured(self, peft):
        ids, plain = token_ids(), attention_model("llama")
        config = peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=2, task_type="CAUSAL_LM")
        model = peft.get_peft_model(copy.deepcopy(plain), config)
        for name, weight in model.named_parameters():
            if "adaption" in name:
                weight.data += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        first, second = ss.capture(model, ids)
        before, after = ss.capture(plain, ids)
        assert [first.name, second.name] == [f"model.layers.{layer}.self_attn.model" for layer in (0, 1)]
        # What the first layer adds is what the second one takes.
        torch.testing.assert_close(first.operator.dense(), before.operator.dense(), rtol=0, atol=0)
        assert not torch.allclose(second.operator.dense(), after.operator.dense(), atol=1e-2)

    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
    @pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
    def test_positions_before_the_text_are_refused(self, peft, kind):
        config = getattr(peft, kind)(num_virtual_tokens=3, task_type="CAUSAL_LM")
        model = peft.get_peft_model(attention_model("llama"), config)
        with pytest.raises(ModelError, match=r"with (PREFIX|PROMPT)_TUNING, which puts positions of its own before"):
            ss.capture(model, token_ids())


def test_what_torch_has_exported_is_refused_by_name():
    model = attention_model("llama").eval()
    exported = torch.export.export(model, (), {"input_ids": token_ids(), "use_cache": False}, strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        unflattened = torch.export.unflatten(exported)
    held = nn.Sequential(exported.module())
    for one, kind in ((held, "GraphModule"), (unflattened, "UnflattenedModule")):
        with pytest.raises(ModelError, match=rf"must run as Python, got {kind}"):
            ss.profile(one, token_ids())


def test_a_graph_that_was_traced_in_python_is_no_export():
    traced = torch.fx.symbolic_trace(nn.Linear(2, 2))
    assert unwrapped(traced) is traced
