"""The test on models: against code of its own that computes the same, and what it refuses."""

import dataclasses
import inspect
import itertools
import json
import math
import sys
from contextlib import ExitStack
from statistics import fmean

import numpy as np
import pytest
import torch
from oracles.attention_models import HEADS, attention_model
from oracles.impulses import impulse_responses
from oracles.recurrent_models import tiny_model
from oracles.tiny_families import tiny
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

import statesize as ss
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.rotation import Rotation
from statesize.adapters.kernels.scans import KERNELS
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Observation
from statesize.adapters.replaced import pure_torch, replaced, source_files
from statesize.codes import Code, Note, joined
from statesize.errors import InputError, ModelError
from statesize.operators import SoftmaxAttention
from statesize.operators import attention as attention_file
from statesize.reduction.cache.budgets import GRID
from statesize.texts.inputs import begun_excerpts
from statesize.truncation import continuation as continuation_file
from statesize.truncation import cutting as cutting_file
from statesize.truncation.causal import PastReading
from statesize.truncation.continuation import Continuation, mixed_behind
from statesize.truncation.cutting import Cutting
from statesize.truncation.page import chart, notes, table
from statesize.truncation.result import CutDocument, CutRun, TruncationResult
from statesize.truncation.runs import JOINT, PlannedRun
from statesize.truncation.truncate import scored, truncate

LENGTH, CUT = 20, 9
AT_CUT = ss.Settings(positions=[CUT])
IDS = torch.randint(0, 60, (1, LENGTH), generator=torch.Generator().manual_seed(4))


def divergence_of(whole, logits, cut=CUT):
    """Mean Kullback-Leibler divergence behind the cut."""
    log_whole, log_cut = (part[0, cut:-1].log_softmax(-1) for part in (whole, logits))
    return float((log_whole.exp() * (log_whole - log_cut)).sum(-1).mean())


def entropy(block):
    shares = torch.linalg.svdvals(block.double())
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())


def loss_of(logits):
    return float(functional.cross_entropy(logits[0, CUT:-1].float(), IDS[0, CUT + 1 :]))


def cut_maps(maps, ranks):
    """Maps (H, L, L) with every H_i at its rank, by numpy's way of numbering: the largest singular values first."""
    changed = maps.double().clone()
    for head, rank in enumerate(ranks):
        U, values, V = torch.linalg.svd(changed[head, CUT:, :CUT], full_matrices=False)
        changed[head, CUT:, :CUT] = (U[:, :rank] * values[:rank]) @ V[:rank]
    return changed


def asked_again(model, query, key, head):
    """What the queries before the cut read there once each is turned to positions behind the cut, rows by rows."""
    half, rows = query.shape[-1] // 2, []
    keys = key[head // 2, :CUT].double()
    for behind in (0, 4, 16, 64):
        for t in range(CUT):
            turned = torch.complex(query[head, t, :half].double(), query[head, t, half:].double())
            turned = turned * torch.exp(1j * model.model.rotary_emb.inv_freq.double() * (CUT + behind - t))
            scores = keys @ torch.cat([turned.real, turned.imag]) / query.shape[-1] ** 0.5
            rows.append(scores.softmax(-1))
    return torch.stack(rows)


def expected_scores(model, query, key, value, cut=CUT):
    """Attention that the next 512 positions pay to tokens from the fifth on, by the queries (n, i, d) of one cache."""
    width, paid = query.shape[-1], []
    frequencies = torch.cat(2 * [model.model.rotary_emb.inv_freq.double()])

    def turn(position):
        cos, sin = torch.cos(position * frequencies), torch.sin(position * frequencies)
        swap = torch.zeros(width, width, dtype=torch.float64)
        for k in range(width // 2):
            swap[k, k + width // 2], swap[k + width // 2, k] = -1, 1
        return torch.diag(cos) + torch.diag(sin) @ swap

    ahead = torch.stack([turn(position) for position in range(cut, cut + 512)]).mean(0)
    for rows in query.double():
        content = torch.stack([turn(position).T @ rows[position] for position in range(4, cut)])
        mean, covariance = ahead @ content.mean(0), ahead @ torch.cov(content.T, correction=0) @ ahead.T
        keys = key[4:cut].double()
        scores = [k @ mean / width**0.5 + k @ covariance @ k / (2 * width) for k in keys]
        paid.append(torch.stack(scores).softmax(-1))
    return torch.stack(paid).mean(0) * value[4:cut].double().norm(dim=-1)


def kept_numbers(maps, bases, ranks, cut=CUT):
    """Maps whose rows after the cut read of the past so many numbers, the first ones of a basis of each head."""
    changed = maps.double().clone()
    for head, (basis, rank) in enumerate(zip(bases, ranks, strict=True)):
        changed[head, cut:, :cut] = changed[head, cut:, :cut] @ basis[:, :rank] @ basis[:, :rank].T
    return changed


def largest_tokens(rows):
    """Tokens that rows read most of come first."""
    return torch.eye(CUT, dtype=torch.float64)[:, rows.square().sum(0).argsort(descending=True)]


def first_four_and_largest(scores):
    order = [0, 1, 2, 3, *(4 + scores.argsort(descending=True)).tolist()]
    return torch.eye(len(order), dtype=torch.float64)[:, order]


def largest_directions(rows):
    """The first token, and the directions in which rows read most of the others."""
    return torch.block_diag(torch.eye(1, dtype=torch.float64), torch.linalg.svd(rows[:, 1:])[2].T)


def cut_stacks(maps, groups, ranks):
    stacks = maps.double()[:, CUT:, :CUT].reshape(groups, -1, CUT)
    U, values, V = torch.linalg.svd(stacks, full_matrices=False)
    for group, rank in enumerate(ranks):
        stacks[group] = (U[group, :, :rank] * values[group, :rank]) @ V[group, :rank]
    changed = maps.double().clone()
    changed[:, CUT:, :CUT] = stacks.reshape(len(maps), -1, CUT)
    return changed


@torch.no_grad()
def run_of_llama(model, change, seen=None, ids=IDS):
    """Logits where `change(layer, maps)` takes the place of each layer's attention weights, (H, L, L)."""

    def attend(module, query, key, value, mask, scaling=None, **rest):
        if seen is not None:
            seen[module.layer_idx] = query[0], key[0], value[0]
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
        scores = (query @ key.mT * scaling).masked_fill(
            torch.ones(query.shape[2], query.shape[2]).triu(1).bool(), -torch.inf
        )
        maps = change(module.layer_idx, scores.softmax(-1)[0]).to(value.dtype)
        return (maps @ value).transpose(1, 2), None

    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register("cut_by_hand", attend)
    usual = model.config._attn_implementation
    model.config._attn_implementation = "cut_by_hand"
    try:
        return model(ids, use_cache=False).logits
    finally:
        model.config._attn_implementation = usual


def test_a_llama_with_grouped_heads_is_cut_as_by_hand():
    model = attention_model("llama")
    noted, seen = {}, {}
    whole = run_of_llama(model, lambda layer, maps: noted.setdefault(layer, maps), seen)
    rows = {layer: [asked_again(model, *parts[:2], head) for head in range(4)] for layer, parts in seen.items()}
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT, number=2, expected=True)
    assert result.whole == {}
    assert result.mixers == 2
    assert result.run_difference < 1e-5
    document = result.documents[0]
    assert document.loss == pytest.approx(loss_of(whole), abs=1e-5)

    sizes = {layer: [entropy(head[CUT:, :CUT]) for head in maps] for layer, maps in noted.items()}
    stacks = {layer: maps[:, CUT:, :CUT].reshape(2, -1, CUT) for layer, maps in noted.items()}
    joint = {layer: [entropy(stack) for stack in found] for layer, found in stacks.items()}
    ceiling = lambda number: -int(-number // 1)  # noqa: E731
    expected = {
        ("nothing", 0.0): lambda layer, maps: cut_maps(maps, [0] * 4),
        ("number", 1.0): lambda layer, maps: cut_maps(maps, [2] * 4),
        ("joint ess", 1.0): lambda layer, maps: cut_stacks(maps, 2, [ceiling(one) for one in joint[layer]]),
        ("largest head", 1.0): lambda layer, maps: cut_stacks(
            maps, 2, [ceiling(max(sizes[layer][2 * group : 2 * group + 2])) for group in (0, 1)]
        ),
    }
    stacked = {layer: [torch.cat(each[2 * (head // 2) :][:2]) for head in range(4)] for layer, each in rows.items()}
    choices = (("past tokens", largest_tokens, rows, sizes), ("past rows", largest_directions, rows, sizes))
    scored = {
        layer: [expected_scores(model, query[head, None], key[head // 2], value[head // 2]) for head in range(4)]
        for layer, (query, key, value) in seen.items()
    }
    choices += (("expected tokens", first_four_and_largest, scored, sizes),)
    choices += (("joint past rows", largest_directions, stacked, {k: [a, a, b, b] for k, (a, b) in joint.items()}),)
    for rule, order, of, numbers in choices:
        for scale in (1.0, 2.0):
            expected[rule, scale] = lambda layer, maps, order=order, of=of, numbers=numbers, scale=scale: kept_numbers(
                maps, map(order, of[layer]), [min(ceiling(scale * size), CUT) for size in numbers[layer]]
            )
    number = round(fmean(min(ceiling(size), CUT) for layer in sizes.values() for size in layer))
    expected["equal past rows", 1.0] = lambda layer, maps: kept_numbers(
        maps, map(largest_directions, rows[layer]), [number] * 4
    )
    for scale in (0.25, 0.5, 1.0, 2.0):
        expected["ess", scale] = lambda layer, maps, scale=scale: cut_maps(
            maps, [min(ceiling(scale * size), CUT) for size in sizes[layer]]
        )
    compared = set()
    for run in document.runs:
        if (run.rule, run.scale) in expected:
            logits = run_of_llama(model, expected[run.rule, run.scale])
            assert run.loss == pytest.approx(loss_of(logits), abs=2e-5), run
            assert run.divergence == pytest.approx(divergence_of(whole, logits), abs=2e-5), run
            compared.add((run.rule, run.scale))
    assert compared == set(expected)
    assert len({round(run.loss, 4) for run in document.runs}) > 4


def curves_of(generator):
    """Curves of two layers with two caches each, convex, as `statesize cache --json` has them."""
    heads = []
    for layer in range(2):
        for head in range(2):
            falls = (10 ** torch.rand(8, generator=generator)).sort(descending=True).values
            steps = torch.tensor(GRID).diff() * falls
            curve = [*(float(steps[at:].sum()) for at in range(8)), 0.0]
            heads.append({"layer": f"model.layers.{layer}.self_attn", "head": head, "curve": curve})
    return {"rule": "expected", "heads": heads}


def least_error(errors, counts, total):
    """Tokens of each cache, so many together, with the least sum of errors, by trying all."""
    kept = range(counts[0], counts[-1] + 1)
    tables = [dict(zip(kept, np.interp(kept, counts, one), strict=True)) for one in errors]
    every = ((*some, total - sum(some)) for some in itertools.product(kept, repeat=len(errors) - 1))
    possible = (budgets for budgets in every if budgets[-1] in kept)
    return min(possible, key=lambda budgets: sum(map(dict.__getitem__, tables, budgets)))


def test_tokens_are_shared_out_by_curves_as_by_hand():
    length, cut, generator = 80, 40, torch.Generator().manual_seed(3)
    model, ids = attention_model("llama"), torch.randint(0, 60, (1, length), generator=generator)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= 3
    noted, seen, found = {}, {}, curves_of(generator)
    whole = run_of_llama(model, lambda layer, maps: noted.setdefault(layer, maps), seen, ids)
    result = truncate(model, ids, documents=1, tokens=length, settings=ss.Settings(positions=[cut]), curves=found)
    joint = [entropy(noted[layer][2 * k : 2 * k + 2, cut:, :cut].flatten(0, 1)) for layer in range(2) for k in (0, 1)]
    orders = {}
    for layer, (query, key, value) in seen.items():
        for cache in (0, 1):
            scores = expected_scores(model, query[2 * cache : 2 * cache + 2], key[cache], value[cache], cut)
            # The first 4 and the last 16 stay before all others.
            others = 4 + scores[: cut - 20].argsort(descending=True)
            orders[layer, cache] = [*range(4), *range(cut - 16, cut), *others.tolist()]
    counts = [max(20, round(cut * share)) for share in GRID]
    errors = [head["curve"] for head in found["heads"]]
    # Points at which all rules keep the least are one point, of the last error.
    known = dict(zip(counts, zip(*errors, strict=True), strict=True))
    different = set()
    for scale in (1.0, 2.0, 4.0, 8.0):
        wanted = sum(min(math.ceil(scale * size), cut) for size in joint)
        each = max(20, round(wanted / 4))
        budgets = least_error(list(zip(*known.values(), strict=True)), list(known), 4 * each)
        different.add(len(set(budgets)))

        def change(layer, maps, budgets=budgets):
            bases = [torch.eye(cut, dtype=torch.float64)[:, orders[layer, head // 2]] for head in range(4)]
            return kept_numbers(maps, bases, [budgets[2 * layer + head // 2] for head in range(4)], cut)

        run = next(one for one in result.documents[0].runs if (one.rule, one.scale) == ("tokens by curves", scale))
        assert run.kept == pytest.approx(each)
        logits = run_of_llama(model, change, ids=ids)
        assert run.divergence == pytest.approx(divergence_of(whole, logits, cut), rel=1e-3, abs=2e-6), scale
    assert max(different) > 1


def test_curves_must_be_of_the_model():
    found = curves_of(torch.Generator().manual_seed(3))
    options = {"documents": 1, "tokens": LENGTH}
    with pytest.raises(InputError, match=r"curves must be of the model that is cut, got '2 caches of model"):
        truncate("gla", IDS, curves=found, **options)
    for wrong in ({}, {"rule": "expected", "heads": []}, found | {"rule": "other"}):
        with pytest.raises(InputError, match=r"curves must be what statesize\.cache returns, or its JSON"):
            truncate("gla", IDS, curves=wrong, **options)


def cut_scan(body, scan, rank):
    """A scan whose T, by the impulse responses of its own code, has every H_i at a rank."""

    def kernel(*args, **kwargs):
        bound = inspect.signature(body).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments, output = dict(bound.arguments), body(*args, **kwargs)
        values, by_channel = arguments[scan.values].double(), arguments[scan.values].ndim == 3
        if by_channel:
            values = (values if scan.axis == 2 else values.mT)[..., None]
        else:
            values = values.transpose(1, 2)
        H = impulse_responses(body, arguments).double()[:, :, CUT:, :CUT]
        U, sizes, V = torch.linalg.svd(H, full_matrices=False)
        lost = (H - (U[..., :rank] * sizes[..., None, :rank]) @ V[..., :rank, :]) @ values[:, :, :CUT]
        if arguments.get("z") is not None:
            lost = lost * functional.silu(arguments["z"][:, :, CUT:, None].double())
        mixed = (output[0] if isinstance(output, tuple) else output).clone()
        lost = lost.transpose(1, 2) if not by_channel else lost[..., 0] if scan.axis == 2 else lost[..., 0].mT
        mixed.narrow(scan.axis, CUT, LENGTH - CUT).sub_(lost.to(mixed.dtype))
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return kernel


@pytest.mark.few(5)
@torch.no_grad()
@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "kimi_linear", "rwkv"])
def test_a_scan_is_cut_as_its_impulse_responses_are(family, rank):
    model = tiny_model(family)
    cutting = Cutting(Forward.of(model, IDS), CUT, {}, {})
    expected = cutting.logits()
    cutting.whole |= {
        name: Note(Code.NOT_CUT, "attention of a hybrid")
        for name, one in cutting.spectra.items()
        if one.kind == "attention"
    }
    ranks = {name: torch.full_like(one.norm, rank).long() for name, one in cutting.spectra.items()}
    cut = cutting.logits(PlannedRun("number", 1.0, ranks, False, rank))
    file, name = next(
        (file, name)
        for file in source_files(named_parts(model))
        for name in KERNELS
        if vars(file).get(name) is not None
    )
    with replaced({(file, name): cut_scan(pure_torch(vars(file)[name]), KERNELS[name], rank)}):
        by_hand = model(IDS, use_cache=False).logits[0, CUT:-1]
    torch.testing.assert_close(cut, by_hand, rtol=0, atol=2e-5 * float(by_hand.abs().max()))
    if rank == 0:
        assert float((expected - by_hand).abs().max()) > 1e-3 * float(by_hand.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "bloom", "gemma2", "deepseek_v3", "gpt_oss"])
def test_attention_at_full_rank_is_the_whole_model_and_without_a_past_is_two_texts(family):
    model = attention_model(family)
    cutting = Cutting(Forward.of(model, IDS), CUT, {}, {})
    whole = cutting.logits()

    def at(rank):
        ranks = {name: torch.full_like(one.norm, rank).long() for name, one in cutting.spectra.items()}
        return cutting.logits(PlannedRun("number", 1.0, ranks, False, rank))

    torch.testing.assert_close(whole, model(IDS, use_cache=False).logits[0, CUT:-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(at(LENGTH), whole, rtol=0, atol=1e-4)
    assert float((at(0) - whole).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["gla", pytest.param("sa", marks=pytest.mark.slow)])
def test_bundled_models(name):
    result = truncate(name, documents=1, tokens=32)
    assert result.whole == {}
    assert result.count == 1
    assert result.model == name
    by_scale = {row.scale: row.divergence.value for row in result.rows if row.rule == "ess"}
    assert by_scale[2.0] < by_scale[1.0] < by_scale[0.25]
    assert result.finding.startswith("Too little text to tell. One text: no interval")
    five = tuple(dataclasses.replace(result.documents[0], document=text, text=text) for text in range(5))
    # Only attention stores keys; 16 tokens do not fill a state of 32 numbers.
    assert (
        "%] of the stored values; all keys stay" if name == "sa" else "too short to fill the state."
    ) in dataclasses.replace(result, documents=five).finding
    model = ss.load(name)[0]
    truncate(model, IDS, documents=1, tokens=LENGTH)
    assert not any("mixed_values" in vars(module) for module in model.modules())


class Mean(nn.Module):
    """A layer of one's own: the mean of all values so far."""

    def operator(self, hidden):
        weights = torch.ones(LENGTH, LENGTH).tril() / torch.arange(1, LENGTH + 1)[:, None]
        return ss.Dense(weights.expand(len(hidden), 1, -1, -1))

    def values(self, hidden):
        return hidden[:, None]

    def forward(self, hidden):
        return hidden.cumsum(1) / torch.arange(1, LENGTH + 1)[:, None]


class MeanInTwoSteps(Mean):
    def mixed_values(self, hidden):
        return super().forward(hidden)[:, None]

    def forward(self, hidden):
        return self.mixed_values(hidden)[:, 0]


@torch.no_grad()
def test_layers_of_ones_own_are_cut_where_they_mix_by_a_method_and_named_where_not():
    torch.manual_seed(0)
    head = nn.Linear(8, 60)
    embedding = nn.Embedding(60, 8)
    model = nn.Sequential(embedding, MeanInTwoSteps(), head)
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT, number=1)
    runs = {run.rule: run.loss for run in result.documents[0].runs if run.scale in (0.0, 1.0)}
    # The mean has rank 1; without its past it is the mean of what follows alone, over all positions.
    assert runs["number"] == pytest.approx(result.documents[0].loss, abs=1e-5)
    alone = embedding(IDS)
    alone[:, :CUT] = 0
    assert runs["nothing"] == pytest.approx(loss_of(head(Mean()(alone))), abs=1e-5)
    with pytest.raises(ModelError, match=r"No mixer .* can be cut\. 1: it has no method mixed_values\("):
        truncate(nn.Sequential(embedding, Mean(), head), IDS, documents=1, tokens=LENGTH)
    with pytest.raises(ModelError, match=r"a layer of your own needs methods operator\(hidden\), values\(hidden\) and"):
        truncate(nn.Sequential(embedding, Sum(), head), IDS, documents=1, tokens=LENGTH)
    with pytest.raises(ModelError, match=r"1: no kernel in it .* 2: it has no method mixed_values\("):
        truncate(nn.Sequential(embedding, Sum(), Mean(), head), IDS, documents=1, tokens=LENGTH)


class Attention(nn.Module):
    """Rows from a start on read nothing before it; a subclass mixes by more."""

    start = 0

    def __init__(self):
        super().__init__()
        self.projection, self.distance = nn.Linear(8, 24), nn.Parameter(torch.randn(LENGTH, 8))
        self.convolution = nn.Conv1d(8, 8, 3, padding=2, groups=8)

    def forward(self, hidden):
        query, key, value = self.projection(hidden).chunk(3, -1)
        maps = (query @ key.mT).masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf).softmax(-1)
        if self.start:
            maps[:, self.start :, : self.start] = 0
        return self.mixed(maps, value)

    def mixed(self, maps, value):
        return maps @ value


class RelativeValues(Attention):
    """A vector of each distance beside the values (Shaw et al. 2018)."""

    def mixed(self, maps, value):
        places = torch.arange(LENGTH)
        return maps @ value + torch.einsum("bij,ijd->bid", maps, self.distance[(places[:, None] - places).clamp(0)])


class SumBeside(Attention):
    """T is more than the attention, and behind a short mixing from which an activation parts it."""

    def mixed(self, maps, value):
        value = functional.silu(self.convolution(value.mT)[..., :LENGTH].mT)
        return maps @ value + value.cumsum(1)


class ConvolvedBehind(Attention):
    """A short mixing behind T, from which a norm parts it."""

    def mixed(self, maps, value):
        return self.convolution(functional.normalize(maps @ value, dim=-1).mT)[..., :LENGTH].mT


class Blocks(Attention):
    """Attention in blocks of four tokens, as rows of a batch."""

    def forward(self, hidden):
        query, key, value = self.projection(hidden).unflatten(1, (-1, 4)).flatten(0, 1)[:, None].chunk(3, -1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.reshape(len(hidden), LENGTH, -1)


class Sum(nn.Module):
    """A layer without methods."""

    def forward(self, hidden):
        return hidden.cumsum(1)


class Gated(nn.GRU):
    """A recurrence without a T."""

    def __init__(self):
        super().__init__(8, 8, batch_first=True)

    def forward(self, hidden):
        return super().forward(hidden)[0]


@torch.no_grad()
@pytest.mark.parametrize("layer", [Attention, RelativeValues, SumBeside, ConvolvedBehind, Blocks, Sum, Gated])
def test_attention_is_cut_where_it_is_what_is_measured_and_any_other_mixing_is_named(layer):
    torch.manual_seed(0)
    made = layer()
    # The second call of a layer is another mixer.
    model = nn.Sequential(nn.Embedding(60, 8), Attention(), made, made, nn.Linear(8, 60))
    measured = {one.name: one for one in ss.capture(model, IDS)}
    is_cut, in_part = layer in (Attention, ConvolvedBehind), layer is ConvolvedBehind
    assert (measured["2"].kind == measured["1"].kind == "attention") == is_cut
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
    assert result.mixers == (3 if is_cut else 1)
    if in_part:
        assert result.whole == {name: joined(measured[name].notes) for name in ("2", "2@1")}
        assert all(reason.startswith("Measured in part") for reason in result.whole.values())
    else:
        assert list(result.whole) == ([] if is_cut else ["2"])
    assert ("Not cut, or in part: " in repr(result)) == bool(result.whole)
    nothing = result.documents[0].runs[0].loss
    for one in (model[1], made)[: 1 + is_cut]:
        one.start = CUT
    assert nothing == pytest.approx(loss_of(model(IDS)), abs=1e-5)
    if not is_cut:
        with pytest.raises(ModelError, match=r"No mixer of Sequential can be cut\. 1: no kernel in it has a T of all"):
            truncate(nn.Sequential(model[0], made, model[4]), IDS, documents=1, tokens=LENGTH)


class Recurrent(MeanInTwoSteps):
    """A state of four numbers that decays, and is read by what stands at each position."""

    def __init__(self):
        super().__init__()
        self.write, self.read = nn.Linear(8, 4), nn.Linear(8, 4)

    def operator(self, hidden):
        decays = torch.linspace(0.5, 0.95, 4).expand(len(hidden), 1, LENGTH, 4)
        return ss.Recurrence(decays, self.write(hidden)[:, None], self.read(hidden)[:, None])

    def mixed_values(self, hidden):
        return self.operator(hidden).dense() @ hidden[:, None]


@torch.no_grad()
def test_a_state_is_cut_by_what_the_past_read_as_by_hand():
    torch.manual_seed(0)
    embedding, layer, head = nn.Embedding(60, 8), Recurrent(), nn.Linear(8, 60)
    result = truncate(nn.Sequential(embedding, layer, head), IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
    hidden = embedding(IDS)[0].double()
    B, C = layer.double().write(hidden), layer.read(hidden)
    ages = torch.arange(CUT - 1, -1, -1)[:, None]
    held = torch.linspace(0.5, 0.95, 4).double() ** ages * B[:CUT]
    T = layer.operator(hidden[None]).dense()[0, 0].double()
    shares = torch.linalg.svdvals(T[CUT:, :CUT])
    shares = shares / shares.sum()
    ess = float(torch.special.entr(shares).sum().exp())
    for name, rows in (("past rows", C[:CUT] @ held.T), ("ess", T[CUT:, :CUT])):
        V = torch.linalg.svd(rows)[2].T
        for scale in (0.25, 0.5, 1.0):
            rank = math.ceil(scale * ess)
            cut = T.clone()
            cut[CUT:, :CUT] = T[CUT:, :CUT] @ V[:, :rank] @ V[:, :rank].T
            run = next(run for run in result.documents[0].runs if (run.rule, run.scale) == (name, scale))
            assert run.kept == rank
            assert run.loss == pytest.approx(loss_of(head((cut @ hidden).float()[None])), abs=1e-5)
    assert result.documents[0].stored == 4


def test_attention_whose_queries_cannot_be_moved_is_named_and_its_rows_take_the_place_of_queries():
    options = HEADS | {"no_rope_layers": [1, 0], "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("smollm3", **options)).eval()
    # The second layer leaves out its rotary embeddings, GPT-2 and the layers of this library have none.
    for known in (model, attention_model("llama"), attention_model("gpt2"), "sa"):
        assert truncate(known, IDS, documents=1, tokens=LENGTH).unmoved == ()
    # The rotary part of its keys is not that of its queries.
    result = truncate(attention_model("deepseek_v3"), IDS, documents=1, tokens=LENGTH)
    assert result.unmoved == ("model.layers.0.self_attn", "model.layers.1.self_attn")
    assert any("turns queries of model.layers.0.self_attn, model" in note for note in notes(result))
    assert result.to_dict()["unmoved"] == [*result.unmoved]


def test_queries_that_nothing_turns_are_asked_again_as_they_stand():
    g, cut, size = torch.Generator().manual_seed(0), 9, 4
    query, key = (torch.randn(1, 14, size, generator=g, dtype=torch.float64) for _ in range(2))
    reading = PastReading(SoftmaxAttention(query, key, 0.5), cut, Rotation.none(query))
    read = (0.5 * query[0, :cut] @ key[0, :cut].T).softmax(-1)
    moments = read.T @ read
    moments[0] = moments[:, 0] = 0
    first, expected = torch.linalg.eigh(moments)[1].flip(-1)[:, :4].T, reading.rows()[0]
    assert torch.equal(expected[:, 0], torch.eye(cut, dtype=torch.float64)[0])
    torch.testing.assert_close((first @ expected[:, 1:5]).abs(), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6)
    assert reading.tokens()[0, 0] == read.square().sum(0).argmax()


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_layers_that_share_keys_and_values_read_those_of_the_run_itself(family):
    model, ids = tiny(family), IDS + 3
    (document,) = truncate(model, ids, documents=1, tokens=LENGTH, number=LENGTH, settings=AT_CUT).documents
    with torch.no_grad():
        logits = model(ids).logits
    assert document.loss == pytest.approx(float(functional.cross_entropy(logits[0, CUT:-1], ids[0, CUT + 1 :])))
    assert next(run for run in document.runs if run.rule == "number").divergence == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_what_a_cache_of_several_layers_must_hold_is_not_told(family):
    model = tiny(family)
    result = truncate(model, IDS + 3, documents=1, tokens=LENGTH, settings=AT_CUT)
    # Two layers read each cache, and each chooses for itself.
    shared = [[f"model.layers.{layer}.self_attn" for layer in layers] for layers in ((0, 2), (1, 3))]
    found = result.to_dict()
    assert found["shared"] == shared
    assert found["without_hindsight"]["stored"] == {"mean": None, "interval": None}
    assert found["measured"][0]["stored"] is None
    assert {row.rule for row in result.rows}.isdisjoint({*JOINT, "joint ess", "largest head"})
    assert result.without_hindsight().multiple.value > 0
    assert "stored" not in repr(result.without_hindsight()).splitlines()[0]
    (note,) = [note for note in notes(result) if note.startswith("One cache serves")]
    assert all(name in note for names in shared for name in names)
    longer = dataclasses.replace(result, documents=sure_documents(result.documents[0]))
    assert "Layers share a cache: what it must keep for all of them was not tried." in longer.finding
    assert not truncate(attention_model("llama"), IDS, documents=1, tokens=LENGTH, settings=AT_CUT).shared


def sure_documents(document):
    """Six long documents as this one, each a text, whose context is surely worth something."""
    runs = (dataclasses.replace(document.runs[0], loss=document.loss + 1), *document.runs[1:])
    return tuple(dataclasses.replace(document, document=n, text=n, tokens=512, runs=runs) for n in range(6))


def test_layers_that_mix_no_positions_are_not_told_as_left_whole():
    model = tiny("nemotron_h")
    result = truncate(model, IDS + 3, documents=1, tokens=LENGTH)
    assert (result.mixers, result.whole) == (2, {})


def test_the_one_number_of_rwkv_loses_nothing_without_hindsight():
    result = truncate(tiny("rwkv"), IDS + 3, documents=1, tokens=LENGTH)
    (document,) = result.documents
    assert (document.ceiling, document.inputs, document.stored) == (1, 1, 1)
    assert {run.kept for run in document.runs if run.rule != "nothing"} == {1}
    assert max(run.divergence for run in document.runs if run.rule == "past rows") < 1e-9
    assert result.without_hindsight().multiple.value <= 1


@pytest.mark.parametrize("cut", [9, 14, 17])
@pytest.mark.parametrize(("family", "options"), [("mistral", {"sliding_window": 5}), ("llama4_text", {})])
def test_ceilings_are_those_that_are_measured(family, options, cut):
    model = attention_model(family, **options) if options else tiny(family)
    result = truncate(model, IDS + 3, documents=1, tokens=LENGTH, settings=ss.Settings(positions=[cut]))
    (document,) = result.documents
    operators = [item.operator for item in ss.capture(model, IDS + 3)]
    ceilings = [float(ss.measure(operator, positions=[cut]).ceiling.double().mean()) for operator in operators]
    sizes = [min(int(operator.state_size()[cut]), cut) for operator in operators]
    assert document.ceiling == pytest.approx(fmean(ceilings))
    assert document.inputs == document.stored == pytest.approx(fmean(sizes))
    assert max(run.kept for run in document.runs) <= document.inputs
    whole = next(run for run in document.runs if (run.rule, run.scale) == ("past rows", 16))
    assert whole.divergence == pytest.approx(0, abs=1e-6)


def test_nothing_is_kept_where_chunks_end():
    options = {"layer_types": ["chunked_attention"] * 2, "no_rope_layers": [1, 1], "attention_chunk_size": CUT}
    options |= {"pad_token_id": 0, "intermediate_size_mlp": 48, "num_local_experts": 2, "num_experts_per_tok": 1}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama4_text", **HEADS | options)).eval()
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
    (document,) = result.documents
    assert (document.entropy, document.ceiling, document.inputs) == (0, 0, 0)
    assert {(run.kept, run.divergence) for run in document.runs} == {(0, 0)}
    assert math.isnan(result.without_hindsight().multiple.value)
    assert "too little to tell" in str(result)


def test_a_look_at_a_layer_that_changes_the_run_is_refused(monkeypatch):
    def careless(running, query):
        running.frame.kwargs["position_embeddings"][0].neg_()

    monkeypatch.setattr(cutting_file, "rotation_of", careless)
    with pytest.raises(ModelError, match="LlamaForCausalLM: observed, its output behind the cut differs"):
        truncate(attention_model("llama"), IDS, documents=1, tokens=LENGTH)


def run_at(spectra, rule, rank):
    """A run with a rank of all units or groups."""
    sizes = {name: one.stored if rule == "joint ess" else len(one.norm) for name, one in spectra.items()}
    ranks = {name: torch.full((size,), rank) for name, size in sizes.items()}
    return PlannedRun(rule, 1.0, ranks, rule == "joint ess", rank)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "afmoe"])
@pytest.mark.parametrize("rows", [256, 3])
def test_a_model_behind_the_cut_alone_is_as_over_the_whole_text(rows, family, monkeypatch):
    monkeypatch.setattr(attention_file, "_ROWS", rows)  # a long text takes several strips
    # Afmoe takes what attention returns by `view`.
    model = (tiny(family) if family == "afmoe" else attention_model(family)).double()
    forward = Forward.of(model, IDS)
    # What has noted nothing reads the whole text in each run.
    cutting, whole = Cutting(forward, CUT, {}, {}), Cutting(forward, CUT, {}, {})
    cutting.logits()
    assert cutting.continuation.sure
    rules = [("nothing", 0), ("number", 2), ("joint ess", 2), ("past rows", 2), ("past tokens", 2)]
    planned = [run_at(cutting.spectra, *rule) for rule in rules]
    cutting.causal = whole.causal = [run for run in planned if run.causal]
    expected = [whole.logits(run) for run in planned]
    lengths = []
    # The model reads no token before the cut any more.
    read = model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: lengths.append(ids[0].shape[1]))
    for run, logits in zip(planned, expected, strict=True):
        # Gemma and Afmoe normalise in single precision whatever their weights are.
        most = 1e-5 if family in ("gemma2", "afmoe") else 1e-12
        torch.testing.assert_close(cutting.logits(run), logits, rtol=0, atol=most)
    read.remove()
    assert lengths == [LENGTH - CUT] * len(rules)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [LENGTH, 4])
def test_a_model_that_reads_the_past_beside_attention_runs_over_the_whole_text(chunk):
    model = attention_model("llama").double()
    # Each position sees the token before it, as where tokens are shifted; the last eight are whole chunks of four.
    shifted = lambda module, ids, found: found + found.roll(1, 1) * (torch.arange(found.shape[1]) % chunk > 0)[:, None]  # noqa: E731
    model.get_input_embeddings().register_forward_hook(shifted)
    cutting = Cutting(Forward.of(model, IDS), CUT, {}, {})
    cutting.logits()
    assert len(cutting.continuation.known) == 0
    assert not cutting.continuation.sure


@torch.no_grad()
@pytest.mark.parametrize("changed", [None, "query", "values", "dtype", "passed_on", "answer"])
def test_attention_is_known_if_it_was_seen_to_be_that_of_what_it_took(changed, monkeypatch):
    model, continuation = attention_model("llama"), Continuation(CUT, LENGTH)
    module, file = model.model.layers[0].self_attn, sys.modules[type(model).__module__]
    generator = torch.Generator().manual_seed(6)
    query, again = torch.randn(2, 1, 4, LENGTH, 8, generator=generator)
    key, value, *others = torch.randn(4, 1, 2, LENGTH, 8, generator=generator)
    usual = file.ALL_ATTENTION_FUNCTIONS["sdpa"]
    with ExitStack() as stack:
        continuation.attach(named_parts(model), stack)
        file.ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, None, scaling=0.5)
    # Layers in low precision are seen in float32, and those in float32 may be in float64.
    dtype = torch.float64 if changed == "dtype" else torch.float32
    each = [part.repeat_interleave(2, 1).to(dtype) for part in (key, value + (changed == "values"))]
    attention = SoftmaxAttention((query + (changed == "query")).to(dtype), each[0], 0.5)
    seen = Observation("layer", "attention", lambda units: attention[:, units], each[1], each[1], None, 0)
    gated = dataclasses.replace(seen, passed_on=lambda mixed, units: 2 * mixed)
    if changed == "answer":
        # What is seen later would be another T than the function's.
        rows = lambda operator, cut: 1.1 * operator.dense()[..., cut:, :]  # noqa: E731
        monkeypatch.setattr(continuation_file, "rows_behind", rows)
    continuation.note(module, "layer", gated if changed == "passed_on" else seen)
    assert list(continuation.known) == ([] if changed else [module])
    if changed is None:
        later = again, *others
        found = continuation.known[module].continued(*(part[:, :, CUT:] for part in later))
        whole = [torch.cat([a[:, :, :CUT], b[:, :, CUT:]], 2) for a, b in zip((query, key, value), later, strict=True)]
        expected = usual(module, *whole, None, scaling=0.5)[0].transpose(1, 2)[:, :, CUT:]
        torch.testing.assert_close(mixed_behind(CUT, found), expected, rtol=0, atol=1e-5)


def test_divergence_over_many_tokens_is_as_exact_as_single_precision():
    generator = torch.Generator().manual_seed(0)
    whole, cut = ((3 * torch.randn(4, 2**17, generator=generator)).log_softmax(-1) for _ in range(2))
    exact = functional.kl_div(cut.double(), whole.double(), reduction="batchmean", log_target=True)
    answers = torch.arange(4)
    loss, divergence = scored(cut, whole, whole.exp(), answers)
    assert divergence == pytest.approx(float(exact), rel=1e-6)
    assert loss == pytest.approx(float(-cut.double()[answers, answers].mean()), rel=1e-6)


def test_a_context_that_is_worth_nothing_has_no_share():
    model = attention_model("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("o_proj.weight"):
                parameter.zero_()
    result = truncate(model, IDS, documents=1, tokens=LENGTH)
    assert result.worth.value == pytest.approx(0, abs=1e-5)
    assert all(row.share.value != row.share.value for row in result.rows)
    assert result.sufficient is None
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("worths", "sure"), [((0.4, -0.3, 0.5, -0.2, 0.3), False), ((0.3, 0.2, 0.3, 0.2, 0.3), True)])
def test_nothing_suffices_where_the_context_may_be_worth_nothing(worths, sure):
    documents = tuple(
        CutDocument(
            number, 20, 10, 1.0, 3.0, 10.0, 10.0, 10.0,
            (CutRun("nothing", 0.0, 0.0, 1 + worth, 0.5), CutRun("ess", 1.0, 3.0, 1.001, 0.001)),
        )
        for number, worth in enumerate(worths)
    )  # fmt: skip
    result = TruncationResult("m", documents, {}, 1, 0.0)
    assert result.worth.value > 0.1
    assert result.sufficient == (1.0 if sure else None)
    assert math.isnan(result.rows[0].share.value) != sure
    if not sure:
        assert result.finding.endswith(" nats per token to m over 5 texts: too little to tell what a cut loses.")
        of_one = dataclasses.replace(result, documents=tuple(dataclasses.replace(one, text=7) for one in documents))
        assert of_one.counted == "5 pieces of one text"
        assert repr(result).startswith(result.finding)
        assert result.finding in result._repr_html_()


@pytest.mark.parametrize(
    ("worth", "share", "suffices"), [(0.0101, 0.01, True), (0.0101, 0.0101, False), (0.01, 0.01, False)]
)
def test_a_hundredth_is_the_limit_of_what_is_worthless_and_of_what_is_negligible(worth, share, suffices):
    runs = CutRun("nothing", 0.0, 0.0, worth, 1.0), CutRun("ess", 1.0, 3.0, 0.0, share)
    documents = tuple(CutDocument(number, 20, 10, 0.0, 3.0, 10.0, 10.0, 10.0, runs) for number in range(5))
    result = TruncationResult("m", documents, {}, 1, 0.0)
    assert (result.context_matters, result.sufficient) == (worth > 0.01, 1.0 if suffices else None)


def test_shares_of_loss_are_told_of_five_texts_and_which_ess_suffices():
    lost = [("ess", 0.5, 0.05), ("ess", 1.0, 0.004), ("past rows", 1.0, 0.03)]
    runs = [CutRun("nothing", 0.0, 0.0, 2.0, 1.0), *(CutRun(a, b, 4 * b, 1 + c, c) for a, b, c in lost)]
    documents = tuple(CutDocument(at, 20, 10, 1.0, 4.0, 10.0, 10.0, 10.0, tuple(runs)) for at in range(5))
    enough = TruncationResult("m", documents, {}, 1, 0.0)
    few = dataclasses.replace(enough, documents=documents[:4])
    worth = "of context's worth"
    assert f"{worth}: this loss as a share of what the context is worth." in str(notes(enough))
    assert worth not in table(few).headings
    assert "–" not in str(table(few).rows)
    assert worth in table(enough).headings
    assert "–" not in str(table(enough).rows)
    assert {len(row) for row in table(few).rows} == {len(table(few).headings)} == {5}
    suffices = "With hindsight, its ESS suffices for each head: at most 1% of KL is lost; half as many lose more."
    assert suffices in notes(enough)
    assert few.sufficient is None
    assert "suffices" not in str(notes(few))
    assert any("By loss, which is noisier, 1% takes" in one for one in notes(enough))
    assert not any("By loss" in one for one in notes(few))
    # No run keeps whole tokens: no layer has keys.
    assert "Keys are kept whole" not in str(notes(enough))
    assert few.finding.startswith("Too little text to tell. 4 texts: no interval, which takes 5 texts. As many numbers")
    assert few.finding.endswith(" Losing the whole past, which is 100%, costs about 1 nats per token over 4 texts.")
    assert "enough" not in few.finding
    assert enough.finding.startswith("As many numbers as ESS (4.0 of 10 per channel) are not enough for m without")
    assert "With hindsight, as if later tokens were known, they are enough: 0.4%" in enough.finding
    assert enough.finding.endswith(" of the state.")
    unfilled = tuple(dataclasses.replace(one, inputs=20.0) for one in documents)
    told = dataclasses.replace(enough, documents=unfilled).finding
    # As many of the 20 numbers of the state as tokens came before.
    assert "ESS (4.0 of 10 per channel)" in told
    assert told.endswith(" × ESS. The texts before the cuts are too short to fill the state.")
    short = dataclasses.replace(enough, documents=tuple(dataclasses.replace(one, tokens=12) for one in documents))
    assert short.finding.startswith("Too little text to tell: fewer than 16 tokens bound what can pass")
    assert "× ESS" not in short.finding
    nothing, *_ = table(enough).rows
    assert nothing == ["nothing", "0.0", "100%", "100%", "+1.000 [+1.000, +1.000]", "1.0000 [1.0000, 1.0000]"]


def test_no_interval_of_a_divergence_reaches_below_0_and_equal_rows_are_one():
    def runs(share):
        kept = [("past rows", 2.0, 8.0, share), *(("past rows", scale, 10.0, 0.0) for scale in (4.0, 8.0, 16.0))]
        cut = [("ess", 1.0, 4.0, share), *kept]
        return (
            CutRun("nothing", 0.0, 0.0, 2.0, 1.0),
            *(CutRun(rule, scale, each, 1 + lost, lost) for rule, scale, each, lost in cut),
        )

    shares = (0.0001, 0.0001, 0.0001, 0.0001, 0.05)
    documents = tuple(
        CutDocument(at, 20, 10, 1.0, 4.0, 10.0, 10.0, 10.0, runs(share)) for at, share in enumerate(shares)
    )
    result = TruncationResult("m", documents, {}, 1, 0.0)
    assert all(one.low >= 0 for row in result.rows for one in (row.divergence, row.divergence_share))
    assert result.rows[0].divergence_share.low > 0
    assert result.moved.low > 0
    # What is lost of the loss may be less than nothing.
    assert result.rows[0].share.low < 0
    carried = [row[0] for row in table(result).rows if "without" in row[0]]
    assert carried == ["twice its ESS, without hindsight", "4 × its ESS, without hindsight"]


def test_pieces_of_one_text_are_not_called_documents():
    result = truncate("recall-gla", [[7, 1, 2, 3, 9, 4] * 16], documents=3, tokens=32)
    assert (result.count, result.texts) == (3, 1)
    assert "3 pieces of one text" in result.finding


def test_what_lies_between_both_bounds_is_shaded():
    lost = [("ess", 0.25, 0.2), ("ess", 1.0, 0.05), ("past rows", 0.25, 0.6), ("past rows", 1.0, 0.3)]
    lost += [("past tokens", 0.25, 0.4), ("past tokens", 1.0, 0.35), ("past rows", 4.0, 0.1)]
    runs = [CutRun("nothing", 0.0, 0.0, 2.0, 1.0), *(CutRun(a, b, 4 * b, 1 + c, c) for a, b, c in lost)]
    result = TruncationResult("m", (CutDocument(0, 20, 10, 1.0, 4.0, 10.0, 10.0, 10.0, tuple(runs)),), {}, 1, 0.0)
    assert "Keys are kept whole" in str(notes(result))
    shaded, *_ = chart(result).to_dict()["layer"]
    expected = [{"numbers": 1.0, "least": 0.2, "most": 0.4}, {"numbers": 4.0, "least": 0.05, "most": 0.3}]
    # A larger size was tried without hindsight only.
    expected.append({"numbers": 16.0, "least": 0, "most": 0.1})
    assert shaded["data"]["values"] == expected


def test_intervals_need_five_documents_and_cuts_of_a_text_are_not_independent():
    ids = torch.randint(0, 60, (5, LENGTH), generator=torch.Generator().manual_seed(5))
    few = truncate("recall-gla", list(ids[:4, :8] % 16), documents=4, tokens=8)
    assert few.worth.ends is None
    # A state holds no more numbers than there were tokens.
    assert max(row.kept for row in few.rows) == 4
    assert few.rows[0].excess.ends is None
    many = truncate("recall-gla", list(ids % 16), documents=5, tokens=LENGTH, settings=ss.Settings(positions=[8, 12]))
    assert len(many.documents) == 10
    assert many.count == 5
    low, high = many.rows[0].divergence.ends
    assert low < many.rows[0].divergence.value < high


def test_a_text_that_is_given_several_times_is_one_unit():
    ids = torch.randint(0, 16, (2, LENGTH), generator=torch.Generator().manual_seed(6))
    result = truncate("recall-gla", [ids[0], ids[1], ids[0], ids[0], ids[1], ids[0]], documents=6, tokens=LENGTH)
    assert [document.text for document in result.documents] == [0, 1, 0, 0, 1, 0]
    assert result.texts == 2
    assert result.worth.ends is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": ss.Settings(positions=[LENGTH - 1])}, "positions must lie from 1 to 18"),
        ({"settings": ss.Settings(future=3)}, "future must be left out for truncate, where it does not act, got 3"),
        ({"tokens": LENGTH + 1}, "a text of 21 tokens, got 20 in the longest"),
        ({"documents": 0}, "documents must be"),
        ({"number": -1}, "number must be"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        truncate("gla", IDS, **{"documents": 1, "tokens": LENGTH} | arguments)
    assert "\n" not in str(error.value)


def test_a_model_without_its_head_is_refused():
    with pytest.raises(ModelError, match="must return logits over its tokens, got 32 numbers per position"):
        truncate(attention_model("llama").model, IDS % 30, documents=1, tokens=LENGTH)


class MeanThatIsNotCalled(MeanInTwoSteps):
    def forward(self, hidden):
        return Mean.forward(self, hidden)


def test_a_layer_that_does_not_mix_by_its_method_is_left_whole():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(60, 8), MeanThatIsNotCalled(), MeanInTwoSteps(), nn.Linear(8, 60))
    result = truncate(model, IDS, documents=1, tokens=LENGTH)
    assert result.whole == {"1": "its forward does not call its mixed_values"}
    assert result.mixers == 1


class Shared(nn.Module):
    """Four query heads, which read two heads of keys and values in pairs, or in turn and are the same heads.

    T follows from queries and keys, or with a bias is a bare matrix.
    """

    def __init__(self, tiles, biased):
        super().__init__()
        self.project, self.biased = nn.Linear(8, 32), biased
        self.heads, self.reads = ([0, 2, 1, 3], [0, 1, 0, 1]) if tiles else ([0, 1, 2, 3], [0, 0, 1, 1])

    def forward(self, hidden):
        query, key, value = self.project(hidden).unflatten(-1, (8, 4)).transpose(1, 2).split([4, 2, 2], 1)
        query, key, value = query[:, self.heads], key[:, self.reads], value[:, self.reads]
        if self.biased:
            at = torch.arange(LENGTH)
            scores = query @ key.mT - 0.1 * (at[:, None] - at).abs().sqrt()
            mixed = scores.masked_fill(at[:, None] < at, -torch.inf).softmax(-1) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed[:, self.heads].transpose(1, 2).flatten(2)


@pytest.mark.parametrize("biased", [False, True])
def test_heads_of_a_group_that_are_no_neighbours_are_cut_together(biased):
    results = []
    for tiles in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(60, 8), Shared(tiles, biased), nn.Linear(16, 60))
        results.append(truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT, expected=not biased))
    pairs, tiled = (result.documents[0] for result in results)
    assert {run.rule for run in pairs.runs} >= {"joint ess", "largest head", "joint past rows"}
    assert [(run.rule, run.scale) for run in tiled.runs] == [(run.rule, run.scale) for run in pairs.runs]
    for one, other in zip(tiled.runs, pairs.runs, strict=True):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), abs=1e-5), one.rule


@torch.no_grad()
def test_groups_late_in_a_text_keep_the_rank_of_their_stack():
    model, cut = attention_model("llama"), 15
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=ss.Settings(positions=[cut]))
    cutting = Cutting(Forward.of(model, IDS), cut, {}, {})
    whole = cutting.logits()
    # Heads have at most L − i = 5 numbers, the stack of two has 10.
    full = cutting.logits(run_at(cutting.spectra, "joint ess", 10))
    torch.testing.assert_close(full, whole, rtol=0, atol=1e-4)
    joint = next(run for run in result.documents[0].runs if run.rule == "joint ess")
    expected = torch.cat([one.joint.ceil() for one in cutting.spectra.values()]).mean()
    assert joint.kept == pytest.approx(float(expected))
    assert joint.kept > 5


def test_a_model_whose_mixers_compute_inside_their_parts_is_refused_by_that_cause():
    with pytest.raises(ModelError, match=r"can be cut\. .*: what it mixes is computed inside one of its parts"):
        truncate(tiny_model("xlstm"), IDS, documents=1, tokens=LENGTH)


def test_each_piece_begins_with_the_token_that_begins_a_text():
    class Begun:
        bos_token_id, eos_token_id, pad_token_id = 7, None, None
        all_special_ids = (7,)

        def __call__(self, text, **options):
            ids = [7, *(1 for _ in text.split())]
            return type("Encoded", (), {"input_ids": ids})

    texts = [torch.tensor([7, *range(10, 20)]), torch.arange(30, 34)]
    pieces = begun_excerpts(texts, 4, 9, Begun())
    assert [piece.tolist() for piece in pieces] == [[7, 10, 11, 12], [7, 13, 14, 15], [7, 16, 17, 18], [7, 30, 31, 32]]
    assert len(begun_excerpts(texts, 4, 9, None)) == 3


def test_the_time_that_is_left_is_told_after_each_document():
    told = []
    options = {"documents": 2, "tokens": LENGTH, "settings": ss.Settings(positions=[5, CUT]), "number": 2}
    model, texts = attention_model("llama"), IDS.repeat(1, 3)
    truncate(model, texts, **options, on_progress=lambda *step: told.append(step))
    finished = [step for step in told if ", run " not in step[2]]
    assert [step[:3] for step in finished] == [(1, 2, "20 tokens"), (2, 2, "20 tokens")]
    assert finished[0][3] > finished[1][3] == 0
    # A first forecast comes within the first document.
    first = [step for step in told if ", run " in step[2] and step[0] == 0]
    assert first[0][2].startswith("text 1 of 2, run 1 of ")
    assert first[0][3] is None
    assert first[2][3] > 0
