"""What is kept while a loss is computed: operators that belong to its graph."""

import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.lab.training import mixer_calls

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


def test_nothing_is_kept_without_gradients_or_after_it_is_closed(make_model):
    model = make_model()
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
