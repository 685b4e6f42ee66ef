"""T of scans against impulses through their own kernels, and their states against the caches of models."""

import functools
from typing import Any

import pytest
import torch
from oracles.module_impulses import impulse_responses, kernel_calls
from oracles.observed_kernels import InDouble, observations, reproduction_error
from oracles.tiny_families import tiny, token_ids

from statesize import capture
from statesize.adapters.kernels import scans
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import ReplacedCall, first, source_files
from statesize.codes import joined
from statesize.errors import ModelError
from statesize.operators import Recurrence

# A family of each kernel.
SCANNED = ["mamba", "mamba2", "qwen3_next", "kimi_linear", "rwkv"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "kernel", "changes"),
    [
        ("mamba", "mamba_selective_scan", {"delta_bias": None, "delta_softplus": False}),
        ("mamba2", "mamba2_chunk_scan", {"dt_bias": None, "dt_softplus": False}),
        ("qwen3_next", "torch_chunk_gated_delta_rule", {"use_qk_l2norm_in_kernel": False}),
    ],
)
def test_steps_and_keys_that_a_mixer_prepares(family, kernel, changes):
    model = tiny(family)
    function, arguments = kernel_calls(model, token_ids(length=21), kernel)[0]
    given = {"dt": arguments["dt"].abs()} if "dt" in arguments else {"key": arguments["key"] / 10}
    arguments = {**arguments, **changes, **given}
    expected = impulse_responses(function, arguments)
    output = first(function(**{name: value for name, value in arguments.items() if name != "kwargs"}))
    observation = scans.KERNELS[function.__name__].parse(ReplacedCall("mixer", model, arguments, output))
    assert float((observation.operator(slice(None)).dense() - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("family", SCANNED)
def test_chosen_units_are_the_same_as_in_the_whole(family):
    observation = observations(tiny(family), token_ids(length=21), scans.observing)[0]
    _, heads, _, channels = observation.values.shape
    # RWKV keeps a denominator and a running maximum beside its one number.
    assert observation.state_bytes == 4 * heads * channels * (3 if family == "rwkv" else observation.state_size)
    whole = observation.operator(slice(None)).dense()
    for units in (slice(1, 3), slice(None, None, 2), torch.tensor([2, 0])):
        part = observation.operator(units)
        torch.testing.assert_close(part.dense(), whole[:, units], rtol=1e-12, atol=1e-12)
        mixed = part.apply(observation.values[:, units].double())
        passed = observation.passed_on(mixed, units)
        torch.testing.assert_close(passed, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-4)


@pytest.mark.few(4)
@pytest.mark.parametrize("family", SCANNED)
@pytest.mark.parametrize("memory", ["long", "short"])
def test_long_sequences_with_extreme_decays_stay_finite(family, memory):
    model = tiny(family).double()
    shift = {"long": -12.0, "short": 6.0}[memory]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("A_log", "time_decay")):
                parameter.fill_(shift)
    # In float32 the chunked kernels themselves lose digits where decays are strong.
    with InDouble():
        seen = observations(model, token_ids(1, 300), scans.observing)
    for observation in seen:
        # An operator that is not finite refuses to be built.
        assert bool(torch.isfinite(observation.operator(slice(0, 4)).dense()).all())
        assert reproduction_error(observation) < 1e-8


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "kernel"),
    [
        ("qwen3_next", "torch_chunk_gated_delta_rule"),
        ("kimi_linear", "chunk_kimi_delta_attention"),
        ("mamba2", "mamba2_chunk_scan"),
    ],
)
def test_a_compiled_kernel_that_rounds_to_tf32_is_measured_and_told(family: str, kernel: str, monkeypatch):
    model = tiny(family)
    expected = [item.operator.dense() for item in capture(model, token_ids(1))]
    file = next(file for file in source_files(named_parts(model)) if scans.CONVOLUTION in vars(file))
    below = vars(file)[kernel]

    @functools.wraps(below)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        # As Triton's products of float32 do on a GPU: ten bits of the mantissa.
        rounded = [(part.view(torch.int32) & ~0x1FFF).view(torch.float32) for part in args[:3]]
        return below(*rounded, *args[3:], **kwargs)

    monkeypatch.setattr(file, kernel, compiled)
    items = list(capture(model, token_ids(1)))
    assert any("own arithmetic rounds by" in joined(item.notes) for item in items)
    for item, operator in zip(items, expected, strict=True):
        assert float((item.operator.dense() - operator).abs().max() / operator.abs().max()) < 5e-3


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next", "kimi_linear", "rwkv"])
def test_a_call_that_goes_on_from_a_state_is_refused(family):
    model = tiny(family)
    with torch.no_grad():
        first = model(input_ids=token_ids(length=21), use_cache=True)
        cache = {name: first[name] for name in first.keys() & {"past_key_values", "cache_params", "state"}}
        with (
            ModuleStack(named_parts(model), 21).watching() as running,
            scans.observing(source_files(named_parts(model)), running, lambda make, product=None: make()),
            pytest.raises(ModelError),
        ):
            model(input_ids=token_ids(length=5), use_cache=True, **cache)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next"])
def test_states_are_those_of_the_model_s_cache(family):
    model, ids = tiny(family), token_ids(2)
    with torch.no_grad():
        output = model(input_ids=ids[:, :9], use_cache=True)
    cache = output.cache_params if "cache_params" in output else output.past_key_values
    held = [
        captured.operator.states(captured.values(), [9])
        for captured in capture(model, ids)
        if isinstance(captured.operator, Recurrence)
    ]
    kept = [layer.recurrent_states[0] for layer in cache.layers if hasattr(layer, "recurrent_states")]
    assert len(held) == len(kept) > 0
    for found, expected in zip(held, kept, strict=True):
        state = found[:, :, 0].double()
        state = state if family == "qwen3_next" else state.mT  # Mamba keeps channels before states
        torch.testing.assert_close(state.reshape(expected.shape), expected.double(), rtol=1e-4, atol=1e-5)
