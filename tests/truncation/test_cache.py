"""Prices of a smaller cache: against a forward pass by hand, formulas in numpy, and all allocations of a small case."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model
from oracles.tiny_families import tiny
from scipy import stats
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, rotate_half

from statesize.adapters.forward import Forward
from statesize.codes import Code
from statesize.errors import InputError, ModelError
from statesize.measurement.settings import Settings
from statesize.truncation import CachePrices, CutDocument, CutRun
from statesize.truncation.behind import Memory
from statesize.truncation.budgets import GRID, at_curves, at_shares, by_curves, equal
from statesize.truncation.cache import Pricing, cache
from statesize.truncation.choices.choice import SINKS, kept
from statesize.truncation.choices.expected import FUTURE, ExpectedAttention
from statesize.truncation.choices.recent import RecentTokens
from statesize.truncation.choices.rounding import cache_bits, rounded_keys, rounded_values
from statesize.truncation.cutting import Cutting
from statesize.truncation.prices import NOTHING, Variant
from statesize.truncation.run import two_sets

PREFIX, FOLLOWING, CACHES = 40, 6, 2
EXPECTED = ExpectedAttention()
IDS = torch.randint(1, 64, (1, PREFIX + FOLLOWING), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def llama():
    """Two layers of four heads that read two caches."""
    return attention_model("llama")


def read(model, ids=IDS, cut=PREFIX):
    """Runs behind a cut, the attention that is held, and logits of the whole model."""
    cutting = Cutting(Forward.of(model, ids), cut, sized=False)
    (logits,) = cutting.read()
    return cutting.behind, [one for (one,) in cutting.behind.held.values()], logits


def logits_of(behind, remember):
    """Logits of one run behind the cut of one text."""
    ((logits,),) = behind.logits(remember)
    return logits


@pytest.fixture(scope="module")
def layers(llama):
    return read(llama)[1]


@torch.no_grad()
def llama_by_hand(model, seen):
    """Logits (L, V) where `seen`, (layers, K, L, L) bool, says which keys each query of a cache's heads may read."""
    config, length = model.config, IDS.shape[1]
    hidden = model.model.embed_tokens(IDS)
    rotation = model.model.rotary_emb(hidden, torch.arange(length)[None])
    for layer, allowed in zip(model.model.layers, seen, strict=True):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = (
            part(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        groups = config.num_attention_heads // config.num_key_value_heads
        scores = query @ key.repeat_interleave(groups, 1).mT * attention.head_dim**-0.5
        weights = scores.masked_fill(~allowed.repeat_interleave(groups, 0), -torch.inf).softmax(-1)
        mixed = weights @ value.repeat_interleave(groups, 1)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(model.model.norm(hidden))[0]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_evicted_tokens_are_as_never_seen_and_an_empty_cache_is_nothing(implementation):
    model, generator = attention_model("llama", attn_implementation=implementation), torch.Generator().manual_seed(0)
    behind, held, whole = read(model)
    names = [one.name for one in held]
    drawn = torch.rand(2, CACHES, PREFIX, generator=generator) < 0.5
    for masks in (drawn, torch.zeros_like(drawn)):
        seen = torch.ones(2, CACHES, PREFIX + FOLLOWING, PREFIX + FOLLOWING, dtype=torch.bool).tril()
        seen[..., PREFIX:, :PREFIX] &= masks[:, :, None]
        found = logits_of(behind, lambda one, masks=masks: Memory(seen=masks[names.index(one.name)][None]))
        torch.testing.assert_close(found, llama_by_hand(model, seen)[PREFIX:-1], rtol=1e-4, atol=1e-4)
        assert (found - whole).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "gpt_oss", "afmoe"])
def test_the_whole_cache_costs_nothing(family):
    model, ids = (tiny(family), IDS.clamp(min=3)) if family == "afmoe" else (attention_model(family), IDS)
    behind, held, whole = read(model, ids)
    with torch.no_grad():
        expected = model(ids).logits[0, PREFIX:-1]
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)
    everything = torch.ones(1, len(held[0].key), PREFIX, dtype=torch.bool)
    for memory in (Memory(), Memory(seen=everything)):
        torch.testing.assert_close(logits_of(behind, lambda _, memory=memory: memory), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [None, 30])
def test_tokens_are_evicted_after_they_are_rounded(window):
    model = attention_model("llama") if window is None else attention_model("mistral", sliding_window=window)
    available, generator = PREFIX if window is None else window - 1, torch.Generator().manual_seed(1)
    pricing = Pricing(model, PREFIX, 0.6, [], [(0, IDS[0])])
    caches = [{"layer": layer, "available": available} for layer in range(2) for _ in range(CACHES)]
    pricing.set_budgets(caches, torch.rand(4, len(GRID), generator=generator).cumsum(-1).flip(-1))
    (document,) = pricing._documents(slice(0, 1))
    behind, held, _ = read(model)
    at, layers = len(pricing.variants) - 1, [one.name for one in held]
    assert pricing.variants[at] == Variant(0.6, "curves", "int4")
    tokens = pricing.tokens[pricing.variants[at]].view(2, CACHES)

    def memory(one):
        seen = kept(EXPECTED.order(one), tokens[layers.index(one.name)], PREFIX)[None]
        keys, values = one.key[:, :PREFIX].clone(), one.value[:, :PREFIX].clone()
        keys[:, -available:] = rounded_keys(keys[:, -available:], "int4")
        values[:, -available:] = rounded_values(values[:, -available:], "int4")
        return Memory(values[None, :, None], keys[None], seen)

    loss = float(functional.cross_entropy(logits_of(behind, memory).double(), IDS[0, PREFIX + 1 :]))
    assert document.runs[at].loss == pytest.approx(loss, abs=1e-6)


def test_bits_count_the_scales_of_all_groups_that_were_rounded():
    # A channel of a group of 32 keys, and a value, each bring 32 bits.
    assert cache_bits("int4", 64, 64, 64, 48) == 64 * 112 * 4 + 2 * 64 * 32 + 64 * 32
    assert cache_bits(None, 64, 40, 64, 48) == 40 * 112 * 16
    # The last group need not be full, and a group without a token keeps no scales.
    assert cache_bits("int8", 65, 40, 64, 48) == 40 * 112 * 8 + 3 * 64 * 32 + 40 * 32
    assert cache_bits("int4", 320, 4, 64, 48) == 4 * 112 * 4 + 4 * 64 * 32 + 4 * 32


def test_rounding_by_numpy():
    def by_numpy(numbers, bits):
        low, high = numbers.min(-1, keepdims=True), numbers.max(-1, keepdims=True)
        step = (high - low) / (2**bits - 1)
        return np.rint((numbers - low) / step) * step + low

    keys = torch.randn(1, 2, 70, 8, generator=torch.Generator().manual_seed(0))
    numbers = keys.double().numpy()
    for bits in (8, 4):
        groups = [by_numpy(numbers[..., at : at + 32, :].swapaxes(-1, -2), bits) for at in range(0, 70, 32)]
        expected = np.concatenate(groups, -1).swapaxes(-1, -2)
        np.testing.assert_allclose(rounded_keys(keys, f"int{bits}"), expected, atol=1e-5)
        np.testing.assert_allclose(rounded_values(keys, f"int{bits}"), by_numpy(numbers, bits), atol=1e-5)
    assert torch.equal(rounded_values(torch.ones(3, 4), "int4"), torch.ones(3, 4))


def test_expected_attention_by_its_formula(llama, layers):
    """The steps of kvpress from the hidden states: unrotated queries, mean rotation ahead, e^(qk + kᵀΣk/2)."""
    with torch.no_grad():
        hidden = llama.model(IDS[:, :PREFIX], output_hidden_states=True).hidden_states
        for index, layer in enumerate(layers):
            block = llama.model.layers[index]
            query = block.self_attn.q_proj(block.input_layernorm(hidden[index]))[:, SINKS:]
            query = query.unflatten(-1, (-1, 8)).transpose(1, 2)[0]
            mean, centred = query.mean(1), query - query.mean(1, keepdim=True)
            covariance = torch.einsum("hsi,hsj->hij", centred, centred) / centred.shape[1]
            cos, sin = llama.model.rotary_emb(hidden[0], torch.arange(PREFIX, PREFIX + FUTURE)[None])
            identity = torch.eye(8)
            R = (cos[0].mean(0)[None] * identity + rotate_half(identity) * sin[0].mean(0)).T
            mean, covariance = mean @ R.T, R @ covariance @ R.T
            keys = layer.key.repeat_interleave(2, 0)[:, SINKS:PREFIX]
            logits = torch.einsum("hsd,hd->hs", keys, mean) / 8**0.5
            logits += torch.einsum("hsi,hij,hsj->hs", keys, covariance, keys) / 8 / 2
            expected = logits.softmax(-1).view(CACHES, 2, -1).mean(1) * layer.value[:, SINKS:PREFIX].norm(dim=-1)
            middle = EXPECTED.order(layer)[:, 20:] - SINKS  # after the first 4 and the last 16
            scores = expected.gather(-1, middle)
            assert bool((scores.diff(dim=-1) <= 1e-6 * scores.max()).all())


def test_recent_tokens_are_the_first_four_and_the_latest_ones(layers):
    mask = kept(RecentTokens().order(layers[0]), torch.tensor([22, 31]), PREFIX)
    assert [row.nonzero().flatten().tolist() for row in mask] == [
        [*range(4), *range(22, PREFIX)], [*range(4), *range(13, PREFIX)]
    ]  # fmt: skip
    _, held, _ = read(attention_model("mistral", sliding_window=31))
    mask = kept(RecentTokens().order(held[0]), torch.tensor([20, 25]), PREFIX)
    # The first tokens are behind the window.
    assert [row.nonzero().flatten().tolist() for row in mask] == [[*range(20, PREFIX)], [*range(15, PREFIX)]]


def test_greedy_against_all_allocations():
    generator = torch.Generator().manual_seed(0)
    for total in (9, 14, 20):
        drops = torch.rand(3, 7, generator=generator, dtype=torch.float64).sort(descending=True).values
        errors = torch.cat([torch.zeros(3, 1), -drops.cumsum(-1)], -1) + drops.sum(-1, keepdim=True)
        counts = torch.arange(2, 10).repeat(3, 1)
        budgets = by_curves(counts, errors, total)
        assert int(budgets.sum()) == total

        def error(choice, errors=errors):
            return sum(float(errors[cache, count - 2]) for cache, count in enumerate(choice))

        best = min(error(choice) for choice in itertools.product(range(2, 10), repeat=3) if sum(choice) == total)
        assert error(budgets.tolist()) == pytest.approx(best)


def test_budgets_have_one_total():
    available = torch.tensor([40, 40, 600, 600])
    assert equal(available, 0.25).tolist() == [20, 20, 150, 150]
    counts = at_shares(available, GRID)
    errors = torch.rand(4, len(GRID), dtype=torch.float64).cumsum(-1).flip(-1)
    assert int(at_curves(available, errors, 0.25).sum()) == 340
    assert bool((at_curves(available, errors, 0.25) >= counts[:, 0]).all())


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_curves_by_the_model_itself(family):
    """What the layer adds changes by as much as the curve says, where one cache alone is cut."""
    model = attention_model(family, **({"sliding_window": 64} if family != "llama" else {}))
    norms = family == "gemma3_text"
    (caches,) = Pricing(model, PREFIX, 0.6, [(0, IDS[0])], [])._curves(slice(0, 1))
    assert [(one["layer"][-11], one["head"], one["curve"][-1]) for one in caches] == [
        ("0", 0, 0), ("0", 1, 0), ("1", 0, 0), ("1", 1, 0)
    ]  # fmt: skip
    behind, held, _ = read(model)
    point, layer = GRID.index(3 / 4), model.model.layers[0]
    for head in range(CACHES):
        budgets = torch.full((CACHES,), PREFIX)
        budgets[head] = 30
        mask = kept(EXPECTED.order(held[0]), budgets, PREFIX)[None]
        inputs, added, normed = [], [], []
        hooks = [
            layer.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0])),
            layer.self_attn.register_forward_hook(lambda _, __, out, added=added: added.append(out[0])),
        ]
        if norms:
            part = layer.post_attention_layernorm
            hooks.append(part.register_forward_hook(lambda _, __, out, normed=normed: normed.append(out)))
        for seen in (None, mask):
            behind.logits(lambda one, seen=seen: Memory(seen=seen if one is held[0] else None))
        for hook in hooks:
            hook.remove()
        # The norm's divisor counts as that of the whole cache.
        factor = normed[0] / added[0] if norms else 1.0
        expected = float(((added[1] - added[0]) * factor).square().sum() / inputs[0].square().sum())
        assert caches[head]["curve"][point] == pytest.approx(expected, rel=1e-3)


def test_prices_of_a_small_model(llama, tmp_path):
    ids = torch.randint(1, 64, (18, 72), generator=torch.Generator().manual_seed(5))
    options = {"documents": 18, "tokens": 72, "settings": Settings(future=8), "keep": 0.4, "name": "tiny"}
    output = tmp_path / "prices.json"
    result = cache(llama, ids.flatten(), **options, output=output)
    assert [*tmp_path.iterdir()] == [output]
    # 25 and 12.5 % of 64 tokens would keep fewer than the 20 that always stay.
    ways = [f"{share} {way}" for share in ("50 %", "40 %") for way in ("recent", "equal", "by layer", "by curves")]
    smaller = ["int4, 50 % by curves", "int4, 40 % by curves"]
    rows = {row.rule: row for row in result.rows}
    assert [*rows] == ["nothing", "int8", "int4", *ways, *smaller]
    assert (result.calibration, len(result.documents), result.texts) == (6, 12, 1)
    assert rows["50 % equal"].stored == 0.5
    # Numbers of 4 bits, and 32 bits for each of 8 channels of two groups of keys and for each value.
    assert rows["int4, 50 % by curves"].stored == (32 * 16 * 4 + 32 * (2 * 8 + 32)) / (64 * 16 * 16)
    recent, half = ([run.rule for run in result.documents[0].runs].index(f"50 % {way}") for way in ("recent", "equal"))
    half_kept, latest = torch.tensor([32, 32]), torch.zeros(1, CACHES, 64, dtype=torch.bool)
    latest[..., :4] = latest[..., -28:] = True
    # Documents that are read at once are as those that are read alone.
    for at in (0, 5, 11):
        document, (behind, _, whole) = ids[6 + at], read(llama, ids[6 + at :][:1], 64)
        found = logits_of(behind, lambda one: Memory(seen=kept(EXPECTED.order(one), half_kept, 64)[None]))
        logits = whole, found, logits_of(behind, lambda _: Memory(seen=latest))
        losses = [float(functional.cross_entropy(one.double(), document[65:])) for one in logits]
        assert result.documents[at].loss == pytest.approx(losses[0])
        assert result.documents[at].lost(half) == pytest.approx(losses[1] - losses[0], abs=1e-6)
        assert result.documents[at].lost(recent) == pytest.approx(losses[2] - losses[0], abs=1e-6)
    assert rows["50 % recent"].stored == 0.5
    assert rows["nothing"].excess == result.worth
    assert {one.code for one in result.limits} >= {Code.FEW_TEXTS, Code.NO_FACTS, Code.UNEQUAL_CACHES}


def priced(extras, worth=1.0):
    """A result of six documents, each variant with the same extra loss in all but a little."""
    variants = (NOTHING, Variant(precision="int4"), Variant(0.5, "equal"), Variant(0.25, "curves"))
    documents = []
    for number in range(6):
        more = [worth, *(extra + 1e-4 * (number % 2) for extra in extras)]
        runs = (CutRun(one.title, one.keep, 1.0, 2.0 + extra, extra) for one, extra in zip(variants, more, strict=True))
        documents.append(CutDocument(number, 75, 64, 2.0, 1.0, 1.0, 64.0, 64.0, tuple(runs), number))
    return CachePrices("m", tuple(documents), 64, 1, variants, (0.0, 0.3, 0.5, 0.25), ())


def test_recommendations():
    assert priced((0.001, 0.001, 0.001)).recommended.rule == "25 % by curves"
    result = priced((0.001, 0.2, 0.2))
    assert result.recommended.rule == "int4"
    sure = "Smallest that surely costs at most 0.03 nats per token: int4 keeps 30% of the cache of m for +0.0010 "
    assert result.headline.startswith(sure)
    few = dataclasses.replace(result, documents=result.documents[:3])
    few_texts = "Too few texts to recommend a size: int4 keeps 30% of the cache of m for +0.00 "
    assert few.headline.startswith(few_texts)
    whole = priced((0.2, 0.2, 0.2))
    assert whole.recommended is None
    assert whole.headline == "No smaller cache of m surely costs at most 0.03 nats per token over 6 texts."
    result = priced((0.2, 0.02, 0.2))
    chosen, listed = result.recommended, result.rows[2]
    assert chosen.rule == "50 % equal"
    assert chosen.excess.value == pytest.approx(0.02005)
    # What is chosen among three has an interval for three.
    assert chosen.excess.value == listed.excess.value
    ratio = stats.t.ppf(1 - 0.025 / 3, 5) / stats.t.ppf(0.975, 5)
    assert chosen.excess.high - chosen.excess.value == pytest.approx(ratio * (listed.excess.high - listed.excess.value))
    assert priced((0.001, 0.001, 0.001), worth=0.001).recommended is None
    assert [one.code for one in result.limits] == [Code.NO_FACTS, Code.UNEQUAL_CACHES]


def test_curves_are_of_every_third_text_or_of_the_first_third_of_one():
    texts = [torch.arange(100 * n, 100 * n + 25) for n in range(4)]
    curves, held_out = two_sets(texts, 10, 100, None)
    assert [int(piece[0]) for _, piece in curves] == [0, 10, 300, 310]
    assert [(number, int(piece[0])) for number, piece in held_out] == [(1, 100), (1, 110), (2, 200), (2, 210)]
    curves, held_out = two_sets([torch.arange(95)], 10, 6, None)
    assert [int(piece[0]) for _, piece in curves] == [0, 10]
    assert [int(piece[0]) for _, piece in held_out] == [30, 40, 60, 70]
    with pytest.raises(InputError):
        two_sets([torch.arange(29), torch.arange(9)], 10, 100, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"keep": 1.0}, "keep"),
        ({"tokens": 33, "settings": Settings(future=8)}, "tokens"),
        ({"settings": Settings(future=1)}, "future"),
        ({"settings": Settings(past=2)}, "past"),
        ({"documents": 2}, "documents"),
        ({"tokens": 500}, "inputs must have one text of 1500 tokens, which is cut into 3 pieces"),
    ],
)
def test_bad_input(llama, arguments, said):
    with pytest.raises(InputError, match=f"^{said}"):
        cache(llama, IDS.repeat(1, 8), **arguments)


def of_twelve(model):
    """The price list of a model by twelve texts."""
    ids = torch.cat([IDS.roll(shift, 1) for shift in range(12)])
    return cache(model, ids, documents=12, tokens=46, settings=Settings(future=6))


def test_models_without_such_a_cache():
    for model, said in (
        (tiny("jamba"), "only by attention"),
        (tiny("mamba"), "only by attention"),
        (attention_model("deepseek_v3"), "of its own"),
        (attention_model("bloom"), "in code"),
        (tiny("gemma3n_text"), "of its own"),
    ):
        with pytest.raises(ModelError, match=said):
            of_twelve(model)
