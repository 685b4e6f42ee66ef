"""What is kept while a loss is computed: operators that belong to its graph, for modules and for kernels."""

import pytest
import torch
from oracles.recurrent_models import tiny_model

import statesize as ss
from statesize.errors import InputError
from statesize.integrations.regularisation import mixer_calls

TOKENS = torch.randint(1, 7, (3, 12), generator=torch.Generator().manual_seed(1))


def generator():
    return torch.Generator().manual_seed(0)


def test_modules_give_the_operator_that_capture_gives(make_model):
    model = make_model("gla,la", layers=2).double()
    with mixer_calls(model) as calls:
        model(TOKENS)
    assert [type(call.module).kind for call in calls] == ["gla", "la"]
    for call, captured in zip(calls, ss.capture(model, TOKENS), strict=True):
        found = call.sampled(3, 2, generator())
        again = generator()
        rows, heads = torch.randperm(3, generator=again), torch.randperm(2, generator=again)
        torch.testing.assert_close(found.dense(), captured.operator.dense()[rows][:, heads].double())


@pytest.mark.few(2)
@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "kimi_linear"])
def test_kernels_of_transformers_give_it_with_gradients(family):
    model = tiny_model(family).train()
    with mixer_calls(model) as calls:
        model(TOKENS, use_cache=False)
    expected = [captured for captured in ss.capture(model, TOKENS) if isinstance(captured.operator, ss.Recurrence)]
    assert len(calls) == len(expected) > 0
    for call, captured in zip(calls, expected, strict=True):
        found = call.sampled(3, 4, generator())
        again = generator()
        rows, units = torch.randperm(3, generator=again), torch.randperm(captured.units, generator=again)[:4]
        # The model ran in float32 both times.
        torch.testing.assert_close(found.dense(), captured.operator.dense()[rows][:, units], rtol=1e-4, atol=1e-5)
        found.dense().square().sum().backward(retain_graph=True)
        assert not captured.operator.dense().requires_grad
    touched = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert any("layers.0" in name for name in touched)


@pytest.mark.parametrize("family", [None, "mamba"])
def test_nothing_is_kept_without_gradients_or_after_it_is_closed(family, make_model):
    model = make_model() if family is None else tiny_model(family)
    with mixer_calls(model) as calls:
        with torch.no_grad():
            model(TOKENS)
        assert calls == []
    model(TOKENS)
    assert calls == []
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_method_that_gives_no_operator_is_refused_by_name():
    class Wrong(torch.nn.Linear):
        def operator(self, hidden):
            return hidden

    model = Wrong(4, 4)
    with mixer_calls(model) as calls:
        model(torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match=r"Wrong\.operator\(hidden\) did not return a statesize Operator"):
        calls[0].sampled(1, 1, generator())
