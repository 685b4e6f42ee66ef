"""Three runs of a model or of one of its modules alone: bare, read by hooks, observed. Each leaves all as it was."""

# Ctrl-C may come at any line, also while a run puts back what it changed. So nothing here is trusted to be left by an
# exit alone, which an interrupt may end at its first line: what may change is noted before, and put back twice.

from __future__ import annotations

import contextlib
import copy
import functools
import random
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from traceback import walk_tb
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn, overrides
from torch.utils import _python_dispatch

from statesize.adapters.models.model_state import device_of
from statesize.adapters.observation import Leave, ModuleStack, OnObservation, OpenSource, in_this_thread
from statesize.adapters.replaced import put_back, replacements
from statesize.io.devices import USERS_DEFAULT, on_cpu_by_default

Attach = Callable[[ExitStack], object]
"""Changes a model for a run: sets what it finds, hangs hooks on modules, enters contexts."""

# One for all models: a run also holds switches and random states of torch, which the process has once.
ONE_RUN = threading.RLock()
# Torch has no public names for its stacks of modes.
_functions: Any = overrides
_dispatch: Any = _python_dispatch
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOW_HOOKS_RUN = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict, defaultdict, Counter, np.ndarray})
_RANDOM = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)  # noqa: S311
# What every module has is put back by other ways; hooks that transformers hangs once stay, and so its flag for them.
_PUT_BACK_ELSEWHERE = {*vars(nn.Module()), "_output_capturing_hooks_installed"}
_DEVICES = ("cpu", "cuda", "mps", "xpu")
_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    *((partial(torch.is_autocast_enabled, one), partial(torch.set_autocast_enabled, one)) for one in _DEVICES),
    *((partial(torch.get_autocast_dtype, one), partial(torch.set_autocast_dtype, one)) for one in _DEVICES),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)


def bare(model: nn.Module, call: Callable[[], Any], part: nn.Module | None = None, attach: Attach | None = None) -> Any:
    """What a call of a model returns, in eval mode, uncompiled, without gradients and autocast.

    Args:
        model: The model.
        call: Calls it, or a part of it.
        part: The only module of it that runs.
        attach: Changes it before, for this run.

    Returns:
        What `call` returns; all that the run changed is as before, whatever ended it.
    """
    with ONE_RUN:
        before = _Before(model, part)
        try:
            try:
                with USERS_DEFAULT.get(nullcontext()), ExitStack() as stack:
                    before.change()
                    if attach is not None:
                        attach(stack)
                    return call()
            except BaseException as error:
                _leave_contexts(error)
                raise
            finally:
                before.put_back()
        finally:
            before.put_back()


def _leave_contexts(error: BaseException) -> None:
    """Leave contexts whose exit an interrupt has ended at its first line, and which the traceback would keep open."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_filename == contextlib.__file__:
            frame.clear()


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
    sources: Sequence[OpenSource],
    *,
    on_leave: Leave | None = None,
    part: nn.Module | None = None,
    attach: Attach | None = None,
) -> Any:
    """What a call returns while every source records the mixing that it knows.

    Args:
        model: The model.
        call: Calls it, or a part of it.
        running: Keeps track of the modules that run.
        record: Takes each find.
        sources: Those of the model.
        on_leave: Takes each module that has run, and its output.
        part: The only module that runs.
        attach: Changes the model before the sources do, for this run.

    Returns:
        What `call` returns.
    """

    def attach_all(stack: ExitStack) -> None:
        if attach is not None:
            attach(stack)
        # What reads the modules in front of all other hooks is told which of them runs.
        stack.enter_context(running.watching(on_leave))
        cpu = torch.get_default_device().type == "cpu"
        for source in sources:
            stack.enter_context(source(running, record if cpu else on_cpu_by_default(record)))

    return bare(model, call, part, attach_all)


@contextmanager
def eval_mode(model: nn.Module) -> Generator[None]:
    """Hold a model as a bare run does, for runs that change it from one to the next."""
    with ONE_RUN:
        before = _Before(model)
        try:
            before.change()
            yield
        finally:
            before.put_back()


class _Before:
    """All that a run may change, as it was: it may be put back any number of times."""

    def __init__(self, model: nn.Module, part: nn.Module | None = None) -> None:
        self.model, self.runs = model, model if part is None else part
        self.is_back = False
        self.forward = vars(model).get("forward")
        # Each with its mode, its weights and buffers, and its attributes.
        kinds = ("_parameters", "_buffers")
        self.modules = [
            (module, module.training, {kind: dict(vars(module)[kind]) for kind in kinds}, _attributes(module))
            for module in self.runs.modules()
        ]
        self.hooks = [{key for kind in _HOOKS for key in vars(module)[kind]} for module, *_ in self.modules]
        # RecurrentGemma keeps its last states in attributes, a layer of one's own a running mean in a buffer, or what
        # it has seen in a list.
        self.containers, tensors, generators = dict[int, tuple[Any, Any]](), dict[Tensor, None](), dict[Any, None]()
        waiting: list[Any] = [one for *_, held, attributes in self.modules for one in (held["_buffers"], attributes)]
        while waiting:
            container = waiting.pop()
            values: Iterable[Any] = cast("Any", container.values() if isinstance(container, dict) else container)
            for value in values:
                if isinstance(value, Tensor):
                    tensors[value] = None
                elif type(value) in _CONTAINERS and id(value) not in self.containers:
                    self.containers[id(value)] = value, copy.copy(value)
                    waiting += [value] if type(value) is not np.ndarray else []
                elif isinstance(value, tuple):
                    waiting.append(value)
                elif isinstance(value, _RANDOM):
                    generators[value] = None
        self.contents = [(one, one._version, one.clone()) for one in tensors if not one.is_inference()]
        weights = [one for *_, held, _ in self.modules for one in held["_parameters"].values() if one is not None]
        self.versions = [(one, one._version) for one in weights if not one.is_inference()]
        self.replacements = replacements()
        self.modes = _functions._get_current_function_mode_stack(), len(_dispatch._get_current_dispatch_mode_stack())
        flags: dict[str, bool] = _dispatch.__dict__
        self.dispatching = {name: flag for name, flag in flags.items() if name.startswith("_is_in_")}
        self.switches = [read() for read, _ in _SWITCHES]
        self.device = device_of(model)
        self.random: list[tuple[Callable[[Any], object], Any]] = [
            (torch.set_rng_state, torch.get_rng_state()),
            (random.setstate, random.getstate()),
            (np.random.set_state, np.random.get_state()),  # noqa: NPY002
        ]
        if self.device.type == "cuda":
            state = torch.cuda.get_rng_state(self.device)
            self.random.append((partial(torch.cuda.set_rng_state, device=self.device), state))
        for one in generators:
            if isinstance(one, torch.Generator | np.random.RandomState):
                self.random.append((one.set_state, one.get_state()))
            elif isinstance(one, np.random.Generator):
                self.random.append((partial(setattr, one.bit_generator, "state"), one.bit_generator.state))
            else:
                self.random.append((one.setstate, one.getstate()))
        self.nesting = _autocast_nesting()
        # Without this module nothing has been compiled, and importing it takes a second.
        self.compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
        self.stance = None if self.compiler is None else self.compiler._stance

    def change(self) -> None:
        """Make a model ready to run; other threads that call it wait until it is as before."""
        forward = self.model.forward

        @functools.wraps(forward)
        def in_turn(*args: Any, **kwargs: Any) -> Any:
            # A call that waited keeps the next run waiting, which would change the model under it.
            with ONE_RUN:
                return forward(*args, **kwargs)

        vars(self.model)["forward"] = in_turn
        if self.compiler is not None:
            torch.compiler.set_stance("force_eager")
        torch.set_grad_enabled(False)
        if torch.amp.is_autocast_available(self.device.type):
            torch.set_autocast_enabled(self.device.type, False)
        torch.autocast_increment_nesting()
        # torch's own attention layers would take their fused kernel, in which no values are seen.
        torch.backends.mha.set_fastpath_enabled(False)
        self.runs.eval()

    def put_back(self) -> None:
        """Leave all as it was, before a further Ctrl-C that comes meanwhile goes on."""
        try:
            if self.is_back:
                return
            modes, depth = self.modes
            while _functions._get_current_function_mode_stack():
                _functions._pop_mode()
            for mode in modes:
                _functions._push_mode(mode)
            while len(_dispatch._get_current_dispatch_mode_stack()) > depth:
                _dispatch._pop_mode()
            for name, value in self.dispatching.items():
                setattr(_dispatch, name, value)
            if (keep := getattr(_dispatch, "set_is_in_mode_without_ignore_compile_internals", None)) is not None:
                keep(self.dispatching["_is_in_any_mode_without_ignore_compile_internals"])
            if self.compiler is not None:
                self.compiler._stance = self.stance
            while _autocast_nesting() > self.nesting:
                torch.autocast_decrement_nesting()
            if not self.nesting:
                torch.clear_autocast_cache()
            for put, state in self.random:
                put(state)
            put_back(self.replacements)
            # What a forward writes into weights stays, and with it the flag that says so: RWKV divides them once.
            written = any(weight._version != version for weight, version in self.versions)
            for (module, training, held, attributes), hooks in zip(self.modules, self.hooks, strict=True):
                now = _attributes(module)
                kept = {name: flag for name, flag in now.items() if isinstance(flag, bool)} if written else {}
                for name in now.keys() - attributes.keys() - kept.keys():
                    delattr(module, name)
                vars(module).update(attributes | kept)
                for name, tensors in held.items():
                    for new in vars(module)[name].keys() - tensors.keys():
                        del vars(module)[name][new]
                        vars(module)["_non_persistent_buffers_set"].discard(new)
                    vars(module)[name].update(tensors)
                # One flag per module: model.train(True) would also switch on parts that were frozen in eval mode.
                module.training = training
                _remove_hooks(module, hooks)
            for container, content in self.containers.values():
                if isinstance(container, np.ndarray):
                    container[...] = content
                else:
                    container.clear()
                    (container.extend if isinstance(container, list | deque) else container.update)(content)
            with torch.no_grad():
                for tensor, version, content in self.contents:
                    # What is written by `.data` has the same version.
                    if tensor._version != version or not torch.equal(tensor, content):
                        if tensor.shape != content.shape:
                            tensor.resize_(content.shape)
                        tensor.copy_(content)
            for (current, put), value in zip(_SWITCHES, self.switches, strict=True):
                if current() != value:
                    put(value)
            if self.forward is None:
                vars(self.model).pop("forward", None)
            else:
                vars(self.model)["forward"] = self.forward
            self.is_back = True
        except KeyboardInterrupt:
            self.put_back()
            raise


def _attributes(module: nn.Module) -> dict[str, object]:
    """Attributes in which modules keep something from run to run, such as rotary frequencies or a number of calls."""
    return {name: value for name, value in vars(module).items() if name not in _PUT_BACK_ELSEWHERE}


def _remove_hooks(module: nn.Module, before: Collection[int]) -> None:
    """Remove the hooks that this thread's run has hung on a module."""
    for kind in _HOOKS:
        hooks: dict[int, Any] = vars(module)[kind]
        for key, hook in list(hooks.items()):
            if key not in before and getattr(hook, "thread", None) == threading.get_ident():
                for name in _HOW_HOOKS_RUN:
                    vars(module)[name].pop(key, None)
                del hooks[key]


def _autocast_nesting() -> int:
    # On one line, so that nothing comes between the two.
    return torch.autocast_increment_nesting() and torch.autocast_decrement_nesting()
