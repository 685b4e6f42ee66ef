"""Random calls on operators: a right answer within its bound, or an error that names the argument."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.calls import call


@settings(max_examples=400)
@given(st.data())
def test_answers_are_right_or_refusals_name_the_argument(data):
    call(data)


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
