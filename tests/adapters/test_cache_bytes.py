"""State bytes of every family are those of the cache that the model itself makes, at two lengths and in two dtypes."""

import pytest
import torch
from oracles.own_layers import TEXT, WIDTH, Short, lag, model_of
from oracles.tiny_families import MORE, beyond, names, tiny, token_ids
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from statesize import capture
from statesize.adapters.models.own_cache import SHORT_CONVOLUTION, bytes_beside

FAMILIES = [*names(), *(name for name in MORE if name not in names())]
# Windows, chunks, latents, keys of indexers, states, convolutions, shifted tokens: one of each kind of cache.
QUICK = {
    *"mistral llama4_text minimax deepseek_v3 deepseek_v32 deepseek_v4 zaya rwkv xlnet xlm recurrent_gemma xlstm "
    "mamba2 qwen3_next lfm2".split(),
    "falcon with groups",
}
# Those that make no cache, blt since its configuration has no number of layers; those that are refused or not built.
WITHOUT = {"openai-gpt", "openai-gpt without a head", "blt"} | {
    *"cpmant paligemma reformer gemma4_assistant gemma4_unified_assistant".split()
}
# Those that do not run in bfloat16.
IN_SINGLE = ("inkling2_text", "xlstm")


def built(family: str) -> nn.Module:
    """Its tiny model; that of xLSTM is larger, as smaller ones round their own heads and those of their cache apart."""
    if family == "xlstm":
        return beyond("xLSTMForCausalLM", {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2})
    return MORE[family]() if family in MORE else tiny(family)


def held(part: object) -> int:
    """Bytes of the tensors of a cache, but for counters."""
    if isinstance(part, Tensor):
        return part.nbytes if part.is_floating_point() or part.ndim > 1 else 0
    if isinstance(part, list | tuple):
        return sum(map(held, part))
    if isinstance(part, dict):
        return held(list(part.values()))
    of_cache = any("Cache" in kind.__name__ for kind in type(part).__mro__)
    return held(vars(part)) if of_cache else 0


def cached(family: str, model: nn.Module, ids: Tensor) -> int:
    """Bytes of the cache that a model makes of a text, without those of layers that are no mixers or are refused."""
    given = {"xlm": {"cache": EncoderDecoderCache(DynamicCache(), DynamicCache())}}.get(family, {"use_cache": True})
    if family == "recurrent_gemma":
        given |= {"past_key_values": DynamicCache(config=model.config)}
    with torch.no_grad():
        output = model(input_ids=ids, **given)
    if family == "recurrent_gemma":
        # Its recurrent blocks keep their states themselves.
        states = [(vars(part).get("conv1d_state"), vars(part).get("recurrent_states")) for part in model.modules()]
        return held(given["past_key_values"]) + held(states)
    if family == "xlm":
        return held(given["cache"])
    cache = next(output[name] for name in ("past_key_values", "cache_params", "state", "mems") if name in output)
    if family == "xlstm":
        return held(cache.rnn_state)
    if family == "rwkv":
        return held(cache[1:])  # the first is of its feed-forward layers
    if family == "deepseek_v4":
        return held(cache.layers[:1])  # the others attend to compressed entries
    embedded = 0
    if family.startswith("qwen4_exp"):
        # The embeddings of n-grams.
        embedded = held([states for number, states in cache.layers[0].conv_states.items() if number > 0])
    return held(cache) - embedded


def measured(model: nn.Module, ids: Tensor) -> int:
    """State bytes of all mixers."""
    return sum(item.state_bytes for item in capture(model, ids))


def found(model: nn.Module, ids: Tensor) -> int:
    """The same before any is measured: a layer may round more in bfloat16 than is measured."""
    kernels = capture(model, ids).mixers
    names = {kernel.name.partition("@")[0] for kernel in kernels if kernel.kind != SHORT_CONVOLUTION}
    beside = sum(bytes_beside(model.get_submodule(name), ids.shape[1]) for name in names)
    return sum(kernel.state_bytes for kernel in kernels) + beside


@pytest.mark.few(6)
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES if name not in WITHOUT],
)
def test_state_bytes_are_those_of_the_model_s_cache(family):
    # The first is shorter than the windows.
    for length, read in ((5, found), (23, measured)):
        ids, model = token_ids(1, length), built(family)
        assert read(model, ids) == cached(family, model, ids) > 0, length
    if family not in IN_SINGLE:
        model = model.to(torch.bfloat16)
        assert found(model, ids) == cached(family, model, ids)


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("rotated", [0, 4])
def test_an_absorbed_latent_is_stored_once(is_fused, rotated):
    """Four heads of queries read a latent of 8 channels, and rotated ones beside that are in no value."""

    def mixed(own, hidden, _):
        stored, query = own.inner[0](hidden).split([8 + rotated, 4 * (8 + rotated)], -1)
        key, query = stored[:, None], query.unflatten(-1, (4, -1)).transpose(1, 2)
        if is_fused:
            mixed = functional.scaled_dot_product_attention(query, key, key[..., :8], is_causal=True, enable_gqa=True)
        else:
            mixed = (query @ key.mT).masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1) @ key[..., :8]
        return own.inner[1](mixed.transpose(1, 2).flatten(2))

    layers = lambda: nn.ModuleList([nn.Linear(WIDTH, 5 * (8 + rotated)), nn.Linear(4 * 8, WIDTH)])  # noqa: E731
    model = model_of(mixed, layers).float()
    (item,) = capture(model, TEXT[:1, :23])
    assert (item.groups, item.state_bytes) == (1, 23 * (8 + rotated) * 4)
    if rotated:
        # Its cache is that of the model that expands as large a latent.
        layer = tiny("deepseek_v3")(input_ids=token_ids(1, 23), use_cache=True).past_key_values.layers[0]
        assert item.state_bytes == held(layer.keys) + held(layer.values)


def causal(taps: int, dilation: int = 1) -> nn.Module:
    """A depthwise convolution over the last taps, which a step computes from as many inputs less its own."""
    padding = (taps - 1) * dilation
    return nn.Conv1d(WIDTH, WIDTH, taps, groups=WIDTH, padding=padding, dilation=dilation)


def cut(convolution: nn.Module, hidden: Tensor) -> Tensor:
    return convolution(hidden.mT)[..., : hidden.shape[1]].mT


def own_bytes(mixed, inner) -> dict[str, int | None]:
    """State bytes of the rows of a model of one layer over 48 tokens."""
    model = model_of(mixed, inner).float()
    return {item.name: item.state_bytes for item in capture(model, torch.arange(48)[None])}


@pytest.mark.parametrize(("taps", "dilation"), [(2, 1), (4, 1), (3, 2)])
def test_a_convolution_of_one_s_own_keeps_its_taps_less_one(taps, dilation):
    found = own_bytes(lambda own, hidden, value: cut(own.inner, value), lambda: causal(taps, dilation))
    assert found == {"1": WIDTH * (taps - 1) * dilation * 4}


@pytest.mark.parametrize("own_code", [True, False])
@pytest.mark.parametrize(("is_softmax", "kept"), [(True, 2 * 48 * WIDTH), (False, WIDTH * WIDTH)])
def test_a_convolution_beside_t_is_counted_once(is_softmax, kept, own_code):
    def mixed(own, hidden, value):
        parts = zip(own.inner, (own.query(hidden), own.key(hidden)), strict=True)
        query, key = (cut(short, part) if own_code else short(part) for short, part in parts)
        scores = query @ key.mT
        if is_softmax:
            return scores.masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1) @ value
        return scores.tril() @ value

    counted = own_bytes(mixed, lambda: nn.ModuleList(causal(3) if own_code else Short() for _ in range(2)))
    # In its own code it is counted in the layer's row, else in its own.
    assert sum(counted.values()) == (kept + 2 * WIDTH * 2) * 4
    assert len(counted) == (1 if own_code else 3)


def test_a_convolution_behind_t_is_counted_in_t():
    # The first of the three last outputs follows from the state before them, so that T keeps ten numbers.
    found = own_bytes(
        lambda own, hidden, value: cut(own.inner, (own.query(hidden) @ own.key(hidden).mT).tril() @ value),
        lambda: causal(4),
    )
    assert found == {"1": WIDTH * (WIDTH + 2) * 4}
