"""T of every adapter is the T that a trace reads out of the same module."""

import pytest
import torch
from oracles import attention_models, recurrent_models

import statesize as ss
from statesize.adapters.forward import Forward
from statesize.adapters.module_call import first_calls
from statesize.adapters.trace.trace import Trace

LENGTH = 13


def made(family, monkeypatch):
    # The first tensor that has what several heads mix lies behind their gates, which T of each head alone is without.
    sizes, *rest = recurrent_models.FAMILIES["zamba"]
    monkeypatch.setitem(recurrent_models.FAMILIES, "zamba", (sizes | {"n_mamba_heads": 1}, *rest))
    if family in attention_models.FAMILIES:
        return attention_models.attention_model(family)
    return recurrent_models.tiny_model(family)


@pytest.mark.few(8)
@pytest.mark.parametrize("family", [*attention_models.FAMILIES, *recurrent_models.FAMILIES])
@torch.no_grad()
def test_t_of_an_adapter_is_that_of_the_trace(family, monkeypatch):
    model = made(family, monkeypatch)
    forward = Forward.of(model, attention_models.token_ids(1, LENGTH))
    captured = {item.name: item for item in ss.capture(model, attention_models.token_ids(1, LENGTH))}
    modules = {module: name for name, module in forward.parts if name in captured}
    below = torch.ones(LENGTH, LENGTH).tril(-1).bool()
    for module, call in first_calls(forward, modules).items():
        own, mixing = captured[modules[module]].operator.dense()[0], Trace(call).mixing()
        # Units of equal T are one, in whatever order.
        difference = (own[:, None] - mixing.matrix[0])[..., below].abs().amax(-1)
        furthest = max(float(difference.amin(0).max()), float(difference.amin(1).max()))
        assert furthest <= 1e-9 * float(own[..., below].abs().max())
