from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import pytest
import torch
from oracles.impulses import impulse_responses, kernel_arguments
from oracles.recurrent_models import FAMILIES, InDouble, observations, reproduction_error, tiny_model, tokens
from oracles.tiny_families import tiny, token_ids
from torch import nn

from statesize import capture
from statesize.adapters.kernels import scans
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack, Observation
from statesize.adapters.replaced import ReplacedCall, first, source_files
from statesize.codes import joined
from statesize.errors import ModelError

KINDS = {"mamba", "mamba2", "gated delta rule", "kimi delta attention", "rwkv"}
SCANNED = [family for family, (_, (kind, _)) in FAMILIES.items() if kind in KINDS]


@pytest.mark.few(9)
@torch.no_grad()
@pytest.mark.parametrize("family", SCANNED)
def test_operators_are_what_the_kernels_computed(family: str) -> None:
    model = tiny_model(family)
    with kernel_arguments(model) as calls:
        seen = observations(model, tokens(), scans.observing)
    kind, number = FAMILIES[family][1]
    assert [observation.kind for observation in seen] == [kind] * number
    for observation, (function, arguments) in zip(seen, calls, strict=True):
        operator = observation.operator(slice(None))
        assert operator.batch_shape == observation.values.shape[:2]
        assert operator.dtype == torch.float64
        assert observation.values.shape == (*observation.values.shape[:2], 21, observation.found.multiplicity)
        assert int(operator.state_size().max()) == observation.state_size
        assert reproduction_error(observation) < 1e-5
        expected = impulse_responses(function, arguments)
        assert float((operator.dense() - expected).abs().max() / expected.abs().max()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mamba", {"delta_bias": None, "delta_softplus": False}),
        ("mamba2", {"dt_bias": None, "dt_softplus": False}),
        ("qwen3_next", {"use_qk_l2norm_in_kernel": False}),
    ],
)
def test_steps_and_keys_that_a_mixer_prepares_before_its_kernel(family: str, changes: dict[str, Any]) -> None:
    model = tiny_model(family)
    with kernel_arguments(model) as calls:
        observations(model, tokens(), scans.observing)
    function, arguments = calls[0]
    given = {"dt": arguments["dt"].abs()} if "dt" in arguments else {"key": arguments["key"] / 10}
    arguments = {**arguments, **changes, **given}
    expected = impulse_responses(function, arguments)
    output = first(function(**{name: value for name, value in arguments.items() if name != "kwargs"}))
    operator = (
        scans.KERNELS[function.__name__].parse(ReplacedCall("mixer", model, arguments, output)).operator(slice(None))
    )
    assert float((operator.dense() - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.few(9)
@pytest.mark.parametrize("family", SCANNED)
def test_in_double_precision_the_model_and_its_operators_agree_to_round_off(family: str) -> None:
    with torch.no_grad(), InDouble():
        seen = observations(tiny_model(family).double(), tokens(), scans.observing)
    assert max(reproduction_error(observation) for observation in seen) < 1e-11


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "kimi_linear", "rwkv"])
def test_chosen_units_are_the_same_as_in_the_whole(family: str) -> None:
    observation = observations(tiny_model(family), tokens(), scans.observing)[0]
    _, heads, _, channels = observation.values.shape
    # RWKV keeps a denominator and a running maximum beside its one number.
    assert observation.state_bytes == 4 * heads * channels * (3 if family == "rwkv" else observation.state_size)
    whole = observation.operator(slice(None)).dense()
    for units in (slice(1, 3), slice(None, None, 2), torch.tensor([3, 0])):
        part = observation.operator(units)
        torch.testing.assert_close(part.dense(), whole[:, units], rtol=1e-12, atol=1e-12)
        mixed = part.apply(observation.values[:, units].double())
        passed = observation.passed_on(mixed, units)
        torch.testing.assert_close(passed, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-4)


@pytest.mark.few(4)
@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "kimi_linear", "rwkv"])
@pytest.mark.parametrize("memory", ["long", "short"])
def test_long_sequences_with_extreme_decays_stay_finite(family: str, memory: str) -> None:
    model = tiny_model(family).double()
    shift = {"long": -12.0, "short": 6.0}[memory]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("A_log", "time_decay")):
                parameter.fill_(shift)
    # In float32 the chunked kernels themselves lose digits where decays are strong.
    with InDouble():
        seen = observations(model, tokens(length=300, sequences=1), scans.observing)
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
def test_a_compiled_kernel_that_rounds_to_tf32_is_measured_and_told(
    family: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family)
    expected = [item.operator.dense() for item in capture(model, token_ids(1))]
    file = _file(model)
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


def test_the_pure_torch_convolution_is_used_meanwhile() -> None:
    model = tiny_model("mamba")
    file = _file(model)
    before = vars(file)[scans.CONVOLUTION]
    with (
        ModuleStack(named_parts(model), 21).watching() as running,
        scans.observing(source_files(named_parts(model)), running, lambda _: None),
    ):
        assert vars(file)[scans.CONVOLUTION].__code__.co_filename == file.__file__
    assert vars(file)[scans.CONVOLUTION] is before


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("family", ["mamba", "qwen3_next", "rwkv"])
def test_the_source_files_are_as_before_whatever_happens(family: str, failure: type[BaseException] | None) -> None:
    model = tiny_model(family)
    files = source_files(named_parts(model))
    before = [dict(vars(file)) for file in files]

    def record(_: object, product: object = None) -> None:
        if failure is not None:
            raise failure

    def run() -> None:
        with ModuleStack(named_parts(model), 21).watching() as running, torch.no_grad():
            with scans.observing(source_files(named_parts(model)), running, record):
                model(input_ids=tokens(), use_cache=False)

    if failure is None:
        run()
    else:
        with pytest.raises(failure):
            run()
    for file, names in zip(files, before, strict=True):
        assert vars(file).keys() == names.keys()
        assert all(vars(file)[name] is value for name, value in names.items())


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next", "kimi_linear", "rwkv"])
def test_a_call_that_goes_on_from_a_state_is_refused(family: str) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        first = model(input_ids=tokens(), use_cache=True)
        cache = {
            name: first[name] for name in ("past_key_values", "cache_params", "state") if first.get(name) is not None
        }
        with (
            ModuleStack(named_parts(model), 21).watching() as running,
            scans.observing(source_files(named_parts(model)), running, lambda make, product=None: make()),
        ):
            with pytest.raises(ModelError, match=r"initial state .* run the whole sequence in one call"):
                model(input_ids=tokens(length=5), use_cache=True, **cache)


def test_a_mixer_of_a_class_derived_elsewhere_is_observed_too() -> None:
    mixer: Any = tiny_model("mamba").get_submodule("backbone.layers.0.mixer")
    mixer.__class__ = type("MyMixer", (type(mixer),), {"__module__": __name__})
    seen: list[Observation] = []
    with (
        ModuleStack(named_parts(mixer), 5).watching() as running,
        scans.observing(source_files(named_parts(mixer)), running, lambda make, product=None: seen.append(make())),
        torch.no_grad(),
    ):
        mixer(torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0)))
    assert [observation.name for observation in seen] == ["MyMixer"]


def _file(model: nn.Module) -> ModuleType:
    return next(file for file in source_files(named_parts(model)) if scans.CONVOLUTION in vars(file))
