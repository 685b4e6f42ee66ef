"""Ranks at the border are those of the states there, no two runs share a seed, and planted claims are found."""

import math

import pytest
import simulated_studies as simulated
import torch

from experiments.rank import RULES, Rank, border_of, measure_border
from statesize.lab.mixers import LanguageModel
from statesize.lab.tasks import IGNORED
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding

STUDY = Rank()


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


def test_the_ranks_are_those_of_the_state_that_the_model_keeps():
    run = STUDY.runs(STUDY.preset("smoke"))[0]
    model = LanguageModel(run.model, torch.Generator().manual_seed(0))
    measured = measure_border(model, run)
    input_ids, _ = next(run.task.held_out(run.task.held_out_sequences))
    caches = model.initial_caches(len(input_ids))
    with torch.no_grad():
        for token in input_ids[:, : border_of(run.task)].T:
            _, caches = model.step(token, caches)
        sigma = torch.linalg.svdvals(caches[1][1].double())
    shares = sigma / sigma.sum(-1, keepdim=True)
    assert measured["state_rank"] == pytest.approx(float(torch.special.entr(shares).sum(-1).exp().mean()))
    assert measured["stable_rank"] == pytest.approx(float((sigma**2).sum(-1).div(sigma[..., 0] ** 2).mean()))
    assert measured["state_size"] == run.model.key_size


def test_the_grid_has_sixteen_rules_with_a_state_and_a_seed_for_each_run():
    runs = STUDY.runs(STUDY.preset("record"))
    assert [run.training.seed for run in runs] == list(range(9000, 9408))
    assert len(RULES) == 17
    assert sum(run.model.mixer != "sa" for run in runs) == 384


def test_both_claims_are_judged_apart():
    found = simulated.conclude("rank", "record", 1, 0.76, 1.0)[1]
    assert found.holds is True
    assert found.figures["claim_seeds_ess_less_state_rank_units"] == 96
    assert (found.figures["across_holds"], found.figures["claim_rules_ess_units"]) == (1, 16)
    smoke = simulated.conclude("rank", "smoke", 1, 0.76, 1.0)[1]
    assert smoke.holds is None
    assert math.isnan(smoke.figures["across_holds"])


@pytest.mark.slow
def test_the_claim_holds_in_0_of_200_where_nothing_is_and_the_further_claim_seldom():
    found = [simulated.conclude("rank", "record", seed, 0.0, 1.0)[1] for seed in range(200)]
    # The number that docs/appendix/claims.md tells.
    assert sum(one.holds is True for one in found) == 0
    assert sum(one.figures["across_holds"] == 1 for one in found) <= 13
