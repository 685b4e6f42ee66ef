"""Mamba and Mamba-2 of transformers with fewer numbers of state."""

import itertools
import json

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

import statesize as ss
from statesize.lab import zoo
from statesize.measurement.statistics import Interval
from statesize.reduction.bases import BalancedBasis, KeptBasis
from statesize.reduction.frontier import SHARES, FrontierPoint, frontier, page
from statesize.reduction.hub import bases_of_groups, cached_bytes, gramians_of_groups
from statesize.reduction.reducible import smaller_state_space

DOCUMENTS = [f"document {number} says {number * number} and no more of {number}" for number in range(120)]
SHAPE = {"vocab_size": 4096, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 8, "expand": 2}


def mamba():
    return MambaForCausalLM(MambaConfig(time_step_rank=2, **SHAPE))


def mamba2(**settings):
    return Mamba2ForCausalLM(Mamba2Config(head_dim=8, num_heads=4, n_groups=2, chunk_size=8, **SHAPE | settings))


def made(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        for name, weight in model.named_parameters():
            if "dt_proj.bias" in name or "dt_bias" in name:
                # Steps that keep the past, and states that are not all alike.
                weight.data = torch.randn(weight.shape) - 2
            if "conv1d" in name or "x_proj" in name:
                weight.data = torch.randn(weight.shape)
    return model


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"})


@pytest.fixture(params=[mamba, mamba2], ids=["mamba", "mamba2"])
def model(request):
    return made(request.param)


def bases_at(model, ids, kind=KeptBasis):
    return bases_of_groups(gramians_of_groups(model, [ids]), kind)


def without_reads(model, bases, kept):
    """The whole model, whose C is zero where numbers are dropped."""
    config, weights = model.config, {name: weight.clone() for name, weight in model.state_dict().items()}
    for name, own in bases.items():
        for group, basis in enumerate(own):
            dropped = torch.tensor(basis.order[kept:])
            if config.model_type == "mamba":
                weights[f"{name}.x_proj.weight"][config.time_step_rank + config.state_size + dropped] = 0
            else:
                rows = int(config.expand * config.hidden_size) + (config.n_groups + group) * config.state_size + dropped
                weights[f"{name}.conv1d.weight"][rows] = 0
                weights[f"{name}.conv1d.bias"][rows] = 0
    whole = type(model)(config).eval()
    whole.load_state_dict(weights)
    return whole


@torch.no_grad()
@pytest.mark.parametrize("kept", [1, 3, 7])
def test_logits_are_those_of_the_whole_model_that_does_not_read_the_rest(model, kept):
    ids = torch.randint(1024, (2, 24), generator=torch.Generator().manual_seed(1))
    bases = bases_at(model, ids)
    cut = smaller_state_space(model, bases, kept)
    assert type(cut) is type(model)
    assert cut.config.state_size == kept
    assert model.config.state_size == 8
    expected = without_reads(model, bases, kept)(ids).logits
    allowed = 1e-4 * expected.abs().max()
    assert (cut(ids).logits - expected).abs().max() < allowed
    assert (cut(ids).logits - model(ids).logits).abs().max() > 10 * allowed


@torch.no_grad()
def test_its_own_cache_is_smaller_and_it_generates(model):
    ids = torch.randint(1024, (1, 12), generator=torch.Generator().manual_seed(1))
    cut = smaller_state_space(model, bases_at(model, ids.repeat(1, 3)), 2)
    assert cached_bytes(model) == 4 * cached_bytes(cut) == 2 * 32 * 8 * 4
    written = cut.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert written.shape == (1, 18)
    assert torch.equal(written[0, 12:], cut(written).logits[0, 11:-1].argmax(-1))


def test_the_global_random_state_is_left_alone(model):
    before = torch.get_rng_state()
    smaller_state_space(model, bases_at(model, torch.arange(16)[None]), 4)
    assert torch.equal(before, torch.get_rng_state())


def test_compress_and_what_is_saved(model, tmp_path):
    found = ss.compress(model, DOCUMENTS, "50%", length=32, tokenizer=tokenizer())
    assert found.state_bytes[0] == 2 * found.state_bytes[1]
    assert found.sizes == ((4,), (4,))
    assert found.method == "selection, equal sizes"
    assert found.difference.low < found.difference.value < found.difference.high
    found.save(tmp_path / "half")
    read, own = ss.load(str(tmp_path / "half"))
    ids = torch.arange(20)[None]
    assert torch.equal(read(ids).logits, found.model(ids).logits)
    assert own.encode("document") == tokenizer().encode("document")
    assert json.loads((tmp_path / "half" / "compression.json").read_text()) == found.to_dict()


@pytest.mark.parametrize("kind", [KeptBasis, BalancedBasis])
@pytest.mark.parametrize("part", ["A_log", "embeddings"])
def test_each_weight_keeps_its_dtype(part, kind):
    model, ids = made(mamba2).bfloat16(), torch.arange(16)[None]
    for name, weight in model.named_parameters():
        weight.data = weight.float() if part in name else weight
    cut = smaller_state_space(model, bases_at(model, ids, kind), 4)
    dtypes = {name: weight.dtype for name, weight in cut.named_parameters()}
    assert dtypes.items() >= {name: weight.dtype for name, weight in model.named_parameters()}.items()
    assert {dtypes[name] for name in dtypes if name.endswith("_map")} <= {torch.bfloat16}
    for block, small in zip(model.backbone.layers, cut.backbone.layers, strict=True):
        assert torch.equal(block.mixer.A_log, small.mixer.A_log)


def test_what_cannot_be_is_refused(model):
    for given, said in (
        ({"int8": True}, "int8 must be left out for a model of transformers"),
        ({"fine_tune": 3}, "fine_tune must be left out for a model of transformers"),
        ({"state": "100%"}, "state must be a share that leaves 1 to 7 of the 8 numbers of a head"),
        ({"state": "1%"}, "state must be a share that leaves 1 to 7"),
    ):
        with pytest.raises(ss.errors.InputError, match=said):
            ss.compress(model, DOCUMENTS, **given, tokenizer=tokenizer())
    with pytest.raises(ss.errors.InputError, match="tokenizer must be one of transformers, got"):
        ss.compress(model, DOCUMENTS, tokenizer=zoo.tokenizer())
    with pytest.raises(ss.errors.InputError, match="free_basis must be left out for all models but Mamba-2"):
        ss.compress(made(mamba), DOCUMENTS, free_basis=True, tokenizer=tokenizer())
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=4096, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ss.errors.ModelError, match="or GLA or Gated DeltaNet of fla, got GPT2LMHeadModel"):
        ss.compress(gpt2, DOCUMENTS, tokenizer=tokenizer())


@torch.no_grad()
def test_a_free_basis_of_all_states_is_the_whole_model():
    model, ids = made(mamba2), torch.randint(1024, (2, 40), generator=torch.Generator().manual_seed(1))
    whole = smaller_state_space(model, bases_at(model, ids, BalancedBasis), 8)
    torch.testing.assert_close(whole(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kept", [1, 3])
def test_a_free_basis_is_the_whole_model_that_reads_a_projection(kept):
    model, ids = made(mamba2), torch.randint(1024, (2, 40), generator=torch.Generator().manual_seed(1))
    cut = smaller_state_space(model, bases_at(model, ids, BalancedBasis), kept)
    projecting = smaller_state_space(model, bases_at(model, ids, BalancedBasis), 8)
    for block, small in zip(projecting.backbone.layers, cut.backbone.layers, strict=True):
        block.mixer.key_map.data = torch.eye(8).repeat(2, 1, 1)
        block.mixer.query_map.data = small.mixer.query_map @ small.mixer.key_map.mT
    torch.testing.assert_close(cut(ids).logits, projecting(ids).logits, rtol=1e-3, atol=1e-3)
    assert (cut(ids).logits - model(ids).logits).abs().max() > 0.01


@torch.no_grad()
def test_a_model_of_a_free_basis_saves_loads_generates_and_is_measured(tmp_path):
    model, ids = made(mamba2), torch.arange(20)[None]
    found = ss.compress(model, DOCUMENTS, "25%", length=32, free_basis=True, tokenizer=tokenizer())
    assert found.method == "balanced truncation, equal sizes"
    assert found.sizes == ((2,), (2,))
    assert found.state_bytes[0] == 4 * found.state_bytes[1]
    kept = ss.compress(model, DOCUMENTS, "25%", length=32, tokenizer=tokenizer())
    away = [(cut.model(ids).logits - model(ids).logits).norm() for cut in (found, kept)]
    assert away[0] < away[1]
    found.save(tmp_path / "quarter")
    read, own = ss.load(str(tmp_path / "quarter"))
    assert torch.equal(read(ids).logits, found.model(ids).logits)
    written = read.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(written[0, 20:], read(written).logits[0, 19:-1].argmax(-1))
    profile = ss.profile(read, ids, positions=4, on_progress=lambda progress: None)
    assert profile.to_dataframe()["state_size"].max() == 2
    with pytest.raises(
        ss.errors.ModelError, match="model must have its states as trained, got one that was cut before"
    ):
        ss.compress(read, DOCUMENTS, tokenizer=own)


@torch.no_grad()
def test_a_free_basis_reads_on_in_the_middle_of_a_text():
    model, ids = made(mamba2), torch.randint(1024, (2, 24), generator=torch.Generator().manual_seed(1))
    cut = smaller_state_space(model, bases_at(model, ids, BalancedBasis), 3)
    first = cut(ids[:, :10], use_cache=True)
    rest = cut(ids[:, 10:], cache_params=first.cache_params, use_cache=True).logits
    torch.testing.assert_close(rest, cut(ids).logits[:, 10:], rtol=1e-4, atol=1e-4)


def test_the_frontier_of_transformers_models():
    points, heads = frontier(made(mamba2), DOCUMENTS, tokenizer(), length=32)
    assert [(point.way, point.share, point.numbers) for point in points] == [
        (way, share, "float") for way in ("selection", "balanced truncation") for share in SHARES
    ]
    assert [(head.layer, head.head) for head in heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(0 < head.ess <= 8 and head.missed[0] > head.missed[2] > 0 for head in heads)


def test_the_headline_of_a_frontier_is_shown_to_be_cheap_or_says_so():
    def told(*ways):
        return page("m", [FrontierPoint(way, 0.5, "float", size, loss) for way, size, loss in ways], []).finding

    cheap, cheaper, dear = Interval(0.004, 0.0, 0.009), Interval(0.002, 0.0, 0.008), Interval(0.02, 0.01, 0.03)
    said = told(("a", 40, cheap), ("b", 40, cheaper), ("c", 20, dear), ("d", 80, cheaper))
    assert said.startswith(
        "40 bytes per sequence cost +0.0020 bits per byte: 50% of the numbers in float, b. The fewest"
    )
    # Without an interval, nothing is shown to be cheap.
    said = told(("a", 20, Interval(0.03)), ("b", 40, Interval(0.01)), ("c", 60, Interval(0.01)))
    assert said.startswith(
        "40 bytes per sequence cost +0.0100 bits per byte: 50% of the numbers in float, b. No way is"
    )


def test_what_a_selection_misses():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    reading, state = roots @ roots.mT
    basis = KeptBasis.of(reading, state)
    whole = float((reading * state).sum())
    for kept in range(7):
        dropped = list(basis.order[kept:])
        missed = float((reading * state)[dropped][:, dropped].sum()) / whole
        assert basis.error[kept].item() == pytest.approx(missed, abs=1e-12)
    # The first to go is the best of all.
    assert basis.error[5].item() == pytest.approx(float((reading * state).diagonal().min()) / whole)
    pairs = [float((reading * state)[list(pair)][:, list(pair)].sum()) for pair in itertools.combinations(range(6), 2)]
    assert basis.error[4].item() * whole <= sorted(pairs)[3]
