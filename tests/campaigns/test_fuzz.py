"""Random calls on operators: a right answer within its bound, or an error that names the argument.

One call again: `python -m campaigns.fuzz --first NUMBER --calls 1`.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers, campaign
from campaigns.fuzz.campaign import FUNCTIONS, problems


@settings(max_examples=400)
@given(st.integers(0, 2**62))
def test_answers_are_right_or_refusals_name_the_argument(number):
    assert problems(number) == []


@pytest.mark.slow
def test_many_calls():
    assert [wrong for number in range(20_000) if (wrong := problems(number))] == []


def test_wrong_answers_are_noticed():
    generator = torch.Generator().manual_seed(0)
    T = torch.randn(8, 8, generator=generator, dtype=torch.float64).tril()
    truth = exact.spectra(exact.wide(T), list(range(1, 8)), None, None)
    outputs = ("counts", "entropy", "values")
    assert answers.wrong_measurement(ss.measure(ss.Dense(T), outputs=outputs), truth) == []
    wrong = ss.measure(ss.Dense(T * (1 + 1e-9)), outputs=outputs)
    assert any("values are off" in problem for problem in answers.wrong_measurement(wrong, truth))
    other = ss.measure(ss.Dense(T.flip(0, 1).mT), outputs=outputs)
    told = " ".join(answers.wrong_measurement(other, truth))
    assert all(name in told for name in ("norm", "values", "entropy"))


def test_bad_refusals_are_noticed(monkeypatch):
    def refuse(*_, **__):
        raise ss.errors.InputError("no")

    monkeypatch.setattr(ss, "measure", refuse)
    monkeypatch.setattr(campaign, "FUNCTIONS", {"measure": FUNCTIONS["measure"]})
    told = " ".join(line for number in range(30) for line in problems(number))
    assert "refused, though nothing is wrong" in told
    assert "an error that names none of" in told
