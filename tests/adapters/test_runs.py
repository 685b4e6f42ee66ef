"""A run leaves all as it was, at whichever line Ctrl-C ends it, exits of contexts included."""

import linecache
import sys
import threading
from collections import Counter

import pytest
import torch
from adapters.test_restoration import state
from oracles.attention_models import attention_model, token_ids
from oracles.recurrent_models import tiny_model
from torch.overrides import BaseTorchFunctionMode
from torch.utils import _python_dispatch

from statesize.adapters import runs
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.models.precision import hold_at_least, set_autocast
from statesize.adapters.module_call import first_calls
from statesize.adapters.observation import ModuleStack
from statesize.adapters.runs import ONE_RUN, bare, observed, read
from statesize.adapters.sources import sources_of

IDS = token_ids(1)[:, :6]
ONE_LAYER = {"llama": {"num_hidden_layers": 1}, "gptj": {"n_layer": 1}}


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
    flags = {name: value for name, value in vars(_python_dispatch).items() if name.startswith("_is_in_")}
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), nesting
    switches = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    modes = len(_python_dispatch._get_current_dispatch_mode_stack()), flags
    return state(model) | {"free": free, "autocast": autocast, "switches": switches, "dispatch": modes}


def is_no_place(event, frame):
    """Whether Python takes no signal here: where a block begins, and between its end and the release of a lock."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return event == "line" and line.startswith(("try:", "with ONE_RUN", "with _ByThread.lock"))


def traced(run, watched, end=None):
    """Run, and count by line and by call how often each came; end by an interrupt at one of these times."""
    seen = Counter()

    def is_watched(code):
        if end is not None:
            return end[0][:2] == (code.co_filename, code.co_qualname)
        return any(part in code.co_filename for part in watched)

    def trace(frame, event, _):
        code = frame.f_code
        if not is_watched(code):
            return None
        if event in ("call", "line") and not is_no_place(event, frame):
            place = code.co_filename, code.co_qualname, frame.f_lineno if event == "line" else event
            seen[place] += 1
            if (place, seen[place]) == end:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return seen


def bare_run(model):
    def attach(stack):
        stack.enter_context(BaseTorchFunctionMode())
        hold_at_least(model, torch.float64)
        set_autocast((("cpu", torch.bfloat16),))
        torch.rand(1)

    return lambda: bare(model, lambda: model(IDS), attach=attach)


def read_run(model):
    hooks = dict.fromkeys(model.modules(), lambda *_: None)
    return lambda: read(model, lambda: model(IDS), hooks, hooks)


def observed_run(model):
    def record(make, product=None):
        return None if product is None else product.mixed.clone()

    parts = named_parts(model)
    return lambda: observed(model, lambda: model(IDS), ModuleStack(parts, 6), record, sources_of(parts))


def lone_run(model):
    (call,) = first_calls(Forward.of(model, IDS), [model.model.layers[0].mlp]).values()
    return lambda: call.run(lambda run: run(), torch.float64)


def interrupted_run(model):
    """A run that Ctrl-C ends in the model."""

    def interrupt():
        model(IDS)
        raise KeyboardInterrupt

    parts = named_parts(model)
    return lambda: observed(model, interrupt, ModuleStack(parts, 6), lambda *_: None, sources_of(parts))


def interrupted_while_put_back(model):
    """A run that Ctrl-C ends while the model is put back."""

    def run():
        times, put_back = iter([True]), runs.put_back

        def interrupt(before):
            put_back(before)
            if next(times, False):
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "put_back", interrupt)
            observed_run(model)()

    return run


@pytest.mark.parametrize("time", ["first", pytest.param("last", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("family", "make"),
    [
        ("llama", observed_run),
        ("gptj", bare_run),
        ("gptj", read_run),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("llama", lone_run), ("mamba2", observed_run))),
    ],
)
def test_an_interrupt_at_every_line_leaves_all_as_it_was(family, make, time, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    # Further layers run the same lines.
    model = tiny_model(family) if family == "mamba2" else attention_model(family, **ONE_LAYER[family])
    model.bfloat16().train()
    next(model.children()).eval()
    run, watched = make(model), ("/statesize/", "contextlib.py", "torch/overrides.py", "_python_dispatch.py")
    run()
    before, seen = all_state(model), traced(run, watched)
    assert {f"_Before.{name}" for name in ("__init__", "change", "put_back")} <= {name for _, name, _ in seen}
    # At the first or the last of the times that each line comes.
    places = [(place, 1) for place in seen] if time == "first" else [end for end in seen.items() if end[1] > 1]
    assert len(places) > (180 if time == "first" else 80)
    ended = 0
    for end in places:
        try:
            traced(run, watched, end)
        except KeyboardInterrupt:
            ended += 1
        assert all_state(model) == before, end
    # What comes in a finalizer is lost.
    assert ended > 0.95 * len(places)


@pytest.mark.few(1)
@pytest.mark.parametrize("make", [pytest.param(interrupted_run, marks=pytest.mark.slow), interrupted_while_put_back])
def test_a_second_interrupt_while_the_model_is_put_back_leaves_all_as_it_was(make, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    model = attention_model("llama", **ONE_LAYER["llama"]).bfloat16().train()
    run, watched = make(model), ("adapters/runs.py", "adapters/replaced.py", "contextlib.py", "torch/overrides.py")

    def twice():
        with pytest.raises(KeyboardInterrupt):
            run()

    twice()
    before, seen = all_state(model), traced(twice, watched)
    for end in seen.items():
        # At the last time of each line, which for those that put back comes after the first interrupt.
        assert traced(twice, watched, end)[end[0]] == end[1]
        assert all_state(model) == before, end
