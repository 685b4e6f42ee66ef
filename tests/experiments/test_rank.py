"""Cuts of H and of the state are those of the definition, no two runs share a seed, and planted claims are found."""

import math

import pytest
import simulated_studies as simulated
import torch

from experiments.rank import RULES, Rank, border_of, measure_border
from experiments.rank.low_rank import run_with_past_cut, run_with_states_cut
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import IGNORED
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding

STUDY = Rank()


WITH_STATE = sorted(RULES.keys() - {"sa"})
BORDER, KEYS = 9, 4


def model_of(rule):
    config = ModelConfig(vocabulary_size=16, width=12, heads=2, key_size=KEYS, **{"layers": 2, **RULES[rule]})
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().eval()


def tokens():
    return torch.randint(0, 16, (3, 21), generator=torch.Generator().manual_seed(1))


def ranks(rank):
    return [torch.full((3, 2), float(rank))] * 2


@pytest.mark.parametrize("rule", WITH_STATE)
@torch.no_grad()
def test_cuts_that_leave_all_or_nothing_of_a_state(rule):
    model, input_ids = model_of(rule), tokens()
    whole = model(input_ids)[:, BORDER:]
    for run in (run_with_past_cut, run_with_states_cut):
        torch.testing.assert_close(run(model, input_ids, BORDER, ranks(KEYS))[0], whole, rtol=1e-8, atol=1e-8)
    # An empty state is an H of zeros, and leaves what the short convolution has of the past.
    nothing = [run(model, input_ids, BORDER, ranks(0))[0] for run in (run_with_past_cut, run_with_states_cut)]
    torch.testing.assert_close(*nothing, rtol=1e-8, atol=1e-8)
    assert (nothing[0] - whole).abs().max() > 1e-3
    torch.testing.assert_close(model(input_ids)[:, BORDER:], whole, rtol=0, atol=0)


@torch.no_grad()
def test_the_state_of_linear_attention_is_the_sum_of_keys_times_values():
    model, input_ids = model_of("la"), tokens()
    hidden, mixer = [], model.blocks[0].mixer
    handle = mixer.register_forward_pre_hook(lambda module, args: hidden.append(args[0]))
    _, entropies = run_with_past_cut(model, input_ids, BORDER)
    handle.remove()
    _, key, value = mixer.query_key_value(hidden[0])
    _, states = run_with_states_cut(model, input_ids, BORDER)
    torch.testing.assert_close(states[0], key[:, :, :BORDER].mT @ value[:, :, :BORDER])
    sigma = torch.linalg.svdvals(mixer.operator(hidden[0]).dense()[..., BORDER:, :BORDER])
    shares = sigma / sigma.sum(-1, keepdim=True)
    torch.testing.assert_close(entropies[0], torch.special.entr(shares).sum(-1).exp(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "task",
    [MQAR(pairs=3, length=12, vocabulary_size=16), Rebinding(documents=2, pairs=3, unbound=1, keys=5)],
    ids=["mqar", "rebinding"],
)
def test_the_border_is_before_the_first_question_of_the_last_document(task):
    _, targets = task.sample(2, torch.Generator().manual_seed(0))
    border = border_of(task)
    asked = (targets != IGNORED)[:, border:]
    assert asked[:, 0].all()
    assert asked.sum() == 2 * (6 if isinstance(task, MQAR) else 4)
    assert not (targets != IGNORED)[:, border - 6 : border].any()


def test_what_is_measured_at_the_border():
    run = STUDY.runs(STUDY.preset("smoke"))[0]
    model = LanguageModel(run.model, torch.Generator().manual_seed(0))
    measured = measure_border(model, run)
    input_ids, targets = next(run.task.held_out(run.task.held_out_sequences))
    with torch.no_grad():
        _, (state,) = run_with_states_cut(model, input_ids, border_of(run.task))
        right = model(input_ids).argmax(-1) == targets
    sigma = torch.linalg.svdvals(state.double())
    assert measured["stable_rank"] == pytest.approx(float((sigma**2).sum(-1).div(sigma[..., 0] ** 2).mean()))
    shares = sigma / sigma.sum(-1, keepdim=True)
    assert measured["state_rank"] == pytest.approx(float(torch.special.entr(shares).sum(-1).exp().mean()))
    assert (
        measured["accuracy_after"]
        == measured["accuracy"]
        == pytest.approx(float(right[targets != IGNORED].double().mean()))
    )
    assert measured["state_size"] == run.model.key_size


def test_the_grid_has_sixteen_rules_and_a_seed_for_each_run():
    runs = STUDY.runs(STUDY.preset("record"))
    assert [run.training.seed for run in runs] == list(range(9000, 9408))
    assert len(WITH_STATE) == 16
    assert sum(run.model.mixer != "sa" for run in runs) == 384


def test_three_claims_are_judged_apart():
    found = simulated.conclude("rank", "record", 1, 0.76, 1.0)[1]
    assert found.holds is True
    assert found.figures["claim_seeds_ess_less_state_rank_units"] == 96
    assert (found.figures["across_holds"], found.figures["cut_holds"]) == (1, 1)
    assert found.figures["claim_rules_ess_units"] == 16
    smoke = simulated.conclude("rank", "smoke", 1, 0.76, 1.0)[1]
    assert smoke.holds is None
    assert math.isnan(smoke.figures["across_holds"])


@pytest.mark.slow
def test_the_claim_holds_in_0_of_200_where_nothing_is_and_the_further_claims_seldom():
    found = [simulated.conclude("rank", "record", seed, 0.0, 1.0)[1] for seed in range(200)]
    # The number that docs/appendix/claims.md tells.
    assert sum(one.holds is True for one in found) == 0
    for name in ("across_holds", "cut_holds"):
        assert sum(one.figures[name] == 1 for one in found) <= 13
