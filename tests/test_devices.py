"""Results of a model on another device, simulated or a GPU where there is one, are those of the CPU."""

import copy
from contextlib import nullcontext

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.pretrained import tiny_llama, tiny_tokenizer
from oracles.second_device import DEVICE, second_device
from oracles.tiny_families import tiny
from torch import nn

import statesize as ss
from statesize.integrations.probe import Probe
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.texts import bundled

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.fixture(params=["simulated", CUDA])
def device(request):
    with second_device() if request.param == "simulated" else nullcontext(torch.device("cuda")) as found:
        yield found


class OwnRecurrence(nn.Module):
    """A decaying sum in a loop, found by impulses."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(8, 8)

    def forward(self, hidden):
        state, outputs = torch.zeros_like(hidden[:, 0]), []
        for value in self.value(hidden).unbind(1):
            state = 0.9 * state + value
            outputs.append(state)
        return torch.stack(outputs, 1)


def own():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(64, 8), OwnRecurrence()).eval()


def trained(mixer):
    shape = ModelConfig(mixer, vocabulary_size=4096, width=16, heads=2, layers=2, key_size=4)
    return LanguageModel(shape, torch.Generator().manual_seed(0)).eval()


# Masks, positions and scans of others are made by the same code.
MODELS = {
    "llama": lambda: attention_model("llama"),
    "mamba2": lambda: tiny("mamba2"),
    "qwen3_next": lambda: tiny("qwen3_next"),
    "gla": lambda: trained("gla"),
    "own recurrence": own,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_profile(name, device):
    model, ids = MODELS[name](), token_ids(1, 12)
    expected = ss.profile(model, ids)
    found = ss.profile(model.to(device), ids.to(device))
    assert next(model.parameters()).device.type == device.type
    assert found.summary()["average_entropy"].tolist() == pytest.approx(
        expected.summary()["average_entropy"].tolist(), abs=1e-4
    )


def both(model, device):
    return model, copy.deepcopy(model).to(device)


def test_a_truncation(device):
    texts = token_ids(1, 12)
    on_cpu, there = (ss.truncate(model, texts, documents=1, tokens=12) for model in both(tiny_llama(), device))
    assert there.to_dict()["worth"] == pytest.approx(on_cpu.to_dict()["worth"], abs=1e-4)


def test_a_probe(device):
    probe = Probe(token_ids(1))
    on_cpu, there = (probe.measure(model).summary()["average_entropy"] for model in both(trained("gla"), device))
    assert there.tolist() == pytest.approx(on_cpu.tolist(), abs=1e-4)


def test_the_price_of_a_cache(device):
    texts = [text[:400] for text in bundled.documents()[:6]]
    options = {"documents": 6, "tokens": 96, "tokenizer": tiny_tokenizer()}
    on_cpu, there = (ss.cache(model, texts, **options) for model in both(tiny_llama(), device))
    for one, other in zip(on_cpu.documents, there.documents, strict=True):
        assert [run.loss for run in other.runs] == pytest.approx([run.loss for run in one.runs], abs=1e-4)


def test_a_network(device):
    ids = token_ids(1, 12)
    on_cpu, there = (ss.network_ess(model, ids, 1) for model in both(attention_model("llama"), device))
    assert there.entropy.tolist() == pytest.approx(on_cpu.entropy.tolist(), rel=0.05)


def test_the_default_device_of_a_caller_changes_nothing():
    model, ids = attention_model("llama"), token_ids()
    expected = next(ss.capture(model, ids)).operator.dense()
    with torch.device("meta"):
        found = next(ss.capture(model, ids)).operator.dense()
    assert torch.equal(found, expected)


def test_tensors_of_two_devices_do_not_meet():
    with second_device():
        there = torch.ones(2, device=DEVICE)
        assert (there * 2).sum().item() == 4
        assert torch.tensor([1.0], device=DEVICE).device == DEVICE
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2)
        with pytest.raises(ss.errors.InputError, match="device"):
            ss.Recurrence(torch.ones(4, 1), torch.ones(4, 2, device=DEVICE), torch.ones(4, 2))
