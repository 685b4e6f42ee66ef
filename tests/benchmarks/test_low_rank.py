"""Values of low rank: against a forward pass of its own, with the SVD of what the values are made of."""

import math

import pytest
import torch
from oracles.attention_models import attention_model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.low_rank import RULES, measured, moments
from statesize.measurement.settings import Settings
from statesize.truncation.truncate import CutTest

CUT, LENGTH, CACHES = 9, 20, 2
IDS = torch.randint(0, 60, (4, LENGTH), generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def own_run(model, ids, project, seen=None, maps_of=None):
    """Logits where rows behind the cut read values (i, caches · d) before it as `project(layer, values)` has them."""

    def attend(module, query, key, value, mask, scaling=None, **rest):
        flat = value[0].transpose(0, 1).flatten(1)
        if seen is not None:
            seen.setdefault(module.layer_idx, []).append(flat)
        past = project(module.layer_idx, flat[:CUT].double()).to(flat.dtype)
        changed = torch.cat([past, flat[CUT:]]).unflatten(1, (CACHES, -1)).transpose(0, 1)[None]
        each = query.shape[1] // CACHES
        key, value, changed = (part.repeat_interleave(each, 1) for part in (key, value, changed))
        hidden = torch.ones(LENGTH, LENGTH).triu(1).bool()
        maps = (query @ key.mT * scaling).masked_fill(hidden, -torch.inf).softmax(-1)
        if maps_of is not None:
            maps_of[module.layer_idx] = maps[0]
        return torch.cat([(maps @ value)[:, :, :CUT], (maps @ changed)[:, :, CUT:]], 2).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("low_rank_by_hand", attend)
    usual, model.config._attn_implementation = model.config._attn_implementation, "low_rank_by_hand"
    try:
        return model(ids[None], use_cache=False).logits[0]
    finally:
        model.config._attn_implementation = usual


def entropies(stacks):
    shares = torch.linalg.svdvals(stacks.double())
    shares = shares / shares.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp().tolist()


def test_rows_behind_the_cut_read_values_of_low_rank():
    model = attention_model("llama")
    test = CutTest(model, list(IDS[:1]), documents=1, tokens=LENGTH, settings=Settings(positions=[CUT]))
    found = moments(model, IDS[1:], CACHES)
    bases = {rule: {name: torch.linalg.eigh(one)[1].flip(-1) for name, one in found[rule].items()} for rule in RULES}
    document = measured(test, bases, 0)

    seen = {}
    for ids in IDS[1:]:
        own_run(model, ids, lambda _, values: values, seen)
    made_of = {
        "calibration": {layer: torch.cat(each).double() for layer, each in seen.items()},
        "weights": {layer: one.self_attn.v_proj.weight.T.double() for layer, one in enumerate(model.model.layers)},
    }
    maps = {}
    whole = own_run(model, IDS[0], lambda _, values: values, maps_of=maps)

    def divergence(source, widths, ranks):
        def project(layer, values):
            parts = []
            for own, of, rank in zip(
                values.split(widths, 1), made_of[source][layer].split(widths, 1), ranks[layer], strict=True
            ):
                basis = torch.linalg.svd(of)[2][:rank].T
                parts.append(own @ basis @ basis.T)
            return torch.cat(parts, 1)

        changed = own_run(model, IDS[0], project)
        log_whole, log_changed = (part[CUT:-1].log_softmax(-1) for part in (whole, changed))
        return float((log_whole.exp() * (log_whole - log_changed)).sum(-1).mean())

    runs = {(run.rule, run.scale): run for run in document.runs}
    width = model.config.head_dim
    for source in ("calibration", "weights"):
        for share in (0.5, 0.75, 0.9):
            run = runs[f"values by {source}, by layer", share]
            rank = math.ceil(share * CACHES * width)
            assert run.kept == pytest.approx(rank * CUT / (CACHES * width))
            assert run.divergence == pytest.approx(
                divergence(source, CACHES * width, [[rank]] * len(maps)), rel=1e-3, abs=1e-7
            )
    # As many numbers as by past rows, r = k d / i of each value, rounded up.
    joint = {layer: entropies(each[:, CUT:, :CUT].reshape(CACHES, -1, CUT)) for layer, each in maps.items()}
    for scale in (1.0, 2.0):
        numbers = {layer: [min(math.ceil(scale * one), CUT) for one in each] for layer, each in joint.items()}
        ranks = {layer: [math.ceil(k * width / CUT) for k in each] for layer, each in numbers.items()}
        together = {layer: [math.ceil(sum(each) * width / CUT)] for layer, each in numbers.items()}
        for source in ("calibration", "weights"):
            one, other = (runs[f"values by {source}{by}", scale] for by in ("", ", by layer"))
            assert one.divergence == pytest.approx(divergence(source, width, ranks), rel=1e-3, abs=1e-7)
            assert other.divergence == pytest.approx(divergence(source, CACHES * width, together), rel=1e-3, abs=1e-7)
            kept = runs["joint past rows", scale].kept
            assert kept - 1e-9 <= other.kept <= one.kept < kept + CUT / width + 1e-9
