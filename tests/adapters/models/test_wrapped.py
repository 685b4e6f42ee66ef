"""Compiled models and models that other libraries hold: what is measured is what the model itself runs."""

import copy
import types
from functools import partial

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny
from torch import nn

import statesize as ss
from statesize.adapters.models.model_state import named_parts, unwrapped
from statesize.errors import StatesizeError
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
    else:
        model.model.layers[0] = torch.compile(model.model.layers[0], backend=backend)
    return model


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        ("model", torch.float32),
        ("layer", torch.bfloat16),
        *(pytest.param(how, torch.float32, marks=pytest.mark.slow) for how in ("in place", "forward")),
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

    plain = tiny("mamba2")
    model = copy.deepcopy(plain)
    model.backbone.layers[1] = torch.compile(model.backbone.layers[1], backend=backend)
    same_as(model, plain, token_ids())


def test_names_lose_only_what_holders_add():
    model = nn.Identity()
    for name in ("orig_mod", "_original_component", "0", "layers", "_orig_mod", "model", "_orig_mod"):
        model = nn.ModuleDict({name: model})
    assert named_parts(model)[-1][0] == "model.layers.0.orig_mod"


def class_of(package, name, *bases, **members):
    """A class with the name, the package and the attributes of one that need not be installed."""
    return types.new_class(name, bases, exec_body=lambda body: body.update(members, __module__=f"{package}.inner"))


def test_models_inside_of_other_libraries_are_found():
    plain = attention_model("llama")
    envoy = class_of("nnsight", "LanguageModel", class_of("nnsight", "Envoy"))()
    envoy._module = plain
    bridge = class_of("transformer_lens", "TransformerBridge", nn.Module)()
    bridge.__dict__["original_model"] = plain
    for held in (envoy, bridge, nn.DataParallel(plain)):
        assert unwrapped(held) is plain
        same_as(held, plain, token_ids())
        assert ss.profile(held, token_ids(length=5)).summary()["model"][0] == "LlamaForCausalLM"


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


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_unmerged_lora_is_part_of_what_is_measured():
    peft = pytest.importorskip("peft")
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


def scripted(_):
    return nn.Sequential(nn.Embedding(64, 4), torch.jit.script(nn.Linear(4, 4)))


def exported(model):
    return torch.export.export(model, (), {"input_ids": token_ids(), "use_cache": False}, strict=False)


def tuned(kind, model):
    """A model that reads positions before the text."""
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, getattr(peft, kind)(num_virtual_tokens=3, task_type="CAUSAL_LM"))


REFUSED = [
    (lambda model: types.SimpleNamespace(name="p", network=model), "got SimpleNamespace. Give its attribute network"),
    (scripted, "Module 1 must run as Python, got .*ScriptModule"),
    (lambda model: nn.Sequential(exported(model).module()), "must run as Python, got GraphModule"),
    (lambda model: torch.export.unflatten(exported(model)), "must run as Python, got UnflattenedModule"),
    (partial(tuned, "PrefixTuningConfig"), "with PREFIX_TUNING, which may do more"),
    (partial(tuned, "PromptTuningConfig"), "with PROMPT_TUNING, which may do more"),
]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("held", "cause"), REFUSED)
def test_what_cannot_be_measured_inside_of_what_holds_it_is_refused_by_its_cause(held, cause):
    model = held(attention_model("llama").eval())
    for call in (ss.capture, ss.profile):
        with pytest.raises(StatesizeError, match=cause):
            call(model, token_ids())


def test_a_graph_that_was_traced_in_python_is_no_export():
    traced = torch.fx.symbolic_trace(nn.Linear(2, 2))
    assert unwrapped(traced) is traced
