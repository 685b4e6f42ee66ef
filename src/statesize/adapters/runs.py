"""Three runs of a model or of one of its modules alone: bare, read by hooks, observed. Each leaves all as it was."""

from __future__ import annotations

import copy
import functools
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import device_of
from statesize.adapters.observation import ModuleStack, OnObservation, in_this_thread
from statesize.adapters.replaced import ONE_RUN
from statesize.io.devices import USERS_DEFAULT, on_cpu_by_default

Attach = Callable[[ExitStack], object]
"""Changes a model for a run: sets what it finds, hangs hooks on modules, enters contexts."""

_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict, defaultdict, Counter})
# What every module has is put back by other ways; hooks that transformers hangs once stay, and so its flag for them.
_PUT_BACK_ELSEWHERE = {*vars(nn.Module()), "_output_capturing_hooks_installed"}


def bare(model: nn.Module, call: Callable[[], Any], part: nn.Module | None = None, attach: Attach | None = None) -> Any:
    """What a call of a model, or of its only part that runs, returns in eval mode, without gradients and autocast."""
    # `attach` changes the model for this run; all is as before afterwards, whatever ended it.
    with eval_mode(model, part), USERS_DEFAULT.get(nullcontext()), ExitStack() as stack:
        if attach is not None:
            attach(stack)
        return call()


Hook = Callable[..., object]


def reading(enter: Mapping[nn.Module, Hook], leave: Mapping[nn.Module, Hook], stack: ExitStack) -> None:
    """Let functions read what enters modules, `enter(module, args, kwargs)`, and what leaves them."""
    for module, hook in enter.items():
        # A module's other hooks change what they are given again when it runs alone.
        stack.callback(module.register_forward_pre_hook(in_this_thread(hook), prepend=True, with_kwargs=True).remove)
    for module, hook in leave.items():
        stack.callback(module.register_forward_hook(in_this_thread(hook)).remove)


def read(
    model: nn.Module, call: Callable[[], Any], enter: Mapping[nn.Module, Hook], leave: Mapping[nn.Module, Hook]
) -> Any:
    """What a call returns while functions read what enters and leaves some modules."""
    return bare(model, call, attach=partial(reading, enter, leave))


def observed(
    model: nn.Module,
    call: Callable[[], Any],
    running: ModuleStack,
    record: OnObservation,
    attach: Attach | None = None,
) -> Any:
    """What a call of the model or part of `running` returns while each of its sources hands `record` what it knows."""

    def attach_all(stack: ExitStack) -> None:
        if attach is not None:
            attach(stack)
        # What reads the modules in front of all other hooks is told which of them runs.
        stack.enter_context(running.watching())
        cpu = torch.get_default_device().type == "cpu"
        for source in running.sources:
            stack.enter_context(source(running, record if cpu else on_cpu_by_default(record)))

    return bare(model, call, running.parts[0][1], attach_all)


@contextmanager
def eval_mode(model: nn.Module, part: nn.Module | None = None) -> Generator[None]:
    """Hold a model, of which only one part may run, as a bare run does; other threads that call it wait."""
    forward, device = model.forward, device_of(model)

    @functools.wraps(forward)
    def in_turn(*args: Any, **kwargs: Any) -> Any:
        # A call that waited keeps the next run waiting, which would change the model under it.
        with ONE_RUN:
            return forward(*args, **kwargs)

    with ONE_RUN, ExitStack() as stack:
        runs = model if part is None else part
        stack.callback(_Held(runs).put_back)
        held = {"forward": forward} if "forward" in vars(model) else {}
        stack.callback(lambda: vars(model).update(held) if held else vars(model).pop("forward", None))
        vars(model)["forward"] = in_turn
        devices = [device] if device.type == "cuda" else []
        stack.enter_context(cast("Any", torch.random).fork_rng(devices=devices))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        stack.enter_context(torch.no_grad())
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        # Without this module nothing has been compiled, and importing it takes a second.
        if "torch._dynamo.eval_frame" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # torch's own attention layers would take their fused kernel, in which no values are seen.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        runs.eval()
        yield


class _Held:
    """What the modules of a model hold, as it was before a run."""

    def __init__(self, model: nn.Module) -> None:
        kinds = ("_parameters", "_buffers", "_non_persistent_buffers_set")
        self.modules = [
            (module, module.training, {kind: vars(module)[kind].copy() for kind in kinds}, _attributes(module))
            for module in model.modules()
        ]
        # RecurrentGemma keeps its last states in attributes, a layer of one's own a running mean in a buffer, or what
        # it has seen in a list.
        self.containers, tensors = dict[int, tuple[Any, Any]](), dict[Tensor, None]()
        waiting: list[Any] = [part for *_, held, attributes in self.modules for part in (held["_buffers"], attributes)]
        while waiting:
            container = waiting.pop()
            values: Iterable[Any] = cast("Any", container.values() if isinstance(container, dict) else container)
            for value in values:
                if isinstance(value, Tensor):
                    tensors[value] = None
                elif type(value) in _CONTAINERS and id(value) not in self.containers:
                    self.containers[id(value)] = value, copy.copy(value)
                    waiting.append(value)
                elif isinstance(value, tuple):
                    waiting.append(value)
        self.contents = [(tensor, tensor._version, tensor.clone()) for tensor in tensors if not tensor.is_inference()]
        weights = [value for *_, held, _ in self.modules for value in held["_parameters"].values() if value is not None]
        self.versions = [(weight, weight._version) for weight in weights if not weight.is_inference()]

    def put_back(self) -> None:
        """Leave all as it was."""
        # What a forward writes into weights stays, and with it the flag that says so: RWKV divides them once.
        written = any(weight._version != version for weight, version in self.versions)
        for module, training, held, attributes in self.modules:
            now = _attributes(module)
            kept = {name: flag for name, flag in now.items() if isinstance(flag, bool)} if written else {}
            for name in now.keys() - attributes.keys() - kept.keys():
                delattr(module, name)
            vars(module).update(attributes | kept)
            for kind, content in held.items():
                vars(module)[kind].clear()
                vars(module)[kind].update(content)
            # One flag per module: model.train(True) would also switch on parts that were frozen in eval mode.
            module.training = training
        for container, content in self.containers.values():
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(content)
        with torch.no_grad():
            for tensor, version, content in self.contents:
                # What is written by `.data` has the same version.
                if tensor._version != version or not torch.equal(tensor, content):
                    tensor.resize_(content.shape).copy_(content)


def _attributes(module: nn.Module) -> dict[str, object]:
    """Attributes in which modules keep something from run to run, such as rotary frequencies or a number of calls."""
    return {name: value for name, value in vars(module).items() if name not in _PUT_BACK_ELSEWHERE}
