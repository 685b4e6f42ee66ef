"""Prices of a smaller cache: against a forward pass by hand, formulas in numpy, and all allocations of a small case."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model
from oracles.recurrent_models import tiny_model
from oracles.tiny_families import tiny
from report.visit import Visit, chromium, violations
from scipy import stats
from torch.nn import functional
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, rotate_half

from statesize.errors import InputError, ModelError
from statesize.measurement.settings import Settings
from statesize.reduction.cache import cache
from statesize.reduction.cache import prefix as prefix_module
from statesize.reduction.cache import price as price_module
from statesize.reduction.cache.budgets import GRID, at_curves, at_shares, by_curves, equal
from statesize.reduction.cache.curves import cache_sizes, error_curves, norms_after
from statesize.reduction.cache.page import _shares, notes, page
from statesize.reduction.cache.passkeys import Passkey
from statesize.reduction.cache.prefix import following_logits, read_prefix
from statesize.reduction.cache.price import Pricing
from statesize.reduction.cache.result import CachedHead, CachePrices, PricedDocument, Variant, losing_facts
from statesize.reduction.cache.rounding import cache_bits, rounded_keys, rounded_values
from statesize.reduction.cache.rules import FUTURE, RULES, SINKS, kept, kept_first
from statesize.reduction.cache.sets import three_sets
from statesize.reduction.cache.variants import VariantRuns

PREFIX, FOLLOWING, CACHES = 40, 6, 2
IDS = torch.randint(1, 64, (1, PREFIX + FOLLOWING), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def llama():
    """Two layers of four heads that read two caches."""
    return attention_model("llama")


@pytest.fixture(scope="module")
def prefix(llama):
    return read_prefix(llama, IDS[:, :PREFIX])


def random_masks(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(CACHES, PREFIX, generator=generator) < 0.5 for _ in range(2)]


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


def test_the_whole_cache_is_the_model(llama, prefix):
    with torch.no_grad():
        read = llama(IDS[:, :PREFIX], use_cache=True)
        expected = llama(IDS[:, PREFIX:], past_key_values=read.past_key_values).logits[0]
    everything = [torch.ones(CACHES, PREFIX, dtype=torch.bool)] * 2
    assert torch.equal(following_logits(prefix, IDS[:, PREFIX:], keep=everything), expected)
    # Masks that evict nothing take the same way as masks that evict.
    assert torch.equal(following_logits(prefix, IDS[:, PREFIX:]), expected)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_evicted_tokens_are_as_never_seen(implementation):
    model = attention_model("llama", attn_implementation=implementation)
    masks = random_masks()
    seen = torch.ones(2, CACHES, PREFIX + FOLLOWING, PREFIX + FOLLOWING, dtype=torch.bool).tril()
    for layer, mask in enumerate(masks):
        seen[layer, :, PREFIX:, :PREFIX] &= mask[:, None]
    read = read_prefix(model, IDS[:, :PREFIX])
    found = following_logits(read, IDS[:, PREFIX:], keep=masks)
    torch.testing.assert_close(found, llama_by_hand(model, seen)[PREFIX:], rtol=1e-4, atol=1e-4)
    whole = following_logits(read, IDS[:, PREFIX:])
    assert (found - whole).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "jamba"])
def test_caches_of_one_batch_are_those_of_one_after_another(family):
    model = tiny_model(family) if family == "jamba" else attention_model(family)
    read, ids = read_prefix(model, IDS[:, :PREFIX]), IDS[:, PREFIX:]
    generator = torch.Generator().manual_seed(1)
    keep = [torch.rand(3, *layer.key.shape[:1], layer.available, generator=generator) < 0.5 for layer in read.layers]
    for precisions in ((None,) * 3, ("int4", None, "int8")):
        found = following_logits(read, ids, keep=keep, precisions=precisions)
        each = ([one[at] for one in keep] for at in range(3))
        expected = [
            following_logits(read, ids, keep=some, precisions=(precision,))
            for some, precision in zip(each, precisions, strict=True)
        ]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
        assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("window", [None, 30])
def test_losses_of_many_caches_are_those_of_one_after_another(window):
    """Also where no layer holds the whole prefix, as none does whose window is full."""
    model = attention_model("llama") if window is None else attention_model("mistral", sliding_window=window)
    prefix = read_prefix(model, IDS[:, :PREFIX])
    assert prefix.available.tolist() == [PREFIX if window is None else window - 1] * 4
    budgets = {
        (0.5, "equal"): torch.full((4,), 22),
        (0.5, "layers"): torch.tensor([20, 20, 24, 24]),
        (0.5, "curves"): torch.tensor([20, 20, 24, 24]),
    }
    variants = [Variant(), Variant(precision="int4"), *(Variant(0.5, way) for _, way in budgets)]
    variants += [Variant(0.5, "curves", "int4")]
    runs = VariantRuns(model, "h2o", PREFIX, None, budgets)
    found = runs.losses(IDS[0], variants)
    targets = IDS[0, PREFIX + 1 :]
    for variant, loss in zip(variants, found, strict=True):
        assert runs.losses(IDS[0], [variant]) == pytest.approx([loss], abs=1e-6)
        tokens = budgets.get((variant.keep, variant.budgets), prefix.available)
        orders = [kept_first("h2o", layer) for layer in prefix.layers]
        keep = [kept(order, part) for order, part in zip(orders, tokens.split(2), strict=True)]
        logits = following_logits(prefix, IDS[:, PREFIX:], keep=keep, precisions=(variant.precision,))[:-1]
        assert loss == pytest.approx(float(functional.cross_entropy(logits.double(), targets)), abs=1e-6)
    # The same budgets are one run.
    assert found[3] == found[4]
    assert len(set(found)) == len(found) - 1
    document = runs.document(IDS[0], variants[1:], left_out=variants[1:2])
    assert np.isnan(document.extra).tolist() == [True, False, False, False, False]
    assert [found[0] + extra for extra in document.extra[1:]] == pytest.approx(found[2:], abs=1e-6)


def test_the_last_logits_predict_the_answer_to_a_passkey(llama, prefix):
    every = following_logits(prefix, IDS[:, PREFIX:-1])
    some = following_logits(prefix, IDS[:, PREFIX:-1], last=3)
    torch.testing.assert_close(some, every[-3:])
    answer = every.argmax(-1)
    for wrong, found in ((0, True), (1, False)):
        said = torch.cat([IDS[0, PREFIX:-3], answer[-3:]])
        said[-3] = (said[-3] + wrong) % 64
        assert Passkey(IDS[:, :PREFIX], said[None], 3).found(some) is found


def test_windows_hold_their_last_tokens():
    model = attention_model("mistral")
    read = read_prefix(model, IDS[:, :PREFIX])
    assert read.available.tolist() == [6] * 4
    assert kept_first("h2o", read.layers[0]).shape == (CACHES, 6)
    with torch.no_grad():
        expected = model(IDS).logits[0, PREFIX:]
    torch.testing.assert_close(following_logits(read, IDS[:, PREFIX:]), expected, rtol=1e-4, atol=1e-4)
    evicted = [torch.tensor([True, False, True, True, True, True]).expand(CACHES, -1)] * 2
    assert (following_logits(read, IDS[:, PREFIX:], keep=evicted) - expected).abs().max() > 1e-3


def test_bits_count_the_scales_of_all_groups_that_were_rounded():
    # A channel of a group of 32 keys, and a value, each bring 32 bits.
    assert cache_bits("int4", 64, 64, 64, 48) == 64 * 112 * 4 + 2 * 64 * 32 + 64 * 32
    assert cache_bits("int8", 32, 32, 8, 8) == 32 * 16 * 8 + 8 * 32 + 32 * 32
    assert cache_bits(None, 64, 40, 64, 48) == 40 * 112 * 16
    # The last group need not be full, and tokens of all groups may be kept.
    assert cache_bits("int4", 65, 40, 64, 48) == 40 * 112 * 4 + 3 * 64 * 32 + 40 * 32
    # No group without a token keeps its scales.
    assert cache_bits("int4", 320, 4, 64, 48) == 4 * 112 * 4 + 4 * 64 * 32 + 4 * 32
    assert cache_bits("int4", 320, 0, 64, 48) == 0


def test_rounding_by_numpy(llama, prefix):
    keys = torch.randn(1, 2, 70, 8, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4):
        expected = np.empty((1, 2, 70, 8))
        for start in range(0, 70, 32):
            part = keys[..., start : start + 32, :].double().numpy()
            low, high = part.min(-2, keepdims=True), part.max(-2, keepdims=True)
            step = (high - low) / (2**bits - 1)
            expected[..., start : start + 32, :] = np.rint((part - low) / step) * step + low
        np.testing.assert_allclose(rounded_keys(keys, f"int{bits}"), expected, atol=1e-5)
        part = keys.double().numpy()
        low, high = part.min(-1, keepdims=True), part.max(-1, keepdims=True)
        step = (high - low) / (2**bits - 1)
        np.testing.assert_allclose(
            rounded_values(keys, f"int{bits}"), np.rint((part - low) / step) * step + low, atol=1e-5
        )
    assert torch.equal(rounded_values(torch.ones(3, 4), "int4"), torch.ones(3, 4))
    whole = following_logits(prefix, IDS[:, PREFIX:])
    errors = [
        float((following_logits(prefix, IDS[:, PREFIX:], precisions=(one,)) - whole).abs().max())
        for one in ("int8", "int4")
    ]
    assert 0 < errors[0] < errors[1] / 4


def test_expected_attention_by_its_formula(llama, prefix):
    """The steps of kvpress from the hidden states: unrotated queries, mean rotation ahead, e^(qk + kᵀΣk/2)."""
    with torch.no_grad():
        hidden = llama.model(IDS[:, :PREFIX], output_hidden_states=True).hidden_states
        for index, layer in enumerate(prefix.layers):
            block = llama.model.layers[index]
            query = block.self_attn.q_proj(block.input_layernorm(hidden[index]))[:, SINKS:]
            query = query.unflatten(-1, (-1, 8)).transpose(1, 2)[0]
            mean, centred = query.mean(1), query - query.mean(1, keepdim=True)
            covariance = torch.einsum("hsi,hsj->hij", centred, centred) / centred.shape[1]
            cos, sin = llama.model.rotary_emb(hidden[0], torch.arange(PREFIX, PREFIX + FUTURE)[None])
            identity = torch.eye(8)
            R = (cos[0].mean(0)[None] * identity + rotate_half(identity) * sin[0].mean(0)).T
            mean, covariance = mean @ R.T, R @ covariance @ R.T
            keys = layer.key.repeat_interleave(2, 0)[:, SINKS:]
            logits = torch.einsum("hsd,hd->hs", keys, mean) / 8**0.5
            logits += torch.einsum("hsi,hij,hsj->hs", keys, covariance, keys) / 8 / 2
            expected = logits.softmax(-1).view(CACHES, 2, -1).mean(1) * layer.value[:, SINKS:].norm(dim=-1)
            order = kept_first("expected", layer)
            middle = order[:, 20:] - SINKS  # after the first 4 and the last 16
            scores = expected.gather(-1, middle)
            assert bool((scores.diff(dim=-1) <= 1e-6 * scores.max()).all())


def test_attention_rules_by_their_formulas(llama):
    model = attention_model("llama", attn_implementation="eager")
    read = read_prefix(model, IDS[:, :PREFIX])
    with torch.no_grad():
        maps = model(IDS[:, :PREFIX], output_attentions=True).attentions
    for layer, attention in zip(read.layers, maps, strict=True):
        grouped = attention[0].unflatten(0, (CACHES, 2))
        paid = grouped.mean(1).sum(1) / torch.arange(PREFIX, 0, -1)
        window = PREFIX // 2
        smooth = functional.avg_pool1d(grouped[..., -window:, :-window].mean(-2), 5, 1, 2).mean(1)
        for rule, expected in (
            ("h2o", paid),
            ("snapkv", functional.pad(smooth, (0, window), value=float(smooth.max()))),
        ):
            middle = kept_first(rule, layer)[:, 20:]
            scores = expected.gather(-1, middle)
            assert bool((scores.diff(dim=-1) <= 1e-6).all()), rule
        assert kept_first("streaming", layer)[0].tolist() == [0, 1, 2, 3, *range(24, 40), *range(23, 3, -1)]


@torch.no_grad()
def decoded_logits(read, cache, ids):
    """Logits (C, V) of tokens (1, C) that a model reads one at a time; the cache grows."""
    made = []
    for at in range(ids.shape[1]):
        # The model would take the position from the tokens that its first layer holds.
        position = torch.tensor([[read.ids.shape[1] + at]])
        made.append(read.model(ids[:, at : at + 1], past_key_values=cache, position_ids=position).logits[0])
    return torch.cat(made)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_layers_of_the_models_own_cache_may_be_smaller(family):
    model = attention_model(family, **({"sliding_window": 64} if family != "llama" else {}))
    read = read_prefix(model, IDS[:, :PREFIX])
    orders, budgets, smaller = [kept_first("h2o", layer) for layer in read.layers], [30, 22], copy.deepcopy(read.cache)
    for entry, order, budget in zip(smaller.layers, orders, budgets, strict=True):
        tokens = order[:, :budget].sort(-1).values[None, :, :, None].expand(-1, -1, -1, 8)
        entry.keys, entry.values = entry.keys.gather(2, tokens), entry.values.gather(2, tokens)
    each = torch.tensor(budgets).repeat_interleave(2)
    assert read.cache_bytes(each) == sum(one.keys.nbytes + one.values.nbytes for one in smaller.layers)
    assert read.cache_bytes(read.available) == 80 * 2 * 2 * 8 * 4
    masks = [kept(order, part) for order, part in zip(orders, each.split(2), strict=True)]
    expected = following_logits(read, IDS[:, PREFIX:], keep=masks)
    torch.testing.assert_close(decoded_logits(read, smaller, IDS[:, PREFIX:]), expected, rtol=1e-4, atol=1e-4)
    assert read.holds_layers_apart
    assert not read_prefix(attention_model("mistral"), IDS[:, :PREFIX]).holds_layers_apart


@pytest.mark.parametrize("rule", RULES)
def test_all_rules_keep_ends_and_budgets(prefix, rule):
    for layer in prefix.layers:
        mask = kept(kept_first(rule, layer), torch.tensor([22, 31]))
        assert mask.sum(-1).tolist() == [22, 31]
        assert bool(mask[:, :4].all() and mask[:, -16:].all())


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


def test_greedy_goes_over_humps():
    """A curve that falls late has a hull with one long segment."""
    counts = torch.tensor([[0, 4, 8], [0, 4, 8]])
    errors = torch.tensor([[10.0, 9.9, 0.0], [4.0, 2.0, 1.0]])
    assert by_curves(counts, errors, 8).tolist() == [8, 0]
    assert by_curves(counts, errors, 12).tolist() == [8, 4]


def test_budgets_have_one_total():
    available = torch.tensor([40, 40, 600, 600])
    assert equal(available, 0.25).tolist() == [20, 20, 150, 150]
    counts = at_shares(available, GRID)
    errors = torch.rand(4, len(GRID), dtype=torch.float64).cumsum(-1).flip(-1)
    assert int(at_curves(available, errors, 0.25).sum()) == 340
    assert bool((at_curves(available, errors, 0.25) >= counts[:, 0]).all())


def gated_attention():
    """Qwen3.5 with two layers of attention, whose result a gate multiplies before the projection."""
    torch.manual_seed(0)
    config = Qwen3_5TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=CACHES, head_dim=8, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    return Qwen3_5ForCausalLM(config).eval()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5"])
def test_curves_by_the_model_itself(family):
    """What the layer adds changes by as much as the curve says, where one cache alone is cut."""
    if family == "qwen3_5":
        model = gated_attention()
    else:
        model = attention_model(family, **({"sliding_window": 64} if family != "llama" else {}))
    read, rest = read_prefix(model, IDS[:, :PREFIX]), IDS[:, PREFIX:]
    norms = norms_after(model, read)
    assert len(norms) == (2 if family == "gemma3_text" else 0)
    curves = error_curves(read, rest, "h2o", norms).view(2, CACHES, -1)
    assert curves[..., -1].tolist() == [[0, 0], [0, 0]]
    point = GRID.index(3 / 4)
    layer = model.model.layers[0]
    for head in range(CACHES):
        budgets = torch.full((CACHES,), PREFIX)
        budgets[head] = 30
        mask = kept(kept_first("h2o", read.layers[0]), budgets)
        everything = torch.ones_like(mask)
        inputs, added = [], []
        part = layer.post_attention_layernorm if norms else layer.self_attn
        hooks = [
            layer.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0])),
            part.register_forward_hook(lambda _, __, out, added=added: added.append(out if norms else out[0])),
        ]
        for keep in ([everything, everything], [mask, everything]):
            following_logits(read, rest, keep=keep)
        for hook in hooks:
            hook.remove()
        expected = float((added[1] - added[0]).square().sum() / inputs[0].square().sum())
        # The norm's divisor counts as fixed, which is right to first order.
        assert float(curves[0, head, point]) == pytest.approx(expected, rel=0.25 if norms else 1e-3)


def test_sizes_of_a_cache(prefix):
    sizes = cache_sizes(prefix)
    maps = torch.cat(list(prefix.layers[1].attention(1)[:, PREFIX // 2 :, : PREFIX // 2])).double()
    for block, found in (
        (maps, sizes.joint[3]),
        (maps @ prefix.layers[1].value[1, : PREFIX // 2].double(), sizes.read[3]),
    ):
        sigma = np.linalg.svd(block.numpy(), compute_uv=False)
        shares = sigma[sigma > 0] / sigma.sum()
        assert float(found) == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-4)
    assert bool(((sizes.sink > 0) & (sizes.sink < 1)).all())


def test_prices_of_a_small_model(llama):
    ids = torch.randint(1, 64, (18, 72), generator=torch.Generator().manual_seed(5))
    result = cache(llama, ids.flatten(), documents=18, tokens=72, settings=Settings(future=8), keep=0.4, name="tiny")
    # 25 and 12.5 % of 64 tokens would keep the 20 that always stay.
    chosen = {0.5: "50 %", 0.4: "40 %"}
    assert list(result.chosen) == [*chosen]
    assert [price.variant.title for price in result.prices] == [
        *("int8", "int4"),
        *(f"{keep} {way}" for keep in chosen.values() for way in ("equal", "by layer", "by curves")),
        "31.25 % equal",
        *(f"int4, {chosen[keep]} {'by ' if way == 'curves' else ''}{way}" for keep, way in result.chosen.items()),
        "int4, 31.25 % equal",
    ]
    assert [one.keep for one in result.smaller] == [1, 0.5, 0.4, 20 / 64]
    assert "These 20 tokens are 31.25 % of 64." in " ".join(notes(result))
    assert [one.bytes for one in result.smaller][:2] == [64 * 4 * 2 * 8 * 4, 32 * 4 * 2 * 8 * 4]
    assert (result.calibration, result.selection, len(result.documents)) == (6, 3, 9)
    price = result.prices[2]
    assert price.bytes_share == 0.5
    # Numbers of 4 bits, and 32 bits for each of 8 channels of two groups of keys and for each value.
    (int4,) = (one for one in result.prices if one.variant.precision == "int4" and one.variant.keep == 0.5)
    assert int4.bytes_share == (32 * 16 * 4 + 32 * (2 * 8 + 32)) / (64 * 16 * 16)
    # All are pieces of one text.
    assert price.nats.ends is None
    assert result.texts == 1
    document, read = ids[9], read_prefix(llama, ids[9:10, :64])
    keep = [kept(kept_first("expected", layer), torch.tensor([32, 32])) for layer in read.layers]
    losses = [
        float(
            functional.cross_entropy(
                following_logits(read, document[None, 64:], keep=masks)[:-1].double(), document[65:]
            )
        )
        for masks in (None, keep)
    ]
    assert result.documents[0].loss == pytest.approx(losses[0])
    assert result.documents[0].extra[2] == pytest.approx(losses[1] - losses[0], abs=1e-6)
    alone = functional.cross_entropy(llama(document[None, 64:]).logits[0, :-1].float(), document[65:])
    assert result.documents[0].worth == pytest.approx(alone.item() - losses[0], abs=1e-5)
    shares = result.pruned_shares()
    assert shares.shape == (99, 2, 2)
    assert shares[49].mean() == pytest.approx(0.5, abs=0.01)


def priced(extras, found, passkeys):
    """A result of six documents, each variant with the same extra loss in all but a little."""
    variants = (Variant(precision="int4"), Variant(0.5, "equal"), Variant(0.25, "curves"))
    documents = tuple(
        PricedDocument(10, 40, 2.0, tuple(extra + 1e-4 * (number % 2) for extra in extras)) for number in range(6)
    )
    curve = (*np.geomspace(1e-2, 1e-5, len(GRID) - 1), 0.0)
    heads = tuple(CachedHead("a.<b>", number, 64, curve, 1.0, 1.0, 0.5, (32, 16)) for number in range(2))
    chosen = {0.5: "equal", 0.25: "curves"}
    return CachePrices(
        "m", "h2o", 64, 1, 1, documents, variants, (0.3, 0.5, 0.25), chosen, passkeys, found, heads, (0.5, 0.25), ()
    )


def test_recommendations():
    assert priced((0.001, 0.001, 0.001), (10, 10, 10, 10), 10).recommended.variant.keep == 0.25
    # Eviction needs passkeys that the whole cache finds, and may miss one of twenty.
    for found, passkeys in (((10, 10, 10, 9), 10), ((4, 4, 4, 4), 10), ((0, 0, 0, 0), 0)):
        result = priced((0.001, 0.001, 0.001), found, passkeys)
        assert result.recommended.variant == Variant(precision="int4")
        assert result.finding.startswith("Round, do not evict: int4 keeps the cache of m at 30%")
        # The smallest share is that of the tokens that always stay.
        brief = replace(result, chosen={0.5: "equal"}).finding
        assert brief.startswith("Round: int4 keeps the cache of m at 30%")
        assert brief.endswith(" Its 64 tokens are too few to try eviction of more than 75%.")
    whole = priced((0.2, 0.2, 0.2), (10, 10, 10, 10), 10)
    assert whole.recommended is whole.undecided is None
    assert whole.finding.startswith("Leave the cache of m whole: over 6 held-out texts, each way that was tried")
    # 0.02 nats per token of 4 bytes are 0.0072 bits per byte.
    result = priced((0.2, 0.02, 0.2), (10, 10, 10, 9), 10)
    assert result.recommended.variant.keep == 0.5
    assert result.finding.endswith(
        "bits per byte, over 6 held-out texts. 10 of 10 passkeys are found, 10 with the whole cache."
    )
    # What is chosen among three has an interval for three.
    chosen, listed = result.recommended.nats, result.prices[1].nats
    assert chosen.value == listed.value
    ratio = stats.t.ppf(1 - 0.025 / 3, 5) / stats.t.ppf(0.975, 5)
    assert chosen.high - chosen.value == pytest.approx(ratio * (listed.high - listed.value))


def test_curves_are_explained_where_a_row_is_by_curves():
    result = priced((0.001, 0.001, 0.001), (10, 10, 10, 10), 10)
    assert "By curves" in " ".join(notes(result))
    equal = replace(result, variants=(Variant(precision="int4"), Variant(0.5, "equal"), Variant(0.25, "equal")))
    assert "By curves" not in " ".join(notes(equal))


def test_a_cache_that_misses_passkeys_is_priced_on_a_part_of_the_documents(llama, monkeypatch):
    result = priced((0.001, 0.002, 0.2), (10, 10, 10, 8), 10)
    lost = losing_facts(result.variants, result.found, 10)
    assert lost == result.variants[2:]
    # Where the whole cache finds too few of them, passkeys say nothing.
    assert losing_facts(result.variants, (4, 4, 4, 0), 10) == ()
    documents = tuple(
        replace(one, extra=(*one.extra[:2], 0.3 if at % 2 else np.nan)) for at, one in enumerate(result.documents)
    )
    brief = replace(result, documents=documents)
    assert brief.recommended == result.recommended
    assert brief.prices[:2] == result.prices[:2]
    assert brief.prices[2].nats.value == pytest.approx(0.3)
    told = "Caches that miss passkeys are not recommended at any price, so 3 pieces price them."
    assert told in notes(brief)
    assert not any("price them" in note for note in notes(result))

    ids = torch.randint(1, 64, (24, 72), generator=torch.Generator().manual_seed(5))
    pricing = {
        how: Pricing(llama, list(ids), documents=24, tokens=72, settings=Settings(future=8))
        for how in ("brief", "thorough")
    }
    monkeypatch.setattr(price_module, "losing_facts", lambda variants, *_: tuple(variants[2:4]))
    found = {how: one.priced(lambda what: None, thorough=how == "thorough") for how, one in pricing.items()}
    extra = {how: np.array([one.extra for one in known.documents]) for how, known in found.items()}
    assert np.isnan(extra["brief"]).sum(0)[:5].tolist() == [0, 0, 6, 6, 0]
    assert not np.isnan(extra["thorough"]).any()
    measured = ~np.isnan(extra["brief"])
    np.testing.assert_allclose(extra["brief"][measured], extra["thorough"][measured], atol=1e-5)
    for one in pricing.values():
        assert one.steps.done == one.steps.costs


@pytest.mark.parametrize("count", [1, 2])
def test_little_text_is_no_advice(count):
    result = priced((0.001, 0.2, 0.2), (10, 10, 10, 10), 10)
    documents = tuple(replace(one, extra=(1e-3 + 0.05 * at, 0.2, 0.2)) for at, one in enumerate(result.documents))
    little = replace(result, documents=documents[:count])
    assert little.recommended is None
    assert little.undecided.variant == Variant(precision="int4")
    said = little.finding
    over = "1 held-out text" if count == 1 else "2 held-out texts"
    cost = "nothing measurable" if count == 1 else "about +0.01 bits per byte"
    assert said.startswith(f"Too little text to tell: over {over}, int4 costs the cache of m {cost}, and more than ")


def test_a_cost_of_the_limit_itself_is_affordable(monkeypatch):
    result = priced((0.001, 0.2, 0.2), (10, 10, 10, 10), 10)
    documents = tuple(replace(one, extra=(1e-3 + 0.05 * at, 9.0, 9.0)) for at, one in enumerate(result.documents))
    result = replace(result, documents=documents)
    cost = result._together[0].loss
    for limit, found in ((cost.high, "recommended"), (cost.low, "undecided")):
        monkeypatch.setattr("statesize.reduction.cache.result.AFFORDABLE", limit)
        assert getattr(result, found).variant == Variant(precision="int4")


@pytest.mark.parametrize(("worths", "told"), [((0.5, 0.6), True), ((-0.3, 0.4), False), ((-0.2, -0.1), False)])
def test_nothing_is_advised_where_the_context_is_worth_nothing(worths, told):
    result = priced((0.001, 0.001, 0.001), (10, 10, 10, 10), 10)
    documents = tuple(replace(one, worth=worths[at % 2]) for at, one in enumerate(result.documents))
    result = replace(result, documents=documents)
    assert (result.recommended is not None) == told
    said = result.finding
    assert said.startswith("Too little context to tell: over 6 held-out texts, the 64 tokens before") != told
    assert ("to which the context is worth 0.55 nats per token" in said) == told


def test_page(tmp_path):
    """In a browser: a mark for each variant, a cell for each cache and map, a line for each cache."""
    path = tmp_path / "cache.html"
    result = priced((0.001, 0.002, -0.001), (10, 10, 10, 10), 10)
    page(result).write(path)
    with chromium() as browser:
        visit = Visit(browser, path)
        for mark, count in (("symbol", 3), ("rect", 2 * 4)):
            drawn = visit.page.locator(f".chart .mark-{mark}.role-mark > path")
            assert drawn.count() == count, mark
        assert visit.page.locator(".chart .mark-line path[d]").count() == 3 + 2
        assert visit.page.locator("tbody tr").count() == 1 + 3 + 2
        assert visit.page.locator(".lead").inner_text() == result.finding
        assert visit.requests == [path.as_uri()]
        assert visit.complaints == []
        assert violations(visit.page) == []
        visit.context.close()


def test_a_chart_of_curves_shows_shares_that_were_kept():
    # Of 24 tokens 20 always stay, so that the first seven points of a curve are one.
    head = CachedHead("layer", 0, 24, (0.5,) * 7 + (0.5, 0.0), 1.0, 1.0, 0.1, (20,))
    whole = CachedHead("layer", 1, 512, tuple(0.9 - 0.1 * point for point in range(9)), 1.0, 1.0, 0.1, (256,))
    assert list(dict.fromkeys(_shares(head))) == [20 / 24, 1.0]
    assert _shares(whole) == [20 / 512, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0]


def test_neighbours_lie_in_one_set():
    long, short = torch.arange(120), [torch.arange(1000 + 10 * n, 1010 + 10 * n) for n in range(3)]
    curves, choice, numbered = three_sets([long, *short], 10, 100, None, least=10)
    assert [number for number, _ in numbered] == [0] * 6 + [3]
    held_out = [piece for _, piece in numbered]
    assert [int(piece[0]) for piece in curves] == [0, 10, 20, 30, 1000]
    assert max(int(piece[0]) for piece in curves if piece[0] < 120) < min(
        int(piece[0]) for piece in choice if piece[0] < 120
    )
    together = [int(piece[0]) for part in (curves, choice, held_out) for piece in part]
    assert sorted(together) == [*range(0, 120, 10), 1000, 1010, 1020]
    # A text that is given several times is read once, and lies in one set.
    repeated = three_sets([long, *short, long, *reversed(short)], 10, 100, None, least=10)
    for some, again in zip(
        (curves, choice, held_out), (*repeated[:2], [piece for _, piece in repeated[2]]), strict=True
    ):
        assert [one.tolist() for one in again] == [one.tolist() for one in some]


@pytest.mark.parametrize(("least", "fewer"), [(9, ", or --max-tokens 9 (tokens=9)"), (10, "")])
def test_texts_that_are_too_short_are_refused_with_what_is_enough(least, fewer):
    with pytest.raises(InputError) as refused:
        three_sets([torch.arange(59), torch.arange(9)], 10, 100, None, least=least)
    enough = (
        "inputs must have one text of 60 tokens, which is cut into 6 pieces, or 3 texts of 10, for curves, budgets "
    )
    enough += "and prices, got"
    assert str(refused.value) == f"{enough} 1 text of 10 or more, the longest of 59. Give more text{fewer}."
    # They hold 6 pieces together, but each text is too short to be parted.
    with pytest.raises(InputError, match=f"{enough} 2 texts of 10 or more, the longest of 30. Give more text."):
        three_sets([torch.arange(30), torch.arange(1, 31)], 10, 100, None, least=10)
    with pytest.raises(
        InputError, match=f"{enough} 1 different text of 10 or more, the longest of 30. Give more text."
    ):
        three_sets([torch.arange(30), torch.arange(30)], 10, 100, None, least=10)
    for texts, size in (([60], 10), ([10] * 3, 10), ([59], 9)):
        given = [torch.arange(length) + number for number, length in enumerate(texts)]
        assert all(three_sets(given, size, 100, None, least=least))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rule": "best"}, "rule must be one of expected, snapkv, h2o, streaming, got 'best'"),
        ({"keep": 1.0}, "keep must be"),
        ({"tokens": 33, "settings": Settings(future=8)}, "tokens must be"),
        ({"settings": Settings(future=1)}, "future must be a whole number of at least 2"),
        ({"settings": Settings(past=2)}, "past must be left out for cache, where it does not act, got 2"),
        ({"documents": 2}, "documents must be"),
        (
            {"tokens": 500},
            "inputs must have one text of 3000 tokens, which is cut into 6 pieces, or 3 texts of 500",
        ),
    ],
)
def test_bad_input(llama, arguments, said):
    with pytest.raises(InputError, match=said):
        cache(llama, IDS.repeat(1, 8), **arguments)


def test_the_whole_cache_is_the_model_where_a_mask_is_given_by_its_name():
    model, ids = tiny("afmoe"), IDS.clamp(min=3)
    with torch.no_grad():
        expected = model(ids).logits[0, PREFIX:]
    found = following_logits(read_prefix(model, ids[:, :PREFIX]), ids[:, PREFIX:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gemma3_text"])
def test_what_is_noted_of_a_prefix_adds_nothing_to_the_cache(family):
    model = attention_model(family)
    read = read_prefix(model, IDS[:, :PREFIX])
    with torch.no_grad():
        own = model(IDS[:, :PREFIX], use_cache=True).past_key_values
    assert all(layer.rotation is not None for layer in read.layers)
    for mine, unaltered in zip(read.cache.layers, own.layers, strict=True):
        assert torch.equal(mine.keys, unaltered.keys)
        assert torch.equal(mine.values, unaltered.values)


def of_twelve(model):
    """The price list of a model by twelve texts."""
    ids = torch.cat([IDS.roll(shift, 1) for shift in range(12)])
    return cache(model, ids, documents=12, tokens=46, needles=0, settings=Settings(future=6))


def test_a_cache_that_noting_changes_is_refused(llama, monkeypatch):
    def twice(running, query):
        running.frame.kwargs["past_key_values"].update(*2 * [query[:, ::2]], running.frame.module.layer_idx)

    def reverse(running, query):
        running.frame.kwargs["past_key_values"].layers[0].keys.add_(1)

    monkeypatch.setattr(prefix_module, "rotation_of", twice)
    with pytest.raises(ModelError, match="must keep at most the 40 tokens of the prefix, got 80 in its cache"):
        read_prefix(llama, IDS[:, :PREFIX])
    monkeypatch.setattr(prefix_module, "rotation_of", reverse)
    with pytest.raises(ModelError, match="LlamaForCausalLM: observed, what its cache holds differs"):
        of_twelve(llama)


def test_a_model_that_forgets_its_states_behind_a_cache_is_refused():
    # Mamba layers of transformers go on from a state by one token at a time.
    model = tiny_model("jamba")
    with pytest.raises(ModelError, match="JambaForCausalLM must read several tokens behind its cache as in a whole"):
        of_twelve(model)


def test_models_without_such_a_cache():
    for model, said in (
        (tiny_model("mamba"), "cache"),
        (attention_model("deepseek_v3"), "a latent"),
        (attention_model("gpt_oss"), "softmax attention over its keys and no more"),
        (attention_model("bloom"), "registry"),
        (tiny("zamba"), "have no price of their own"),
    ):
        with pytest.raises(ModelError, match=said):
            read_prefix(model, IDS[:, :PREFIX])


def test_what_is_done_is_what_was_counted():
    model, ids = attention_model("llama"), torch.arange(12 * 100).square() % 63 + 1
    pricing = Pricing(model, [ids], documents=12, tokens=100)
    left, read = [], []
    reading = model.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[-1]))
    pricing.priced(lambda what: left.append(pricing.steps.left))
    reading.remove()
    assert pricing.steps.done == pricing.steps.costs
    # Each document is read once, and the first thrice more: alone and as a whole with nothing attached, and as kinds of
    # steps are timed.
    assert (read.count(pricing.prefix), read.count(100)) == (14, 1)
    assert pricing.steps.costs["prefixes"] == 15
    assert len(left) == 12
    assert all(left[:-1])
