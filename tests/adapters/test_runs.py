"""A run leaves all as it was, whatever ends it."""

import threading

import pytest
import torch
from adapters.test_restoration import state
from oracles.attention_models import attention_model, token_ids
from torch.overrides import BaseTorchFunctionMode
from torch.utils import _python_dispatch

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.models.precision import hold_at_least, set_autocast
from statesize.adapters.module_call import first_calls
from statesize.adapters.observation import ModuleStack
from statesize.adapters.runs import ONE_RUN, bare, observed, read
from statesize.adapters.sources import sources_of

IDS = token_ids(1)[:, :6]


def all_state(model):
    free = []

    def take():
        free.append(ONE_RUN.acquire(blocking=False))
        if free[0]:
            ONE_RUN.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    nesting = torch.autocast_increment_nesting() and torch.autocast_decrement_nesting()
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), nesting
    switches = torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads()
    modes = len(_python_dispatch._get_current_dispatch_mode_stack())
    return state(model) | {"free": free, "autocast": autocast, "switches": switches, "dispatch": modes}


def bare_run(model):
    def attach(stack):
        stack.enter_context(BaseTorchFunctionMode())
        hold_at_least(model, torch.float64, stack)
        set_autocast((("cpu", torch.bfloat16),), stack)
        torch.rand(1)

    return lambda: bare(model, lambda: model(IDS), attach=attach)


def read_run(model):
    hooks = dict.fromkeys(model.modules(), lambda *_: None)
    return lambda: read(model, lambda: model(IDS), hooks, hooks)


def observed_run(model):
    def record(make, product=None):
        return None if product is None else product.mixed.clone()

    parts = named_parts(model)
    return lambda: observed(model, lambda: model(IDS), ModuleStack(parts, 6, sources=sources_of(parts)), record)


def lone_run(model):
    (call,) = first_calls(Forward.of(model, IDS), [model.model.layers[0].mlp]).values()
    return lambda: call.run(lambda run: run(), torch.float64)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("make", [bare_run, read_run, observed_run, lone_run])
def test_an_error_inside_a_run_leaves_all_as_it_was(make, error):
    model = attention_model("llama", num_hidden_layers=1).bfloat16().train()
    run, ending = make(model), []

    def fail(*_):
        if ending:
            raise error("on purpose")

    with model.model.layers[0].mlp.register_forward_hook(fail):
        before = all_state(model)
        run()
        assert all_state(model) == before
        ending.append(True)
        with pytest.raises(error, match="on purpose"):
            run()
        assert all_state(model) == before
