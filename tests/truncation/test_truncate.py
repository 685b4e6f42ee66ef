"""The truncation test on models: against code of its own that computes the same, and what it refuses."""

import dataclasses
import inspect
import math
from statistics import fmean

import pytest
import torch
from oracles.attention_models import attention_model
from oracles.module_impulses import impulse_responses
from oracles.tiny_families import tiny
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.scans import KERNELS
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.replaced import pure_torch, replaced, source_files
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError
from statesize.truncation import cutting as cutting_file
from statesize.truncation.cache import cache
from statesize.truncation.choices import NOTHING, Rule
from statesize.truncation.choices.hindsight import Hindsight
from statesize.truncation.choices.past_rows import PastRows
from statesize.truncation.choices.past_tokens import PastTokens
from statesize.truncation.cutting import Cutting, PlannedRun
from statesize.truncation.truncate import truncate

LENGTH, CUT = 20, 9
AT_CUT = ss.Settings(positions=[CUT])
IDS = torch.randint(0, 60, (1, LENGTH), generator=torch.Generator().manual_seed(4))
BEST = Rule("number", "", Hindsight())


def run_of(cutting, rank, rule=BEST):
    """A run with a rank of all units or groups."""
    ranks = {name: torch.full_like(one.sizes(rule.unit), rank).long() for name, one in cutting.mixers[0].items()}
    return PlannedRun(rule, 1.0, ranks, rank)


def logits_of(cutting, runs):
    """Logits of runs of the only text."""
    return [logits for _, _, logits in cutting.logits([runs])]


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


def kept_numbers(maps, bases, ranks, cut=CUT):
    """Maps whose rows after the cut read of the past so many numbers, the first ones of a basis of each head."""
    changed = maps.double().clone()
    for head, (basis, rank) in enumerate(zip(bases, ranks, strict=True)):
        changed[head, cut:, :cut] = changed[head, cut:, :cut] @ basis[:, :rank] @ basis[:, :rank].T
    return changed


def largest_tokens(rows):
    """Tokens that rows read most of come first."""
    return torch.eye(CUT, dtype=torch.float64)[:, rows.square().sum(0).argsort(descending=True)]


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
    model, other = attention_model("llama"), IDS.flip(1)
    noted, seen, again = {}, {}, {}
    run_of_llama(model, lambda layer, maps: again.setdefault(layer, maps), ids=other)
    whole = run_of_llama(model, lambda layer, maps: noted.setdefault(layer, maps), seen)
    rows = {layer: [asked_again(model, *parts[:2], head) for head in range(4)] for layer, parts in seen.items()}
    result = truncate(model, [IDS[0], other[0]], documents=2, tokens=LENGTH, settings=AT_CUT)
    assert (result.whole, result.mixers) == ({}, 2)
    document = result.documents[0]
    assert document.loss == pytest.approx(loss_of(whole), abs=1e-5)

    sizes = {layer: [entropy(head[CUT:, :CUT]) for head in maps] for layer, maps in noted.items()}
    others = {layer: [entropy(head[CUT:, :CUT]) for head in maps] for layer, maps in again.items()}
    stacks = {layer: maps[:, CUT:, :CUT].reshape(2, -1, CUT) for layer, maps in noted.items()}
    joint = {layer: [entropy(stack) for stack in found] for layer, found in stacks.items()}
    assert document.entropy == pytest.approx(fmean(size for layer in sizes.values() for size in layer), rel=1e-4)

    def ranks(of, layer, scale):
        return [min(math.ceil(scale * size), CUT) for size in of[layer]]

    stacked = {layer: [torch.cat(each[2 * (head // 2) :][:2]) for head in range(4)] for layer, each in rows.items()}
    twice = {layer: [a, a, b, b] for layer, (a, b) in joint.items()}
    causal = {
        "past tokens": (largest_tokens, rows, sizes),
        "past rows": (largest_directions, rows, sizes),
        "past rows, other texts": (largest_directions, rows, others),
        "joint past rows": (largest_directions, stacked, twice),
    }
    compared = set()
    for run in document.runs:

        def change(layer, maps, run=run):
            if run.rule == "nothing":
                return cut_maps(maps, [0] * 4)
            if run.rule == "ess":
                return cut_maps(maps, ranks(sizes, layer, run.scale))
            if run.rule == "joint ess":
                return cut_stacks(maps, 2, [math.ceil(one) for one in joint[layer]])
            order, of, numbers = causal[run.rule]
            return kept_numbers(maps, map(order, of[layer]), ranks(numbers, layer, run.scale))

        logits = run_of_llama(model, change)
        assert run.loss == pytest.approx(loss_of(logits), abs=2e-5), run
        assert run.divergence == pytest.approx(divergence_of(whole, logits), abs=2e-5), run
        compared.add(run.rule)
    assert compared == {"nothing", "ess", "joint ess", *causal}
    # The worth is the loss of nothing kept less that of the whole model, exactly.
    nothing = result.rows[0]
    assert nothing.excess == result.worth
    assert nothing.divergence_share.value == 1


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
    model = tiny(family)
    cutting = Cutting(Forward.of(model, IDS), CUT)
    (expected,) = cutting.read()
    attention = [name for name, one in cutting.mixers[0].items() if one.held is None]
    cutting.known.whole |= dict.fromkeys(attention, Note(Code.NOT_CUT, "attention of a hybrid"))
    (cut,) = logits_of(cutting, [run_of(cutting, rank)])
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
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "deepseek_v3", "gpt_oss"])
def test_everything_kept_costs_nothing_and_nothing_kept_is_no_past(family):
    model = attention_model(family)
    cutting = Cutting(Forward.of(model, IDS), CUT)
    (whole,) = cutting.read()
    torch.testing.assert_close(whole, model(IDS, use_cache=False).logits[0, CUT:-1], rtol=0, atol=1e-5)
    runs = [run_of(cutting, LENGTH), run_of(cutting, 0), run_of(cutting, 0, NOTHING)]
    everything, nothing, none = logits_of(cutting, runs)
    torch.testing.assert_close(everything, whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(nothing, none, rtol=0, atol=1e-5)
    assert float((nothing - whole).abs().max()) > 1e-3


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


class SumBeside(Attention):
    """T is more than the attention, and behind a short mixing from which an activation parts it."""

    def mixed(self, maps, value):
        value = functional.silu(self.convolution(value.mT)[..., :LENGTH].mT)
        return maps @ value + value.cumsum(1)


class Sum(nn.Module):
    """A state of one number."""

    start = 0

    def forward(self, hidden):
        total = hidden.cumsum(1)
        return total if not self.start else torch.cat([total[:, :CUT], hidden[:, CUT:].cumsum(1)], 1)


class Gated(nn.GRU):
    """A recurrence without a T."""

    def __init__(self):
        super().__init__(8, 8, batch_first=True)

    def forward(self, hidden):
        return super().forward(hidden)[0]


@torch.no_grad()
@pytest.mark.parametrize("layer", [Attention, SumBeside, Sum, Gated])
def test_layers_with_a_T_are_cut_and_what_is_left_whole_is_named(layer):
    torch.manual_seed(0)
    made = layer()
    # The second call of a layer is another mixer.
    model = nn.Sequential(nn.Embedding(60, 8), Attention(), made, made, nn.Linear(8, 60))
    has_T, in_part = layer is not Gated, layer is SumBeside
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
    assert result.mixers == (3 if has_T else 1)
    assert [*result.whole] == (["2", "2@1"] if in_part else [] if has_T else ["2"])
    assert [one.code for one in result.limits].count(Code.NOT_CUT) == len(result.whole)
    if layer is not SumBeside:
        for one in (model[1], made)[: 1 + has_T]:
            one.start = CUT
        assert result.documents[0].runs[0].loss == pytest.approx(loss_of(model(IDS)), abs=1e-5)
    if not has_T:
        with pytest.raises(ModelError, match="1: it has no T"):
            truncate(nn.Sequential(model[0], made, model[4]), IDS, documents=1, tokens=LENGTH)


class Sigmoid(nn.Module):
    """Two heads of weights that are no softmax, behind which a gate and a projection act."""

    def __init__(self):
        super().__init__()
        self.project, self.output, self.change = nn.Linear(8, 24), nn.Linear(8, 8), lambda maps: maps

    def forward(self, hidden):
        query, key, value = self.project(hidden).unflatten(-1, (6, 4)).transpose(1, 2).chunk(3, 1)
        maps = self.change((query @ key.mT - 1).sigmoid().tril())
        return hidden + self.output((maps @ value).transpose(1, 2).flatten(2)) * hidden.sigmoid()


@torch.no_grad()
def test_a_layer_that_no_adapter_knows_is_cut_as_by_hand():
    torch.manual_seed(0)
    layers = Sigmoid(), Sigmoid()
    model = nn.Sequential(nn.Embedding(60, 8), *layers, nn.Linear(8, 60))
    result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
    noted = {}
    for layer in layers:
        layer.change = lambda maps, layer=layer: noted.setdefault(layer, maps)
    whole = model(IDS)
    sizes = {layer: [entropy(head[CUT:, :CUT]) for head in maps[0]] for layer, maps in noted.items()}
    assert result.documents[0].entropy == pytest.approx(fmean(size for some in sizes.values() for size in some))
    for run in result.documents[0].runs:
        if run.rule in ("nothing", "ess"):
            for layer in layers:
                ranks = [min(math.ceil(run.scale * size), CUT) for size in sizes[layer]]
                layer.change = lambda maps, ranks=ranks: cut_maps(maps[0], ranks)[None].float()
            logits = model(IDS)
            assert run.loss == pytest.approx(loss_of(logits), abs=1e-6), run
            assert run.divergence == pytest.approx(divergence_of(whole, logits), abs=1e-6), run
    everything = [run for run in result.documents[0].runs if run.kept == CUT]
    assert everything
    assert all(abs(run.loss - result.documents[0].loss) < 1e-6 for run in everything)


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


class MeanThatIsNotCalled(MeanInTwoSteps):
    def forward(self, hidden):
        return Mean.forward(self, hidden)


UNTOLD = (
    (MeanInTwoSteps, Mean),
    (MeanInTwoSteps, MeanThatIsNotCalled),
    (Recurrent, type("Bare", (Recurrent,), {"values": None})),
)


@torch.no_grad()
@pytest.mark.parametrize("layers", UNTOLD)
def test_layers_that_lack_a_method_or_do_not_call_it_are_cut_as_those_that_do(layers):
    found = []
    for layer in layers:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(60, 8), layer(), nn.Linear(8, 60))
        result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
        assert not any("mixed_values" in vars(module) for module in model.modules())
        found.append([dataclasses.astuple(run)[2:] for run in result.documents[0].runs])
    assert found[0] == [pytest.approx(run, abs=1e-5) for run in found[1]]


@pytest.mark.parametrize(("family", "unmoved"), [("deepseek_v3", 2), ("llama", 0), ("gpt2", 0)])
def test_attention_whose_queries_cannot_be_moved_is_named(family, unmoved):
    # The rotary part of latent keys is not that of queries; GPT-2 has none.
    result = truncate(attention_model(family), IDS, documents=1, tokens=LENGTH)
    assert len(result.unmoved) == unmoved
    assert (Code.UNMOVED in [one.code for one in result.limits]) == bool(unmoved)


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_layers_that_share_keys_and_values(family):
    model, ids = tiny(family), IDS + 3
    result = truncate(model, ids, documents=1, tokens=LENGTH, settings=AT_CUT)
    with torch.no_grad():
        logits = model(ids).logits
    loss = float(functional.cross_entropy(logits[0, CUT:-1], ids[0, CUT + 1 :]))
    assert result.documents[0].loss == pytest.approx(loss)
    # Two layers read each cache, and each chooses for itself.
    shared = [[f"model.layers.{layer}.self_attn" for layer in layers] for layers in ((0, 2), (1, 3))]
    assert result.to_dict()["shared"] == shared
    assert math.isnan(result.documents[0].stored)
    assert {row.rule for row in result.rows}.isdisjoint({"joint ess", "joint past rows"})
    assert [one.code for one in result.limits].count(Code.SHARED_CACHE) == 2


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
    whole = max((run for run in document.runs if run.rule == "past rows"), key=lambda run: run.kept)
    assert whole.kept < document.inputs or whole.divergence == pytest.approx(0, abs=1e-6)


def test_a_look_at_a_layer_that_changes_the_run_is_refused(monkeypatch):
    def careless(running, query):
        running.frame.kwargs["position_embeddings"][0].neg_()

    monkeypatch.setattr(cutting_file, "rotation_of", careless)
    with pytest.raises(ModelError, match="behind the cut"):
        truncate(attention_model("llama"), IDS, documents=1, tokens=LENGTH)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "afmoe"])
def test_a_model_behind_the_cut_alone_is_as_over_the_whole_text(family):
    # Afmoe takes what attention returns by `view`.
    model = (tiny(family) if family == "afmoe" else attention_model(family)).double()
    forward = Forward.of(model, IDS)
    cutting, whole = Cutting(forward, CUT), Cutting(forward, CUT)
    cutting.read()
    assert cutting.behind.sure
    whole.read()
    whole.behind.sure = False
    rules = [(NOTHING, 0), *((Rule("r", "", choice, (1,), unit), 2) for choice, unit in KINDS)]
    planned = [run_of(cutting, rank, rule) for rule, rank in rules]
    expected, lengths = logits_of(whole, planned), []
    # The model reads no token before the cut any more.
    read = model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: lengths.append(ids[0].shape[1]))
    # Gemma and Afmoe normalise in single precision whatever their weights are.
    most = 1e-5 if family in ("gemma2", "afmoe") else 1e-7
    for logits, found in zip(expected, logits_of(cutting, planned), strict=True):
        torch.testing.assert_close(found, logits, rtol=0, atol=most)
    read.remove()
    assert set(lengths) == {LENGTH - CUT}


KINDS = [*((basis(), unit) for basis in (Hindsight, PastRows) for unit in ("head", "cache")), (PastTokens(), "head")]


@torch.no_grad()
@pytest.mark.parametrize("chunk", [LENGTH, 4])
def test_a_model_that_reads_the_past_beside_attention_runs_over_the_whole_text(chunk):
    model = attention_model("llama").double()
    # Each position sees the token before it, as where tokens are shifted; the last eight are whole chunks of four.
    shifted = lambda module, ids, found: found + found.roll(1, 1) * (torch.arange(found.shape[1]) % chunk > 0)[:, None]  # noqa: E731
    model.get_input_embeddings().register_forward_hook(shifted)
    cutting = Cutting(Forward.of(model, IDS), CUT)
    cutting.read()
    assert not cutting.behind.sure
    # So does a second text, whose runs are not compared with the whole model again where the first were the same.
    texts = [IDS[0], IDS[0].flip(0)]
    _, second = truncate(model, texts, documents=2, tokens=LENGTH, settings=AT_CUT).documents
    (alone,) = truncate(model, texts[1:], documents=1, tokens=LENGTH, settings=AT_CUT).documents
    found = {(run.rule, run.scale): run for run in second.runs}
    for run in alone.runs:
        assert found[run.rule, run.scale].loss == pytest.approx(run.loss, abs=1e-6)


@pytest.mark.parametrize("name", ["llama", "gla", "lfm2"])
def test_texts_of_one_length_are_read_together_as_alone(name):
    model = attention_model(name) if name == "llama" else ss.load("gla")[0] if name == "gla" else tiny(name)
    texts = torch.randint(3, 60, (4, LENGTH), generator=torch.Generator().manual_seed(8))
    read, options = [], {"tokens": LENGTH, "settings": AT_CUT}
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    hook = embedding.register_forward_pre_hook(lambda _, given: read.append(tuple(given[0].shape)))
    together = truncate(model, list(texts), documents=4, **options).documents
    hook.remove()
    # The first shows alone what the model is.
    assert {shape[0] for shape in read if shape[1] == LENGTH} == {1, 3}
    for text, document in zip(texts, together, strict=True):
        (alone,) = truncate(model, text, documents=1, **options).documents
        found = {(run.rule, run.scale): run for run in document.runs}
        for run in alone.runs:
            assert dataclasses.astuple(found[run.rule, run.scale]) == pytest.approx(dataclasses.astuple(run), abs=1e-5)


def test_intervals_need_five_texts_and_cuts_and_pieces_of_a_text_are_not_independent():
    ids = torch.randint(0, 16, (5, LENGTH), generator=torch.Generator().manual_seed(5))
    many = truncate("recall-gla", list(ids), documents=5, tokens=LENGTH, settings=ss.Settings(positions=[8, 12]))
    assert (len(many.documents), many.texts) == (10, 5)
    low, high = many.rows[1].divergence.ends
    assert low < many.rows[1].divergence.value < high
    assert "past rows, other texts" in {row.rule for row in many.rows}
    pieces = truncate("recall-gla", [[7, 1, 2, 3, 9, 4] * 16], documents=3, tokens=32)
    assert pieces.counted == "3 pieces of one text"
    # No text is another one.
    assert "past rows, other texts" not in {row.rule for row in pieces.rows}


RUNS = [(truncate, {"documents": 3, "tokens": LENGTH, "settings": AT_CUT})]
RUNS += [(cache, {"documents": 12, "tokens": 46, "settings": ss.Settings(future=6)})]


@pytest.mark.parametrize(("command", "options"), RUNS)
def test_an_interrupted_run_goes_on_from_its_parts(tmp_path, command, options):
    model, output, read, told = attention_model("llama"), tmp_path / "cut.json", [], []
    ids = torch.randint(1, 60, (12, 46), generator=torch.Generator().manual_seed(4))[: options["documents"]]

    def interrupt(done, *_):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command(model, ids, **options, output=output, on_progress=interrupt)
    model.register_forward_pre_hook(lambda *_: read.append(1))
    again = command(model, ids, **options, output=output, on_progress=lambda *step: told.append(step))
    resumed = len(read)
    assert told[-1][0] == told[-1][1]
    assert [*tmp_path.iterdir()] == [output]
    fresh = command(model, ids, **options)
    assert fresh.to_dict() == again.to_dict()
    assert resumed < len(read) - resumed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": ss.Settings(positions=[LENGTH - 1])}, "positions"),
        ({"settings": ss.Settings(future=3)}, "future"),
        ({"tokens": LENGTH + 1}, "a text of 21 tokens, got 20 in the longest"),
        ({"documents": 0}, "documents"),
        ({"at": 2}, "at must"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        truncate("gla", IDS, **{"documents": 1, "tokens": LENGTH} | arguments)
    assert "\n" not in str(error.value)


def test_a_model_without_its_head_is_refused():
    with pytest.raises(ModelError, match="got 32 numbers"):
        truncate(attention_model("llama").model, IDS % 30, documents=1, tokens=LENGTH)


class Shared(nn.Module):
    """Four query heads, which read two heads of keys and values in pairs, or in turn and are the same heads."""

    def __init__(self, tiles):
        super().__init__()
        self.project = nn.Linear(8, 32)
        self.heads, self.reads = ([0, 2, 1, 3], [0, 1, 0, 1]) if tiles else ([0, 1, 2, 3], [0, 0, 1, 1])

    def forward(self, hidden):
        query, key, value = self.project(hidden).unflatten(-1, (8, 4)).transpose(1, 2).split([4, 2, 2], 1)
        query, key, value = query[:, self.heads], key[:, self.reads], value[:, self.reads]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed[:, self.heads].transpose(1, 2).flatten(2)


def test_heads_of_a_group_that_are_no_neighbours_are_cut_one_by_one():
    known = []
    for tiles in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(60, 8), Shared(tiles), nn.Linear(16, 60))
        result = truncate(model, IDS, documents=1, tokens=LENGTH, settings=AT_CUT)
        known.append({(run.rule, run.scale): dataclasses.astuple(run)[2:] for run in result.documents[0].runs})
    pairs, tiled = known
    assert {rule for rule, _ in pairs.keys() - tiled.keys()} == {"joint ess", "joint past rows"}
    for run, numbers in tiled.items():
        assert numbers == pytest.approx(pairs[run], abs=1e-5), run


@pytest.mark.few(2)
@pytest.mark.parametrize("family", ["minimax", "lfm2", "recurrent_gemma", "diffllama", "xlstm"])
def test_mixers_that_compute_inside_their_parts_are_cut_by_their_trace(family):
    model = tiny(family)
    result = truncate(model, IDS + 3, documents=1, tokens=LENGTH, settings=AT_CUT)
    captured = [*ss.capture(model, IDS + 3)]
    assert (result.whole, result.mixers) == ({}, len(captured))
    entropies = [ss.measure(one.operator, positions=[CUT]).entropy.mean() for one in captured]
    channels = [one.units * one.multiplicity for one in captured]
    assert result.documents[0].entropy == pytest.approx(fmean(map(float, entropies), channels), rel=1e-4)
    everything = [run for run in result.documents[0].runs if run.rule == "past rows" and run.scale == 8]
    assert abs(everything[0].divergence) < 1e-6
