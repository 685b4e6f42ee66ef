from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from oracles.recurrent_models import InDouble, observations, reproduction_error, tiny_model, tokens
from torch import Tensor

from statesize.adapters.kernels import recurrent_layers
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.runs import observed

UNIT = "model.layers.0.temporal_block.rg_lru"


def test_operators_are_what_the_scan_computed() -> None:
    model = tiny_model("recurrent_gemma")
    unit: Any = model.get_submodule(UNIT)
    scan, calls = unit._rnn_scan, []
    unit._rnn_scan = lambda **arguments: (calls.append(arguments), scan(**arguments))[1]
    first, _ = observations(model, tokens(), recurrent_layers.observing_rg_lru)
    assert (first.name, first.kind) == (UNIT.removesuffix(".rg_lru"), "rg-lru")
    assert reproduction_error(first) < 1e-5
    operator = first.operator(slice(None))
    assert operator.batch_shape == first.values.shape[:2] == (2, 32)
    arguments = calls[0]
    scale = arguments["hidden_states"].transpose(1, 2) / first.values[..., 0]
    expected = torch.stack([_responses(scan, arguments, s) for s in range(2)]) * scale[:, :, None]
    torch.testing.assert_close(operator.dense().float(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("memory", [-20.0, 5.0])
def test_in_double_precision_the_model_and_its_operators_agree_to_round_off(memory: float) -> None:
    model = tiny_model("recurrent_gemma").double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("recurrent_param"):
                parameter.fill_(memory)
    with InDouble():
        seen = observations(model, tokens(length=300, sequences=1), recurrent_layers.observing_rg_lru)
    assert max(map(reproduction_error, seen)) < 1e-6


def test_a_document_that_begins_within_the_sequence_forgets_what_came_before() -> None:
    model = tiny_model("recurrent_gemma")
    positions = torch.cat([torch.arange(8), torch.arange(13)])[None]
    seen: list[Any] = []
    with (
        torch.no_grad(),
        ModuleStack(named_parts(model), 21).watching() as running,
        recurrent_layers.observing_rg_lru((), running, lambda make, product=None: seen.append(make())),
    ):
        model(input_ids=tokens(sequences=1), position_ids=positions, use_cache=False)
    assert not bool(seen[0].operator(slice(None)).dense()[..., 8:, :8].any())
    assert reproduction_error(seen[0]) < 1e-5


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
def test_hooks_and_states_are_as_before_whatever_happens(failure: type[BaseException] | None) -> None:
    model = tiny_model("recurrent_gemma")
    block: Any = model.get_submodule(UNIT.removesuffix(".rg_lru"))
    state = block.rg_lru.recurrent_states = torch.zeros(2, 32)

    def record(_: object) -> None:
        if failure is not None:
            raise failure

    def run() -> None:
        source = partial(recurrent_layers.observing_rg_lru, ())
        call = partial(model, input_ids=tokens(), use_cache=False)
        observed(model, call, ModuleStack(named_parts(model), 21, sources=[source]), record)

    if failure is None:
        run()
    else:
        with pytest.raises(failure):
            run()
    assert block.rg_lru.recurrent_states is state
    assert block.conv1d_state is None
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def _responses(scan: Any, arguments: dict[str, Any], sequence: int) -> Tensor:
    """(channels, L, L) of one sequence; the impulse at position j is sequence j."""
    gates = arguments["recurrent_gate"][sequence].expand(21, -1, -1)
    impulses = torch.eye(21)[..., None].expand(21, 21, 32)
    with torch.no_grad():
        mixed, _ = scan(hidden_states=impulses, recurrent_gate=gates, reset=arguments["reset"], recurrent_states=None)
    return mixed.permute(2, 1, 0)
